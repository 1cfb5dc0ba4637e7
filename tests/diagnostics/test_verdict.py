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
    return verdict(diagnostics.compare(network, x, y, estimators), "own", "exact")


@pytest.mark.parametrize(
    ("beta", "free", "nudged", "begins", "holds"),
    [
        (0.01, 200, 200, "Verdict: good, a cosine of 1.0000", ""),
        (0.8, 400, 400, "Verdict: ", "take a smaller beta"),
        (0.01, 2, 200, "Verdict: ", "take more free sweeps"),
        (0.01, 200, 1, "Verdict: ", "take more nudged sweeps"),
    ],
)
def test_what_to_change(network, beta, free, nudged, begins, holds):
    text = said(network, beta, free, nudged)
    assert text.startswith(begins)
    assert holds in text
    assert text.count("\n") == 0
