"""Random circuits in float64, and their laws written out branch by branch."""

from itertools import pairwise

import numpy as np
import torch

import eqprop as ep
from eqprop import physics

SETTLE = ep.FixedSweeps(150, tolerance=1e-12)
SIZES = ([4, 6, 3], [4, 8, 6, 3], [20, 60, 40, 20, 5])


def conductances(network):
    """Layer by layer, (units before, units after), those of the two signs of the input stacked."""
    first = [network.couplings[f"{sign}input_layer1"].conductance for sign in ("", "inverted_")]
    names = list(network.free)
    between = [network.couplings[f"{pre}_{post}"].conductance for pre, post in pairwise(names)]
    return [torch.cat(first), *between]


def circuit(sizes, seed=0, **more):
    """Conductances uniform in (0, 1/sqrt(n)), current sources normal, input gain 4."""
    made, rng = physics.deep_resistive_network((sizes[0],), sizes[1:-1], sizes[-1], 4.0, **more).double(), None
    rng = np.random.default_rng(seed)
    units = [2 * sizes[0], *sizes[1:]]
    drawn = [rng.uniform(0, 1 / np.sqrt(n), (n, m)) for n, m in pairwise(units)]
    biases = [0.3 * rng.standard_normal(m) for m in units[1:]]
    with torch.no_grad():
        split = [drawn[0][: sizes[0]], drawn[0][sizes[0] :], *drawn[1:]]
        resistors = [c for c in made.terms.values() if isinstance(c, physics.Resistors)]
        for coupling, values in zip(resistors, split, strict=True):
            coupling.conductance.copy_(torch.as_tensor(values))
        for name, values in zip(made.free, biases, strict=True):
            made.couplings[f"{name}_bias"].bias.copy_(torch.as_tensor(values))
    return made, rng


def example(sizes, rng):
    """One input and one target."""
    return tuple(torch.as_tensor(rng.standard_normal((1, n))) for n in (sizes[0], sizes[-1]))


@torch.no_grad()
def branches(network, x, state, voltage_gain=1.0):
    """The current through each resistor from the layer before to the layer after, (batch, units, units), by layer."""
    ends = [torch.cat([4 * x, -4 * x], 1), *state.values()]
    gains = [1.0, *[voltage_gain] * (len(ends) - 2)]
    return [
        g * (a * v[:, :, None] - u[:, None, :])
        for g, a, v, u in zip(conductances(network), gains, ends, ends[1:], strict=False)
    ]


@torch.no_grad()
def into(network, currents, voltage_gain=1.0):
    """Layer -> the sum of the currents into each unit, its diode's and the nudge's left out."""
    found = {}
    for k, name in enumerate(network.free):
        total = currents[k].sum(1) + network.couplings[f"{name}_bias"].bias
        found[name] = total - (currents[k + 1].sum(2) / voltage_gain if k + 1 < len(currents) else 0)
    return found
