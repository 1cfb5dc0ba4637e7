"""Estimators: from a free equilibrium to the gradient of a cost read off it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.energy.losses import Loss, Nudge, Target, select_target
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State, select
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.forms import Form, Phases
from eqprop.learning.rules import Gradients, Rule, contrastive
from eqprop.learning.stencils import Nudging
from eqprop.learning.teachers import Teacher, force
from eqprop.settling.solvers import Solution, Solver, joined


class Cost(NamedTuple):
    """mean over the batch of weight * loss(target, states): what the gradient is of."""

    loss: Loss
    target: Target
    weight: Tensor  # (batch,), signed

    def values(self, landscape: Landscape, state: State) -> Tensor:
        """(batch,): each example's weighted loss."""
        seen = landscape.masked(state)
        return self.weight * self.loss(self.target, *(seen[node] for node in self.loss.nodes))


class GradientEstimate(NamedTuple):
    """What learning found: a gradient for each parameter asked for, and the phases that gave them, if any."""

    gradients: Gradients
    nudged: Solution | None = None


GradientFunction = Callable[[Cost, Sequence[Tensor]], GradientEstimate]
"""(cost, parameters) -> d mean cost / d parameter, for each parameter (or data tensor) of the landscape."""


class Estimator(ABC):
    """Settles the free phase, and returns with it the function that learns from it.

    Like ``torch.func.vjp``: the cost may be known only later, and several may be asked about.
    """

    @abstractmethod
    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]: ...

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators it draws from, so that a checkpoint can keep their states."""
        return ()

    def sixteen_bits(self, landscape: Landscape) -> bool:
        """Whether the estimate is as good with messages of 16 bits there, so that a training may choose them."""
        return False


Phase = tuple[complex, complex]
"""(beta, weight)"""


class PhaseEstimator(Estimator):
    """What estimators share that settle nudged phases and let a rule compare them.

    Attributes:
        free: solver of the free phase, from rest.
        nudged: solver of each nudged phase.
        rule: how the phases become gradients.
        form: the variable in which the nudged phases settle: ``displacements`` wherever it applies,
            elsewhere ``states``; or ``states`` always, which follows the papers to the letter.
        teacher: how a nudge acts: ``force``, or ``clamp`` and ``soft_clamp``, which hold the output.
    """

    free: Solver
    nudged: Solver
    rule: Rule
    form: Form
    teacher: Teacher

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        if self.is_complex:
            self._form(landscape).check_holomorphic(landscape)
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free)

    @property
    @abstractmethod
    def is_complex(self) -> bool:
        """Whether it nudges by complex betas, which only holomorphic networks follow."""

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return self._form(landscape) is forms.displacements

    @abstractmethod
    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate: ...

    def _form(self, landscape: Landscape) -> Form:
        return self.form if self.form.applies(landscape) else forms.states

    def _settle(
        self, landscape: Landscape, free: State, cost: Cost, betas: Sequence[complex], start: State
    ) -> Solution:
        """The nudged phases in the form's variable, stacked along the batch, as ``start`` is; ``free`` is not."""
        nudge, examples = nudge_of(cost, betas)
        kind = nudge.scale.dtype
        start = {node: value.to(torch.promote_types(value.dtype, kind)) for node, value in start.items()}
        with torch.no_grad():
            stacked = select(free, examples)
            return self.nudged(self.teacher(self._form(landscape), landscape.select(examples), stacked, nudge), start)

    def _compare(
        self,
        landscape: Landscape,
        free: State,
        cost: Cost,
        phases: Sequence[Phase],
        moved: State,
        parameters: Sequence[Tensor],
    ) -> tuple[Gradients, State]:
        """The share of these phases in the estimate, and their states; ``moved`` is where each settled."""
        with torch.enable_grad():
            rebuilt = landscape.rebuilt()
            compared = compare(self._form(landscape), rebuilt, cost, phases, free, moved, self.teacher.holds)
            return self.rule(compared, parameters), compared.state


