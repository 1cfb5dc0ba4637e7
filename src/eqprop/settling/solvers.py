"""Solvers: from a landscape and a start to a settled state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State, take
from eqprop.errors import InputError
from eqprop.settling.sweeps import Sweep, alternating

Measure = Callable[[State, State], dict[str, Tensor]]
"""(state before a sweep, state after it) -> by how much each node changed: node -> (batch,)."""


def largest_change(before: State, after: State) -> dict[str, Tensor]:
    """The largest change of any unit."""
    return {node: (after[node] - before[node]).abs().flatten(1).amax(1) for node in after}


def relative_change(before: State, after: State) -> dict[str, Tensor]:
    """|after - before| / |after|, over all units of a node: asks the same of nodes whose activity differs by far.

    Deep layers say little at first (1 % of their range in the seed paper's network) and much later on, so that no
    one largest change serves both.
    """
    size = {node: after[node].flatten(1).norm(dim=1).clamp_min(torch.finfo(after[node].dtype).tiny) for node in after}
    return {node: (after[node] - before[node]).flatten(1).norm(dim=1) / size[node] for node in after}


class Settled(NamedTuple):
    """Where a solver stopped, and how well it did. Not settling is a value here, never an exception."""

    state: State
    change: dict[str, Tensor]
    """Node -> (batch,): its change in the last sweep; the largest of any unit, unless the solver measures otherwise."""
    sweeps: Tensor
    """(batch,) int64: sweeps that each example took."""
    unstable: Tensor | None = None
    """(batch,) bool: examples found to be at no stable equilibrium, by a solver that can tell."""

    def taken(self, examples: Tensor) -> Settled:
        """Some examples of it; (n,) int64."""
        unstable = None if self.unstable is None else self.unstable[examples]
        return Settled(take(self.state, examples), take(self.change, examples), self.sweeps[examples], unstable)

    @property
    def residual(self) -> Tensor:
        """(batch,): the change of the node that changed most in the last sweep."""
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
    measure: Measure = largest_change

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise InputError(f"sweeps {self.sweeps}: a solver takes at least one.")

    def __call__(self, landscape: Landscape, start: State) -> Settled:
        before = state = start
        for _ in range(self.sweeps):
            before, state = state, self.sweep(landscape, state)
        change = self.measure(before, state)
        batch = next(iter(change.values()))
        return Settled(state, change, torch.full_like(batch, self.sweeps, dtype=torch.int64))


@dataclass(frozen=True)
class UntilRest(Solver):
    """Sweeps until no node of an example changes by more than ``tolerance``, at most ``sweeps`` times.

    ``measure`` says what a node's change is: by default the largest of any unit. An example that has come to rest
    stays as it is, so its result does not depend on the rest of its batch. Once a quarter of the examples rests, the
    sweeps go on without them.
    """

    tolerance: float
    sweeps: int
    sweep: Sweep = alternating
    measure: Measure = largest_change

    def __post_init__(self) -> None:
        if self.sweeps < 1 or not self.tolerance > 0:
            raise InputError(f"{self}: sweeps must be at least 1 and tolerance positive.")

    def __call__(self, landscape: Landscape, start: State) -> Settled:
        once = FixedPoint(1, self.sweep, self.measure)
        present = once(landscape, start)
        rows = torch.arange(len(present.sweeps), device=present.sweeps.device)  # which examples are present
        gone: list[tuple[Tensor, Settled]] = []
        for _ in range(self.sweeps - 1):
            moving = ~(present.residual <= self.tolerance)  # not finite counts as moving
            left = int(moving.sum())
            if not left:
                break
            if left <= 0.75 * len(moving):  # not at each one: what a synapse remembers is lost
                stay, go = (~moving).nonzero().squeeze(1), moving.nonzero().squeeze(1)
                gone.append((rows[stay], present.taken(stay)))
                landscape, present = landscape.taken(go), present.taken(go)
                rows, moving = rows[go], moving[go]
            new = once(landscape, present.state)
            present = Settled(
                {node: where(moving, new.state[node], old) for node, old in present.state.items()},
                {node: where(moving, new.change[node], old) for node, old in present.change.items()},
                present.sweeps + moving,
            )
        if not gone:
            return present
        order = torch.cat([*(each for each, _ in gone), rows]).argsort()
        return joined([*(part for _, part in gone), present]).taken(order)


def joined(parts: Sequence[Settled]) -> Settled:
    """One after the other along the batch."""
    first, unstable = parts[0], [each.unstable for each in parts if each.unstable is not None]
    return Settled(
        {node: torch.cat([each.state[node] for each in parts]) for node in first.state},
        {node: torch.cat([each.change[node] for each in parts]) for node in first.change},
        torch.cat([each.sweeps for each in parts]),
        torch.cat(unstable) if unstable else None,
    )


def where(moving: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` for the examples that are moving, ``old`` for the others."""
    return torch.where(moving.view(-1, *(1 for _ in new.shape[1:])), new, old)
