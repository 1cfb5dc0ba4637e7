"""Contrastive Hebbian learning and its family against backpropagation and equilibrium propagation, in float64.

The reference is autograd through the same weights without feedback. Laws are those of Xie & Seung (2003), and what
follows from them; the numbers are those of three weight layers 10-20-20-5 with their default, fan-in-scaled weights.
"""

import math

import pytest
import torch
from networks import conv, data, dense, relative, shrunk, skip
from torch.nn import functional as F

import eqprop as ep
from eqprop import testing
from eqprop.energy.gains import amplification_from
from eqprop.learning.teachers import Towards

pytestmark = pytest.mark.usefixtures("double")

REST = ep.UntilConverged(1e-12, 5000)
SEEDS = (0, 1, 2)
CHL = ep.one_sided(1.0)
LOGISTIC = ep.energy.Sigmoid(1.0, 0.0)
HALVES = [ep.learning.generalised_recirculation, ep.learning.clamped_presynaptic, ep.learning.mean_presynaptic]
FORMS = pytest.mark.parametrize(
    "form", [ep.learning.forms.displacements, ep.learning.forms.states], ids=["difference", "ordinary"]
)


def network(gain=1.0, output=ep.identity, loss=ep.SquaredError, separate=False, seed=0):
    torch.manual_seed(seed)
    layers = [ep.DenseLayer(20, ep.tanh), ep.DenseLayer(20, ep.tanh), ep.DenseLayer(5, output)]
    return ep.chain((10,), layers, loss, separate, gain)


def examples(seed=0, batch=8):
    torch.manual_seed(100 + seed)
    return torch.randn(batch, 10), torch.rand(batch, 5)


def learning(net):
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def estimate(
    net,
    x,
    y,
    stencil=CHL,
    rule=ep.contrastive,
    teacher=ep.learning.clamp,
    form=ep.learning.forms.displacements,
    solver=REST,
):
    model = ep.Equilibrium(net, ep.EquilibriumPropagation(stencil, solver, solver, rule, form, teacher))
    wanted = learning(net)
    return dict(zip(wanted, torch.autograd.grad(model.loss(x, y), list(wanted.values())), strict=True))


def backpropagation(net, x, y, loss):
    """By autograd, through the feedforward weights alone; ``loss``: of output and target, (batch,)."""
    state, below = x, "input"
    for name in net.free:
        synapse = net.couplings[f"{below}_{name}"]
        up = getattr(synapse, "feedforward", synapse)
        state = net.nodes[name].unit.response(up.map(state) + net.couplings[f"{name}_bias"].bias)
        below = name
    wanted = learning(net)
    return dict(zip(wanted, torch.autograd.grad(loss(state, y).mean(), list(wanted.values())), strict=True))


def squared(s, y):
    return 0.5 * (s - y).square().sum(1)


def cross_entropy(s, y):
    return F.binary_cross_entropy(s, y, reduction="none").sum(1)


def angle(found, expected):
    """In degrees; without the cancellation of an arc cosine."""
    a, b = (v.flatten() / v.norm() for v in (found, expected))
    return math.degrees(2 * math.atan2(float((a - b).norm()), float((a + b).norm())))


def worst(measure, found, expected):
    """Over the weights of every layer, biases with them."""
    return max(measure(found[name], expected[name]) for name in found)


def whole(gradients):
    return torch.cat([g.flatten() for g in gradients.values()])


# Promise 1: the law of the feedback gain


@pytest.mark.parametrize("seed", SEEDS)
@FORMS
def test_with_weak_feedback_it_is_backpropagation_to_first_order_in_the_gain(seed, form):
    x, y = examples(seed)
    angles, errors = [], []
    for gain in (1e-2, 1e-3, 1e-4):
        net = network(gain, seed=seed)
        found, exact = estimate(net, x, y, form=form), backpropagation(net, x, y, squared)
        angles.append(worst(angle, found, exact))
        errors.append(worst(relative, found, exact))
    assert angles[1] <= 0.2
    assert errors[1] <= 5e-3
    for big, small in ((0, 1), (1, 2)):
        assert 9 <= angles[big] / angles[small] <= 11
        assert 9 <= errors[big] / errors[small] <= 11


