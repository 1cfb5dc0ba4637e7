"""Estimators: from a free equilibrium to the gradient of a cost read off it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.energy.losses import Loss, Nudge, Target, take_target
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State, take
from eqprop.learning.forms import Form, Phases, difference, ordinary
from eqprop.learning.rules import Gradients, Rule, contrastive
from eqprop.learning.stencils import Nudging
from eqprop.learning.teachers import Teacher, force
from eqprop.settling.solvers import Settled, Solver, joined


class Cost(NamedTuple):
    """mean over the batch of weight * loss(target, states): what the gradient is of."""

    loss: Loss
    target: Target
    weight: Tensor  # (batch,), signed

    def values(self, landscape: Landscape, state: State) -> Tensor:
        """(batch,): each example's weighted loss."""
        seen = landscape.visible(state)
        return self.weight * self.loss(self.target, *(seen[node] for node in self.loss.nodes))


class Learnt(NamedTuple):
    """What learning found: a gradient for each parameter asked for, and the phases that gave them, if any."""

    gradients: Gradients
    nudged: Settled | None = None


Learn = Callable[[Cost, Sequence[Tensor]], Learnt]
"""(cost, parameters) -> d mean cost / d parameter, for each parameter (or data tensor) of the landscape."""


Phase = tuple[float, float]
"""(beta, the weight of what is seen there)"""


class Estimator(ABC):
    """Settles the free phase, and returns with it the function that learns from it.

    Like ``torch.func.vjp``: the cost may be known only later, and several may be asked about.
    """

    @abstractmethod
    def __call__(self, landscape: Landscape) -> tuple[Settled, Learn]: ...

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators it draws from, so that a checkpoint can keep their states."""
        return ()

    @property
    def sixteen_bits(self) -> bool:
        """Whether the estimate is as good with messages of 16 bits, so that a training may choose them."""
        return False


@dataclass(frozen=True)
class EquilibriumPropagation(Estimator):
    """Settle freely, nudge, settle again, compare (Scellier & Bengio 2017; Laborieux et al. 2021).

    Attributes:
        nudging: the stencil over nudges, e.g. ``symmetric(0.5)``.
        free: solver of the free phase, from rest.
        nudged: solver of each nudged phase, from the free state.
        rule: how the phases become gradients.
        form: the variable in which the nudged phases settle: ``difference`` wherever it applies (elsewhere the ordinary
            form serves), or ``ordinary``, which follows the papers to the letter.
        teacher: how a nudge acts: ``force``, or ``clamp`` and ``soft_clamp``, which hold the output.
        stacked: settle all phases at once, stacked along the batch; or in turn, with the same result and the
            memory of one.

    A phase at beta 0 is the free phase, and is not settled again.

    Contrastive Hebbian learning is ``one_sided(1.0)`` with ``clamp``, on a network of small ``feedback_gain``; any
    other stencil with ``clamp`` is coupled learning.
    """

    nudging: Nudging
    free: Solver
    nudged: Solver
    rule: Rule = contrastive
    form: Form = difference
    teacher: Teacher = force
    stacked: bool = True

    def __call__(self, landscape: Landscape) -> tuple[Settled, Learn]:
        with torch.no_grad():
            free = self.free(landscape, landscape.rest())
        return free, partial(self._learn, landscape, free)

    def generators(self) -> Iterable[torch.Generator]:
        return self.nudging.generators()

    @property
    def sixteen_bits(self) -> bool:
        return self.form is difference

    def _learn(self, landscape: Landscape, free: Settled, cost: Cost, parameters: Sequence[Tensor]) -> Learnt:
        stencil = self.nudging.draw()
        phases = list(zip(stencil.betas, stencil.weights, strict=True))
        parts = [phases] if self.stacked else [[phase] for phase in phases]
        found = [self._contrast(landscape, free, cost, part, parameters) for part in parts]
        gradients = tuple(
            torch.stack(each).sum(0) for each in zip(*(learnt.gradients for learnt in found), strict=True)
        )
        settled = [learnt.nudged for learnt in found if learnt.nudged is not None]
        return Learnt(gradients, joined(settled) if settled else None)

    def _contrast(
        self,
        landscape: Landscape,
        free: Settled,
        cost: Cost,
        phases: Sequence[Phase],
        parameters: Sequence[Tensor],
    ) -> Learnt:
        """The share of these phases in the estimate: settle them, and let the rule read them."""
        form = self.form if self.form.applies(landscape) else ordinary
        # Phases at beta 0 come first and are not settled again.
        phases = sorted(phases, key=lambda phase: phase[0] != 0)
        betas = [beta for beta, _ in phases if beta != 0]
        batch = len(cost.weight)
        every = torch.arange(batch, device=cost.weight.device)  # each example, once a phase
        moved = take(form.start(free.state), every.repeat(len(phases) - len(betas)))
        settled = None
        if betas:
            examples = every.repeat(len(betas))
            start, nudge = take(free.state, examples), nudge_of(cost, betas, examples)
            with torch.no_grad():
                taught = self.teacher(form, landscape.taken(examples), start, nudge)
                settled = self.nudged(taught, form.start(start))
            moved = {node: torch.cat([value, settled.state[node]]) for node, value in moved.items()}
        with torch.enable_grad():
            compared = compare(form, landscape.rebuilt(), cost, phases, free.state, moved, self.teacher.holds)
            gradients = self.rule(compared, parameters)
        if settled is not None:
            still = len(phases) - len(betas)
            settled = settled._replace(state={n: v[still * batch :] for n, v in compared.state.items()})
        return Learnt(gradients, settled)


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
    examples = torch.arange(batch, device=cost.weight.device).repeat(len(phases))
    weight = cost.weight.new_tensor([weight for _, weight in phases]).repeat_interleave(batch) / batch
    nudge = nudge_of(cost, [beta for beta, _ in phases], examples)
    return form.phases(landscape.taken(examples), nudge, take(free, examples), moved, weight, held)


def nudge_of(cost: Cost, betas: Sequence[float], examples: Tensor) -> Nudge:
    """One nudge for a batch stacked once for each beta: of ``examples``, all of them for the first, and so on."""
    scale = torch.cat([beta * cost.weight for beta in betas])
    return Nudge(cost.loss, take_target(cost.target, examples), scale)
