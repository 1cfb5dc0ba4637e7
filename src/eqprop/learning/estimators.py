"""Estimators: from a free equilibrium to the gradient of a cost that is read from it."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from eqprop.energy.landscape import Landscape
from eqprop.energy.losses import Loss, Nudge, Target, select_target
from eqprop.energy.nodes import State, select
from eqprop.energy.prediction import PlacedPrediction
from eqprop.energy.substitution import swap
from eqprop.energy.substrate import Substrate
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.contrasts import at
from eqprop.learning.forms import Form, Phases
from eqprop.learning.rules import Gradients, Rule, contrastive
from eqprop.learning.stencils import Nudging, Stencil
from eqprop.learning.teachers import Teacher, force
from eqprop.settling.solvers import Solution, Solver, joined

E = TypeVar("E", bound="Estimator")


class Cost(NamedTuple):
    """The mean over the batch of weight * loss(target, states): the quantity whose gradient is estimated.

    Attributes:
        loss: the loss of one example.
        target: what ``loss`` takes.
        weight: (batch,), signed: scales an example's share of the gradient, which is linear in it, not its nudge.
    """

    loss: Loss
    target: Target
    weight: Tensor

    def values(self, landscape: Landscape, state: State) -> Tensor:
        """(batch,): each example's loss, not weighted."""
        return self.loss(self.target, *at(self.loss, landscape.masked(state)))

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the batch of weight * values, (batch,)."""
        return (self.weight * values).mean()

    def select(self, examples: Tensor) -> Cost:
        """The cost of the batch of the given ``examples``, (n,) int64."""
        return Cost(self.loss, select_target(self.target, examples), self.weight[examples])

    def normalised(self) -> tuple[Cost, Tensor]:
        """The cost with weights of mean size 1, and their divisor: for rules that are not linear in the weights."""
        size = self.weight.abs().mean()
        return self._replace(weight=self.weight / torch.where(size > 0, size, 1)), size

    def with_tensors(self, tensors: Mapping[int, Tensor]) -> Cost:
        """The cost with other parameters of its loss: ``id`` of a parameter -> its replacement."""
        return self._replace(loss=swap(self.loss, tensors))


class GradientEstimate(NamedTuple):
    """The result of learning.

    Attributes:
        gradients: one for each parameter that was passed, of its shape.
        nudged: the settled nudged phases; ``None`` for a rule without them.
    """

    gradients: Gradients
    nudged: Solution | None = None


GradientFunction = Callable[[Cost, Sequence[Tensor]], GradientEstimate]
"""(cost, parameters) -> d mean cost / d parameter, for each parameter (or data tensor) of the landscape.

Raises InputError if the cost does not depend on a parameter, or if a phase does not suit the network."""


class Estimator(ABC):
    """Settles the free phase, and returns it with the function that computes gradients from it.

    As with ``torch.func.vjp``, the cost may become known later, and the function may be called with several costs.
    """

    @abstractmethod
    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        """The settled free phase, and (cost, parameters) -> ``GradientEstimate``."""

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators that it uses; a checkpoint stores their states.

        By default those of its solvers and its nudging.
        """
        parts = [part for part in vars(self).values() if isinstance(part, Solver | Nudging)]
        return [generator for part in parts for generator in part.generators()]

    def sixteen_bits(self, landscape: Landscape) -> bool:
        """Whether messages of 16 bits give an equally good estimate on ``landscape``, so that training may use them."""
        return False


class Phase(NamedTuple):
    """A state that a rule reads.

    Attributes:
        beta: the nudge.
        weight: its share in the estimate.
        reading: which physical reading it is, for a substrate: 0 the free phase, 1, 2, ... each nudged one.
    """

    beta: complex
    weight: complex
    reading: int = 1


def phases_of(stencil: Stencil, back: bool = False) -> list[Phase]:
    """In the stencil's order, and if ``back`` once more in reverse, with half the weight each; readings are numbered.

    Only the first reading may be that of the free phase, 0.
    """
    counting = itertools.count(1)
    pairs = list(zip(stencil.betas, stencil.weights, strict=True))
    there = [Phase(beta, weight, next(counting) if beta else 0) for beta, weight in pairs]
    if not back:
        return there
    again = [Phase(beta, weight, next(counting)) for beta, weight in reversed(pairs)]
    return [phase._replace(weight=0.5 * phase.weight) for phase in (*there, *again)]