@pytest.mark.parametrize("rule", HALVES, ids=lambda r: str(r.presynaptic))
@pytest.mark.parametrize("seed", SEEDS)
def test_the_presynaptic_activity_matters_for_strong_feedback_alone(seed, rule):
    x, y = examples(seed)
    net = network(1e-3, seed=seed)
    assert worst(angle, estimate(net, x, y, rule=rule), backpropagation(net, x, y, squared)) <= 0.2
    net = network(1.0, seed=seed)
    assert worst(angle, estimate(net, x, y, rule=rule), backpropagation(net, x, y, squared)) > 25


# Promise 2: the law of the link


@pytest.mark.parametrize("seed", SEEDS)
def test_clamped_logistic_outputs_learn_cross_entropy_and_not_squared_error(seed):
    x, y = examples(seed)
    stuck = []
    for gain, degrees in ((1e-3, 0.1), (1e-4, 0.01)):
        net = network(gain, LOGISTIC, ep.BinaryCrossEntropy, seed=seed)
        found, apart = estimate(net, x, y), backpropagation(net, x, y, squared)
        assert worst(angle, found, backpropagation(net, x, y, cross_entropy)) <= degrees
        assert worst(relative, found, backpropagation(net, x, y, cross_entropy)) <= 0.05 * degrees
        assert min(relative(found[name], apart[name]) for name in found) > 2.5
        stuck.append(worst(angle, found, apart))
    assert stuck[0] == pytest.approx(stuck[1], rel=0.2), "no weaker feedback brings it nearer"
    assert stuck[1] > 0.3
    found = estimate(network(1e-3, LOGISTIC, ep.BinaryCrossEntropy, seed=seed), x, y)
    again = estimate(network(1e-3, LOGISTIC, ep.SquaredError, seed=seed), x, y)
    assert relative(whole(again), whole(found)) < 1e-12, "a clamp knows the target, and no loss"


@pytest.mark.parametrize("slope", [1.0, 4.0])
def test_a_steeper_logistic_output_learns_cross_entropy_over_its_slope(slope):
    x, y = examples()
    net = network(1e-4, ep.energy.Sigmoid(slope, 0.2), ep.BinaryCrossEntropy)
    exact = backpropagation(net, x, y, cross_entropy)
    assert relative(slope * whole(estimate(net, x, y)), whole(exact)) < 1e-3


def test_clamped_scores_learn_their_softmax_cross_entropy():
    x, _ = examples()
    y = torch.arange(8) % 5
    net = network(1e-4, loss=ep.CrossEntropy)
    exact = backpropagation(net, x, y, lambda s, t: F.cross_entropy(s, t, reduction="none"))
    assert worst(relative, estimate(net, x, y), exact) < 1e-3


# Promise 3: the law of beta


@pytest.mark.parametrize("seed", SEEDS)
def test_an_infinite_nudge_is_a_clamp(seed):
    """Linear outputs and squared error: the soft clamp is the exact minimiser of E + beta * loss over the output.

    Sweeps of the force, s <- u + beta (y - s), would not come to rest at these beta.
    """
    x, y = examples(seed)
    net = network(seed=seed)
    clamped = whole(estimate(net, x, y))
    angles, sizes = [], []
    for beta in (1e2, 1e3, 1e4):
        found = whole(estimate(net, x, y, ep.learning.positive(beta), teacher=ep.learning.soft_clamp))
        angles.append(angle(found, clamped))
        sizes.append(float((beta * found).norm() / clamped.norm()))
    assert angles[1] <= 0.05
    for big, small in ((0, 1), (1, 2)):
        assert 9 <= angles[big] / angles[small] <= 11
        assert 9 <= (1 - sizes[big]) / (1 - sizes[small]) <= 11
    assert sizes[2] == pytest.approx(1, abs=1e-3)


@FORMS
@pytest.mark.parametrize("beta", [0.3, -0.3])
def test_the_soft_clamp_of_a_linear_output_is_the_force_of_its_squared_error(form, beta):
    x, y = examples()
    net = network()
    soft, pushed = (
        estimate(net, x, y, ep.one_sided(beta), teacher=teacher, form=form)
        for teacher in (ep.learning.soft_clamp, ep.learning.force)
    )
    assert relative(whole(soft), whole(pushed)) < 1e-9


