"""Solvers: from a landscape and a start to a settled state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.energy.maps import example_dims
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State, length, select
from eqprop.errors import InputError
from eqprop.settling.sweeps import Sweep, alternating

Norm = Callable[[State, State], dict[str, Tensor]]
"""(state before a sweep, state after it) -> by how much each node changed: node -> (batch,)."""


def max_norm(before: State, after: State) -> dict[str, Tensor]:
    """The largest change of any unit."""
    return {node: (after[node] - before[node]).abs().amax(example_dims(after[node])) for node in after}


def relative_norm(before: State, after: State) -> dict[str, Tensor]:
    """|after - before| / |after|, over all units of a node: asks the same of nodes whose activity differs by far.

    Deep layers say little at first (1 % of their range in the network of Laborieux et al. (2021)) and much later on,
    so that no one largest change serves both.
    """
    return {
        node: length_of(after[node] - before[node]) / length_of(after[node]).clamp_min(tiny(after[node]))
        for node in after
    }


def length_of(tensor: Tensor) -> Tensor:
    """(batch,): the length of each example's part."""
    return torch.linalg.vector_norm(tensor, dim=example_dims(tensor))


def tiny(tensor: Tensor) -> float:
    """What to divide by instead of 0."""
    return torch.finfo(tensor.dtype).tiny


class Solution(NamedTuple):
    """Where a solver stopped, and how well it did. Not settling is a value here, never an exception."""

    state: State
    change: dict[str, Tensor]
    """Node -> (batch,): its change in the last sweep; the largest of any unit, unless the solver measures otherwise."""
    sweeps: Tensor
    """(batch,) int64: sweeps that each example took."""
    unstable: Tensor | None = None
    """(batch,) bool: examples found to be at no stable equilibrium, by a solver that can tell."""

    def select(self, examples: Tensor) -> Solution:
        """Some examples of it; (n,) int64."""
        unstable = None if self.unstable is None else self.unstable[examples]
        return Solution(select(self.state, examples), select(self.change, examples), self.sweeps[examples], unstable)

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
    def __call__(self, landscape: Landscape, start: State) -> Solution: ...


@dataclass(frozen=True)
class FixedSweeps(Solver):
    """A fixed number of sweeps: every example takes as many."""

    n: int
    sweep: Sweep = alternating
    norm: Norm = max_norm

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"n {self.n}: a solver takes at least one.")

    def __call__(self, landscape: Landscape, start: State) -> Solution:
        before = state = start
        for _ in range(self.n):
            before, state = state, self.sweep(landscape, state)
        change = self.norm(before, state)
        batch = next(iter(change.values()))
        return Solution(state, change, torch.full_like(batch, self.n, dtype=torch.int64))


@dataclass(frozen=True)
class UntilConverged(Solver):
    """Sweeps until no node of an example changes by more than ``tolerance``, at most ``max_sweeps`` times.

    ``norm`` says what a node's change is: by default the largest of any unit. An example that has come to rest
    stays as it is, so its result does not depend on the rest of its batch. Once a quarter of the examples rests, the
    sweeps go on without them.

    ``over_relaxation`` above 1 lets units go further than their response, by a factor that follows each example's
    own contraction (``Pace``) and is at most this: fewer sweeps where a network settles slowly. It is for sweeps in
    which nodes respond in turn, and must be below 2.
    """

    tolerance: float
    max_sweeps: int
    sweep: Sweep = alternating
    norm: Norm = max_norm
    over_relaxation: float = 1.0

    def __post_init__(self) -> None:
        if self.max_sweeps < 1 or not self.tolerance > 0:
            raise InputError(f"{self}: max_sweeps must be at least 1 and tolerance positive.")
        if not 1 <= self.over_relaxation < 2:
            raise InputError(f"over_relaxation {self.over_relaxation} must be at least 1, which is none, and below 2.")

    def __call__(self, landscape: Landscape, start: State) -> Solution:
        pace = Pace.first(self.over_relaxation, start) if self.over_relaxation > 1 else None
        present, pace = self._once(landscape, start, pace)
        rows = torch.arange(len(present.sweeps), device=present.sweeps.device)  # which examples are present
        moving = torch.ones_like(rows, dtype=torch.bool)
        done: list[tuple[Tensor, Solution]] = []
        for count in range(2, self.max_sweeps + 1):
            resting = moving & (present.residual <= self.tolerance)  # not finite counts as moving
            still = moving & ~resting
            left = int(still.sum())
            if not left:
                break
            done += taken(rows, present, resting)
            moving = still
            if left <= 0.75 * len(moving):  # not at each one: what a synapse remembers is lost
                go = moving.nonzero().squeeze(1)
                landscape, present, rows, moving = landscape.select(go), present.select(go), rows[go], moving[go]
                pace = pace and pace.select(go)
            present, pace = self._once(landscape, present.state, pace)
            present = present._replace(sweeps=torch.full_like(rows, count))
        if not done:
            return present
        done += taken(rows, present, moving)
        order = torch.cat([each for each, _ in done]).argsort()
        return joined([part for _, part in done]).select(order)

    def _once(self, landscape: Landscape, state: State, pace: Pace | None) -> tuple[Solution, Pace | None]:
        """One sweep, and the pace of the next one."""
        once = FixedSweeps(1, self.sweep, self.norm)
        new = once(landscape if pace is None else landscape.over_relaxed(pace.factor), state)
        return new, pace and pace.after(state, new.state)


