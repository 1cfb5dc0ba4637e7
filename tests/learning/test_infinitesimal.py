"""The infinitesimal nudge is the exact gradient, on every network with energy; and says where it cannot be."""

import itertools

import pytest
import torch
from networks import NETWORKS, SETTLE, conv, data, dense, gradients, nudging, relative, shrunk, skip

import eqprop as ep
from eqprop.energy.gains import self_adjoint_weights
from eqprop.settling.displacement import tangent

pytestmark = pytest.mark.usefixtures("double")

SYMMETRIC = {name: make for name, make in NETWORKS.items() if "separate" not in name}
EXACT = {"damping": 0.0, "response": ep.settling.ConjugateGradients(200, 1e-13)}


@pytest.mark.parametrize("make", SYMMETRIC.values(), ids=SYMMETRIC.keys())
def test_it_equals_the_exact_gradient(make):
    network = make()
    x, y = data(network)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    for response in (ep.settling.ConjugateGradients(200, 1e-13), ep.FixedSweeps(400), ep.UntilConverged(1e-13, 1000)):
        found = gradients(network, ep.InfinitesimalNudge(SETTLE, response, 0.0), x, y)
        assert relative(found, exact) < 1e-8, response


@pytest.mark.parametrize("make", [lambda: dense(separate=True), lambda: conv(ep.MaxPool(2), separate=True)])
def test_with_separate_feedback_it_is_the_limit_of_the_vector_field_rule(make):
    network = make()
    x, y = data(network)
    found = gradients(network, ep.InfinitesimalNudge(SETTLE, SETTLE, 0.0), x, y)
    limit = gradients(network, nudging(ep.symmetric(1e-4), ep.vector_field), x, y)
    assert relative(found, limit) < 1e-5
    with pytest.raises(ep.InputError, match="not the transpose"):
        gradients(network, ep.InfinitesimalNudge(SETTLE), x, y)


@pytest.mark.parametrize("dropout", [(0.4, 0.0), (0.4, 0.0, 0.2), (0.0, 0.5, 0.3)])
def test_weights_dropout_and_a_loss_downstream_go_through_it(dropout):
    """Each node may drop out as it likes, those that the iteration runs on and those that it eliminates."""
    units = (9, 4) if len(dropout) == 2 else (9, 8, 4)
    layers = [ep.DenseLayer(n, ep.tanh, dropout=each) for n, each in zip(units, dropout, strict=True)]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError))
    x, y = data(network)
    weight = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    found = []
    for estimator in (ep.ImplicitDifferentiation(SETTLE), ep.InfinitesimalNudge(SETTLE, **EXACT)):
        torch.manual_seed(3)
        model = ep.Equilibrium(network, estimator).train()
        loss = model.loss(x, y, weight) + torch.nn.functional.cross_entropy(model(x), y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    assert relative(found[1], found[0]) < 1e-8


@pytest.mark.parametrize("dropout", [(0.4, 0.0, 0.0), (0.4, 0.0, 0.2), (0.0, 0.5, 0.3)])
def test_conjugate_gradients_end_in_as_few_iterations_where_nodes_drop_out(dropout):
    """One for each unit eliminated and one more, as for any symmetric system; a wrong inner product takes longer."""
    layers = [ep.DenseLayer(n, ep.tanh, dropout=each) for n, each in zip((9, 8, 4), dropout, strict=True)]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError))
    x, y = data(network)
    record = ep.Record()
    nudge = ep.InfinitesimalNudge(SETTLE, ep.settling.ConjugateGradients(200, 1e-9), 0.0)
    ep.Equilibrium(network, nudge).train().loss(x, y, record=record).backward()
    assert int(record.nudged.sweeps.max()) <= 9


def gained(network, gains):
    """The network with a feedback gain on each synapse, in turn."""
    synapses = [term for term in network.terms.values() if isinstance(term, ep.Synapse)]
    for synapse, gain in zip(synapses, itertools.cycle(gains), strict=False):
        synapse.feedback_gain, synapse.symmetric = gain, gain == 1
    return network


def triangle_with_gains():
    """A triangle whose two ways have the same product of gains, a node beside it, and a loss on two nodes."""
    nodes = {"x": ep.Node((6,)), **{n: ep.Node((5,), ep.tanh) for n in "abcd"}}
    edges = {"xa": 1.0, "ab": 0.2, "bc": 0.5, "ac": 0.1, "ad": 3.0}
    couplings = [ep.Synapse(*way, ep.Dense(nodes[way[0]].shape, (5,)), gain) for way, gain in edges.items()]
    return shrunk(ep.Network(nodes, couplings, ep.SquaredError("c", (5,))), 0.5)


def two_parts():
    """Two chains that share no free node; the loss is on one of them."""
    nodes = {"x": ep.Node((6,)), **{n: ep.Node((5,), ep.tanh) for n in "abcd"}}
    edges = {"xa": 1.0, "ab": 0.2, "xc": 1.0, "cd": 0.3}
    couplings = [ep.Synapse(*way, ep.Dense(nodes[way[0]].shape, (5,)), gain) for way, gain in edges.items()]
    return shrunk(ep.Network(nodes, couplings, ep.SquaredError("b", (5,))))


GAINED = {
    "dense": lambda: gained(dense(), (0.1, 0.03)),
    "dense, gains above 1": lambda: gained(dense(), (1.3, 0.5)),
    "max": lambda: gained(conv(ep.MaxPool(2)), (0.3, 0.1)),
    "soft": lambda: gained(conv(ep.energy.SoftPool(2)), (0.3,)),
    "triangle": triangle_with_gains,
    "two parts": two_parts,
}


