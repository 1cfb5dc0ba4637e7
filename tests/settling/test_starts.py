"""The feedforward start: what it is, and that it changes where settling begins and nothing else."""

import pytest
import torch
from networks import chain, start, triangle

import eqprop as ep
from eqprop.settling.starts import feedforward


@pytest.mark.parametrize("separate", [False, True])
def test_it_is_the_pass_of_an_ordinary_network(separate):
    torch.manual_seed(0)
    layers = [ep.ConvLayer(3, activation=ep.tanh, dropout=0.3), ep.ConvLayer(4, padding=0), ep.DenseLayer(5, ep.tanh)]
    network = ep.chain((2, 8, 8), layers, separate_feedback=separate).double()
    x = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    masks = network.draw_masks(4)
    scene = network.landscape(x, masks)
    with torch.no_grad():
        found = feedforward(scene, scene.zeros())
        below = x
        for (name, node), layer in zip(
            network.free.items(), ("input_layer1", "layer1_layer2", "layer2_layer3"), strict=True
        ):
            term = network.terms[layer]
            map = term.feedforward.map if isinstance(term, ep.energy.SeparateFeedback) else term.map
            drive = map(below) + network.terms[f"{name}_bias"].bias
            mask = masks.get(name, torch.ones(()))
            expected = node.unit.response(mask * drive)
            torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-12)
            below = mask / (1 - node.dropout) * expected if name in masks else expected


def test_a_node_hears_those_before_it_alone():
    """On a triangle of nodes: the first hears the data, the second the first, the third both."""
    network = triangle()
    scene, state = start(network)
    with torch.no_grad():
        found = feedforward(scene, state)
        maps = {name: term.map for name, term in network.terms.items()}
        a = scene.only({n: t for n, t in scene.terms.items() if t.nodes == ("a",)}).step(state, ["a"])["a"]
        b = torch.tanh(maps["a_b"](a))
        expected = {"a": a, "b": b, "c": torch.tanh(maps["a_c"](a) + maps["b_c"](b))}
    for node, value in expected.items():
        torch.testing.assert_close(found[node], value, rtol=0, atol=1e-12)


def test_it_comes_to_the_same_rest():
    scene, state = start(chain(3))
    with torch.no_grad():
        rest = ep.UntilConverged(1e-13, 2000)(scene, scene.zeros()).state
        found = ep.FromFeedforward(ep.UntilConverged(1e-13, 2000))(scene, state)
    for node, value in rest.items():
        torch.testing.assert_close(found.state[node], value, rtol=0, atol=1e-11)


def test_from_a_state_another_solver_goes_on_in_the_landscapes_precision():
    torch.manual_seed(0)
    network = ep.chain((4,), [ep.DenseLayer(6, ep.tanh), ep.DenseLayer(3, ep.tanh)])
    x = torch.randn(5, 4)
    with torch.no_grad():
        landscape = network.landscape(x)
        first = ep.FixedSweeps(3)(landscape, landscape.zeros()).state
        both = ep.FixedSweeps(7)(landscape, landscape.zeros()).state
        on = ep.settling.FromState(first, ep.FixedSweeps(4))
        for node, value in on(landscape, landscape.zeros()).state.items():
            assert torch.equal(value, both[node])
        fine = network.double().landscape(x.double())
        assert {value.dtype for value in on(fine, fine.zeros()).state.values()} == {torch.float64}
