"""Asymmetric and dyadic EP: exact in the limit for feedback weights of any kind, or refused in one line."""

import math
from functools import partial

import pytest
import torch
from networks import NETWORKS, SETTLE, conv, data, dense, gradients, nudging, readout, relative, shrunk
from terms import Inhibition

import eqprop as ep
from eqprop import diagnostics, testing
from eqprop.energy.spec import from_spec, to_spec
from eqprop.learning import forms
from eqprop.learning.dyadic import TWIN, DyadicTerm
from eqprop.physics import Resistors
from eqprop.settling.displacement import corrected as corrected_field, tangent, tangents
from eqprop.substrates import FeedbackSpread

pytestmark = pytest.mark.usefixtures("double")

L = ep.learning
FORMS = [forms.states, forms.displacements]
asymmetric = partial(nudging, rule=ep.vector_field, teacher=L.corrected)
APART = {
    "dense": lambda: dense(separate=True),
    "dense mse": lambda: dense(separate=True, loss=ep.SquaredError),
    "average": lambda: conv(ep.AveragePool(2), separate=True),
    "max": lambda: conv(ep.MaxPool(2), separate=True),
    "soft": lambda: conv(ep.energy.SoftPool(2), separate=True),
    "vector field": lambda: nonlinear(60),
}
WAYS = {
    "asymmetric states": lambda beta, to=SETTLE: ep.EquilibriumPropagation(
        ep.symmetric(beta), SETTLE, to, ep.vector_field, forms.states, L.corrected
    ),
    "asymmetric displacements": lambda beta, to=SETTLE: ep.EquilibriumPropagation(
        ep.symmetric(beta), SETTLE, to, ep.vector_field, forms.displacements, L.corrected
    ),
    "dyadic states": lambda beta, to=SETTLE: L.DyadicEP(beta, SETTLE, to, forms.states),
    "dyadic displacements": lambda beta, to=SETTLE: L.DyadicEP(beta, SETTLE, to),
}


class Recurrent(ep.Coupling):
    """The drive tanh(W s) of a node on itself: a vector field that is no gradient, for a W that is not symmetric."""

    symmetric = False

    def __init__(self, node, units, turn):
        super().__init__()
        self.nodes, one = (node,), torch.randn(units, units)
        even, odd = one + one.T, one - one.T
        turned = math.cos(turn) * even / even.norm() + math.sin(turn) * odd / odd.norm()
        self.weight = torch.nn.Parameter(0.5 * math.sqrt(units) * turned)

    def energy(self, *states):
        raise ep.InputError("A vector field has no energy.")

    def potential(self, node, *states):
        return -(self.drive(node, states[0].detach()) * states[0]).sum(1)

    def drive(self, node, *states):
        return torch.tanh(states[0] @ self.weight.T)


class Linear(Recurrent):
    """The drive W s."""

    def drive(self, node, *states):
        return states[0] @ self.weight.T


def recurrent(turn, kind=Recurrent, unit=ep.tanh):
    nodes = {"x": ep.Node((6,)), "h": ep.Node((12,), unit)}
    terms = [ep.Synapse("x", "h", ep.Dense((6,), (12,))), kind("h", 12, turn), ep.energy.Bias("h", (12,))]
    return ep.Network(nodes, terms, ep.ReadoutCrossEntropy("h", (12,), 4))


def turned(degrees):
    """Separate feedback at an angle to the feedforward weights."""
    network = dense(separate=True)
    for term in network.terms.values():
        for _, up, down in term.pairs() if isinstance(term, ep.energy.SeparateFeedback) else ():
            apart = down - up * ((up * down).sum() / up.square().sum())
            turn = math.radians(degrees)
            down.data.copy_(math.cos(turn) * up + math.sin(turn) * apart * (up.norm() / apart.norm()))
    return network


def nonlinear(degrees):
    return recurrent(math.radians(degrees))


def linear(degrees):
    return recurrent(math.radians(degrees), Linear)


def exact(network, x, y):
    return gradients(network, ep.ImplicitDifferentiation(ep.FixedSweeps(200)), x, y)


def cosine(found, right):
    return float(torch.cosine_similarity(found, right, 0))