@pytest.mark.parametrize("make", GAINED.values(), ids=GAINED.keys())
def test_conjugate_gradients_with_feedback_gains_give_the_exact_gradient(make):
    network = make()
    x, y = data(network)
    wanted = [p for name, p in network.named_parameters() if not name.startswith(("couplings.c", "couplings.xc"))]
    found = {}
    for name, estimator in {
        "exact": ep.ImplicitDifferentiation(SETTLE),
        "iterations": ep.InfinitesimalNudge(SETTLE, **EXACT),
        "sweeps": ep.InfinitesimalNudge(SETTLE, ep.FixedSweeps(400), 0.0),
    }.items():
        loss = ep.Equilibrium(network, estimator).loss(x, y)
        found[name] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)])
    assert relative(found["iterations"], found["exact"]) < 1e-8
    assert relative(found["iterations"], found["sweeps"]) < 1e-8


def test_with_feedback_gains_they_end_in_as_few_iterations():
    """One for each unit eliminated and one more; an inner product without the gains takes longer, or never ends."""
    layers = [ep.DenseLayer(n, ep.tanh) for n in (9, 8, 4)]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError, feedback_gain=0.2))
    x, y = data(network)
    record = ep.Record()
    nudge = ep.InfinitesimalNudge(SETTLE, ep.settling.ConjugateGradients(200, 1e-9), 0.0)
    ep.Equilibrium(network, nudge, "raise").loss(x, y, record=record).backward()
    assert int(record.nudged.sweeps.max()) <= 9


def test_of_twelve_weak_layers_the_first_learns_in_float32():
    """Displacements fall as gain^12 = 5e-19, whose squares no float32 can hold."""
    torch.manual_seed(0)
    network = ep.chain((6,), [ep.DenseLayer(8, ep.tanh) for _ in range(12)], ep.SquaredError, feedback_gain=0.03)
    x, y = torch.randn(5, 6), torch.arange(5)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    found = gradients(network.float(), ep.InfinitesimalNudge(SETTLE, ep.settling.ConjugateGradients(40)), x.float(), y)
    first = slice(0, 48)  # the weights of the first layer
    assert relative(found[first], exact[first]) < 2e-3


@pytest.mark.parametrize("make", SYMMETRIC.values(), ids=SYMMETRIC.keys())
def test_without_gains_no_number_is_weighted(make):
    """So that conjugate gradients are, bit by bit, those of the plain inner product."""
    network = make()
    scene = network.landscape(data(network)[0])
    assert set(self_adjoint_weights(scene, network.loss.nodes).values()) == {1.0}


def test_gains_without_an_inner_product_are_refused():
    for network, words in (
        (gained(skip(), (0.5,)), "same product on every way"),
        (gained(dense(), (1.0, -0.5)), "'layer1' has a negative gain"),
    ):
        with pytest.raises(ep.InputError, match=words):
            gradients(network, ep.InfinitesimalNudge(SETTLE, **EXACT))


def test_conjugate_gradients_end_where_relaxation_ends_and_sooner():
    network = conv(ep.MaxPool(2))
    x, _ = data(network)
    with torch.no_grad():
        scene = network.landscape(x)
        state = SETTLE(scene, scene.zeros()).state
        force = {"layer3": torch.randn_like(state["layer3"])}
        moved = tangent(scene, state, force)
        end = ep.FixedSweeps(500)(moved, moved.zeros()).state
        gaps = []
        for solver in (ep.settling.ConjugateGradients(4, 0.0), ep.FixedSweeps(4)):
            found = solver(moved, moved.zeros()).state
            gaps.append(max(float((found[n] - end[n]).abs().max()) for n in end))
        assert gaps[0] < gaps[1]
        whole = ep.settling.ConjugateGradients(100, 1e-14)(moved, moved.zeros())
    assert not whole.unstable.any()
    for node, value in end.items():
        torch.testing.assert_close(whole.state[node], value, rtol=0, atol=1e-11)


def test_an_example_at_no_stable_equilibrium_is_reported_and_hurts_no_other():
    """A coupling strong enough to make the Hessian indefinite for the example whose units are not saturated."""
    network = ep.chain((3,), [ep.DenseLayer(3, ep.tanh), ep.DenseLayer(3, ep.tanh)], ep.SquaredError)
    with torch.no_grad():
        network.terms["layer1_layer2"].map.weight.copy_(3 * torch.eye(3))
        network.terms["input_layer1"].map.weight.copy_(5 * torch.eye(3))
        for name in ("layer1_bias", "layer2_bias"):
            network.terms[name].bias.zero_()
        scene = network.landscape(torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]))
        state = SETTLE(scene, scene.zeros()).state  # zero, a saddle, and a saturated rest
        force = {"layer2": torch.ones(2, 3)}
        moved = tangent(scene, state, force)
        settled = ep.settling.ConjugateGradients(50)(moved, moved.zeros())
        second = network.landscape(torch.tensor([[2.0, 2.0, 2.0]]))
        lonely = tangent(second, {n: v[1:] for n, v in state.items()}, {"layer2": torch.ones(1, 3)})
        alone = ep.settling.ConjugateGradients(50)(lonely, lonely.zeros())
        damped = tangent(scene, state, force, damping=4.0)
        cured = ep.settling.ConjugateGradients(50)(damped, damped.zeros())
    assert settled.unstable.tolist() == [True, False]
    assert all(value.isfinite().all() for value in settled.state.values())
    for node, value in alone.state.items():
        torch.testing.assert_close(settled.state[node][1:], value)
    assert not cured.unstable.any()


def test_a_landscape_that_is_not_linear_is_refused():
    network = dense()
    x, _ = data(network)
    scene = network.landscape(x)
    with pytest.raises(ep.InputError, match="tangent"):
        ep.settling.ConjugateGradients(3)(scene, scene.zeros())
