"""Forms: the variable in which the nudged phases settle, and from which a rule reads.

``states`` settles states, as in the papers, and compares them. ``displacements`` settles each phase's displacement from
the free state. The two agree if no pooling winner changes. The second neither settles nor subtracts large numbers, so
it stays exact for small nudges and low precisions, where the first is lost to rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eqprop.energy.gains import amplification_from
from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.energy.shapes import sum_per_example
from eqprop.energy.terms import ShiftedTerm, Term
from eqprop.errors import InputError
from eqprop.learning.contrasts import at, contrast, contrast_difference, drive_dot
from eqprop.settling.displacement import displacement


@dataclass(frozen=True)
class Phases:
    """The equilibria that a rule compares, stacked along the batch, phase by phase.

    ``landscape`` and ``nudge`` have the parameters in their autograd graph; the states are constants.

    Attributes:
        landscape: without the nudge.
        nudge: the nudged loss of each phase.
        free: node -> (phases * batch, *node shape), before nudging.
        displacement: node -> the same shape: the nudged state of each phase minus the free state.
        weight: (phases * batch,): stencil weight * example weight / batch size; complex if the nudges are.
        held: whether the teacher held the nodes of ``nudge``, instead of adding it to the energy.
        linearized: whether pooling's winners are those of the free state, as in the form ``displacements``.
        corrected: whether feedback is not symmetric and displacements are adjoints, as the teacher ``corrected`` makes
            them: the derivatives of drives at the free state then give the gradient, without amplification.
        reached: the nudged states as they settled, where terms recorded an evaluation of them; else ``None``.
    """

    landscape: Landscape
    nudge: Term
    free: State
    displacement: State
    weight: Tensor
    held: bool
    linearized: bool
    corrected: bool = False
    reached: State | None = None

    @property
    def state(self) -> State:
        """The nudged state of each phase."""
        if self.reached is not None:
            return self.reached
        return {node: value + self.displacement[node] for node, value in self.free.items()}

    def contrast(self) -> Tensor:
        """(phases * batch,): what contrastive rules compare, up to a constant that all phases share.

        Raises:
            InputError: displacements are ``corrected``.
        """
        for name, term in self.landscape.terms.items() if self.corrected else ():
            if not term.symmetric:
                raise InputError(
                    f"The feedback of {name!r} is not the transpose of its feedforward path, so no contrast of the "
                    "phases of the teacher `corrected` is a gradient: take the rule vector_field."
                )
        if self.linearized:
            return contrast_difference(self.landscape, self.free, self.displacement, self.amplification)
        return contrast(self.landscape, self.state, self.amplification)

    def vector_field_objective(self) -> Tensor:
        """(phases * batch,): the sum of each node's potential with that node nudged and its neighbours free."""
        if self.linearized or self.corrected:
            return -drive_dot(self.landscape, self.free, self.displacement, self.amplification)
        free, moved = self.landscape.masked(self.free), self.landscape.masked(self.state)
        parts = [
            self.amplification[node] * term.potential(node, *at(term, free | {node: moved[node]}))
            for term in self.landscape.terms.values()
            for node in term.nodes
        ]
        return torch.stack(parts).sum(0)

    def driven(self, share: float) -> Tensor:
        """(phases * batch,): the sum over couplings of -<drive on the last node, displacement of that node>.

        ``share``: the state at which drives are evaluated, from the free one (0) to the nudged one (1).
        """
        between = {node: value + share * self.displacement[node] for node, value in self.free.items()}
        masked = self.landscape.masked(between)
        moved = self.landscape.masked({n: by * self.displacement[n] for n, by in self.amplification.items()})
        parts = [
            -sum_per_example(term.drive(node, *at(term, masked)) * moved[node])
            for term in self.landscape.terms.values()
            for node in term.nodes[-1:]
        ]
        return torch.stack(parts).sum(0)

    @cached_property
    def amplification(self) -> dict[str, float]:
        """Node -> the factor that cancels the feedback gains between it and the teacher; 1 for adjoints."""
        if self.corrected:
            return dict.fromkeys(self.landscape.nodes, 1.0)
        return amplification_from(self.landscape, self.nudge.nodes)

    def cost(self) -> Tensor:
        """(phases * batch,): beta times the loss at the nudged state; a read-out learns from it.

        0 if the teacher held nodes: the loss is then no part of the energy.
        """
        if self.held:
            return torch.zeros_like(self.weight)
        return self.nudge.energy(*at(self.nudge, self.landscape.masked(self.state)))