@dataclass(frozen=True)
class EquilibriumPropagation(PhaseEstimator):
    """Settle freely, nudge, settle again, compare (Scellier & Bengio 2017; Laborieux et al. 2021).

    Attributes:
        nudging: the stencil over nudges, e.g. ``symmetric(0.5)``.
        free, nudged, rule, form, teacher: see ``PhaseEstimator``; each nudged phase starts from the free state.
        stacked: settle all phases at once, stacked along the batch, those of complex nudges apart; or in turn, with
            the same result and the memory of one.

    A phase at beta 0 is the free phase, and is not settled again.

    Contrastive Hebbian learning is ``one_sided(1.0)`` with ``clamp``, on a network of small ``feedback_gain``; other
    stencils with ``clamp`` are coupled learning.

    Raises:
        InputError: a nudge is complex, and the network not holomorphic.
    """

    nudging: Nudging
    free: Solver
    nudged: Solver
    rule: Rule = contrastive
    form: Form = forms.displacements
    teacher: Teacher = force
    stacked: bool = True

    def generators(self) -> Iterable[torch.Generator]:
        return self.nudging.generators()

    @property
    def is_complex(self) -> bool:
        return self.nudging.is_complex

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        stencil = self.nudging.draw()
        phases = list(zip(stencil.betas, stencil.weights, strict=True))
        # Real nudges apart from complex ones, whose arithmetic costs twice.
        kinds = [[phase for phase in phases if isinstance(phase[0], complex) is kind] for kind in (False, True)]
        parts = [kind for kind in kinds if kind] if self.stacked else [[phase] for phase in phases]
        found = [self._contrast(landscape, free, cost, part, parameters) for part in parts]
        gradients = tuple(
            torch.stack(each).sum(0) for each in zip(*(learnt.gradients for learnt in found), strict=True)
        )
        settled = [learnt.nudged for learnt in found if learnt.nudged is not None]
        return GradientEstimate(gradients, joined(settled) if settled else None)

    def _contrast(
        self, landscape: Landscape, free: Solution, cost: Cost, phases: Sequence[Phase], parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        """The share of these phases in the estimate: settle them, and let the rule read them."""
        # Phases at beta 0 come first and are not settled again.
        phases = sorted(phases, key=lambda phase: phase[0] != 0)
        betas = [beta for beta, _ in phases if beta != 0]
        still, batch = len(phases) - len(betas), len(cost.weight)
        every = torch.arange(batch, device=cost.weight.device)
        start = self._form(landscape).start(free.state)
        moved, settled = select(start, every.repeat(still)), None
        if betas:
            settled = self._settle(landscape, free.state, cost, betas, select(start, every.repeat(len(betas))))
            moved = {node: torch.cat([value, settled.state[node]]) for node, value in moved.items()}
        gradients, state = self._compare(landscape, free.state, cost, phases, moved, parameters)
        if settled is not None:
            settled = settled._replace(state={node: value[still * batch :] for node, value in state.items()})
        return GradientEstimate(gradients, settled)


def compare(
    form: Form,
    landscape: Landscape,
    cost: Cost,
    phases: Sequence[Phase],
    free: State,
    moved: State,
    held: bool = False,
) -> Phases:
    """What a rule reads: each phase's state next to the state before it.

    Args:
        landscape: built within ``enable_grad``, with the parameters in its graph.
        free: (batch, ...), before nudging.
        moved: (phases * batch, ...), in the form's variable.
        held: whether the teacher held the loss's nodes.
    """
    batch = len(cost.weight)
    nudge, examples = nudge_of(cost, [beta for beta, _ in phases])
    weight = numbers([weight for _, weight in phases], cost.weight).repeat_interleave(batch) / batch
    return form.phases(landscape.select(examples), nudge, select(free, examples), moved, weight, held)


def nudge_of(cost: Cost, betas: Sequence[complex]) -> tuple[Nudge, Tensor]:
    """One nudge for a batch stacked once for each beta, and which example each of its rows is.

    Raises:
        InputError: a beta is complex, and the loss not holomorphic.
    """
    batch = len(cost.weight)
    examples = torch.arange(batch, device=cost.weight.device).repeat(len(betas))
    scale = numbers(betas, cost.weight).repeat_interleave(batch) * cost.weight[examples]
    if scale.is_complex() and not cost.loss.holomorphic:
        raise InputError(
            f"{type(cost.loss).__name__} is not holomorphic, so complex nudges do not apply: choose a smooth loss "
            "(SquaredError, CrossEntropy), or a stencil of real nudges. A loss of your own says `holomorphic = True`."
        )
    return Nudge(cost.loss, select_target(cost.target, examples), scale), examples


def numbers(values: Sequence[complex], like: Tensor) -> Tensor:
    """(len(values),) in the precision of ``like``; complex only where a value is."""
    kind = like.dtype.to_complex() if any(isinstance(value, complex) for value in values) else like.dtype
    return torch.tensor(values, dtype=kind, device=like.device)