class PhaseEstimator(Estimator):
    """The base of estimators that settle nudged phases and compare them by a rule.

    Attributes:
        free: solver of the free phase, from zero.
        nudged: solver of each nudged phase.
        rule: how the phases become gradients.
        form: the variable in which the nudged phases settle: ``displacements`` if the network allows it, else
            ``states``; or always ``states``, exactly as in the papers.
        teacher: how a nudge acts: ``force``, or ``clamp`` and ``soft_clamp``, which hold the output; ``corrected`` also
            corrects the nudged dynamics where feedback is not symmetric.

    Raises:
        InputError: a nudge is complex and the network is not holomorphic; or the teacher does not suit the network.
    """

    free: Solver
    nudged: Solver
    rule: Rule
    form: Form
    teacher: Teacher

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        if self.is_complex:
            self._form(landscape).check_holomorphic(landscape)
        self.teacher.check(landscape)
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free)

    @property
    @abstractmethod
    def is_complex(self) -> bool:
        """Whether it has complex betas, which need a holomorphic network."""

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return self._form(landscape) is forms.displacements

    @abstractmethod
    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate: ...

    def _form(self, landscape: Landscape) -> Form:
        # Where phases differ in their weights, the free state is at rest in none but its own: no displacement tells.
        apart = landscape.substrate.per_phase
        return self.form if self.form.applies(landscape) and not apart else forms.states

    def _settle(
        self, landscape: Landscape, free: Solution, cost: Cost, betas: Sequence[complex], start: State
    ) -> Solution:
        """The nudged phases in the form's variable, stacked along the batch, as ``start`` is; ``free`` is not."""
        nudge, examples = nudge_of(cost, betas)
        kind = nudge.scale.dtype
        start = {node: value.to(torch.promote_types(value.dtype, kind)) for node, value in start.items()}
        with torch.no_grad():
            form = self._form(landscape)
            nudged = self.teacher(form, landscape.select(examples), select(free.state, examples), nudge)
            # A solver's memory belongs to states, and only a solver of the same class can use it.
            kept = free.memory if form is forms.states and type(self.free) is type(self.nudged) else None
            kept = kept and select(kept, examples)
            return self.nudged(nudged, start, kept)

    def _compare(
        self,
        landscape: Landscape,
        free: State,
        cost: Cost,
        phases: Sequence[Phase],
        settled: State,
        parameters: Sequence[Tensor],
    ) -> tuple[Gradients, State]:
        """The share of these phases in the estimate, and their states; ``settled``: the result of each phase."""
        with torch.enable_grad():
            form, rebuilt = self._form(landscape), landscape.rebuilt().remembering(landscape)
            compared = compare(form, rebuilt, cost, phases, free, settled, self.teacher)
            return self.rule(compared, parameters), compared.state