def test_the_soft_clamp_of_other_outputs_mixes_response_and_target():
    x, y = examples()
    net, beta, record = network(0.5, output=ep.tanh), 0.7, ep.Record()
    estimator = ep.EquilibriumPropagation(ep.one_sided(beta), REST, REST, teacher=ep.learning.soft_clamp)
    ep.Equilibrium(net, estimator).loss(x, y, record=record).backward()
    state, scene = record.nudged.state, net.landscape(x)
    response = scene.step(state, ["layer3"])["layer3"]
    torch.testing.assert_close(state["layer3"], (response + beta * y) / (1 + beta), rtol=0, atol=1e-11)
    torch.testing.assert_close(state["layer3"], response + beta * (y - state["layer3"]), rtol=0, atol=1e-11)
    below = scene.step(state, ["layer1", "layer2"])
    for node, value in below.items():
        torch.testing.assert_close(state[node], value, rtol=0, atol=1e-11)


# Promise 4: the order of the stencils


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize(
    ("stencil", "order"),
    [(ep.learning.positive, 1), (ep.learning.negative, 1), (ep.learning.centred, 2)],
    ids=["positive", "negative", "centred"],
)
def test_one_sided_errors_fall_like_beta_and_centred_ones_like_its_square(stencil, order, gain, seed):
    x, y = examples(seed)
    net = network(gain, seed=seed)
    model = ep.Equilibrium(net, ep.ImplicitDifferentiation(REST, 1e-13))
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(model.loss(x, y), list(net.parameters()))])
    big, small = (
        relative(whole(estimate(net, x, y, stencil(b), teacher=ep.learning.force)), exact) for b in (1e-2, 1e-3)
    )
    assert math.log10(big / small) == pytest.approx(order, abs=0.1)


def test_the_names_of_both_conventions():
    assert ep.learning.positive(0.2) == ep.learning.optimistic(0.2) == ep.one_sided(0.2)
    assert ep.learning.negative(0.2) == ep.learning.pessimistic(0.2) == ep.one_sided(-0.2)
    assert ep.learning.centred(0.2) == ep.symmetric(0.2)
    assert ep.learning.negative(0.2).betas == (0.0, -0.2)
    assert ep.learning.negative(0.2).weights == (5.0, -5.0)


# Coupled learning


@FORMS
def test_coupled_learning_holds_the_output_on_the_way_to_the_target(form):
    x, y = examples()
    for beta in (1.0, 0.3, -0.5):
        net, record = network(), ep.Record()
        estimator = ep.EquilibriumPropagation(ep.one_sided(beta), REST, REST, form=form, teacher=ep.learning.clamp)
        ep.Equilibrium(net, estimator).loss(x, y, record=record).backward()
        free, held = record.free.state["layer3"], record.nudged.state["layer3"]
        torch.testing.assert_close(held, (1 - beta) * free + beta * y, rtol=0, atol=1e-14)


def test_the_product_rule_of_hebb_at_both_ends():
    """Written out: gamma^(k - L) (free products - clamped products), averaged over the batch."""
    x, y = examples()
    gain = 0.2
    net, record = network(gain), ep.Record()
    model = ep.Equilibrium(net, ep.EquilibriumPropagation(CHL, REST, REST, teacher=ep.learning.clamp))
    model.loss(x, y, record=record).backward()
    free, held = ({"input": x} | settled.state for settled in (record.free, record.nudged))
    for k, (pre, post) in enumerate([("input", "layer1"), ("layer1", "layer2"), ("layer2", "layer3")], start=1):
        expected = gain ** (k - 3) * (free[post].T @ free[pre] - held[post].T @ held[pre]) / 8
        assert relative(net.couplings[f"{pre}_{post}"].map.weight.grad, expected) < 1e-10
        change = gain ** (k - 3) * (free[post] - held[post]).mean(0)
        assert relative(net.couplings[f"{post}_bias"].bias.grad, change) < 1e-10


