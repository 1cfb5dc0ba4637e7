"""Nudges of complex strength: the order of the circle, what refuses them, and the nudge that turns without reset."""

import cmath
import math

import pytest
import torch
from networks import readout, shrunk

import eqprop as ep
from eqprop.learning.stencils import circle

pytestmark = pytest.mark.usefixtures("double")
SETTLE = ep.UntilConverged(1e-14, 300)
FORMS = pytest.mark.parametrize(
    "form", [ep.learning.forms.displacements, ep.learning.forms.states], ids=["difference", "ordinary"]
)


def dense(activation=ep.tanh, loss=ep.CrossEntropy, **options):
    layers = [ep.DenseLayer(8, activation, **options), ep.DenseLayer(7, activation), ep.DenseLayer(4, ep.identity)]
    return shrunk(ep.chain((6,), layers, loss))


def conv(pool=None, activation=ep.tanh):
    layers = [ep.ConvLayer(3, pool=None, activation=activation), ep.ConvLayer(4, pool=pool, activation=activation)]
    return shrunk(ep.chain((2, 5, 5), [*layers, ep.DenseLayer(5, activation)], readout))


def separate():
    layers = [ep.ConvLayer(3, pool=ep.AveragePool(2), activation=ep.energy.half_sigmoid), ep.DenseLayer(6, ep.tanh)]
    return shrunk(ep.chain((2, 6, 6), [*layers, ep.DenseLayer(5, ep.tanh)], readout, separate_feedback=True))


class Quartic(ep.Coupling):
    """A user's energy of three nodes, with nothing but the energy, and its word that it is holomorphic."""

    holomorphic = True

    def __init__(self):
        super().__init__()
        self.nodes = ("a", "b", "c")
        self.strength = torch.nn.Parameter(torch.tensor(0.3))

    def energy(self, *states):
        a, b, c = states
        return self.strength * (a.square() * b * c).sum(1)


def graph(coupling=Quartic):
    """A user's term, a skip edge, and a loss on two nodes."""
    nodes = {"x": ep.Node((6,)), **{n: ep.Node((5,), ep.tanh) for n in ("a", "b", "c")}}
    edges = [("x", "a"), ("a", "b"), ("b", "c"), ("a", "c")]
    terms = [ep.Synapse(p, q, ep.Dense(nodes[p].shape, nodes[q].shape)) for p, q in edges]
    loss = ep.energy.WeightedSum([ep.SquaredError("c", (5,)), ep.CrossEntropy("b", (5,))], [1.0, 0.3])
    return shrunk(ep.Network(nodes, [*terms, ep.Bias("a", (5,)), coupling()], loss), 0.35)


NETWORKS = {
    "dense": dense,
    "soft pool": lambda: conv(ep.energy.SoftPool(2)),
    "average pool": lambda: conv(ep.AveragePool(2), ep.energy.half_sigmoid),
    "smooth clip": lambda: conv(ep.energy.SoftPool(2), ep.energy.smooth_clip),
    "graph": graph,
    "separate": separate,
}


# The difference form is the default; where couplings are not bilinear it gives way to the ordinary one.
CASES = [(name, ep.learning.forms.displacements) for name in NETWORKS]
CASES += [(name, ep.learning.forms.states) for name in ("dense", "average pool", "separate")]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}, {type(case[1]).__name__}")
def case(request):
    name, form = request.param
    return NETWORKS[name](), form


def data(network, batch=4):
    torch.manual_seed(1)
    return torch.randn(batch, *network.nodes[network.input].shape), torch.arange(batch) % 4


def gradients(network, estimator, record=None):
    x, y = data(network)
    network.zero_grad()
    ep.Equilibrium(network, estimator).loss(x, y, record=record).backward()
    found = torch.cat([p.grad.flatten() for p in network.parameters()])
    assert not found.is_complex()
    return found


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def nudging(stencil, rule=ep.contrastive, **more):
    return ep.EquilibriumPropagation(stencil, SETTLE, SETTLE, rule, **more)


def whole(beta, points):
    """The circle, every point of it settled, and in complex numbers even where it is real."""
    return ep.learning.Stencil(*zip(*circle(beta, points), strict=True))


@pytest.mark.parametrize("points", range(2, 9))
def test_the_order_is_the_number_of_points_of_which_half_are_settled(points):
    stencil = ep.learning.holomorphic(0.3, points)
    assert stencil.order == whole(0.3, points).order == points
    assert len(stencil.betas) == points // 2 + 1
    assert all(complex(b).imag >= 0 and abs(b) == pytest.approx(0.3) for b in stencil.betas)
    real = 2 - points % 2
    assert not any(isinstance(number, complex) for number in (*stencil.betas[:real], *stencil.weights[:real]))


