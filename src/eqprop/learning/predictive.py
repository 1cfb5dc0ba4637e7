"""The predictive learning rule: a unit learns by what it does less what it expected to do.

A synapse changes by (its input) x (the unit's activity under the teacher - the unit's own prediction of its free
activity), both phases' inputs being those under the teacher (Luczak, McNaughton & Kubo 2022). The prediction is made
from the first moments of the same run, so the examples that are learnt need not settle freely too (here they do, for
the metrics). It replaces the free activity of contrastive Hebbian learning, of whose two halves the rule is one:
x'y' - x y = x'(y' - y) + (x' - x) y, of which `clamped_presynaptic` is the first.

A moment is counted in sweeps done: 0 is rest, k the state after k sweeps.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps

import torch
from torch import Tensor

from eqprop.energy.losses import select_target
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State, select
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction, compare, nudge_of
from eqprop.learning.rules import Rule, clamped_presynaptic
from eqprop.learning.stencils import one_sided
from eqprop.learning.teachers import Teacher, clamp
from eqprop.settling.solvers import FixedSweeps, Solution, Solver


class Predictor(ABC):
    """What each unit expects its free state to be."""

    samples: tuple[int, ...] = ()
    """The moments of the free phase that it looks at."""

    @abstractmethod
    def __call__(self, sampled: Sequence[State], free: State, learnt: int) -> State:
        """Node -> (learnt, *node shape): the free state that the first ``learnt`` examples are expected to reach.

        Args:
            sampled: at each of ``samples``, the whole batch's state.
            free: where the whole batch came to rest; of the examples that are learnt only a baseline may look at it.
        """


@dataclass(frozen=True)
class FreeStateBaseline(Predictor):
    """No prediction: the free state itself. The rule is then contrastive Hebbian learning's, in its delta form."""

    def __call__(self, sampled: Sequence[State], free: State, learnt: int) -> State:
        return {node: value[:learnt] for node, value in free.items()}


@dataclass(frozen=True)
class LeastSquares(Predictor):
    """Each unit's own linear regression: clip(c + sum over samples of lambda_k s(k)), an ordinary least-squares fit.

    Fitted anew to every batch, on the examples that are not learnt.

    Attributes:
        samples: the moments that the regression sees; the default is the first twelve.
        low, high: bounds of the prediction; ``None`` for none.

    Raises:
        InputError: there are no samples, or they do not rise.
    """

    samples: tuple[int, ...] = tuple(range(1, 13))
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not self.samples or list(self.samples) != sorted(set(self.samples)):
            raise InputError(f"samples {self.samples} must be rising moments of the free phase, at least one.")

    def __call__(self, sampled: Sequence[State], free: State, learnt: int) -> State:
        held = len(next(iter(free.values()))) - learnt
        if held <= len(self.samples) + 1:
            raise InputError(
                f"{held} examples that are not learnt cannot fit {len(self.samples) + 1} coefficients of a unit: take "
                "larger batches (and leave out a smaller last one), or fewer samples."
            )
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
    """Luczak, McNaughton & Kubo (2022): one free run of the whole batch; some of its examples meet the teacher.

    The batch settles freely. Its first ``learnt`` examples (so batches must be shuffled) go on from an early moment of
    that run with the teacher on; the rule compares where they come to rest with where they were expected to come to
    rest without. The gradient is that of their mean loss: the others serve the prediction alone. In several processes
    each learns from so many examples of its own share.

    Attributes:
        free: solver of the free phase, from rest.
        taught: solver of the taught phase, from the free phase's state at ``onset``.
        onset: the moment of the free phase at which the teacher comes.
        learnt: how many examples of a batch are learnt from.
        predictor: what stands for the free state of those: ``LeastSquares`` or, as a baseline, ``FreeStateBaseline``.
        teacher: how the teacher acts, ``beta`` how strongly: the hard clamp at 1, or ``soft_clamp`` at a small beta.
        rule: how the two states become gradients.

    Raises:
        InputError: the free phase has no such moments, or there is nothing to learn.
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

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        with torch.no_grad():
            free, passed = settled_through(self.free, landscape, {self.onset, *self.predictor.samples})
        return free, partial(self._learn, landscape, free, passed)

    def _learn(
        self, landscape: Landscape, free: Solution, passed: dict[int, State], cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        if len(cost.weight) < self.learnt:
            raise InputError(
                f"A batch of {len(cost.weight)} does not hold {self.learnt} examples to learn from: take larger "
                "batches (and leave out a smaller last one), or learn from fewer."
            )
        every = torch.arange(self.learnt, device=cost.weight.device)
        cost = Cost(cost.loss, select_target(cost.target, every), cost.weight[every])
        with torch.no_grad():
            sampled = [passed[moment] for moment in self.predictor.samples]
            expected = self.predictor(sampled, free.state, self.learnt)
            start = select(passed[self.onset], every)
            nudge, _ = nudge_of(cost, [self.beta])
            taught = self.teacher(forms.states, landscape.select(every), expected, nudge)
            if self.teacher.holds:  # at once, however slowly units respond
                start = start | taught.relax(start, cost.loss.nodes)
            settled = self.taught(taught, start)
        stencil = one_sided(self.beta)
        phases = list(zip(stencil.betas, stencil.weights, strict=True))
        moved = {node: torch.cat([value, settled.state[node]]) for node, value in expected.items()}
        with torch.enable_grad():
            again = landscape.select(every).rebuilt()
            compared = compare(forms.states, again, cost, phases, expected, moved, self.teacher.holds)
            return GradientEstimate(self.rule(compared, parameters), settled)


def settled_through(
    solver: FixedSweeps, landscape: Landscape, moments: Collection[int]
) -> tuple[Solution, dict[int, State]]:
    """Where the solver comes to from rest, and the states at ``moments`` of the way."""
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
"""Numbers that a regression handles at once: enough units to be worth a call, few enough for a cache."""


def extrapolated(path: Sequence[Tensor], learnt: int) -> Tensor:
    """(learnt, ...): the last state of ``path`` as predicted from those before, for the first ``learnt`` examples.

    path: (batch, ...) each, the last what is predicted; the other examples' tell how. Successive samples are nearly the
    same, so the last change is regressed on the changes before, which span the same space.
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

    values: (units, samples + 1, batch) float64. What rounding leaves undetermined is shrunk towards the mean.
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
    factor = torch.linalg.cholesky_ex(scaled).L  # not finite where a state is not: the caller's to notice
    slopes = torch.cholesky_solve(gram[:, :rows, rows:] / size, factor) / size
    return mean[:, rows] + (values[:, :rows, :learnt] * slopes).sum(1)