@FORMS
@pytest.mark.parametrize("rule", HALVES, ids=lambda r: str(r.presynaptic))
def test_each_half_reads_its_own_presynaptic_activity(rule, form):
    """Written out; with the mean activity at both ends in turn, the halves make up the product rule."""
    x, y = examples()
    net, record = network(0.2), ep.Record()
    model = ep.Equilibrium(net, ep.EquilibriumPropagation(CHL, REST, REST, rule, form, ep.learning.clamp))
    model.loss(x, y, record=record).backward()
    free, held = ({"input": x} | settled.state for settled in (record.free, record.nudged))
    for k, (pre, post) in enumerate([("input", "layer1"), ("layer1", "layer2"), ("layer2", "layer3")], start=1):
        read = torch.lerp(free[pre], held[pre], rule.presynaptic)
        expected = 0.2 ** (k - 3) * (free[post] - held[post]).T @ read / 8
        assert relative(net.couplings[f"{pre}_{post}"].map.weight.grad, expected) < 1e-9
        if rule is ep.learning.mean_presynaptic:
            other = 0.2 ** (k - 3) * (free[post] + held[post]).T @ (free[pre] - held[pre]) / 16
            product = estimate(net, x, y)[f"couplings.{pre}_{post}.map.weight"]
            assert relative(expected + other, product) < 1e-9


@pytest.mark.parametrize("stencil", [ep.one_sided, ep.symmetric])
def test_small_displacements_are_equilibrium_propagation_of_a_steeper_error(stencil):
    """An output held beta (y - s) off its rest is pushed there by beta K (y - s), K the inverse of its response.

    So coupled learning with beta -> 0 follows the gradient of 1/2 (s - y)^T K (s - y), K held still.
    """
    (x, y), net = examples(batch=1), network()
    scene = net.landscape(x)
    with torch.no_grad():
        rest = REST(scene, scene.zeros()).state
    sizes = [value.shape[1] for value in rest.values()]

    def response(flat):
        state = dict(zip(rest, flat.unsqueeze(0).split(sizes, 1), strict=True))
        return torch.cat([scene.drive(state, node) for node in rest], 1).squeeze(0)

    at = torch.cat(list(rest.values()), 1).squeeze(0)
    slope = torch.cat([1 - at[:40].square(), torch.ones(5)]).diag()  # of tanh, and of the linear output
    links = torch.func.jacrev(response)(at).detach()
    moved = torch.linalg.solve(torch.eye(45) - slope @ links, slope)[-5:, -5:]  # d output / d force on it
    target = rest["layer3"] + torch.linalg.solve(moved, (y - rest["layer3"]).T).T
    pushed = estimate(net, x, target, ep.symmetric(1e-4), teacher=ep.learning.force)
    held = estimate(net, x, y, stencil(1e-4))
    assert relative(whole(held), whole(pushed)) < (1e-3 if stencil is ep.one_sided else 1e-6)
    assert relative(whole(held), whole(estimate(net, x, y, ep.symmetric(1e-4), teacher=ep.learning.force))) > 0.1


def test_with_weak_feedback_small_displacements_and_forces_are_the_same():
    x, y = examples()
    for gain in (1e-2, 1e-3):
        net = network(gain)
        held, pushed = (
            estimate(net, x, y, ep.symmetric(1e-3), teacher=t) for t in (ep.learning.clamp, ep.learning.force)
        )
        assert relative(whole(held), whole(pushed)) < gain


# Gains


@pytest.mark.parametrize("rule", [ep.contrastive, ep.vector_field])
def test_gains_of_their_own_on_every_synapse_and_a_shared_map(rule):
    """The amplification weighs terms, not gradients: a map in two places learns from both."""
    torch.manual_seed(0)
    nodes = {"x": ep.Node((6,)), **{n: ep.Node((5,), ep.tanh) for n in "abc"}}
    shared = ep.Dense((5,), (5,))
    edges = [
        ep.Synapse("x", "a", ep.Dense((6,), (5,))),
        ep.Synapse("a", "b", shared, 0.2),
        ep.Synapse("b", "c", shared, 0.5),
    ]
    net = shrunk(ep.Network(nodes, edges, ep.SquaredError("c", (5,))))
    x, y = torch.randn(5, 6), torch.arange(5)
    assert amplification_from(net.landscape(x), ("c",)) == pytest.approx({"a": 10.0, "b": 2.0, "c": 1.0})
    model = ep.Equilibrium(net, ep.ImplicitDifferentiation(REST))
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(model.loss(x, y), list(net.parameters()))])
    assert relative(whole(estimate(net, x, y, ep.symmetric(1e-3), rule, ep.learning.force)), exact) < 1e-5


