"""Oscillators, token norms, softmax, resistors and two inputs with every estimator: exact, or refused in words.

The networks are those of docs/extending.md, in float64. The exact gradient is that of implicit differentiation, which
is held against finite differences of the settled loss.
"""

import copy
from functools import cache

import pytest
import torch
from every_estimator import EXACT, REST, WAYS, forgotten, gradients, relative
from pages import section

import eqprop as ep
from eqprop import testing

TITLES = {
    "oscillators": "A unit without a closed-form response",
    "softmax": "A unit that is not elementwise",
    "attention": "Attention over normalised tokens",
    "resistors": "A term that is quadratic in its node",
    "two inputs": "Several inputs, or none",
}
REFUSED = {
    "oscillators": {
        *("holomorphic states", "oscillating", "rayleigh penalty"),
        *("soft clamp states", "clamp states", "predictive"),
        *("backpropagation", "dual", "dual, high", "dual, three passes"),
    },
    "softmax": {"holomorphic states", "holomorphic displacements", "oscillating", "rayleigh penalty"},
    "attention": {"holomorphic states", "oscillating", "rayleigh penalty"},
    "resistors": {
        *("holomorphic states", "oscillating", "soft clamp states", "predictive"),
        *("dual", "dual, high", "dual, three passes"),
    },
    "two inputs": set(),
}


@cache
def subject(name):
    """The network of a section in float64, data and a target for it."""
    network = copy.deepcopy(section(TITLES[name]).network).double()
    torch.manual_seed(1)
    data = {n: torch.randn(6, *network.nodes[n].shape, dtype=torch.float64) for n in network.clamped}
    classes = network.nodes["y" if "y" in network.nodes else network.output].units
    return network, data if len(data) > 1 else next(iter(data.values())), torch.arange(6) % classes


@cache
def exact(name):
    network, data, target = subject(name)
    return gradients(network, EXACT, data, target)


@pytest.mark.parametrize("name", TITLES)
def test_implicit_differentiation_is_the_slope_of_the_settled_loss(name):
    """Along a random direction of all parameters and data."""
    network, data, target = subject(name)
    twin, shifted = copy.deepcopy(network), copy.deepcopy(data)
    moved = [*twin.parameters(), *(shifted.values() if isinstance(shifted, dict) else [shifted])]
    torch.manual_seed(2)
    direction, step, values = [torch.randn_like(each) for each in moved], 1e-5, []
    with torch.no_grad():
        for to in (step, -2 * step):
            for each, along in zip(moved, direction, strict=True):
                each.add_(along, alpha=to)
            values.append(ep.Equilibrium(twin, EXACT, on_unsettled="raise").loss(shifted, target))
    slope = (values[0] - values[1]) / (2 * step)
    right = exact(name) @ torch.cat([along.flatten() for along in direction])
    assert float(slope) == pytest.approx(float(right), rel=1e-6)


def cases(feedforward):
    """Where couplings are not bilinear, the form `displacements` is `states`: one of each pair is enough there."""
    bilinear = ("softmax", "two inputs")
    ways = [name for name, way in WAYS.items() if way.feedforward is feedforward]
    return [(n, w) for n in TITLES for w in ways if n in bilinear or not w.endswith("displacements")]


@pytest.mark.parametrize(("name", "way"), cases(feedforward=False))
def test_exact_or_refused(name, way):
    network, data, target = subject(name)
    estimator = WAYS[way].make(WAYS[way].small)
    if way in REFUSED[name]:
        with pytest.raises(ep.InputError) as told:
            gradients(network, estimator, data, target)
        assert "\n" not in str(told.value)
        assert "tensor(" not in str(told.value)
    else:
        assert relative(gradients(network, estimator, data, target), exact(name)) < 1e-4


@pytest.mark.parametrize(("name", "way"), cases(feedforward=True))
def test_feedforward_or_refused(name, way):
    """Rules of weak feedback are not the exact gradient; with them the estimate is finite and every phase settles."""
    network, data, target = subject(name)
    estimator = WAYS[way].make(WAYS[way].small)
    if way in REFUSED[name]:
        with pytest.raises(ep.InputError) as told:
            gradients(network, estimator, data, target)
        assert "\n" not in str(told.value)
    else:
        found = gradients(network, estimator, data, target)
        assert bool(found.isfinite().all())
        if not WAYS[way].weak:
            assert relative(found, gradients(network, ep.Backpropagation(), data, target)) < 1e-4


def test_no_estimator_is_forgotten():
    assert not forgotten()


@pytest.mark.parametrize("name", TITLES)
def test_the_conformance_suite_takes_them(name):
    network, _, _ = subject(name)
    for coupling in network.terms.values():
        testing.check_coupling(coupling, {node: network.nodes[node].shape for node in coupling.nodes})
    for node in network.free.values():
        testing.check_unit(node.unit, shape=node.shape)
    testing.check_sweep(ep.alternating, network)
    testing.check_solver(REST, network)
    testing.check_solver(ep.FixedSweeps(300), network)