START = 1.2
"""The factor of the first two sweeps, before any change has shrunk: it costs quick networks nothing."""
SLOWEST = 0.98
"""The most that a sweep's contraction and mu^2 are taken for."""
FADE = 0.9
"""What is left of an estimate of mu^2 a sweep later."""


class Pace(NamedTuple):
    """How far each example's units go, told from how fast its changes shrink.

    Where nodes respond in turn, in two colours, changes shrink by some factor a sweep, lambda, when units go omega
    times the way; with mu the largest eigenvalue of the synchronous sweep, (lambda + omega - 1)^2 = lambda omega^2
    mu^2, and omega = 2 / (1 + sqrt(1 - mu^2)) is best (Young 1954; adapted as it goes: Hageman & Young 1981). So a
    lambda that is seen gives the next omega. A network is linear near rest only: an estimate of mu^2 fades, so that a
    first one that was too large is forgotten.
    """

    most: float
    factor: Tensor
    """(batch,): omega"""
    mu_squared: Tensor
    """(batch,)"""
    size: Tensor
    """(batch,): length of the last change; infinite before there was one."""

    @classmethod
    def first(cls, most: float, start: State) -> Pace:
        if any(value.is_complex() for value in start.values()):
            raise InputError("over_relaxation is for real states: settle complex ones with 1, the default.")
        one = torch.ones_like(length(start))
        return cls(most, min(START, most) * one, 0 * one, torch.inf * one)

    def after(self, before: State, after: State) -> Pace:
        size = length({node: after[node] - before[node] for node in after})
        shrunk, beyond = (size / self.size).nan_to_num(nan=0.0).clamp(max=SLOWEST), self.factor - 1
        seen = torch.where(shrunk > beyond, (shrunk + beyond).square() / (shrunk * self.factor.square()), 0)
        mu_squared = torch.maximum(seen.clamp(max=SLOWEST), FADE * self.mu_squared)
        factor = (2 / (1 + (1 - mu_squared).sqrt())).clamp(max=self.most)
        known = self.size.isfinite()
        return Pace(self.most, torch.where(known, factor, self.factor), torch.where(known, mu_squared, 0), size)

    def select(self, examples: Tensor) -> Pace:
        return Pace(self.most, self.factor[examples], self.mu_squared[examples], self.size[examples])


def taken(rows: Tensor, settled: Solution, which: Tensor) -> list[tuple[Tensor, Solution]]:
    """The examples that ``which``, (batch,) bool, marks, with their rows; nothing where it marks none."""
    examples = which.nonzero().squeeze(1)
    return [(rows[examples], settled.select(examples))] if len(examples) else []


def joined(parts: Sequence[Solution]) -> Solution:
    """One after the other along the batch."""
    first, unstable = parts[0], [each.unstable for each in parts if each.unstable is not None]
    return Solution(
        {node: torch.cat([each.state[node] for each in parts]) for node in first.state},
        {node: torch.cat([each.change[node] for each in parts]) for node in first.change},
        torch.cat([each.sweeps for each in parts]),
        torch.cat(unstable) if unstable else None,
    )