@pytest.mark.parametrize("rule", [ep.contrastive, ep.vector_field])
def test_a_loss_below_the_top_reaches_up_and_down(rule):
    base = network(0.3)
    net = shrunk(ep.Network(base.nodes, base.terms, ep.SquaredError("layer2", (20,))), 0.8)
    x, y = examples()[0], torch.randn(8, 20)
    model = ep.Equilibrium(net, ep.ImplicitDifferentiation(REST))
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(model.loss(x, y), list(net.parameters()))])
    assert relative(whole(estimate(net, x, y, ep.symmetric(1e-3), rule, ep.learning.force)), exact) < 1e-5


def bypass(gain_of_the_jump):
    torch.manual_seed(0)
    nodes = {"x": ep.Node((6,)), **{n: ep.Node((5,), ep.tanh) for n in "abc"}}
    edges = [ep.Synapse("x", "a", ep.Dense((6,), (5,)))]
    gains = {"ab": 0.5, "bc": 0.5, "ac": gain_of_the_jump}
    edges += [ep.Synapse(*way, ep.Dense((5,), (5,)), gain) for way, gain in gains.items()]
    return shrunk(ep.Network(nodes, edges, ep.SquaredError("c", (5,))))


def test_two_ways_need_the_same_gain():
    x, y = torch.randn(5, 6), torch.arange(5)
    net = bypass(0.25)
    model = ep.Equilibrium(net, ep.ImplicitDifferentiation(REST))
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(model.loss(x, y), list(net.parameters()))])
    assert relative(whole(estimate(net, x, y, ep.symmetric(1e-3), teacher=ep.learning.force)), exact) < 1e-5
    with pytest.raises(ep.InputError, match=r"two ways from c to '.*same product on every way"):
        estimate(bypass(0.5), x, y)
    with pytest.raises(ep.InputError, match="'layer2_layer3' has feedback gain 0"):
        estimate(network(0.0), *examples())


# Feedback weights of their own


