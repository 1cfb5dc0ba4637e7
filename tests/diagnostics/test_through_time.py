"""Nudged sweeps and backpropagation through time, step by step."""

from functools import partial

import pytest
import torch

import eqprop as ep
from eqprop import diagnostics
from eqprop.diagnostics.gradients import estimate


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def chain(activation=ep.tanh, pool=None, separate=False):
    layers = [
        ep.ConvLayer(3, pool=pool, activation=activation),
        ep.DenseLayer(6, activation),
        ep.DenseLayer(4, activation),
    ]
    network = ep.chain((1, 4, 4), layers, partial(ep.ReadoutCrossEntropy, classes=3), separate).double()
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(0.7)
    return network


DATA = torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), torch.arange(5) % 3
FREE, SWEEPS = 300, 12


def test_on_a_smooth_network_the_two_agree_at_every_step():
    found = diagnostics.through_time(chain(), *DATA, beta=1e-4, sweeps=SWEEPS, free=FREE)
    assert found.residual < 1e-13
    for name, exact in found.exact.items():
        for k in range(SWEEPS):
            for sums, most in ((found.plus, 1e-3), (found.minus, 1e-3), (found.mean, 1e-6)):
                assert float((sums[name][k] - exact[k]).norm()) <= most * float(exact[k].norm()) + 1e-11, (name, k)
    errors = found.errors()
    assert {row["estimate"] for row in errors} == {"+beta", "-beta", "mean"}
    assert max(row["rmse"] for row in errors) < 1e-2
    assert max(found.relative_distance().values()) < 1e-2


def test_lower_layers_wait_for_the_error_to_come_down():
    """Layer n's curve stays at 0 until the error has travelled down, and moves every second step from then on."""
    found = diagnostics.through_time(chain(), *DATA, beta=0.1, sweeps=6, free=FREE)
    first = {"couplings.layer2_layer3.map.weight": 1, "couplings.layer1_layer2.map.weight": 2}
    for sums in (found.plus, found.minus, found.mean, found.exact):
        for name, step in first.items():
            sizes = [float(each.abs().max()) > 1e-12 for each in sums[name]]
            assert sizes == [k >= step for k in range(1, 7)], name


@pytest.mark.parametrize(
    "make", [chain, partial(chain, ep.energy.half_hard_sigmoid, ep.MaxPool(2)), partial(chain, separate=True)]
)
def test_partial_sums_are_those_of_truncated_backpropagation(make):
    """One pass through leaves of each sweep's own, against one run of the reference for every K."""
    network = make()
    found = diagnostics.through_time(network, *DATA, beta=0.1, sweeps=SWEEPS, free=20)
    for k in range(1, SWEEPS + 1):
        right = estimate(network, ep.BackpropagationThroughTime(ep.FixedSweeps(20, ep.synchronous), k), *DATA).gradients
        for name, sums in found.exact.items():
            torch.testing.assert_close(sums[k - 1], right[name], rtol=1e-9, atol=1e-14)
    assert set(found.exact) == {name for name in right if not name.startswith("loss.")}


@pytest.mark.parametrize("rule", [ep.contrastive, ep.vector_field])
def test_partial_sums_are_one_sided_estimates(rule):
    network = chain(separate=True)
    found = diagnostics.through_time(network, *DATA, beta=0.2, sweeps=5, free=20, rule=rule)
    free = ep.FixedSweeps(20, ep.synchronous)
    for k in range(1, 6):
        for beta, sums in ((0.2, found.plus), (-0.2, found.minus)):
            estimator = ep.EquilibriumPropagation(
                ep.one_sided(beta), free, ep.FixedSweeps(k, ep.synchronous), rule, ep.learning.forms.states
            )
            right = estimate(network, estimator, *DATA).gradients
            for name, each in sums.items():
                torch.testing.assert_close(each[k - 1], right[name], rtol=1e-9, atol=1e-13)


def test_the_seed_authors_measures_by_hand():
    zero = torch.zeros(2, 3)
    exact = {"w": torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0]])}  # steps (1, 1, 1), (1, 0, 0)
    plus = {"w": torch.tensor([[1.0, -1.0, 1.0], [4.0, 2.0, 1.0]])}  # last errors 2, 1, 0
    minus = {"w": torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 1.0]])}  # last errors -1, 1, 0
    found = diagnostics.ThroughTime(0.1, plus, minus, exact, 0.0)
    assert found.relative_distance() == {"w": pytest.approx((1 / 3 + 1 + 1) / 3)}
    row = next(row for row in found.errors() if row["estimate"] == "+beta")
    assert row["wrong_signs"] == pytest.approx(1 / 6)  # the first step's second entry
    # entry by entry, over two steps: errors (0, 2), (-2, 3), (0, 0); estimates (1, 3), (-1, 3), (1, 0)
    expected = (2**0.5 / 5**0.5 + (6.5 / 5) ** 0.5 + 0) / 3
    assert row["rmse"] == pytest.approx(expected, rel=1e-6)
    same = diagnostics.ThroughTime(0.1, {"w": zero}, {"w": zero}, {"w": zero}, 0.0)
    assert same.relative_distance() == {"w": 1.0}


@pytest.mark.parametrize("bad", [{"beta": 0.0}, {"beta": 0.1, "sweeps": 0}, {"beta": 0.1, "sweeps": 9, "free": 8}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ep.InputError, match="beta must not be 0, and sweeps between 1 and free"):
        diagnostics.through_time(chain(), *DATA, **bad)