@dataclass(frozen=True)
class EquilibriumPropagation(PhaseEstimator):
    """Settle, nudge, settle again, compare.

    Scellier & Bengio 2017, doi 10.3389/fncom.2017.00024; Laborieux et al. 2021, doi 10.3389/fnins.2021.633674.
    Contrastive Hebbian learning is ``one_sided(1.0)`` with ``clamp``, on a network of small ``feedback_gain``; other
    stencils with ``clamp`` are coupled learning. Asymmetric EP, for networks without energy, is any stencil with
    the rule ``vector_field`` and the teacher ``corrected``.

    Attributes:
        nudging: the stencil over nudges, e.g. ``symmetric(0.5)``. A phase at beta 0 is the free phase.
        free, nudged, rule, form, teacher: see ``PhaseEstimator``; each nudged phase starts from the free state.
        stacked: settle all phases at once, stacked along the batch (real and complex nudges separately); or one after
            another, with the same result and less memory, as a substrate that reads weights ``per_phase`` needs.
        there_and_back: settle and read every phase once more, in reverse order (A B B A), and use the mean of its two
            readings: what drifts linearly in time then cancels. It takes twice the time.
    """

    nudging: Nudging
    free: Solver
    nudged: Solver
    rule: Rule = contrastive
    form: Form = forms.displacements
    teacher: Teacher = force
    stacked: bool = True
    there_and_back: bool = False

    @property
    def is_complex(self) -> bool:
        return self.nudging.is_complex

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        if self.stacked:
            check_one_reading(landscape)
        return PhaseEstimator.__call__(replace(self, nudging=self.nudging.once()), landscape)

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        phases = phases_of(self.nudging.draw(), self.there_and_back)
        per_phase = landscape.substrate.per_phase
        # Real and complex nudges separately: complex arithmetic costs twice as much.
        kinds = [[phase for phase in phases if isinstance(phase.beta, complex) is kind] for kind in (False, True)]
        parts = [kind for kind in kinds if kind] if self.stacked else [[phase] for phase in phases]
        found = [
            self._contrast(
                landscape.rebuilt(reading=part[0].reading) if per_phase else landscape, free, cost, part, parameters
            )
            for part in parts
        ]
        gradients = tuple(
            torch.stack(each).sum(0) for each in zip(*(learnt.gradients for learnt in found), strict=True)
        )
        settled = [learnt.nudged for learnt in found if learnt.nudged is not None]
        return GradientEstimate(gradients, joined(settled) if settled else None)

    def _contrast(
        self, landscape: Landscape, free: Solution, cost: Cost, phases: Sequence[Phase], parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        """The share of these phases in the estimate: settle them, and apply the rule."""
        # Phases at beta 0 come first. They are not settled again where the weights are those of the free phase.
        phases = sorted(phases, key=lambda phase: phase.beta != 0)
        betas = [phase.beta for phase in phases if phase.beta != 0]
        still, batch = len(phases) - len(betas), len(cost.weight)
        every = torch.arange(batch, device=cost.weight.device)
        start = self._form(landscape).start(free.state)
        reached, settled = select(start, every.repeat(still)), None
        if landscape.reading and not betas:  # the free phase once more, on weights that were read anew
            with torch.no_grad():
                reached = self.nudged(landscape, free.state).state
        if betas:
            settled = self._settle(landscape, free, cost, betas, select(start, every.repeat(len(betas))))
            moved = settled.state
            reached = {node: torch.cat([v, moved[node]]) for node, v in reached.items()} if still else moved
        gradients, state = self._compare(landscape, free.state, cost, phases, reached, parameters)
        if settled is not None:
            settled = settled._replace(state={node: value[still * batch :] for node, value in state.items()})
        return GradientEstimate(gradients, settled)


def phases_apart(estimator: E, substrate: Substrate) -> E:
    """The estimator, whose phases settle one after another if the ``substrate`` reads its weights anew in each."""
    if substrate.per_phase and isinstance(estimator, EquilibriumPropagation):
        return replace(estimator, stacked=False)
    return estimator


def check_one_reading(landscape: Landscape) -> None:
    """Raises InputError where all phases are to use one reading of the weights, and the substrate reads them anew."""
    if landscape.substrate.per_phase:
        raise InputError(
            f"{landscape.substrate} reads its weights anew in each phase: take EquilibriumPropagation with "
            "stacked=False."
        )


def compare(
    form: Form,
    landscape: Landscape,
    cost: Cost,
    phases: Sequence[Phase],
    free: State,
    settled: State,
    teacher: Teacher = force,
    read: bool = False,
) -> Phases:
    """The ``Phases`` that a rule reads: the free state and each phase's displacement, as the substrate measures them.

    Args:
        landscape: built within ``enable_grad``, with the parameters in its graph.
        free: (batch, ...), before nudging.
        settled: (phases * batch, ...), in the form's variable.
        teacher: how the nudge acted.
        read: whether ``free`` is what was measured of the free state already.
    """
    batch = len(cost.weight)
    nudge, examples = nudge_of(cost, [phase.beta for phase in phases])
    shares = numbers([phase.weight for phase in phases], cost.weight).repeat_interleave(batch)
    before = select(free, examples)
    displacement = form.displacement(before, settled)
    if not landscape.substrate.is_ideal:
        before, displacement = measured(landscape.substrate, free, displacement, phases, read)
    weight = shares * cost.weight[examples] / batch
    records = any(isinstance(term, PlacedPrediction) for term in landscape.terms.values())  # of that very state
    return Phases(
        landscape.select(examples),
        nudge,
        before,
        displacement,
        weight,
        teacher.holds,
        form.linearized,
        teacher.corrects and not all(term.symmetric for term in landscape.terms.values()),
        settled if landscape.substrate.is_ideal and not form.linearized and records else None,
    )


def measured(
    substrate: Substrate, free: State, displacement: State, phases: Sequence[Phase], read: bool = False
) -> tuple[State, State]:
    """The free state and the displacements as a substrate measures them, stacked phase by phase.

    A displacement is the difference of two measured states. An error of the free reading alone cancels in the
    estimate, as the weights of a stencil sum to 0. ``read``: whether ``free`` was measured already.
    """
    batch = len(next(iter(free.values())))
    before = free if read else substrate.measured(free, 0)
    shown = []
    for k, phase in enumerate(phases):
        rows = slice(k * batch, (k + 1) * batch)
        state = {node: value + displacement[node][rows] for node, value in free.items()}
        after = substrate.measured(state, phase.reading) if phase.reading else before
        exact = before is free and (after is state or after is before)  # subtracting would round
        shown.append({n: displacement[n][rows] if exact else after[n] - before[n] for n in before})
    stacked = {node: torch.cat([each[node] for each in shown]) for node in before}
    return {node: value.repeat(len(phases), *(1 for _ in value.shape[1:])) for node, value in before.items()}, stacked


def nudge_of(cost: Cost, betas: Sequence[complex]) -> tuple[Nudge, Tensor]:
    """One nudge for the batch repeated once for each beta, and the example that each row belongs to.

    Raises:
        InputError: a beta is complex and the loss is not holomorphic.
    """
    batch = len(cost.weight)
    examples = torch.arange(batch, device=cost.weight.device).repeat(len(betas))
    scale = numbers(betas, cost.weight).repeat_interleave(batch)
    if scale.is_complex() and not cost.loss.holomorphic:
        raise InputError(
            f"{type(cost.loss).__name__} is not holomorphic, so complex nudges do not apply: choose a smooth loss "
            "(SquaredError, CrossEntropy), or a stencil of real nudges. If a loss of your own is holomorphic, state "
            "`holomorphic = True`."
        )
    return Nudge(cost.loss, select_target(cost.target, examples), scale), examples


def numbers(values: Sequence[complex], like: Tensor) -> Tensor:
    """(len(values),) in the precision of ``like``; complex if a value is complex."""
    kind = like.dtype.to_complex() if any(isinstance(value, complex) for value in values) else like.dtype
    return torch.stack([like.new_full((), value, dtype=kind) for value in values])  # no copy that waits for the device