def test_random_feedback_trains_the_forward_weights_alone_and_lowers_the_loss():
    """Detorakis et al. (2019)."""
    x, y = examples()
    net = network(0.1, separate=True)
    fixed = [t.feedback for t in net.terms.values() if isinstance(t, ep.energy.SeparateFeedback)]
    for feedback in fixed:
        feedback.requires_grad_(False)
    before = [p.clone() for feedback in fixed for p in feedback.parameters()]
    few = ep.FixedSweeps(8)
    model = ep.Equilibrium(net, ep.EquilibriumPropagation(CHL, few, few, teacher=ep.learning.clamp))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(100):
        optimiser.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    assert len(before) == 2
    for old, new in zip(before, (p for feedback in fixed for p in feedback.parameters()), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None
    assert all(p.grad is not None for p in learning(net).values())
    for rule in (ep.contrastive, ep.learning.kolen_pollack, ep.vector_field, *HALVES):
        assert estimate(net, x, y, rule=rule).keys() == learning(net).keys()


@pytest.mark.parametrize("rule", [ep.contrastive, *HALVES])
def test_feedback_that_is_the_transpose_makes_the_tied_network(rule):
    x, y = examples()
    apart, tied = network(0.3, separate=True), network(0.3)
    for term in apart.terms.values():
        if isinstance(term, ep.energy.SeparateFeedback):
            term.feedback.requires_grad_(False)
            for _, up, down in term.pairs():
                down.data.copy_(up)
    weights = {name.replace("feedforward.", ""): p for name, p in apart.named_parameters() if ".feedback." not in name}
    tied.load_state_dict(weights)
    found, expected = estimate(apart, x, y, rule=rule), estimate(tied, x, y, rule=rule)
    assert relative(whole(found), whole(expected)) < 1e-10


# Clamps elsewhere


@FORMS
def test_clamped_and_forced_convolutions_with_winners_and_silenced_units(form):
    """Weak feedback: both teachers follow the same gradient. An output with dropout is held as others see it."""
    x, y = torch.randn(5, 2, 6, 6), torch.arange(5) % 4

    def silenced_network(dropout):
        torch.manual_seed(1)
        layers = [
            ep.ConvLayer(3, activation=ep.tanh),
            ep.ConvLayer(4, pool=None, activation=ep.tanh, dropout=0.3),
            ep.DenseLayer(4, ep.identity, dropout=dropout),
        ]
        net = shrunk(ep.chain((2, 6, 6), layers, ep.SquaredError, feedback_gain=1e-4))
        masks = net.draw_masks(5)
        net.draw_masks = lambda batch: masks
        return net, masks

    net, _ = silenced_network(0.0)
    held, pushed = (
        whole(estimate(net, x, y, ep.symmetric(1e-3), teacher=teacher, form=form))
        for teacher in (ep.learning.clamp, ep.learning.force)
    )
    assert relative(held, pushed) < 1e-3
    net, masks = silenced_network(0.4)
    record, silenced = ep.Record(), masks["layer3"] == 0
    assert silenced.any()
    estimator = ep.EquilibriumPropagation(CHL, REST, REST, form=form, teacher=ep.learning.clamp)
    ep.Equilibrium(net, estimator).loss(x, y, record=record).backward()
    seen = net.landscape(x, masks).masked(record.nudged.state)["layer3"]
    torch.testing.assert_close(seen[~silenced], F.one_hot(y, 4).double()[~silenced], rtol=0, atol=1e-12)
    assert not seen[silenced].any()


@pytest.mark.parametrize("teacher", [ep.learning.clamp, ep.learning.soft_clamp], ids=["clamp", "soft"])
@pytest.mark.parametrize("make", [lambda: conv(ep.MaxPool(2)), dense, skip], ids=["conv", "dense", "skip"])
def test_forms_solvers_and_stacking_agree(make, teacher):
    base = make()
    last = list(base.free)[-1]
    net = ep.Network(base.nodes, base.terms, ep.SquaredError(last, base.nodes[last].shape))
    x, y = data(net)
    beta = 1e-4  # no winner switches
    whole_batch = whole(estimate(net, x, y, ep.symmetric(beta), teacher=teacher))
    for other in ({"form": ep.learning.forms.states}, {"solver": ep.FixedSweeps(150, ep.synchronous)}):
        assert relative(whole(estimate(net, x, y, ep.symmetric(beta), teacher=teacher, **other)), whole_batch) < 1e-7
    estimator = ep.EquilibriumPropagation(ep.symmetric(beta), REST, REST, teacher=teacher, stacked=False)
    apart = torch.autograd.grad(ep.Equilibrium(net, estimator).loss(x, y), list(net.parameters()))
    assert relative(torch.cat([g.flatten() for g in apart]), whole_batch) < 1e-9


def test_the_difference_form_keeps_what_weak_feedback_leaves_of_float32():
    """At gain 1e-3 the first layer moves by 1e-6 of itself."""
    x, y = examples()
    net = network(1e-3)
    exact = backpropagation(net, x, y, squared)
    net = net.float()
    errors = []
    for form in (ep.learning.forms.displacements, ep.learning.forms.states):
        found = estimate(net, x.float(), y.float(), form=form, solver=ep.FixedSweeps(20))
        errors.append(worst(relative, {name: value.double() for name, value in found.items()}, exact))
    assert errors[0] < 5e-3
    assert errors[1] > 2e-2


def test_weights_of_examples_scale_their_share_and_not_their_clamp():
    x, y = examples(batch=3)
    net, record = network(), ep.Record()
    estimator = ep.EquilibriumPropagation(ep.one_sided(0.5), REST, REST, teacher=ep.learning.clamp)
    weight = torch.tensor([1.0, 0.0, -2.0])
    model = ep.Equilibrium(net, estimator)
    found = torch.autograd.grad(model.loss(x, y, weight, record), list(net.parameters()))
    free, held = record.free.state["layer3"], record.nudged.state["layer3"]
    torch.testing.assert_close(held, free + 0.5 * (y - free), rtol=0, atol=1e-14)
    each = [torch.autograd.grad(model.loss(x[i : i + 1], y[i : i + 1]), list(net.parameters())) for i in range(3)]
    for share, *parts in zip(found, *each, strict=True):
        torch.testing.assert_close(share, sum(w * part for w, part in zip(weight, parts, strict=True)) / 3)


def test_targets_for_several_nodes_and_losses_further_on():
    base = network()
    loss = ep.energy.WeightedSum([ep.SquaredError("layer3", (5,)), ep.SquaredError("layer1", (20,))], [1.0, 0.25])
    net, record = ep.Network(base.nodes, base.terms, loss), ep.Record()
    (x, y), z = examples(), torch.rand(8, 20)
    estimator = ep.EquilibriumPropagation(CHL, REST, REST, teacher=ep.learning.clamp)
    ep.Equilibrium(net, estimator).loss(x, (y, z), record=record).backward()
    free, held = record.free.state, record.nudged.state
    torch.testing.assert_close(held["layer3"], y)
    torch.testing.assert_close(held["layer1"], free["layer1"] + 0.25 * (z - free["layer1"]))
    net = network(1e-4)
    model = ep.Equilibrium(net, ep.EquilibriumPropagation(CHL, REST, REST, teacher=ep.learning.clamp))
    gradients = torch.autograd.grad(squared(model(x), y).mean(), list(net.parameters()))
    expected = whole(estimate(net, x, y))
    # Behind the model a clamp moves its node by a length of 1: another finite nudge, at a gain of 1e-4.
    assert relative(torch.cat([g.flatten() for g in gradients]), expected) < 1e-3


def test_the_data_receive_the_gradient_of_backpropagation():
    (x, y), net = examples(), network(1e-4)
    leaf = x.clone().requires_grad_()
    ep.Equilibrium(net, ep.EquilibriumPropagation(CHL, REST, REST, teacher=ep.learning.clamp)).loss(leaf, y).backward()
    found = leaf.grad.clone()
    leaf.grad = None
    state = leaf
    for k, pre in enumerate(("input", "layer1", "layer2"), start=1):
        drive = net.couplings[f"{pre}_layer{k}"].map(state) + net.couplings[f"layer{k}_bias"].bias
        state = net.nodes[f"layer{k}"].unit.response(drive)
    squared(state, y).mean().backward()
    assert relative(found, leaf.grad) < 1e-3


@pytest.mark.parametrize("keep", [0.0, 0.4, 1.6])
@pytest.mark.parametrize("activation", [ep.identity, ep.tanh, ep.hard_sigmoid, LOGISTIC], ids=str)
def test_what_a_taught_node_does_is_an_activation(activation, keep):
    testing.check_unit(Towards(activation, torch.tensor(keep), torch.tensor(0.3)))


def test_what_cannot_be_held_says_so():
    x, y = examples()
    with pytest.raises(ep.InputError, match=r"ReadoutCrossEntropy does not say where to hold 'layer3'.*`force`"):
        estimate(dense(), *data(dense()))
    with pytest.raises(ep.InputError, match=r"soft_clamp divides by 1 \+ beta.*-1\.5"):
        estimate(network(), x, y, ep.one_sided(-1.5), teacher=ep.learning.soft_clamp)
    with pytest.raises(ep.InputError, match=r"units leave \[0, 1\]"):
        network(loss=ep.BinaryCrossEntropy)
    net = network(output=LOGISTIC, loss=ep.BinaryCrossEntropy)
    with pytest.raises(ep.InputError, match=r"values in \[0, 1\]"):
        estimate(net, x, 2 * y)
    with pytest.raises(ep.InputError, match="BinaryCrossEntropy wants int64 labels"):
        estimate(net, x, y[:, :3])
    with pytest.raises(ep.InputError, match="silently never learn"):
        estimate(network(separate=True), x, y, rule=ep.learning.generalised_recirculation)
