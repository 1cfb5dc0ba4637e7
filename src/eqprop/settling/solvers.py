"""Solvers: from a landscape and a start to a settled state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.settling.sweeps import Sweep, alternating


class Settled(NamedTuple):
    """Where a solver stopped, and how well it did. Not settling is a value here, never an exception."""

    state: State
    change: dict[str, Tensor]
    """Node -> (batch,): the largest change of any of its units in the last sweep."""
    sweeps: Tensor
    """(batch,) int64: sweeps that each example took."""
    unstable: Tensor | None = None
    """(batch,) bool: examples found to be at no stable equilibrium, by a solver that can tell."""

    @property
    def residual(self) -> Tensor:
        """(batch,): the largest change of any unit in the last sweep."""
        return torch.stack(list(self.change.values())).amax(0)

    def worst_node(self) -> str:
        """The node that changed most; one that is not finite counts as most of all."""
        size = {node: float(change.nan_to_num(nan=torch.inf).max()) for node, change in self.change.items()}
        return max(size, key=size.__getitem__)


class Solver(ABC):
    """Takes a landscape from a start towards rest. Its fields are its hyper-parameters."""

    @abstractmethod
    def __call__(self, landscape: Landscape, start: State) -> Settled: ...


@dataclass(frozen=True)
class FixedPoint(Solver):
    """A fixed number of sweeps: every example takes as many."""

    sweeps: int
    sweep: Sweep = alternating

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise InputError(f"sweeps {self.sweeps}: a solver takes at least one.")

    def __call__(self, landscape: Landscape, start: State) -> Settled:
        before = state = start
        for _ in range(self.sweeps):
            before, state = state, self.sweep(landscape, state)
        change = changes(before, state)
        batch = next(iter(change.values()))
        return Settled(state, change, torch.full_like(batch, self.sweeps, dtype=torch.int64))


@dataclass(frozen=True)
class UntilRest(Solver):
    """Sweeps until no unit of an example changes by more than ``tolerance``, at most ``sweeps`` times.

    An example that has come to rest stays as it is, so its result does not depend on the rest of its batch.
    """

    tolerance: float
    sweeps: int
    sweep: Sweep = alternating

    def __post_init__(self) -> None:
        if self.sweeps < 1 or not self.tolerance > 0:
            raise InputError(f"{self}: sweeps must be at least 1 and tolerance positive.")

    def __call__(self, landscape: Landscape, start: State) -> Settled:
        once = FixedPoint(1, self.sweep)
        settled = once(landscape, start)
        for _ in range(self.sweeps - 1):
            moving = ~(settled.residual <= self.tolerance)  # not finite counts as moving
            if not moving.any():
                break
            new = once(landscape, settled.state)
            settled = Settled(
                {node: where(moving, new.state[node], old) for node, old in settled.state.items()},
                {node: where(moving, new.change[node], old) for node, old in settled.change.items()},
                settled.sweeps + moving,
            )
        return settled


def changes(before: State, after: State) -> dict[str, Tensor]:
    """Node -> (batch,): the largest change of any of its units."""
    return {node: (after[node] - before[node]).abs().flatten(1).amax(1) for node in after}


def where(moving: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` for the examples that are moving, ``old`` for the others."""
    return torch.where(moving.view(-1, *(1 for _ in new.shape[1:])), new, old)
