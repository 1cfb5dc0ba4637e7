"""The predictive learning rule: a unit learns from its activity minus its own prediction of it.

A synapse changes by (its input) x (the unit's activity under the teacher - the unit's prediction of its free activity);
the input is that under the teacher (Luczak, McNaughton & Kubo 2022, doi 10.1038/s42256-021-00430-y). The prediction
uses the first moments of the same run, so the examples to learn from need not settle freely (here they do, for the
metrics). It replaces the free activity in contrastive Hebbian learning, x'y' - x y = x'(y' - y) + (x' - x) y, of which
the rule keeps the first half, ``clamped_presynaptic``.

Moments are numbers of sweeps: moment 0 is the state at zero, moment k the state after k sweeps. A predictor uses the
states as a substrate measures them, each moment by a reading of its own.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps

import torch
from torch import Tensor

from eqprop.checks import Bound
from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State, select
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.estimators import (
    Cost,
    Estimator,
    GradientEstimate,
    GradientFunction,
    check_one_reading,
    compare,
    nudge_of,
    phases_of,
)
from eqprop.learning.rules import Rule, clamped_presynaptic
from eqprop.learning.stencils import one_sided
from eqprop.learning.teachers import Teacher, clamp
from eqprop.settling.solvers import FixedSweeps, Solution, Solver


class Predictor(ABC):
    """Predicts each unit's free state."""

    samples: tuple[int, ...] = ()
    """The moments of the free phase that it uses."""

    def check(self, others: int) -> None:
        """Raises InputError if so many examples that are not learnt from are too few."""

    @abstractmethod
    def __call__(self, sampled: Sequence[State], free: State, learnt: int) -> State:
        """Node -> (learnt, *node shape): the predicted free state of the first ``learnt`` examples.

        Args:
            sampled: the state of the whole batch at each of ``samples``, as it was measured.
            free: the free state of the whole batch, as it was measured; only a baseline may use that of the first
                ``learnt`` examples.
            learnt: how many examples are learnt from.
        """


@dataclass(frozen=True)
class FreeStateBaseline(Predictor):
    """The free state itself, with no prediction. The rule is then one half of contrastive Hebbian learning."""

    def __call__(self, sampled: Sequence[State], free: State, learnt: int) -> State:
        return {node: value[:learnt] for node, value in free.items()}


@dataclass(frozen=True)
class LeastSquares(Predictor):
    """A linear regression for each unit: clip(c + sum over samples of lambda_k s(k)), an ordinary least-squares fit.

    Fitted for every batch, on the examples that are not learnt from.

    Attributes:
        samples: the moments that the regression uses; default: the first twelve.
        low, high: bounds of the prediction; ``None`` for none.

    Raises:
        InputError: there are no samples, or they do not rise; on use, too few examples to fit.
    """

    samples: tuple[int, ...] = tuple(range(1, 13))
    low: Bound | None = None
    high: Bound | None = None

    def __post_init__(self) -> None:
        if not self.samples or list(self.samples) != sorted(set(self.samples)):
            raise InputError(f"samples {self.samples} must be rising moments of the free phase, at least one.")

    def check(self, others: int) -> None:
        """Raises InputError if so many examples that are not learnt from are too few."""
        if others <= len(self.samples) + 1:
            raise InputError(
                f"{others} examples that are not learnt cannot fit {len(self.samples) + 1} coefficients of a unit: use "
                "larger batches (and leave out a smaller last one), or fewer samples."
            )

    def __call__(self, sampled: Sequence[State], free: State, learnt: int) -> State:
        self.check(len(next(iter(free.values()))) - learnt)
        return {
            node: torch.clamp(
                extrapolated([*(state[node] for state in sampled), value], learnt),
                -torch.inf if self.low is None else self.low,
                torch.inf if self.high is None else self.high,
            )
            for node, value in free.items()
        }


