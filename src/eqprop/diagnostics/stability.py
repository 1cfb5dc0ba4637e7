"""How near a network is to instability, and whether nudges push it to another equilibrium."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.diagnostics.equilibria import flattened
from eqprop.diagnostics.gradients import check_batch, double, double_data, estimate, undisturbed
from eqprop.diagnostics.references import onward
from eqprop.energy import Landscape, Network, State, Target
from eqprop.energy.network import Data
from eqprop.learning.estimators import EquilibriumPropagation, Estimator
from eqprop.settling import FixedSweeps
from eqprop.settling.displacement import tangent

BEGIN, END = 30, 40
"""Sweeps between which a disturbance is measured: what settles quickly has left it."""
APART = 1e-3
"""Two equilibria are distinct if they differ by more than this share of the first one's norm."""


@dataclass(frozen=True)
class Stability:
    """The free equilibria of a batch, and what nudges do to them.

    Attributes:
        contraction: the factor by which an alternating sweep shrinks a small disturbance of the slowest example; at 1
            the equilibrium is unstable, and its exact gradient infinite.
        elsewhere: the share of nudged states that settle to another equilibrium than the free one when the nudge is
            taken away; ``None`` for an estimator without finite real nudges.
    """

    contraction: float
    elsewhere: float | None


@torch.no_grad()
def stability(network: Network, estimator: Estimator, x: Data, y: Target) -> Stability:
    """The stability of the equilibria that an estimator found, in float64 and on the machine as it was made.

    Args:
        network: with a loss, and units that have a derivative.
        estimator: its phases are settled further.
        x: (batch, *input shape), or for several clamped nodes a mapping from names to such.
        y: what the network's loss takes.

    Raises:
        InputError: the data do not fit the network, or a unit has no derivative.
    """
    check_batch(network, x, y)
    network, x = double(network.on(network.substrate.as_made())), double_data(x)
    with undisturbed(x, [estimator]):
        made = estimate(network, estimator, x, y)
        landscape = network.landscape(x)
        rest = onward(made.free.state)(landscape, landscape.zeros()).state
        slowest = contraction(landscape, rest)
    if made.nudged is None or not isinstance(estimator, EquilibriumPropagation):
        return Stability(slowest, None)
    count, away = len(landscape.like), []
    for phase in range(len(made.nudged.sweeps) // count):
        nudged = {node: value[phase * count : (phase + 1) * count] for node, value in made.nudged.state.items()}
        if any(value.is_complex() for value in nudged.values()):
            return Stability(slowest, None)
        back = flattened(onward(nudged)(landscape, landscape.zeros()).state)
        away.append(torch.linalg.vector_norm(back - flattened(rest), dim=1) > APART * size(rest))
    return Stability(slowest, float(torch.cat(away).double().mean()))


def contraction(landscape: Landscape, rest: State) -> float:
    """The factor by which a sweep shrinks a random small disturbance of ``rest``, of the slowest example."""
    linear, once = tangent(landscape, rest, {}), FixedSweeps(1)
    moved = {node: torch.randn_like(value) for node, value in landscape.masked(rest).items() if node in landscape.nodes}
    for sweep in range(END):
        if sweep == BEGIN:
            before = size(moved)
        moved = once(linear, moved).state
    shrunk = (size(moved) / before.clamp_min(torch.finfo(before.dtype).tiny)) ** (1 / (END - BEGIN))
    return float(torch.where(before > 0, shrunk, 0).max())


def size(state: State) -> Tensor:
    """(batch,): the norm of each example."""
    return torch.linalg.vector_norm(flattened(state), dim=1)