def test_two_points_are_the_symmetric_stencil():
    assert ep.learning.holomorphic(0.3, 2) == ep.symmetric(0.3)
    assert not ep.learning.holomorphic(0.3, 2).is_complex
    assert ep.learning.holomorphic(0.3, 3).is_complex
    with pytest.raises(ep.InputError, match="one_sided"):
        ep.learning.holomorphic(0.3, 1)
    with pytest.raises(ep.InputError, match="beta 0"):
        ep.learning.holomorphic(0.0, 4)


def test_a_circle_whose_weights_turn_the_wrong_way_is_refused():
    betas, weights = zip(*circle(0.3, 5), strict=True)
    with pytest.raises(ep.InputError, match="do not estimate a derivative"):
        ep.learning.Stencil(betas, tuple(w.conjugate() for w in weights))
    with pytest.raises(ep.InputError, match="do not estimate a derivative"):
        ep.learning.Stencil(ep.learning.holomorphic(0.3, 5).betas, weights[:3])  # the pairs counted once


def test_complex_arithmetic_on_the_real_axis_is_the_real_one(case):
    network, form = case
    expected = gradients(network, nudging(ep.symmetric(0.3), form=form))
    assert relative(gradients(network, nudging(whole(0.3, 2), form=form)), expected) < 1e-12


def test_half_the_circle_equals_the_whole_and_phases_in_turn_those_at_once(case):
    network, form = case
    whole_circle = gradients(network, nudging(whole(0.3, 4), form=form))
    for stacked in (True, False):
        half = nudging(ep.learning.holomorphic(0.3, 4), form=form, stacked=stacked)
        assert relative(gradients(network, half), whole_circle) < 1e-12


@pytest.mark.parametrize("rule", [ep.contrastive, ep.vector_field, ep.learning.kolen_pollack])
@FORMS
def test_every_rule_reads_complex_phases(form, rule):
    network = separate()
    whole_circle = gradients(network, nudging(whole(0.3, 5), rule, form=form))
    assert relative(gradients(network, nudging(ep.learning.holomorphic(0.3, 5), rule, form=form)), whole_circle) < 1e-12
    real = gradients(network, nudging(ep.learning.five_point(0.02), rule, form=form))
    assert relative(whole_circle, real) < 1e-4
    assert relative(gradients(network, nudging(ep.symmetric(0.3), rule, form=form)), real) > 3e-3


BETAS = {"dense": 0.2, "graph": 0.2, "smooth clip": 0.6}  # above what rounding spoils, within the circle of convergence


@pytest.mark.parametrize("points", [2, 3, 4, 6])
@pytest.mark.parametrize(("name", "form"), [case for case in CASES if case[0] != "separate"])
def test_bias_falls_like_beta_to_the_number_of_points(name, form, points):
    network, beta = NETWORKS[name](), BETAS.get(name, 0.4)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE))
    stencils = [ep.learning.holomorphic(b, points) for b in (beta, beta / 2)]
    big, small = (relative(gradients(network, nudging(stencil, form=form)), exact) for stencil in stencils)
    assert math.log2(big / small) == pytest.approx(points, abs=0.3)
    assert small < 0.02


def test_large_nudges_cost_little_accuracy():
    """The point of it: at beta 0.8, where the symmetric estimate is percents off."""
    network = conv(ep.energy.SoftPool(2), ep.energy.smooth_clip)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE))
    two, eight = (relative(gradients(network, nudging(ep.learning.holomorphic(0.8, n))), exact) for n in (2, 8))
    assert two > 0.02
    assert eight < 1e-7


def test_the_difference_form_takes_max_pooling_and_modules_whose_winners_it_holds():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.MaxPool2d(2))
    nodes = {"x": ep.Node((2, 6, 6)), "a": ep.Node((3, 6, 6), ep.tanh), "b": ep.Node((4, 3, 3), ep.tanh)}
    first = ep.Synapse("x", "a", ep.Convolution((2, 6, 6), 3, padding=1))
    user = shrunk(ep.Network(nodes, [first, ep.Synapse("a", "b", module)], readout("b", (4, 3, 3))))
    for network in (user, conv(ep.MaxPool(2)), conv(ep.MaxPool(3, 2))):
        exact = gradients(network, ep.ImplicitDifferentiation(SETTLE))
        big, small = (relative(gradients(network, nudging(ep.learning.holomorphic(b, 4))), exact) for b in (0.4, 0.2))
        assert math.log2(big / small) == pytest.approx(4, abs=0.3)
        with pytest.raises(ep.InputError, match="SoftPool"):
            gradients(network, nudging(ep.learning.holomorphic(0.4, 4), form=ep.learning.forms.states))