@dataclass(frozen=True)
class PredictiveLearning(Estimator):
    """One free run of the whole batch; the first examples settle again with a teacher.

    Luczak, McNaughton & Kubo (2022, doi 10.1038/s42256-021-00430-y). The batch settles freely. Its first ``learnt``
    examples (so batches must be shuffled) continue from an early moment of that run with the teacher on; the rule
    compares their equilibrium with the prediction of their free state. The gradient is that of the mean loss of these
    examples; the others only fit the prediction. With several processes each uses ``learnt`` examples of its share.

    Attributes:
        free: solver of the free phase, from zero.
        taught: solver of the taught phase, from the free phase's state at ``onset``.
        onset: the moment of the free phase at which the teacher starts.
        learnt: how many examples of a batch are learnt from.
        predictor: predicts the free state of those: ``LeastSquares`` or, as a baseline, ``FreeStateBaseline``.
        teacher: how the teacher acts: ``clamp``, or ``soft_clamp`` with a small beta.
        beta: how strongly the teacher acts.
        rule: how the two states become gradients.

    Raises:
        InputError: the free phase has no such moments; ``learnt`` is below 1 or, on use, above the batch size.
    """

    free: FixedSweeps
    taught: Solver
    onset: int
    learnt: int
    predictor: Predictor = LeastSquares()
    teacher: Teacher = clamp
    beta: float = 1.0
    rule: Rule = clamped_presynaptic

    def __post_init__(self) -> None:
        one_sided(self.beta)  # refuses a beta that does not nudge
        for name, moments in (("onset", (self.onset,)), ("samples", self.predictor.samples)):
            if outside := [moment for moment in moments if not 0 <= moment <= self.free.n]:
                raise InputError(f"{name}: there is no moment {outside[0]} in a free phase of {self.free.n} sweeps.")
        if self.learnt < 1:
            raise InputError(f"learnt {self.learnt}: at least one example of a batch must be learnt from.")

    def check(self, batch: int) -> None:
        """Raises InputError if a batch of so many examples is too small."""
        if batch < self.learnt:
            raise InputError(
                f"A batch of {batch} does not hold {self.learnt} examples to learn from: take larger "
                "batches (and leave out a smaller last one), or learn from fewer."
            )
        self.predictor.check(batch - self.learnt)

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        check_one_reading(landscape)
        self.teacher.check(landscape)
        with torch.no_grad():
            free, passed = settled_through(self.free, landscape, {self.onset, *self.predictor.samples})
        return free, partial(self._learn, landscape, free, passed)

    def _learn(
        self, landscape: Landscape, free: Solution, passed: dict[int, State], cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        self.check(len(cost.weight))
        every = torch.arange(self.learnt, device=cost.weight.device)
        cost = cost.select(every)
        with torch.no_grad():
            measured = landscape.substrate.measured
            sampled = [measured(passed[moment], -2 - moment) for moment in self.predictor.samples]
            expected = self.predictor(sampled, measured(free.state, 0), self.learnt)
            start = select(passed[self.onset], every)
            nudge, _ = nudge_of(cost, [self.beta])
            taught = self.teacher(forms.states, landscape.select(every), expected, nudge)
            if self.teacher.holds:  # at once, however slowly units respond
                start = start | taught.step(start, cost.loss.nodes)
            settled = self.taught(taught, start)
        phases = phases_of(one_sided(self.beta))
        moved = {node: torch.cat([value, settled.state[node]]) for node, value in expected.items()}
        with torch.enable_grad():
            again = landscape.select(every).rebuilt()
            compared = compare(forms.states, again, cost, phases, expected, moved, self.teacher, read=True)
            return GradientEstimate(self.rule(compared, parameters), settled)


def settled_through(
    solver: FixedSweeps, landscape: Landscape, moments: Collection[int]
) -> tuple[Solution, dict[int, State]]:
    """The solution from zero, and the states at ``moments`` on the way."""
    rest = landscape.zeros()
    passed, done = {0: rest}, 0

    @wraps(solver.sweep)
    def sweep(landscape: Landscape, state: State) -> State:
        nonlocal done
        state, done = solver.sweep(landscape, state), done + 1
        if done in moments:
            passed[done] = state
        return state

    return replace(solver, sweep=sweep)(landscape, rest), passed


BLOCK = 2**17
"""How many numbers a regression handles at once: enough for an efficient call, few enough for the cache."""


def extrapolated(path: Sequence[Tensor], learnt: int) -> Tensor:
    """(learnt, ...): the last state of ``path``, predicted from the states before, for the first ``learnt`` examples.

    path: (batch, ...) each; the other examples are the data of the fit. Successive samples are nearly equal, so the
    last change is regressed on the changes before, which span the same space.
    """
    flat = [state.flatten(1) for state in path]
    changes = [flat[0], *(after - before for before, after in itertools.pairwise(flat))]
    units = max(1, BLOCK // (len(flat) * len(flat[0])))
    parts = [
        regressed(torch.stack([change.T for change in block], 1).double(), learnt)
        for block in zip(*(change.split(units, 1) for change in changes), strict=True)
    ]
    return (flat[-2][:learnt] + torch.cat(parts).T).to(path[0]).reshape(learnt, *path[0].shape[1:])


def regressed(values: Tensor, learnt: int) -> Tensor:
    """(units, learnt): the regression of each unit's last value on the others, with an offset.

    values: (units, samples + 1, batch) float64. Directions within rounding are shrunk towards the mean.
    """
    mean = values[..., learnt:].mean(-1, keepdim=True)
    values = values - mean
    held, rows = values[..., learnt:], values.shape[1] - 1
    gram = held @ held.mT
    size = gram.diagonal(dim1=-2, dim2=-1)[:, :rows].sqrt().unsqueeze(-1)
    size = torch.where(size > 0, size, 1)  # units that never move
    scaled = gram[:, :rows, :rows] / (size * size.mT)
    # A bound on the rounding of the Gram matrix, which it keeps positive.
    scaled.diagonal(dim1=-2, dim2=-1).add_(held.shape[-1] * rows * torch.finfo(gram.dtype).eps)
    factor = torch.linalg.cholesky_ex(scaled).L  # not finite if a state is not: the caller checks
    slopes = torch.cholesky_solve(gram[:, :rows, rows:] / size, factor) / size
    return mean[:, rows] + (values[:, :rows, :learnt] * slopes).sum(1)
