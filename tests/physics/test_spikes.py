"""Counts of spikes: the laws by which they blur gradients, and a rule that needs nothing else."""

import numpy as np
import pytest
import torch

import eqprop as ep
from eqprop import physics, testing

REST = ep.UntilConverged(1e-10, 5000)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = [ep.DenseLayer(20, ep.tanh), ep.DenseLayer(20, ep.tanh), ep.DenseLayer(5, ep.tanh)]
    return ep.chain((10,), layers, ep.SquaredError).double()


def gradient(network, beta, seed=0):
    """The seed is that of the counts."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(24, 10, dtype=torch.float64, generator=g)
    y = torch.rand(24, 5, dtype=torch.float64, generator=g) - 0.5
    torch.manual_seed(seed)
    loss = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(beta), REST, REST), "raise").loss(x, y)
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(network.parameters()))])


def noise(network, kind, window, beta=0.1, draws=4):
    """The root mean square of what counting adds to the gradient, relative to it."""
    exact, on = gradient(network, beta), network.on(kind(window, -1.0, 1.0))
    found = [float((gradient(on, beta, seed) - exact).square().sum()) for seed in range(draws)]
    return np.sqrt(np.mean(found)) / float(exact.norm())


def exponent(first, second, factor):
    return np.log(second / first) / np.log(factor)


@pytest.mark.parametrize(("kind", "power"), [(physics.RegularSpikes, -1.0), (physics.RandomSpikes, -0.5)])
def test_the_error_of_counts_falls_with_the_window_and_with_beta(network, kind, power):
    longer = exponent(noise(network, kind, 400), noise(network, kind, 6400), 16)
    assert longer == pytest.approx(power, abs=0.1)
    stronger = exponent(noise(network, kind, 1600, 0.05), noise(network, kind, 1600, 0.2), 4)
    assert stronger == pytest.approx(-1.0, abs=0.12)


@pytest.mark.parametrize("kind", [physics.RegularSpikes, physics.RandomSpikes])
def test_counts_are_right_on_average(kind):
    torch.manual_seed(0)
    substrate = kind(10, -1.0, 3.0)
    state = {"a": torch.linspace(-2, 4, 7, dtype=torch.float64).repeat(20000, 1)}
    seen = substrate.measured(state, 0)["a"]
    torch.testing.assert_close(seen.mean(0), state["a"][0].clamp(-1, 3), rtol=0, atol=0.02)
    levels = (seen + 1) / 0.4
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [physics.RegularSpikes, physics.RandomSpikes])
def test_the_substrates_conform(kind):
    testing.check_substrate(kind(100, -1.0, 1.0))


def ramps(hold):
    """Two rates that move over 4,000 steps, at rest before and after."""
    t = torch.linspace(0, 1, 4000, dtype=torch.float64)
    found = []
    for first, change in ((0.30, 0.05), (0.60, -0.08)):
        moving = first + change * t
        found.append(torch.cat([moving[:1].repeat(hold), moving, moving[-1:].repeat(hold)])[:, None])
    return found


def test_the_event_rule_telescopes():
    torch.manual_seed(0)
    pre, post = torch.rand(300, 3, dtype=torch.float64), torch.rand(300, 2, dtype=torch.float64)
    found = physics.event_rule(pre, post, 20.0)
    expected = torch.outer(found.pre, found.post) - torch.outer(pre[0], post[0])
    torch.testing.assert_close(found.change, expected, rtol=0, atol=1e-12)


def test_slow_traces_give_the_change_of_the_product_of_rates():
    torch.manual_seed(0)
    pre, post = ramps(1000)
    changes = torch.stack([physics.event_rule(pre, post, 100.0).change for _ in range(8)])
    expected = 0.35 * 0.52 - 0.30 * 0.60
    assert float(changes.mean()) == pytest.approx(expected, abs=4 * 1.5e-3 / np.sqrt(8))
    assert float(changes.std()) < 4e-3


def test_what_cannot_be_is_refused():
    with pytest.raises(ep.InputError, match="low"):
        physics.RegularSpikes(10, 1.0, 1.0)
    with pytest.raises(ep.InputError, match="window"):
        physics.RandomSpikes(0)
    rates = torch.rand(5, 2)
    for pre, post, constant in ((rates, rates[:3], 3.0), (rates, rates, 0.5), (rates, 2 + rates, 3.0)):
        with pytest.raises(ep.InputError):
            physics.event_rule(pre, post, constant)
    with pytest.raises(ep.InputError, match="real nudges"):
        physics.RegularSpikes(10).measured({"a": torch.zeros(1, 2, dtype=torch.complex64)}, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [physics.RegularSpikes, physics.RandomSpikes])
def test_states_of_any_precision_are_counted(kind, dtype):
    """A long window is counted in full."""
    torch.manual_seed(0)
    state = {"a": torch.linspace(-0.9, 0.9, 50, dtype=torch.float64).to(dtype)[None]}
    found = kind(10**8, -1.0, 1.0).measured(state, 0)["a"]
    assert found.dtype == dtype
    torch.testing.assert_close(found, state["a"], rtol=0, atol=1e-3)
