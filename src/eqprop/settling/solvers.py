"""Solvers: from a landscape and a start to a settled state."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.checks import Count, Positive
from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State, length, select
from eqprop.energy.shapes import capturing, example_dims
from eqprop.errors import InputError
from eqprop.settling.crossing import crossing
from eqprop.settling.progress import swept
from eqprop.settling.sweeps import Sweep, alternating

Norm = Callable[[State, State], dict[str, Tensor]]
"""(state before a sweep, state after it) -> the size of each node's change: node -> (batch,)."""


def max_norm(before: State, after: State) -> dict[str, Tensor]:
    """The largest change of any unit between ``before`` and ``after``: node -> (batch,)."""
    changes = {node: after[node] - before[node] for node in after}
    return {n: (c.abs() if c.is_complex() else c.abs_()).amax(example_dims(c)) for n, c in changes.items()}


def relative_norm(before: State, after: State) -> dict[str, Tensor]:
    """The ratio |after - before| / |after| over all units of a node: node -> (batch,).

    It is the same requirement for nodes of different activity. Deep layers have small activity at first (1 % of their
    range in the network of Laborieux et al. 2021, doi 10.3389/fnins.2021.633674) and large activity later, so one
    tolerance for the largest change ``max_norm`` does not fit both. ``before``, ``after``: states.
    """
    return {
        node: length_of(after[node] - before[node]) / length_of(after[node]).clamp_min(tiny(after[node]))
        for node in after
    }


def length_of(tensor: Tensor) -> Tensor:
    """(batch,): the Euclidean norm of each example."""
    return torch.linalg.vector_norm(tensor, dim=example_dims(tensor))


def tiny(tensor: Tensor) -> float:
    """The smallest positive number of this precision, as a divisor instead of 0."""
    return torch.finfo(tensor.dtype).tiny


class Status(IntEnum):
    """How the settling of one example ended (``Solution.status``)."""

    SETTLED = 0
    """Near rest: the estimated distance is within the solver's tolerance, and there were enough sweeps for a signal to
    cross the network (``crossing``)."""
    OUT_OF_SWEEPS = 1
    """Not near rest, or not known to be, at the last sweep. Allow more sweeps or a larger tolerance; if changes do not
    shrink, use smaller weights or learning rates, or another order of the sweep."""
    NON_FINITE = 2
    """A state, a force or a residual is infinite or NaN. Look for such values in the data and the parameters; if there
    are none, use smaller weights or learning rates, or a slower sweep (``Leaky``)."""
    UNSTABLE = 3
    """A linear phase was linearised at a state that is no stable equilibrium. Settle that state further (more sweeps, a
    smaller tolerance), raise the damping, or use smaller weights or learning rates."""

    @property
    def advice(self) -> str:
        """What to do, in one sentence; empty for SETTLED."""
        return ADVICE[self]


ADVICE = {
    Status.SETTLED: "",
    Status.OUT_OF_SWEEPS: (
        "Allow more sweeps (at least those that a signal needs to cross the network), or a larger tolerance."
    ),
    Status.NON_FINITE: (
        "Look for values that are not finite in the data and the parameters; if there are none, use smaller weights "
        "or learning rates, or a slower sweep (Leaky)."
    ),
    Status.UNSTABLE: (
        "Settle the free phase further (more sweeps, a smaller tolerance), raise the damping, or use smaller weights "
        "or learning rates."
    ),
}
GROWING = (
    "Its changes do not shrink from sweep to sweep, or there were too few sweeps to see. Allow more sweeps (at least "
    "those that a signal needs to cross the network), or use smaller weights or learning rates, or another order of "
    "the sweep (alternating, Leaky)."
)