@FORMS
def test_without_energy_it_tends_to_the_vector_fields_limit(form):
    network = separate()
    limit = gradients(network, ep.InfinitesimalNudge(SETTLE, SETTLE, damping=0.0))
    found = gradients(network, nudging(ep.learning.holomorphic(0.2, 6), ep.vector_field, form=form))
    assert relative(found, limit) < 1e-6
    two = gradients(network, nudging(ep.symmetric(0.2), ep.vector_field, form=form))
    assert relative(two, limit) > 1e-2


def test_states_are_complex_in_phases_of_complex_nudges_alone():
    network = dense()
    record = ep.Record()
    gradients(network, nudging(ep.learning.holomorphic(0.3, 4)), record)
    assert not any(value.is_complex() for value in (record.scores, *record.free.state.values()))
    batch = len(record.scores)
    state = record.nudged.state["layer1"]
    assert len(state) == len(record.nudged.residual) == 3 * batch
    assert not state[: 2 * batch].imag.any()
    assert bool(state[2 * batch :].imag.any())
    gradients(network, nudging(ep.learning.holomorphic(0.3, 2)), record)
    assert not record.nudged.state["layer1"].is_complex()


@FORMS
def test_data_weights_and_blocks_inside_ordinary_models(form):
    """The data's gradient, signed weights of examples, and any loss on the output."""
    network = conv(ep.AveragePool(2))
    x, y = data(network)
    weight = torch.tensor([1.0, -2.0, 0.0, 0.5])

    def run(estimator):
        model, leaf = ep.Equilibrium(network, estimator), x.clone().requires_grad_()
        loss = model.loss(leaf, y, weight) + torch.nn.functional.cross_entropy(model(leaf), y)
        parameters = [leaf, *network.couplings.parameters()]
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    assert (
        relative(run(nudging(ep.learning.holomorphic(0.1, 6), form=form)), run(ep.ImplicitDifferentiation(SETTLE)))
        < 1e-7
    )


@FORMS
def test_silenced_units_stay_silent(form):
    network = dense(dropout=0.5)  # ``gradients`` seeds the generator, so both draw the same masks
    exact, found = (
        gradients(network, estimator)
        for estimator in (ep.ImplicitDifferentiation(SETTLE), nudging(ep.learning.holomorphic(0.1, 6), form=form))
    )
    assert relative(found, exact) < 1e-6
    loud = dense()
    loud.load_state_dict(network.state_dict())
    assert relative(found, gradients(loud, ep.ImplicitDifferentiation(SETTLE))) > 0.1


def test_messages_of_16_bits():
    network = conv(ep.AveragePool(2)).float()
    exact = gradients(network.double(), ep.ImplicitDifferentiation(SETTLE))
    network, (x, y) = network.float(), data(network)
    estimator = ep.EquilibriumPropagation(ep.learning.holomorphic(0.3, 4), ep.FixedSweeps(40), ep.FixedSweeps(20))
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        ep.Equilibrium(network, estimator).loss(x.float(), y).backward()
    assert relative(torch.cat([p.grad.flatten() for p in network.parameters()]).double(), exact) < 0.03


class Never(ep.Solver):
    def __call__(self, landscape, start, memory=None):
        raise AssertionError("settled before the network was checked")


def estimators(form=ep.learning.forms.displacements):
    yield ep.EquilibriumPropagation(ep.learning.holomorphic(0.1, 4), Never(), Never(), form=form)
    yield ep.learning.OscillatingNudge(0.1, 8, Never(), Never(), form=form)


class Abs(ep.Unit):
    def response(self, drive):
        return drive

    def potential(self, state):
        return 0.5 * state.square()


class Silent(Quartic):
    holomorphic = False