class Form(ABC):
    """The variable in which nudged phases settle: ``states`` or ``displacements``."""

    linearized: bool
    """Whether pooling's winners are fixed at the free state."""

    @abstractmethod
    def applies(self, landscape: Landscape) -> bool:
        """Whether every unit and coupling of ``landscape`` allows this form."""

    @abstractmethod
    def start(self, free: State) -> State:
        """The start of a nudged phase: the free state, in this form's variable."""

    @abstractmethod
    def displacement(self, free: State, settled: State) -> State:
        """The displacement from ``free`` of a phase whose result, in this form's variable, is ``settled``."""

    @abstractmethod
    def landscape(self, landscape: Landscape, free: State) -> Landscape:
        """``landscape`` as a function of this form's variable."""

    @abstractmethod
    def term(self, landscape: Landscape, free: State, term: Term) -> Term:
        """A term of the states as a function of this form's variable."""

    def check_holomorphic(self, landscape: Landscape) -> None:
        """Raises InputError if a unit or coupling has no holomorphic extension, which complex nudges need."""
        for name in landscape.nodes:
            if not landscape.unit(name).holomorphic:
                raise InputError(
                    f"Node {name!r} responds by {landscape.unit(name)}, which is not holomorphic, so complex nudges do "
                    "not apply: choose a smooth unit (SmoothClip, Sigmoid, Tanh), or a stencil of real nudges. If a "
                    "unit of your own is holomorphic, state `holomorphic = True`."
                )


@dataclass(frozen=True)
class States(Form):
    """The states themselves, for every coupling and unit; pooling's winners change with the state."""

    linearized = False

    def applies(self, landscape: Landscape) -> bool:
        return True

    def start(self, free: State) -> State:
        return free

    def displacement(self, free: State, settled: State) -> State:
        return {node: value - free[node] for node, value in settled.items()}

    def landscape(self, landscape: Landscape, free: State) -> Landscape:
        return landscape

    def term(self, landscape: Landscape, free: State, term: Term) -> Term:
        return term

    def check_holomorphic(self, landscape: Landscape) -> None:
        super().check_holomorphic(landscape)
        for name, term in landscape.terms.items():
            if not term.holomorphic:
                raise InputError(
                    f"The coupling {name!r} is not holomorphic, so complex nudges do not apply in the form `states`: "
                    "pool by SoftPool or AveragePool instead of MaxPool, and map by Dense or Convolution instead of "
                    "a module; or, if all couplings are bilinear, use the form `displacements`. If a map or coupling "
                    "of your own is holomorphic, state `holomorphic = True`."
                )


@dataclass(frozen=True)
class Displacements(Form):
    """Displacements from the free state, for bilinear couplings and units with a response.

    Pooling's winners are those of the free state, so couplings act linearly on displacements: complex nudges need
    holomorphic units and losses only.
    """

    linearized = True

    def applies(self, landscape: Landscape) -> bool:
        return landscape.bilinear and all(landscape.unit(node).has_response for node in landscape.nodes)

    def start(self, free: State) -> State:
        return {node: torch.zeros_like(value) for node, value in free.items()}

    def displacement(self, free: State, settled: State) -> State:
        return settled

    def landscape(self, landscape: Landscape, free: State) -> Landscape:
        return displacement(landscape, free)

    def term(self, landscape: Landscape, free: State, term: Term) -> Term:
        return ShiftedTerm(term, at(term, landscape.masked(free)))


states = States()
"""Nudged phases settle as states, as in the papers."""
displacements = Displacements()
"""Nudged phases settle as displacements from the free state."""