class Solution(NamedTuple):
    """The result of a solver. Not settling is a value here (``status``), not an exception."""

    state: State
    """Node -> (batch, *node shape): the last state."""
    residuals: dict[str, Tensor]
    """Node -> (batch,): its change in the last sweep; the largest of any unit, unless the solver has another norm."""
    sweeps: Tensor
    """(batch,) int64: the number of sweeps of each example."""
    status: Tensor
    """(batch,) int8: a ``Status`` for each example."""
    distance: Tensor
    """(batch,): the estimated distance to rest, in the norm of the residuals; infinite if unknown or growing."""
    memory: State | None = None
    """What the solver needs in the next phase: name -> (batch, ...); ``None`` for solvers without memory."""

    @classmethod
    def from_states(
        cls,
        states: Sequence[State],
        sweeps: int,
        tolerance: float,
        start: State | None = None,
        least: int = 1,
        norm: Norm = max_norm,
        memory: State | None = None,
    ) -> Solution:
        """The solution of a solver whose sweeps ended with ``states``; their changes define its status.

        Args:
            states: the last three states, oldest first. After a single sweep there are two, and the distance is
                unknown unless nothing changed.
            sweeps: the number of sweeps of each example.
            tolerance: an example is settled if its distance to rest, in ``norm``, is at most this.
            start: the state before the first sweep, for the displacement of each node (``rest``); default: the first
                of ``states``.
            least: the number of sweeps from which an example can be settled (``crossing``).
            norm: the size of a node's change.
            memory: see ``Solution.memory``.
        """
        state = states[-1]
        with torch.no_grad():
            changes = [norm(before, after) for before, after in itertools.pairwise(states[-3:])]
            recent = [stacked(change) for change in changes]
            residual = recent[-1].amax(0)
            if len(recent) > 1:
                distance, arrived = rest(recent, norm, states[0] if start is None else start, state, tolerance)
                near = (distance <= tolerance) & arrived
            else:
                distance = torch.where(residual == 0, residual, torch.inf)
                near = distance <= tolerance
            status = judged(residual, near, sweeps >= least)
        return cls(state, changes[-1], torch.full_like(residual, sweeps, dtype=torch.int64), status, distance, memory)

    def select(self, examples: Tensor) -> Solution:
        """The solution of the given ``examples``, (n,) int64."""
        return Solution(
            select(self.state, examples),
            select(self.residuals, examples),
            self.sweeps[examples],
            self.status[examples],
            self.distance[examples],
            None if self.memory is None else select(self.memory, examples),
        )

    @property
    def residual(self) -> Tensor:
        """(batch,): the largest change of any node in the last sweep."""
        return stacked(self.residuals).amax(0)

    @property
    def settled(self) -> Tensor:
        """(batch,) bool: examples near rest."""
        return self.status == Status.SETTLED

    @property
    def unstable(self) -> Tensor:
        """(batch,) bool: examples for which the solver found no stable equilibrium."""
        return self.status == Status.UNSTABLE

    def worst_node(self) -> str:
        """The node with the largest change in any example; a change that is not finite counts as the largest."""
        size = {node: float(change.nan_to_num(nan=torch.inf).max()) for node, change in self.residuals.items()}
        return max(size, key=size.__getitem__)

    def explain(self) -> str:
        """One line about the worst example, and what to do; "" if all are settled. Waits for the device."""
        status, residual, distance = (each.tolist() for each in (self.status, self.residual, self.distance))
        open = [i for i, each in enumerate(status) if each != Status.SETTLED]
        if not open:
            return ""

        def badness(i: int) -> tuple[int, float, float]:
            return SEVERITY.index(status[i]), distance[i], residual[i] if residual[i] == residual[i] else torch.inf

        worst = max(open, key=badness)
        one, kind = self.select(torch.tensor([worst], device=self.status.device)), Status(status[worst])
        shrinking = kind != Status.OUT_OF_SWEEPS or distance[worst] < torch.inf
        return (
            f"{len(open)} of {len(status)} examples did not settle; the worst, example {worst}: {kind.name}, node "
            f"{one.worst_node()!r} changed by {residual[worst]:.1e} in the last of {int(one.sweeps)} sweeps, estimated "
            f"distance to rest {distance[worst]:.1e}. {kind.advice if shrinking else GROWING}"
        )


SEVERITY = (Status.OUT_OF_SWEEPS, Status.UNSTABLE, Status.NON_FINITE)
"""From the mildest to the worst."""


def stacked(residuals: dict[str, Tensor]) -> Tensor:
    """(nodes, batch)"""
    return torch.stack(list(residuals.values()))


def rest(recent: Sequence[Tensor], norm: Norm, start: State, state: State, tolerance: float) -> tuple[Tensor, Tensor]:
    """The estimated distance of ``state`` from rest, and whether each node has nearly its final displacement.

    Let rho be the largest of the last ratios of successive residuals. If each change is rho times the one before, the
    sum of all further changes is residual * rho / (1 - rho). Residuals within rounding do not shrink any more; then the
    residual is the distance.

    A force that has hardly reached a node moves it by less than any tolerance, and may still change the sign of its
    displacement; the node would then learn with the wrong sign. So the remaining change of each node must also be at
    most max(0.1, ``tolerance``) times its displacement from ``start``; if a node's changes do not shrink, its rho is
    taken as ``SLOWEST``.

    Args:
        recent: the residuals of the last two or three sweeps, (nodes, batch) each, oldest first.
        norm: the size of a node's change.

    Returns:
        distance: (batch,), infinite if residuals do not shrink.
        arrived: (batch,) bool: whether the remaining change of every node is small.
    """
    zero = {node: value.new_zeros(()).expand_as(value) for node, value in state.items()}
    nodes = torch.stack([*recent, stacked(norm(start, state)), stacked(norm(zero, state))])
    # Of the whole state first, then of each node: (1 + nodes, batch) each.
    *rows, travelled, size = torch.cat([nodes.amax(1, keepdim=True), nodes], 1).unbind()
    last, noise = rows[-1], rounding(state) * size
    rho = last / rows[-2]
    if len(rows) > 2:
        rho = torch.maximum(rho, rows[-2] / rows[-3])
    left = torch.where(last <= noise, last, last * rho / (1 - rho).clamp_min(0))  # infinite where rho is 1 or more
    most = last * (SLOWEST / (1 - SLOWEST))
    arrived = (torch.minimum(left, most) <= torch.maximum(max(0.1, tolerance) * travelled, noise))[1:].all(0)
    return left[0].nan_to_num(torch.inf, torch.inf), arrived


