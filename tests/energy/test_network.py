"""Networks say what does not fit, and landscapes are what they say."""

import copy
from types import SimpleNamespace

import pytest
import torch

import eqprop as ep
from eqprop.energy.landscape import colouring

NODES = {"x": ep.Node((3,)), "a": ep.Node((4,), ep.tanh), "b": ep.Node((2,), ep.tanh)}


def synapse(pre="x", post="a", shapes=NODES):
    return ep.Synapse(pre, post, ep.Dense(shapes[pre].shape, shapes[post].shape))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ep.Network(NODES, [synapse(), ep.Synapse("a", "outpt", ep.Dense((4,), (2,)))]), "outpt"),
        (lambda: ep.Network(NODES, [synapse()]), r"No coupling reaches \['b'\]"),
        (lambda: ep.Network(NODES, [synapse(), synapse(), synapse("a", "b")]), "named 'x_a'"),
        (lambda: ep.Network(NODES, {"p": (s := synapse()), "q": s, "r": synapse("a", "b")}), "twice"),
        (lambda: ep.Network(NODES, [synapse(), ep.Synapse("a", "b", ep.Dense((5,), (2,)))]), r"\(5,\)"),
        (lambda: ep.Network(NODES, [synapse(), synapse("a", "b")], ep.SquaredError("b", (3,))), r"\(3,\)"),
        (lambda: ep.Network(NODES, [synapse(), synapse("a", "b")], ep.SquaredError("x", (3,))), "held at the data"),
        (lambda: ep.Network({"x": NODES["x"]}, []), "no free node"),
        (lambda: ep.Network(NODES, [synapse(), ep.Synapse("a", "b", torch.nn.Linear(9, 2))]), "does not accept"),
        (lambda: ep.chain((1, 4, 4), [ep.ConvLayer(2), ep.ConvLayer(2, kernel=5, padding=0)]), "layer2.*does not fit"),
        (lambda: ep.chain((4,), [ep.ConvLayer(2)]), "channels, height, width"),
        (lambda: ep.chain((4,), []), "at least one layer"),
        (lambda: ep.Synapse("a", "a", ep.Dense((4,), (4,))), "itself"),
        (lambda: ep.Convolution((3, 8, 8), 4, groups=2), "groups 2"),
        (lambda: ep.Node((0,)), "no units"),
        (lambda: ep.Node((2,), dropout=1.0), "dropout 1.0"),
        (lambda: ep.models.parameter_groups(ep.chain((4,), [ep.DenseLayer(2)]), [0.1, 0.2]), "2 learning rates"),
    ],
)
def test_errors_name_the_thing(make, says):
    with pytest.raises(ep.InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (torch.zeros(2, 5), torch.tensor([0, 1]), r"\(2, 5\)"),
        (torch.zeros(4), torch.tensor([0]), r"\(4,\)"),
        (torch.zeros(2, 4, dtype=torch.uint8), torch.tensor([0, 1]), "uint8"),
        (torch.zeros(2, 4), torch.tensor([0, 7]), "Label 7"),
        (torch.zeros(2, 4), torch.tensor([0, -1]), "Label -1"),
        (torch.zeros(2, 4), torch.tensor([0]), r"\(2,\)"),
        (torch.zeros(2, 4), torch.zeros(2, 9), r"\(2, 9\)"),
    ],
)
def test_data_that_do_not_fit_are_refused(x, y, says):
    free = ep.FixedSweeps(1)
    network = ep.chain((4,), [ep.DenseLayer(3)], ep.SquaredError)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), free, free))
    with pytest.raises(ep.InputError, match=says):
        model.loss(x, y)


def test_colouring():
    def colours(nodes, *edges):
        return colouring(nodes, [SimpleNamespace(nodes=edge) for edge in edges])

    assert colours("abcd", "ab", "bc", "cd") == (("a", "c"), ("b", "d"))
    assert len(colours("abc", "ab", "bc", "ac")) == 3
    assert len(colours("abc", "abc")) == 3
    assert colours("ab", "a", "b") == (("a", "b"),)


