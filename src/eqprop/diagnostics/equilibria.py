"""The number of equilibria of a network that different orders of sweeps and starts find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from eqprop.diagnostics.gradients import double, relative_error
from eqprop.energy import Network, State
from eqprop.errors import InputError
from eqprop.settling.solvers import Solver, UntilConverged
from eqprop.settling.starts import FromFeedforward
from eqprop.settling.sweeps import Sweep, alternating, backward_order, forward_order, synchronous

ORDERS: dict[str, Sweep] = {
    "synchronous": synchronous,
    "alternating": alternating,
    "forward": forward_order,
    "backward": backward_order,
}


@dataclass(frozen=True)
class Equilibria:
    """The equilibria that several ways of settling reached.

    Attributes:
        ways: what was tried, e.g. "alternating from zero": an order of sweeps, and a start.
        counts: distinct equilibria of each example; 0 if no way settled.
        distances: of each example, the largest relative distance |a - b| / |a| between two of them.
        at_rest: way -> the share of examples that settled.
        apart: the relative distance beyond which two states are distinct.
    """

    ways: tuple[str, ...]
    counts: tuple[int, ...]
    distances: tuple[float, ...]
    at_rest: dict[str, float]
    apart: float

    def __str__(self) -> str:
        several, most = sum(count > 1 for count in self.counts), max(self.counts)
        text = f"{several} of {len(self.counts)} examples have more than one equilibrium"
        if several:
            text += f" (up to {most} found, up to {max(self.distances):.2g} of their size apart)"
        lost = {way: share for way, share in self.at_rest.items() if share < 1}
        kept = ", ".join(f"{100 * share:.0f} % by {way}" for way, share in lost.items())
        return f"{text}, found by {len(self.ways)} ways of settling" + (
            f"; settled: {kept}, all by the other ways." if lost else "."
        )


@torch.no_grad()
def equilibria(
    network: Network,
    x: Tensor,
    sweeps: Mapping[str, Sweep] = ORDERS,
    apart: float = 1e-6,
    residual: float = 1e-12,
    most: int = 5000,
) -> Equilibria:
    """The equilibria reached in float64 by each order of sweeps, from zero and from the feedforward pass.

    Args:
        network: the network.
        x: (batch, *input shape).
        sweeps: name -> sweep.
        apart: two states are distinct if they differ by more than this share of the first one's norm.
        residual: a state is at rest if no unit changes by more in a sweep.
        most: the largest number of sweeps. Ways that are not at rest then are left out, example by example.

    Raises:
        InputError: there are no sweeps.
    """
    if not sweeps:
        raise InputError("There is no order of sweeps to try: give some by name.")
    landscape = double(network).landscape(x.double())
    solvers: dict[str, Solver] = {name: UntilConverged(residual, most, sweep) for name, sweep in sweeps.items()}
    ways = {f"{name} from zero": solver for name, solver in solvers.items()}
    ways |= {f"{name} from feedforward": FromFeedforward(solver) for name, solver in solvers.items()}
    settled = {way: solver(landscape, landscape.zeros()) for way, solver in ways.items()}
    resting = {way: each.residual <= residual for way, each in settled.items()}
    states = {way: flattened(each.state) for way, each in settled.items()}
    counts, distances = [], []
    for i in range(len(x)):
        found: list[Tensor] = []
        for way, state in states.items():
            if bool(resting[way][i]) and all(relative_error(state[i], other) > apart for other in found):
                found.append(state[i])
        counts.append(len(found))
        distances.append(max((relative_error(b, a) for a, b in combinations(found, 2)), default=0.0))
    at_rest = {way: float(each.double().mean()) for way, each in resting.items()}
    return Equilibria(tuple(ways), tuple(counts), tuple(distances), at_rest, apart)


def flattened(state: State) -> Tensor:
    """(batch, units)"""
    return torch.cat([value.flatten(1) for value in state.values()], 1)