def rounding(state: State) -> float:
    """The relative change of a state in a sweep that rounding of states and messages can cause."""
    first = next(iter(state.values()))
    device, unit = first.device.type, 4 * torch.finfo(first.dtype).eps
    return max(unit, torch.finfo(torch.get_autocast_dtype(device)).eps) if torch.is_autocast_enabled(device) else unit


def judged(residual: Tensor, near: Tensor, crossed: bool) -> Tensor:
    """(batch,) int8 of ``Status``.

    Args:
        residual: (batch,), of the last sweep. If it is exactly 0, the state is at rest.
        near: (batch,) bool: which examples are near rest by their residuals.
        crossed: whether there were enough sweeps for a signal to cross the network.
    """
    status = (near if crossed else residual == 0).logical_not().to(torch.int8)  # SETTLED is 0, OUT_OF_SWEEPS is 1
    return torch.where(residual < torch.inf, status, int(Status.NON_FINITE))


class Solver(ABC):
    """Moves a landscape's state from a start towards rest. Its fields are its hyper-parameters."""

    @abstractmethod
    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        """The solution from ``start``.

        ``memory``: the memory in this solver's ``Solution`` of the last phase, for the same examples; ``None`` at
        first. A solver without memory ignores it.
        """

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators that it uses; a checkpoint stores their states."""
        return ()


@dataclass(frozen=True)
class FixedSweeps(Solver):
    """A fixed number of sweeps for every example.

    An example is settled if its estimated distance to rest is at most ``tolerance``, if the remaining change of each
    node is small relative to its displacement (``rest``), and if ``n`` sweeps are enough for a signal to cross the
    network (``crossing``). After a single sweep the distance is unknown: only an unchanged example is settled.

    Attributes:
        n: the number of sweeps.
        sweep: the order in which nodes respond.
        norm: the size of a node's change.
        tolerance: affects the status only.

    Raises:
        InputError: n is below 1, or tolerance is not positive.
    """

    n: Count
    sweep: Sweep = alternating
    norm: Norm = max_norm
    tolerance: Positive = 1e-2

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        states = deque([start], maxlen=3)
        for _ in range(self.n):
            swept()
            states.append(self.sweep(landscape, states[-1]))
        return self.solution(landscape, start, list(states))

    def solution(self, landscape: Landscape, start: State, states: Sequence[State]) -> Solution:
        """The solution for given last three ``states`` of the ``n`` sweeps (the last two, if ``n`` is 1)."""
        least = crossing(landscape, self.sweep)
        return Solution.from_states(states, self.n, self.tolerance, start, least, self.norm)


@dataclass(frozen=True)
class Averaged(FixedSweeps):
    """A fixed number of sweeps, and the mean of the states after the ``last`` of them: for units with noise.

    The status is that of the last state.

    Attributes:
        n, sweep, norm, tolerance: see ``FixedSweeps``.
        last: the number of sweeps that count.

    Raises:
        InputError: ``last`` is not between 1 and n, or see ``FixedSweeps``.
    """

    last: Count = 1

    def __post_init__(self) -> None:
        if self.last > self.n:
            raise InputError(f"last {self.last} must be at most the {self.n} sweeps.")

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        states, total = deque([start], maxlen=3), {node: torch.zeros_like(value) for node, value in start.items()}
        for count in range(1, self.n + 1):
            swept()
            states.append(self.sweep(landscape, states[-1]))
            if count > self.n - self.last:
                total = {node: value + states[-1][node] for node, value in total.items()}
        mean = {node: value / self.last for node, value in total.items()}
        return self.solution(landscape, start, list(states))._replace(state=mean)


@dataclass(frozen=True)
class UntilConverged(Solver):
    """Sweeps until an example is within ``tolerance`` of rest, at most ``max_sweeps`` times.

    An example is settled if its last change and its estimated distance to rest are at most ``tolerance``, if the
    remaining change of each node is small relative to its displacement (``rest``), and if there were enough sweeps for
    a signal to cross the network (``crossing``). A settled example does not change any more, so its result does not
    depend on the other examples of its batch. An example that is not finite stops too. When a quarter of the examples
    has stopped, the sweeps continue without them. A CUDA graph cannot wait to see what has settled: in one, every
    example makes ``max_sweeps``.

    Attributes:
        sweep: the order in which nodes respond.
        norm: the size of a node's change: by default the largest of any unit.
        over_relaxation: the largest factor by which units move beyond their response; 1 is none, and it must be below
            2. The factor follows each example's contraction (``Pace``): slow networks need fewer sweeps. It is for
            sweeps in which nodes respond one after another.

    Raises:
        InputError: an argument is out of range.
    """

    tolerance: Positive
    max_sweeps: Count
    sweep: Sweep = alternating
    norm: Norm = max_norm
    over_relaxation: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.over_relaxation < 2:
            raise InputError(f"over_relaxation {self.over_relaxation} must be at least 1, which is none, and below 2.")

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        least, state = crossing(landscape, self.sweep), start
        pace = Pace.first(self.over_relaxation, start) if self.over_relaxation > 1 else None
        first = next(iter(start.values()))
        graph = capturing(first)
        left, rows = len(first), torch.arange(len(first), device=first.device)  # which examples remain
        moving = torch.ones_like(rows, dtype=torch.bool)
        recent: list[Tensor] = []  # the residuals of the last three sweeps
        done: list[tuple[Tensor, Solution]] = []  # examples that stopped, by their rows in the batch
        for count in range(1, self.max_sweeps + 1):
            swept()
            before, state = state, self.sweep(landscape if pace is None else landscape.over_relaxed(pace.factor), state)
            pace = pace and pace.after(before, state)
            if graph and count <= self.max_sweeps - 3:  # only the last residuals are read
                continue
            residuals = self.norm(before, state)
            recent = [*recent[-2:], stacked(residuals)]
            residual = recent[-1].amax(0)
            over = count == self.max_sweeps
            quiet = moving & ~(residual > self.tolerance)  # or not finite
            if not over and (graph or count < least or not quiet.any()):
                continue
            if count > 1:
                distance, arrived = rest(recent, self.norm, start, state, self.tolerance)
            else:
                distance, arrived = torch.where(residual == 0, residual, torch.inf), residual == 0
            status = judged(residual, quiet & arrived & (distance <= self.tolerance), count >= least)
            stopping = moving if over else moving & (status != Status.OUT_OF_SWEEPS)
            present = Solution(state, residuals, torch.full_like(rows, count), status, distance)
            if graph:
                return present
            if not (found := len(examples := stopping.nonzero().squeeze(1))):
                continue
            if found == len(rows) and not done:
                return present
            done.append((rows[examples], present.select(examples)))
            left -= found
            if not left:
                break
            moving = moving & ~stopping
            if left <= 0.75 * len(moving):  # not at each one: it empties the caches of synapses
                go = moving.nonzero().squeeze(1)
                landscape, state, rows, moving = landscape.select(go), select(state, go), rows[go], moving[go]
                start, recent, pace = select(start, go), [each[:, go] for each in recent], pace and pace.select(go)
        order = torch.cat([each for each, _ in done]).argsort()
        return joined([part for _, part in done]).select(order)


START = 1.2
"""The factor of the first two sweeps, before a contraction is known; small, so that fast networks stay fast."""
SLOWEST = 0.98
"""The upper bound of estimates of a sweep's contraction and of mu^2."""
FADE = 0.9
"""The factor of an earlier estimate of mu^2 after each sweep."""


