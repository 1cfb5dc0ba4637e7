"""A residual network of nine layers, by ``graph``."""

import copy

import pytest
import torch
from every_estimator import EXACT, REST, gradients, relative
from pages import section

import eqprop as ep

pytestmark = pytest.mark.skipif(not hasattr(ep, "graph"), reason="this version has no graph(nodes, edges)")


def test_it_learns_the_exact_gradient():
    network = copy.deepcopy(section("A residual network").network).double()
    maps = [each for each in network.terms.values() if isinstance(each, ep.Synapse)]
    assert sum(bool(list(each.parameters())) for each in maps) == 9
    assert sum(not list(each.parameters()) for each in maps) == 3
    torch.manual_seed(1)
    x, y = torch.rand(4, 3, 4, 4, dtype=torch.float64), torch.arange(4)
    right = gradients(network, EXACT, x, y)
    for each in (
        ep.EquilibriumPropagation(ep.symmetric(1e-3), REST, REST),
        ep.InfinitesimalNudge(REST, ep.settling.ConjugateGradients(300, 1e-12)),
    ):
        assert relative(gradients(network, each, x, y), right) < 1e-4


def test_skips_carry_the_signal():
    """Without the middle of the chain, its input still moves its output."""
    network = section("A residual network").network
    with torch.no_grad():
        for name in ("h1_h2", "h3_h4", "h5_h6"):
            network.couplings[name].map.weight.zero_()
    model = ep.Equilibrium(network, ep.InfinitesimalNudge(ep.FixedSweeps(60)), "ignore")
    x = torch.rand(1, 3, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    assert float(slope.abs().max()) > 0