def test_terms_and_nodes_sum_to_the_energy_and_a_separate_feedback_has_none():
    network = ep.chain((4,), [ep.DenseLayer(3, ep.tanh), ep.DenseLayer(2, ep.tanh)])
    scene = network.landscape(torch.randn(5, 4))
    state = {"layer1": torch.rand(5, 3), "layer2": torch.rand(5, 2)}
    own, terms = scene.node_energies(state), scene.term_energies(state)
    assert set(own) == {"layer1", "layer2"}
    assert set(terms) == set(network.terms)
    torch.testing.assert_close(sum(own.values()) + sum(terms.values()), scene.energy(state))
    apart = ep.chain((4,), [ep.DenseLayer(3, ep.tanh), ep.DenseLayer(2, ep.tanh)], separate_feedback=True)
    with pytest.raises(ep.InputError, match="no energy"):
        apart.landscape(torch.randn(5, 4)).energy(state)


def test_dropout_silences_units_and_stays_an_energy():
    torch.manual_seed(0)
    layers = [ep.DenseLayer(50, ep.tanh, dropout=0.4), ep.DenseLayer(3, ep.tanh)]
    network = ep.chain((4,), layers, ep.SquaredError).double()
    masks = network.draw_masks(200)
    assert list(masks) == ["layer1"]
    assert abs(float(masks["layer1"].mean()) - 0.6) < 0.03
    scene = network.landscape(torch.randn(200, 4, dtype=torch.float64), masks)
    with torch.no_grad():
        state = ep.FixedSweeps(200)(scene, scene.zeros()).state
    assert not state["layer1"][masks["layer1"] == 0].any()
    leaves = {node: value.clone().requires_grad_() for node, value in state.items()}
    slopes = torch.autograd.grad(scene.energy(leaves).sum(), list(leaves.values()))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-10


def test_dropout_learns_the_gradient_of_what_it_settled():
    layers = [ep.DenseLayer(9, ep.tanh, dropout=0.4), ep.DenseLayer(3, ep.tanh)]
    torch.manual_seed(0)
    network = ep.chain((4,), layers, ep.SquaredError).double()
    x, y, settle = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3, ep.FixedSweeps(300)
    found = []
    for estimator in (
        ep.ImplicitDifferentiation(settle),
        ep.BackpropagationThroughTime(settle, 150),
        ep.EquilibriumPropagation(ep.symmetric(1e-3), settle, settle),
    ):
        torch.manual_seed(7)  # the same masks
        model = ep.Equilibrium(network, estimator).train()
        gradients = torch.autograd.grad(model.loss(x, y), list(network.parameters()))
        found.append(torch.cat([g.flatten() for g in gradients]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-6)
    torch.manual_seed(7)
    model = ep.Equilibrium(network, estimator)
    with torch.no_grad():
        assert float(model.eval().loss(x, y)) != pytest.approx(float(model.train().loss(x, y)))


def test_a_network_is_an_ordinary_module():
    settle = ep.FixedSweeps(5)
    model = ep.Equilibrium(
        ep.chain((1, 6, 6), [ep.ConvLayer(2)], lambda n, s: ep.ReadoutCrossEntropy(n, s, 3)),
        ep.EquilibriumPropagation(ep.learning.RandomSign(0.1), settle, settle),
    )
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert twin.estimator.nudging.generator is not model.estimator.nudging.generator
    x = torch.randn(1, 1, 6, 6)
    torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)
    model = model.double()
    model.loss(x.double(), torch.tensor([2])).backward()  # a batch of one
    assert all(p.grad.dtype == torch.float64 for p in model.parameters())
    with torch.no_grad():
        assert not model(x.double()).requires_grad
    assert len(ep.models.parameter_groups(model.network, [0.1, 0.2])) == 2


def test_some_examples_rebuilt_carry_the_graph_of_their_own_data():
    """As the whole rebuilt and then taken, at the cost of those examples."""
    torch.manual_seed(0)
    network = ep.chain((4,), [ep.DenseLayer(5, ep.tanh), ep.DenseLayer(3, ep.tanh)]).double()
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    rows, again = torch.tensor([4, 1, 2]), torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        scene = network.landscape(x)
    state = {name: torch.rand(4, *node.shape, dtype=torch.float64) for name, node in network.free.items()}
    wanted = [x, *network.parameters()]
    few, all_of_them = scene.select(rows).rebuilt(), scene.rebuilt().select(rows)
    assert len(few.zeros()["layer1"]) == 3
    found = [torch.autograd.grad(each.select(again).energy(state).sum(), wanted) for each in (few, all_of_them)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
        assert one.any()
    other = scene.with_term("more", ep.Bias("layer2", (3,)).double()).select(rows)  # terms that are held, not built
    torch.testing.assert_close(
        other.rebuilt().select(again).energy(state), other.select(again).energy(state), rtol=0, atol=1e-14
    )