class Pace(NamedTuple):
    """The relaxation factor omega of each example, adapted to how fast its changes shrink.

    Let nodes respond in two colours, one after the other, with factor omega, and let changes shrink by lambda in each
    sweep. With mu the largest eigenvalue of the synchronous sweep, (lambda + omega - 1)^2 = lambda omega^2 mu^2, and
    omega = 2 / (1 + sqrt(1 - mu^2)) is optimal (Young 1954, doi 10.1090/S0002-9947-1954-0059635-7; adaptive: Hageman &
    Young 1981). So a measured lambda gives the next omega. A network is linear near rest only, so old estimates of mu^2
    decay: a first one may be too large.
    """

    most: float
    factor: Tensor
    """(batch,): omega"""
    mu_squared: Tensor
    """(batch,)"""
    size: Tensor
    """(batch,): norm of the last change; infinite before the first."""

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


def joined(parts: Sequence[Solution]) -> Solution:
    """The solutions joined along the batch; with memory if every part has one."""
    memories = [part.memory for part in parts if part.memory is not None]
    return Solution(
        concatenated([part.state for part in parts]),
        concatenated([part.residuals for part in parts]),
        torch.cat([part.sweeps for part in parts]),
        torch.cat([part.status for part in parts]),
        torch.cat([part.distance for part in parts]),
        concatenated(memories) if len(memories) == len(parts) else None,
    )


def concatenated(states: Sequence[State]) -> State:
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}
