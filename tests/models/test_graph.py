"""Networks from nodes and edges, and the chains that are built of them."""

import pytest
import torch
from networks import relative, shrunk
from torch import nn

import eqprop as ep

IMAGE = ep.Node((4, 6, 6), ep.tanh)


def residual(blocks=4, layer=None, **options):
    """A convolution, ``blocks`` of two convolutions each with a skip over them, and a dense read-out."""
    layer = layer or ep.ConvLayer(4, pool=None)
    inner = [f"h{i}" for i in range(2 * blocks + 1)]
    nodes = {"x": (2, 6, 6), **dict.fromkeys(inner, IMAGE), "y": ep.Node((3,), ep.identity)}
    edges = [(a, b, layer) for a, b in zip(["x", *inner], inner, strict=False)]
    edges += [(inner[i], inner[i + 2]) for i in range(0, 2 * blocks, 2)]
    return ep.graph(nodes, [*edges, (inner[-1], "y", ep.Dense)], ep.SquaredError, **options)


def batch(network):
    torch.manual_seed(1)
    x = {name: torch.randn(5, *network.nodes[name].shape, dtype=torch.float64) for name in network.clamped}
    return x, torch.arange(5) % 3


def gradients(network, estimator, x, y):
    found = torch.autograd.grad(ep.Equilibrium(network, estimator).loss(x, y), list(network.parameters()))
    return torch.cat([each.flatten() for each in found])


def test_the_estimators_agree_on_a_residual_network():
    torch.manual_seed(0)
    network = shrunk(residual(), 0.5).double()
    assert (
        sum(isinstance(c, ep.Synapse) and not isinstance(c.map, ep.energy.Skip) for c in network.terms.values()) == 10
    )
    x, y = batch(network)
    settle = ep.UntilConverged(1e-13, 2000)
    assert not ep.Equilibrium(network, ep.ImplicitDifferentiation(settle)).settle(x).status.any()
    exact = gradients(network, ep.ImplicitDifferentiation(settle), x, y)
    for estimator in (
        ep.EquilibriumPropagation(ep.symmetric(1e-3), settle, settle),
        ep.EquilibriumPropagation(ep.symmetric(1e-3), settle, settle, form=ep.learning.forms.states),
        ep.InfinitesimalNudge(settle, ep.settling.ConjugateGradients(400, 1e-12)),
    ):
        assert relative(gradients(network, estimator, x, y), exact) < 1e-4, estimator


def test_the_skips_carry_activity():
    torch.manual_seed(0)
    network = residual()
    names = [name for name, c in network.terms.items() if isinstance(getattr(c, "map", None), ep.energy.Skip)]
    assert names == ["h0_h2", "h2_h4", "h4_h6", "h6_h8"]
    x, settle = torch.randn(4, 2, 6, 6), ep.FixedSweeps(40)
    states = ep.Equilibrium(network, ep.ImplicitDifferentiation(settle), on_unsettled="ignore").settle(x).state
    scene = network.landscape(x)
    with torch.no_grad():
        for name in names:
            pre, post = network.couplings[name].nodes
            rest = scene.only({n: term for n, term in scene.terms.items() if n != name})
            torch.testing.assert_close(scene.drive(states, post) - rest.drive(states, post), states[pre])
            torch.testing.assert_close(scene.drive(states, pre) - rest.drive(states, pre), states[post])


