"""A comparison is said in words that lead to what to change."""

from functools import partial

import pytest
import torch

import eqprop as ep
from eqprop import diagnostics
from eqprop.diagnostics.verdict import verdict


@pytest.fixture
def network(double):
    layers = [ep.DenseLayer(8, ep.tanh), ep.DenseLayer(6, ep.tanh), ep.DenseLayer(3, ep.tanh)]
    network = ep.chain((5,), layers, ep.SquaredError)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return network


def said(network, beta, free, nudged):
    x, y = torch.randn(6, 5), torch.randint(3, (6,))
    settle = partial(ep.EquilibriumPropagation, free=ep.FixedSweeps(free), nudged=ep.FixedSweeps(nudged))
    estimators = {"own": settle(ep.symmetric(beta)), "exact": ep.InfinitesimalNudge(ep.FixedSweeps(free), damping=0.0)}
    stable = diagnostics.stability(network, estimators["own"], x, y)
    return verdict(diagnostics.compare(network, x, y, estimators), "own", "exact", stable=stable)


@pytest.mark.parametrize(
    ("beta", "free", "nudged", "begins", "holds"),
    [
        (0.01, 200, 200, "Verdict: good. Its cosine to the exact gradient is 1.0000", ""),
        (0.8, 400, 400, "biased by beta. ", "Take a smaller beta"),
        (0.01, 2, 200, "not settled. ", "Take more free sweeps"),
        (0.01, 200, 1, "not settled. ", "Take more nudged sweeps"),
        (1e-4, 200, 2, "not settled. ", "before the nudge had crossed the network"),
    ],
)
def test_what_is_wrong_comes_first_and_then_what_to_change(network, beta, free, nudged, begins, holds):
    text = said(network, beta, free, nudged)
    assert begins in text[: len("Verdict: usable, but ") + len(begins)]
    assert holds in text
    assert text.count("\n") == 0


def pair(weight, unit, bias=0.0):
    """Two units, one weight between them, and a bias of the first."""
    nodes = {"x": ep.Node((1,)), "a": ep.Node((1,), unit), "b": ep.Node((1,), unit)}
    couplings = [ep.Synapse("x", "a", ep.Dense((1,), (1,))), ep.Synapse("a", "b", ep.Dense((1,), (1,)))]
    network = ep.Network(nodes, couplings, ep.SquaredError("b", (1,)))
    with torch.no_grad():
        network.couplings["x_a"].map.weight.fill_(1)
        network.couplings["a_b"].map.weight.fill_(weight)
    return network.double()


@pytest.mark.parametrize("weight", [0.3, 0.9, 0.99])
def test_the_contraction_is_that_of_the_sweep(weight):
    """Of two linear units an alternating sweep multiplies what is left by the square of their weight."""
    network, x, y = pair(weight, ep.identity), torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1).double()
    settle = ep.UntilConverged(1e-10, 5000)
    found = diagnostics.stability(network, ep.EquilibriumPropagation(ep.symmetric(0.01), settle, settle), x, y)
    assert found.contraction == pytest.approx(weight**2, abs=1e-6)
    assert found.elsewhere == 0


@pytest.mark.parametrize(("damping", "begins"), [(0.0, "Verdict: good. "), (0.25, "Verdict: usable, but of uneven ")])
def test_a_gradient_of_the_right_direction_may_be_too_short_in_some_layers(double, damping, begins):
    """A leak of the linear phase leaves the read-out's gradient as it is."""
    couplings = pair(0.9, ep.identity).couplings
    nodes = {"x": ep.Node((1,)), "a": ep.Node((1,), ep.identity), "b": ep.Node((1,), ep.identity)}
    network = ep.Network(nodes, dict(couplings.items()), ep.ReadoutCrossEntropy("b", (1,), 2)).double()
    settle, x, y = ep.FixedSweeps(400), torch.ones(1, 1), torch.ones(1, dtype=torch.int64)
    estimators = {"own": ep.InfinitesimalNudge(settle, settle, damping=damping)}
    text = verdict(diagnostics.compare(network, x, y, estimators), "own")
    assert text.startswith(begins)
    shorter = (1 - 0.81) / (1.25 - 0.81 / 1.25) / 1.25  # of the unit that the input drives
    assert (f"Its length is {shorter:.2g} times that of the exact one in " in text) is bool(damping)
    assert ("1 times in loss.readout" in text) is bool(damping)


def test_a_network_that_is_nearly_unstable_is_called_so_rather_than_not_settled(double):
    network = ep.chain((5,), [ep.DenseLayer(6, ep.identity), ep.DenseLayer(4, ep.identity)], ep.SquaredError)
    weight = network.couplings["layer1_layer2"].map.weight
    with torch.no_grad():
        weight.mul_(0.99 / torch.linalg.matrix_norm(weight, 2))
    settle, x, y = ep.FixedSweeps(5), torch.randn(6, 5), torch.randn(6, 4)
    own = ep.EquilibriumPropagation(ep.symmetric(0.1), settle, settle)
    text = verdict(
        diagnostics.compare(network, x, y, {"own": own}), "own", stable=diagnostics.stability(network, own, x, y)
    )
    assert "near instability. " in text[:40]
    assert "shrinks a disturbance by 2 % only" in text


def test_a_nudge_that_throws_a_bistable_network_over_finds_a_wrong_equilibrium():
    """Two units that excite each other have two equilibria; a large nudge takes the state to the other one for good."""
    network, settle = pair(2.0, ep.tanh), ep.UntilConverged(1e-10, 5000)
    x, y = torch.full((4, 1), 0.05, dtype=torch.float64), torch.tensor([-1.0, -1.0, 1.0, 1.0]).double()[:, None]
    strong = ep.EquilibriumPropagation(ep.one_sided(20.0), settle, settle, form=ep.learning.forms.states)
    found = diagnostics.stability(network, strong, x, y)
    assert found.elsewhere == 0.5, "the two whose target is the other equilibrium"
    weak = ep.EquilibriumPropagation(ep.one_sided(0.01), settle, settle, form=ep.learning.forms.states)
    assert diagnostics.stability(network, weak, x, y).elsewhere == 0
    text = verdict(diagnostics.compare(network, x, y, {"own": strong}), "own", stable=found)
    assert "wrong equilibrium. " in text[:40]
    assert "50.0 % of the nudged states" in text