@pytest.mark.parametrize("degrees", [0, 30, 60, 90])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [turned, nonlinear, linear])
def test_it_is_exact_at_any_asymmetry_and_the_error_falls_as_beta_squared(make, way, degrees):
    network = make(degrees)
    x, y = data(network)
    right = exact(network, x, y)
    big, small = (gradients(network, WAYS[way](beta), x, y) for beta in (0.1, 0.05))
    assert cosine(small, right) >= 0.9999
    assert math.log2(relative(big, right) / relative(small, right)) == pytest.approx(2, abs=0.1)
    plain = cosine(gradients(network, ep.InfinitesimalNudge(SETTLE, ep.FixedSweeps(120)), x, y), right)
    if degrees == 0 and make is not nonlinear:
        assert plain >= 0.9999, "with symmetric feedback there is nothing to correct"
    elif degrees >= 60:
        assert plain < 0.99, "the limit of the vector-field rule"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("stencil", "order"),
    [(ep.one_sided, 1), (L.negative, 1), (ep.symmetric, 2), (L.five_point, 4), (partial(L.holomorphic, points=4), 4)],
)
@pytest.mark.parametrize("make", [APART["dense"], APART["average"], APART["soft"]])
def test_bias_falls_at_the_order_of_the_stencil(make, stencil, order, form):
    network = make()
    x, y = data(network)
    right = exact(network, x, y)
    big, small = (relative(gradients(network, asymmetric(stencil(b), form=form), x, y), right) for b in (0.2, 0.1))
    assert math.log2(big / small) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", APART)
def test_the_infinitesimal_nudge_through_transposes_is_exact(name):
    network = APART[name]()
    x, y = data(network)
    found = gradients(network, ep.InfinitesimalNudge(SETTLE, ep.FixedSweeps(120), corrected=True), x, y)
    assert relative(found, exact(network, x, y)) < 1e-9
    plain = gradients(network, ep.InfinitesimalNudge(SETTLE, ep.FixedSweeps(120)), x, y)
    assert relative(plain, exact(network, x, y)) > 1e-2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", [ep.contrastive, ep.vector_field])
@pytest.mark.parametrize(
    ("name", "teacher"),
    [
        *((name, L.force) for name in ("dense mse", "max", "skip", "custom")),
        *((name, teacher) for name in ("dense mse", "custom") for teacher in (L.clamp, L.soft_clamp)),
    ],
)
def test_with_symmetric_feedback_it_is_the_other_teacher_bit_by_bit(name, teacher, rule, form):
    network = NETWORKS[name]()
    x, y = data(network)
    plain, found = (
        gradients(network, nudging(ep.symmetric(0.3), rule, form=form, teacher=each), x, y)
        for each in (teacher, L.Corrected(teacher))
    )
    assert torch.equal(found, plain)


def test_in_the_states_of_nonlinear_units_even_symmetric_weights_are_no_gradient():
    """ds/dt = -s + r(W s + U x) has the Jacobian D W - 1: so read, the vector-field rule is biased at 0 degrees.

    Here a unit's force is drive - dG/ds, whose Jacobian W - 1/D is symmetric if W is.
    """
    network = recurrent(0.0, Linear)
    x, y = data(network)
    right = exact(network, x, y)
    found = gradients(network, ep.InfinitesimalNudge(SETTLE, ep.FixedSweeps(120)), x, y)
    assert relative(found, right) < 1e-9
    with torch.no_grad():
        landscape = network.landscape(x)
        free = ep.FixedSweeps(200)(landscape, landscape.zeros()).state["h"]
        slope = torch.diag_embed(1 - free.square())
        jacobian = slope @ network.terms["h"].weight - torch.eye(12)
        skew = (jacobian - jacobian.mT).flatten(1).norm(dim=1) / jacobian.flatten(1).norm(dim=1)
    assert float(skew.min()) > 0.01


@pytest.mark.parametrize("gain", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("way", WAYS)
def test_feedback_gains_need_no_amplification(way, gain):
    """Without feedback it is backpropagation: asymmetric EP trains feedforward networks."""
    layers = [ep.DenseLayer(n, ep.tanh) for n in (8, 7, 4)]
    network = shrunk(ep.chain((6,), layers, readout, feedback_gain=gain), 0.4)
    x, y = data(network)
    found = gradients(network, WAYS[way](1e-3, ep.FixedSweeps(120)), x, y)
    assert relative(found, exact(network, x, y)) < 1e-5
    if not gain:
        assert relative(found, gradients(network, ep.Backpropagation(), x, y)) < 1e-5


def test_without_feedback_dyadic_ep_is_settled_dual_propagation():
    found = []
    for gain, estimator in ((0.0, L.DyadicEP(0.3, SETTLE, SETTLE)), (1.0, L.DualPropagation(0.6, 0.5, passes=40))):
        torch.manual_seed(0)
        network = shrunk(ep.chain((6,), [ep.DenseLayer(n, ep.tanh) for n in (8, 7, 4)], feedback_gain=gain))
        x, _ = data(network)
        force = torch.randn(5, 4)  # constant: the same at both copies
        scores = ep.Equilibrium(network, estimator)(x)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(scores, list(network.parameters()), force)]))
    assert relative(*found) < 1e-9


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("solver", [
    ep.UntilConverged(1e-12, 500),
    ep.UntilConverged(1e-12, 500, over_relaxation=1.5),
    ep.FixedSweeps(90, ep.synchronous),
    ep.FixedSweeps(90, ep.settling.forward_order),
    ep.FixedSweeps(90, ep.settling.backward_order),
    ep.FixedSweeps(300, ep.settling.Leaky(0.3)),
])  # fmt: skip
def test_every_solver_reaches_the_same(way, solver):
    network = dense(separate=True)
    x, y = data(network)
    assert relative(gradients(network, WAYS[way](0.2, solver), x, y), gradients(network, WAYS[way](0.2), x, y)) < 1e-9