def test_a_chain_is_a_graph_with_the_same_weights():
    layers = [ep.ConvLayer(3), ep.ConvLayer(4, kernel=2, groups=1, dropout=0.2), ep.DenseLayer(5, ep.tanh)]
    for separate in (False, True):
        torch.manual_seed(0)
        chain = ep.chain((2, 9, 9), layers, ep.SquaredError, separate, 0.5)
        torch.manual_seed(0)
        maps, biases, shape = {}, {}, (2, 9, 9)
        for i, layer in enumerate(layers):
            maps[f"layer{i + 1}"] = [layer.map(shape).weight for _ in range(1 + (separate and i > 0))]
            shape = chain.nodes[f"layer{i + 1}"].shape
            biases[f"layer{i + 1}"] = ep.Bias("n", shape, ep.energy.maps.fan_in(maps[f"layer{i + 1}"][0])).bias
        found = list(chain.parameters())
        expected = [w for name in maps for w in (*maps[name], biases[name])]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert list(chain.nodes) == ["input", "layer1", "layer2", "layer3"]
        names = ["input_layer1", "layer1_bias", "layer1_layer2", "layer2_bias", "layer2_layer3", "layer3_bias"]
        assert list(chain.terms) == names
        assert [node.dropout for node in chain.nodes.values()] == [0, 0, 0.2, 0]
        assert chain.couplings["layer1_layer2"].symmetric is False


def test_what_an_edge_may_be():
    """A map, a module, a layer, a class, a function: and several inputs, several edges between two nodes."""
    nodes = {"u": (5,), "v": (3, 4, 4), "a": ep.Node((8,), ep.tanh), "b": None, "a_b": ep.Node((6,), ep.tanh)}
    tied = ep.Dense((8,), (6,))
    edges = [
        ("u", "a", nn.Linear(5, 8)),
        ("v", "a", nn.Sequential(nn.Flatten(), nn.Linear(48, 8))),
        ("a", "b", ep.DenseLayer(6, ep.sigmoid)),
        ("a", "b", tied),
        ("a", "b", lambda below, above: nn.Linear(below[0], above[0], bias=False)),
        ("a", "a_b", ep.Dense),
        ("b", "a_b"),
        ("v", "a_b", ep.Dense),
        ("u", "b", ep.Dense),
    ]
    network = ep.graph(nodes, edges, ep.SquaredError)
    assert list(network.terms) == [
        *("u_a", "v_a", "a_bias", "a_b", "a_b_2", "a_b_3", "u_b", "b_bias", "a_a_b", "b_a_b", "v_a_b", "a_b_bias")
    ]
    assert network.nodes["b"] == ep.Node((6,), ep.sigmoid)
    assert network.clamped == ("u", "v")
    assert network.output == "a_b"
    assert network.couplings["a_b_2"].map is tied
    x, _ = batch(network.double())
    settle = ep.UntilConverged(1e-12, 500)
    y = torch.randn(5, 6, dtype=torch.float64)
    exact = gradients(network, ep.ImplicitDifferentiation(settle), x, y)
    nudged = ep.EquilibriumPropagation(ep.symmetric(1e-3), settle, settle)
    assert relative(gradients(network, nudged, x, y), exact) < 1e-4


def test_a_bias_has_the_fan_in_of_the_first_edge_with_weights():
    nodes = {"x": (4,), "z": (100,), "a": ep.Node((4,), ep.tanh), "b": ep.Node((4,), ep.tanh)}
    torch.manual_seed(0)
    network = ep.graph(nodes, [("x", "a"), ("z", "a", ep.Dense), ("a", "b")])
    torch.manual_seed(0)
    dense = ep.Dense((100,), (4,)).weight
    a, b = ep.Bias("a", (4,), 100).bias, ep.Bias("b", (4,)).bias
    for found, expected in zip(network.parameters(), (dense, a, b), strict=True):
        assert torch.equal(found, expected)


def test_edges_may_come_from_a_generator():
    nodes, edges = {"x": (4,), "a": None, "b": None}, [("x", "a", ep.DenseLayer(3)), ("a", "b", ep.DenseLayer(2))]
    names = ["x_a", "a_bias", "a_b", "b_bias"]
    assert list(ep.graph(nodes, (edge for edge in edges)).terms) == names
    assert list(ep.graph(nodes, edges=iter(edges)).terms) == names