@pytest.mark.parametrize(
    ("network", "form", "what"),
    [
        (lambda: dense(ep.hard_sigmoid), ep.learning.forms.displacements, r"'layer1'.*Clip.*SmoothClip"),
        (lambda: dense(Abs()), ep.learning.forms.states, r"'layer1'.*Abs.*holomorphic = True"),
        (lambda: conv(ep.MaxPool(2)), ep.learning.forms.states, r"'layer1_layer2'.*SoftPool"),
        (
            lambda: graph(Silent),
            ep.learning.forms.displacements,
            r"'a_b_c'.*holomorphic = True",
        ),  # not bilinear: the ordinary form
    ],
)
def test_what_is_not_holomorphic_is_refused_before_anything_settles(network, form, what):
    network = network()
    for estimator in estimators(form):
        with pytest.raises(ep.InputError, match=what):
            ep.Equilibrium(network, estimator)(data(network)[0])
    real = ep.EquilibriumPropagation(ep.learning.holomorphic(0.1, 2), ep.FixedSweeps(5), ep.FixedSweeps(5), form=form)
    assert bool(gradients(network, real).isfinite().all())


def test_a_loss_that_is_not_holomorphic_is_refused():
    class Hinge(ep.SquaredError):
        holomorphic = False

    network = dense(loss=Hinge)
    for nested in (network, dense(loss=lambda n, s: ep.energy.WeightedSum([ep.SquaredError(n, s), Hinge(n, s)]))):
        with pytest.raises(ep.InputError, match="not holomorphic"):
            gradients(nested, nudging(ep.learning.holomorphic(0.1, 3)))
    gradients(network, nudging(ep.symmetric(0.1)))


def test_what_only_the_data_pass_through_need_not_be_holomorphic():
    layers = [ep.ConvLayer(3, pool=ep.MaxPool(2), activation=ep.tanh), ep.DenseLayer(5, ep.tanh)]
    network = shrunk(ep.chain((2, 6, 6), layers, readout))
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE))
    found = gradients(network, nudging(ep.learning.holomorphic(0.2, 6), form=ep.learning.forms.states))
    assert relative(found, exact) < 1e-6


@pytest.mark.parametrize(("name", "form"), [case for case in CASES if case[0] not in ("dense", "graph")])
def test_the_turning_nudge_is_the_holomorphic_estimate_where_each_step_settles(name, form):
    network, rule = NETWORKS[name](), ep.vector_field if name == "separate" else ep.contrastive
    expected = gradients(network, nudging(ep.learning.holomorphic(0.3, 5), rule, form=form))
    for turns, transient in ((1, 0), (2, 1)):
        turning = ep.learning.OscillatingNudge(0.3, 5, SETTLE, SETTLE, turns, transient, rule, form)
        assert relative(gradients(network, turning), expected) < 1e-11


@FORMS
def test_the_error_of_a_lagging_state_falls_with_the_square_of_the_steps(form):
    """One sweep a step: the response lags by an angle, of which the real part keeps the cosine."""
    network = dense(loss=readout)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE))

    def error(points, transient):
        turning = ep.learning.OscillatingNudge(0.1, points, SETTLE, ep.FixedSweeps(1), transient=transient, form=form)
        return relative(gradients(network, turning), exact)

    few, many = error(32, 1), error(64, 1)
    assert math.log2(few / many) == pytest.approx(2, abs=0.2)
    assert many < 0.02
    assert error(64, 0) > 1.5 * many  # the first turn, still coming to turn steadily


def test_the_contrast_of_the_ordinary_form_needs_no_free_state():
    """From a start that is nowhere near rest; after the transient, nothing of it is left."""
    network = dense()
    expected = gradients(
        network, ep.learning.OscillatingNudge(0.2, 8, SETTLE, ep.FixedSweeps(3), form=ep.learning.forms.states)
    )
    away = ep.learning.OscillatingNudge(
        0.2, 8, ep.FixedSweeps(1), ep.FixedSweeps(3), transient=4, form=ep.learning.forms.states
    )
    assert relative(gradients(network, away), expected) < 1e-6


@pytest.mark.parametrize("settings", [{"points": 2}, {"turns": 0}, {"transient": -1}, {"beta": 0.0}])
def test_turns_that_cannot_be(settings):
    with pytest.raises(ep.InputError, match=r"points|turns|transient|beta"):
        ep.learning.OscillatingNudge(**({"beta": 0.1, "points": 8, "free": SETTLE, "nudged": SETTLE} | settings))


def test_the_estimate_is_cauchys_formula():
    """Of a function that is not a network: exp, whose derivative at 0 is 1."""
    for points in (2, 3, 4, 7):
        stencil = ep.learning.holomorphic(0.5, points)
        found = sum((w * cmath.exp(b)).real for b, w in zip(stencil.betas, stencil.weights, strict=True))
        # The first Taylor coefficient that the circle takes for the one of beta.
        assert found - 1 == pytest.approx(0.5**points / math.factorial(points + 1), rel=0.02)