@pytest.mark.parametrize("way", WAYS)
def test_dropout_weights_and_a_loss_downstream_go_through_it(way):
    layers = [ep.DenseLayer(n, ep.tanh, dropout=p) for n, p in ((9, 0.4), (8, 0.0), (4, 0.2))]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError, separate_feedback=True))
    x, y = data(network)
    weight, found = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0]), []
    for estimator in (ep.ImplicitDifferentiation(SETTLE), WAYS[way](1e-3)):
        torch.manual_seed(3)
        model = ep.Equilibrium(network, estimator).train()
        loss = model.loss(x, y, weight) + torch.nn.functional.cross_entropy(model(x), y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    assert relative(found[1], found[0]) < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_a_soft_clamp_of_linear_outputs_is_the_force(form):
    layers = [ep.DenseLayer(8, ep.tanh), ep.DenseLayer(4, ep.identity)]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError, separate_feedback=True))
    x, y = data(network)
    by_force, held = (
        gradients(network, asymmetric(ep.symmetric(0.3), form=form, teacher=teacher), x, y)
        for teacher in (L.corrected, L.Corrected(L.soft_clamp))
    )
    assert relative(held, by_force) < 1e-9


@pytest.mark.parametrize("estimator", [
    L.OscillatingNudge(0.1, 4, SETTLE, SETTLE, transient=0, rule=ep.vector_field, teacher=L.corrected),
    L.LockIn(0.05, 4, SETTLE, SETTLE, transient=0, rule=ep.vector_field, teacher=L.corrected),
    ep.EquilibriumPropagation(L.RandomSign(1e-5), SETTLE, SETTLE, ep.vector_field, teacher=L.corrected),
    ep.EquilibriumPropagation(ep.symmetric(0.05), SETTLE, SETTLE, L.Noisy(ep.vector_field, 0.0), teacher=L.corrected),
    ep.EquilibriumPropagation(
        ep.symmetric(0.05), SETTLE, SETTLE, ep.vector_field, teacher=L.corrected, stacked=False, there_and_back=True
    ),
])  # fmt: skip
def test_every_way_of_nudging_takes_the_teacher(estimator):
    network = dense(separate=True)
    x, y = data(network)
    assert relative(gradients(network, estimator, x, y), exact(network, x, y)) < 1e-3


def test_it_learns_in_float32_at_small_nudges():
    network = dense(separate=True)
    x, y = data(network)
    right, single = exact(network, x, y), network.float()
    for estimator in (asymmetric(ep.symmetric(1e-5)), L.DyadicEP(1e-5, SETTLE, SETTLE)):
        assert relative(gradients(single, estimator, x.float(), y).double(), right) < 1e-4


def test_feedback_that_spreads_on_a_substrate_is_corrected():
    network = dense()
    x, y = data(network)
    network = network.on(FeedbackSpread(0.5))
    right = exact(network, x, y)
    assert relative(gradients(network, asymmetric(ep.symmetric(0.01)), x, y), right) < 1e-4
    assert relative(gradients(network, nudging(ep.symmetric(0.01), ep.vector_field), x, y), right) > 0.05


@pytest.mark.parametrize("rule", [ep.contrastive, L.kolen_pollack, L.Noisy(ep.contrastive, 0.1)])
@pytest.mark.parametrize("form", FORMS)
def test_contrasts_are_refused_where_feedback_is_not_the_transpose(rule, form):
    network = dense(separate=True)
    with pytest.raises(ep.InputError, match=r"layer1_layer2.*take the rule vector_field") as told:
        gradients(network, asymmetric(ep.symmetric(0.1), rule=rule, form=form))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("estimator", [asymmetric(ep.symmetric(0.1), stacked=False), L.DyadicEP(0.1, SETTLE, SETTLE)])
def test_weights_that_are_read_anew_in_each_phase_are_refused(estimator):
    class Flickering(ep.energy.Substrate):
        per_phase = True

    network = dense(separate=True).on(Flickering())
    with pytest.raises(ep.InputError, match="reads its weights anew in each phase") as told:
        gradients(network, estimator)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("beta", [0.0, math.nan, math.inf])
def test_a_beta_that_does_not_nudge_is_refused(beta):
    with pytest.raises(ep.InputError, match="beta"):
        L.DyadicEP(beta, SETTLE, SETTLE)