def test_separate_feedback_where_there_are_weights_between_free_nodes():
    network = residual(1, separate_feedback=True, feedback_gain=0.5)
    kinds = {name: type(c).__name__ for name, c in network.terms.items() if "bias" not in name}
    synapse, both = "Synapse", "SeparateFeedback"
    assert kinds == {"x_h0": synapse, "h0_h1": both, "h0_h2": synapse, "h1_h2": both, "h2_y": both}
    assert not torch.equal(*[p for n, p in network.couplings["h0_h1"].named_parameters()])
    assert network.couplings["h0_h2"].feedback_gain == 0.25, "two edges are skipped"
    assert network.couplings["h0_h1"].feedback.feedback_gain == 0.5


NODES = {"x": (4,), "a": ep.Node((4,), ep.tanh), "b": ep.Node((3,), ep.tanh)}


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ([("x", "a"), ("a", "b")], r"'a' -> 'b'.*\(4,\) -> \(4,\).*\(4,\) -> \(3,\).*Dense"),
        ([("x", "a"), ("a", "b", ep.Dense((4,), (4,)))], "'a' -> 'b'.*change the map"),
        ([("x", "a"), ("a", "b", ep.Dense((3,), (3,)))], "'a' -> 'b'.*change the map"),
        ([("x", "a"), ("a", "b", ep.DenseLayer(5))], "'a' -> 'b'.*change the map"),
        ([("x", "a"), ("a", "b", ep.ConvLayer(5))], "'a' -> 'b'.*channels, height, width"),
        ([("x", "a"), ("a", "b", nn.Linear(7, 3))], "'a' -> 'b'.*does not accept"),
        ([("x", "a"), ("a", "b", nn.Linear)], "'a' -> 'b'.*Linear"),
        ([("x", "a"), ("a", "b", torch.relu)], "'a' -> 'b'.*relu"),
        ([("x", "a"), ("a", "b", lambda m, n: 3)], "'a' -> 'b'.*int"),
        ([("x", "a"), ("a", "c", ep.Dense)], "'a' -> 'c' .*'x', 'a', 'b'"),
        (iter([("x", "a"), ("a",)]), r"edges must be .*, not \[\('a',\)\]"),
        ([("x", "a"), "ab"], r"edges must be .*, not \['ab'\]"),
        ([("x", "a"), ("a", "a", ep.Dense)], "'a' -> 'a'.*itself"),
        ([("x", "a")], "No edge reaches node 'b'"),
    ],
)
def test_errors_name_the_edge_and_the_way_out(edges, says):
    with pytest.raises(ep.InputError, match=says):
        ep.graph(NODES, edges)


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ([("x", "a", ep.Dense), ("a", "b", ep.DenseLayer(3))], "'x' -> 'a'.*give it a Node"),
        ([("b", "a", ep.DenseLayer(3)), ("x", "b", ep.DenseLayer(3))], "'b' -> 'a'.*what 'b' is.*first"),
        ([("x", "b", ep.DenseLayer(3))], "No edge reaches node 'a'"),
    ],
)
def test_errors_of_nodes_that_layers_make(edges, says):
    with pytest.raises(ep.InputError, match=says):
        ep.graph({"x": (4,), "a": None, "b": None}, edges)


def test_a_module_cannot_feed_back_by_weights_of_its_own():
    with pytest.raises(ep.InputError, match=r"'a' -> 'b'.*second map"):
        ep.graph(NODES, [("x", "a"), ("a", "b", ep.Dense((4,), (3,)))], separate_feedback=True)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss, lambda n, s: 3, torch.relu])
def test_what_makes_no_loss_is_refused(loss):
    with pytest.raises(ep.InputError, match="Loss"):
        ep.chain((4,), [ep.DenseLayer(2)], loss)


def test_a_network_without_a_free_node_is_refused():
    with pytest.raises(ep.InputError, match="no free node"):
        ep.graph({"x": (4,), "z": (4,)}, [("x", "z")], ep.SquaredError)
