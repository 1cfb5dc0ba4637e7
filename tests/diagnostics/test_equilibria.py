"""Equilibria are counted where their number is known."""

import math

import pytest
import torch

import eqprop as ep
from eqprop import diagnostics


def rivals(weight, bias=1.0):
    """Two units, each pushed by ``bias`` and held down by the other: for weight -2, either can win."""
    nodes = {"x": ep.Node((1,)), "a": ep.Node((1,), ep.hard_sigmoid), "b": ep.Node((1,), ep.hard_sigmoid)}
    couplings = [ep.Synapse("x", "a", ep.Dense((1,), (1,))), ep.Synapse("a", "b", ep.Dense((1,), (1,)))]
    couplings += [ep.Bias(n, (1,)) for n in ("a", "b")]
    network = ep.Network(nodes, couplings)
    with torch.no_grad():
        network.couplings["a_b"].map.weight.fill_(weight)
        network.couplings["x_a"].map.weight.fill_(1)
        for n in ("a", "b"):
            network.couplings[f"{n}_bias"].bias.fill_(bias)
    return network


def test_a_contraction_has_one():
    torch.manual_seed(0)
    network = ep.chain((4,), [ep.DenseLayer(6, ep.tanh), ep.DenseLayer(3, ep.tanh)])
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(0.5)
    found = diagnostics.equilibria(network, torch.randn(5, 4))
    assert found.counts == (1,) * 5
    assert found.distances == (0.0,) * 5
    assert len(found.ways) == 8
    assert set(found.at_rest.values()) == {1.0}
    assert str(found).startswith("0 of 5 examples")


def test_rivals_have_two_and_what_never_rests_is_left_out():
    x = torch.tensor([[0.0], [5.0]])  # in the second example the first unit wins whatever the order
    found = diagnostics.equilibria(rivals(-2.0), x, most=100)
    assert found.counts == (2, 1)
    assert found.distances == (pytest.approx(math.sqrt(2)), 0.0)
    assert found.at_rest["synchronous from zero"] == 0.5  # both at once, up and down for ever
    assert found.at_rest["backward from zero"] == 1.0
    assert "1 of 2 examples have more than one equilibrium (up to 2 found" in str(found)
    assert "50 % by synchronous from zero" in str(found)


def test_only_the_given_orders_are_tried():
    x = torch.zeros(1, 1)
    assert diagnostics.equilibria(rivals(-2.0), x, {"forward": ep.settling.forward_order}).counts == (1,)
    assert diagnostics.equilibria(rivals(-2.0), x, {"synchronous": ep.synchronous}, most=100).counts == (
        1,
    )  # from feedforward
    assert diagnostics.equilibria(rivals(-2.0), x, apart=2.0, most=100).counts == (1,)
    with pytest.raises(ep.InputError, match="no order of sweeps"):
        diagnostics.equilibria(rivals(-2.0), x, {})