def test_the_corrected_field_keeps_its_rest_and_has_the_transposed_jacobian():
    network = conv(ep.MaxPool(2), separate=True)
    x, _ = data(network)
    with torch.no_grad():
        landscape = network.landscape(x)
        free = ep.FixedSweeps(200)(landscape, landscape.zeros()).state
        field = corrected_field(landscape, free)
        for node in free:
            torch.testing.assert_close(field.drive(free, node), landscape.drive(free, node), rtol=0, atol=1e-13)
        one, other = ({n: torch.randn_like(s) for n, s in free.items()} for _ in range(2))

        def pushed(of, moves):
            linear = landscape.only(tangents(of, free))
            return {n: linear.drive(moves, n) for n in free}

        there = landscape.inner(pushed(landscape, one), other)
        torch.testing.assert_close(landscape.inner(one, pushed(field, other)), there)
        assert tangent(field, free, {}).bilinear


COUPLINGS = {
    "synapse": (ep.Synapse("a", "b", ep.Dense((4,), (3,))), {"a": (4,), "b": (3,)}),
    "weak": (ep.Synapse("a", "b", ep.Dense((4,), (3,)), 0.3), {"a": (4,), "b": (3,)}),
    "apart": (
        ep.energy.SeparateFeedback("a", "b", ep.Dense((4,), (3,)), ep.Dense((4,), (3,)), 0.3),
        {"a": (4,), "b": (3,)},
    ),
    "pooled": (ep.Synapse("a", "b", ep.Convolution((2, 4, 4), 3)), {"a": (2, 4, 4), "b": (3, 2, 2)}),
    "soft": (
        ep.Synapse("a", "b", ep.Convolution((2, 4, 4), 3, pool=ep.energy.SoftPool(2))),
        {"a": (2, 4, 4), "b": (3, 1, 1)},
    ),
    "resistors": (Resistors("a", "b", (4,), (3,), 2.0), {"a": (4,), "b": (3,)}),
    "one node": (Inhibition(), {"a": (4,)}),
}


@pytest.mark.parametrize("name", COUPLINGS)
def test_the_dyad_of_a_term_is_an_energy_that_one_copy_descends_and_the_other_ascends(name):
    coupling, shapes = COUPLINGS[name]
    coupling = coupling.double()
    coupling.bind({node: ep.Node(shape, ep.tanh) for node, shape in shapes.items()})
    testing.check_coupling(coupling, shapes)
    term = DyadicTerm(coupling)
    states = [torch.randn(3, *shapes[node.removeprefix(TWIN)]) for node in term.nodes]
    for node in term.nodes:
        derived = ep.energy.Term.drive(term, node, *states)
        torch.testing.assert_close(term.drive(node, *states), derived)
        linear = ep.energy.Term.tangent(term, *states).drive(node, *states)
        torch.testing.assert_close(term.tangent(*states).drive(node, *states), linear)
        some = torch.tensor([2, 0])
        torch.testing.assert_close(term.select(some).drive(node, *(s[some] for s in states)), derived[some])


def test_nudged_sweeps_are_the_steps_of_backpropagation_through_time():
    """Sweep by sweep, as for networks with an energy: the property fails without the correction."""
    network = dense(separate=True)
    x, y = data(network)
    distance = {}
    for teacher in (L.force, L.corrected):
        found = diagnostics.through_time(network, x, y, 1e-3, 12, rule=ep.vector_field, teacher=teacher)
        parts = [(found.mean[name] - right).norm() / right.norm() for name, right in found.exact.items()]
        distance[teacher] = float(torch.stack(parts).max())
    assert distance[L.corrected] < 1e-4
    assert distance[L.force] > 0.05


def test_a_spec_holds_the_teacher_within():
    for teacher in (L.corrected, L.Corrected(L.clamp), L.Corrected(L.teachers.Force(exact=False))):
        twin = from_spec(to_spec(teacher, "it"), ())
        assert twin == teacher
        assert twin.holds is teacher.teacher.holds
    estimator = L.DyadicEP(0.1, SETTLE, SETTLE, forms.states)
    assert from_spec(to_spec(estimator, "it"), ()) == estimator


def test_the_record_has_both_copies():
    network = dense(separate=True)
    x, y = data(network)
    record = ep.Record()
    ep.Equilibrium(network, L.DyadicEP(0.1, SETTLE, SETTLE)).loss(x, y, record=record).backward()
    high, low = ({n: s[rows] for n, s in record.nudged.state.items()} for rows in (slice(5), slice(5, None)))
    assert record.nudged.state.keys() == record.free.state.keys()
    assert len(record.nudged.status) == 10
    for node, value in record.free.state.items():
        torch.testing.assert_close((high[node] + low[node]) / 2, value, atol=1e-3, rtol=0)
        assert float((high[node] - low[node]).abs().max()) > 1e-5
