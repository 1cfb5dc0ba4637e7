"""Forms: in which variable the nudged phases settle, and what a rule then reads off them.

The ordinary form settles states, as the papers write it, and compares them. The difference form settles each phase's
displacement from the free state. The two agree where no pooling winner switches; the second neither settles nor
subtracts large numbers, so it is right for nudges, and in precisions, where the first drowns in rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eqprop.energy.couplings import Coupling
from eqprop.energy.maps import sum_per_example
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.settling.displacement import ShiftedTerm, displacement, unit_of


@dataclass(frozen=True)
class Phases(ABC):
    """The equilibria that a rule compares, stacked along the batch, phase by phase.

    ``landscape`` and ``nudge`` carry the autograd graph of the parameters; the states are constants.
    """

    landscape: Landscape
    nudge: Coupling
    free: State  # node -> (phases * batch, *node shape), before nudging
    moved: State  # the same after: the states, or their displacements
    weight: Tensor  # (phases * batch,), the stencil's weights over the batch size; complex if its nudges are
    held: bool = False  # whether the teacher held the nodes of ``nudge``, instead of adding it to the energy

    @property
    @abstractmethod
    def state(self) -> State:
        """The nudged state of each phase."""

    @property
    @abstractmethod
    def displacement(self) -> State:
        """The nudged state of each phase, less the free one."""

    @abstractmethod
    def contrast(self) -> Tensor:
        """(phases * batch,): what contrastive rules compare, up to what all phases share."""

    @abstractmethod
    def work(self) -> Tensor:
        """(phases * batch,): each node's potential with that node nudged and its neighbours still free, summed."""

    def driven(self, share: float) -> Tensor:
        """(phases * batch,): -<what each coupling drives its last node with, the change of that node>, summed.

        ``share``: at which activity, from the free state (0) to the nudged one (1).
        """
        change = self.displacement
        seen = self.landscape.masked({node: value + share * change[node] for node, value in self.free.items()})
        moved = self.landscape.masked({node: by * change[node] for node, by in self.amplification.items()})
        parts = [
            -sum_per_example(term.drive(node, *(seen[n] for n in term.nodes)) * moved[node])
            for term in self.landscape.terms.values()
            for node in term.nodes[-1:]
        ]
        return torch.stack(parts).sum(0)

    @cached_property
    def amplification(self) -> dict[str, float]:
        """Node -> what undoes the feedback gains between it and the teacher."""
        return self.landscape.amplification(self.nudge.nodes)

    def cost(self) -> Tensor:
        """(phases * batch,): beta times the loss at the nudged state, through which a read-out learns.

        Nothing where the teacher held nodes: no loss is then a part of the energy.
        """
        if self.held:
            return torch.zeros_like(self.weight)
        seen = self.landscape.masked(self.state)
        return self.nudge.energy(*(seen[node] for node in self.nudge.nodes))


class OrdinaryPhases(Phases):
    @property
    def state(self) -> State:
        return self.moved

    @property
    def displacement(self) -> State:
        return {node: value - self.free[node] for node, value in self.moved.items()}

    def contrast(self) -> Tensor:
        return self.landscape.contrast(self.moved, self.amplification)

    def work(self) -> Tensor:
        free, moved = self.landscape.masked(self.free), self.landscape.masked(self.moved)
        parts = [
            self.amplification[node] * term.potential(node, *((moved if n == node else free)[n] for n in term.nodes))
            for term in self.landscape.terms.values()
            for node in term.nodes
        ]
        return torch.stack(parts).sum(0)


class DifferencePhases(Phases):
    @property
    def state(self) -> State:
        return {node: value + self.moved[node] for node, value in self.free.items()}

    @property
    def displacement(self) -> State:
        return self.moved

    def contrast(self) -> Tensor:
        return self.landscape.contrast_difference(self.free, self.moved, self.amplification)

    def work(self) -> Tensor:
        return -self.landscape.work(self.free, self.moved, self.amplification)


class Form(ABC):
    @abstractmethod
    def applies(self, landscape: Landscape) -> bool: ...

    @abstractmethod
    def start(self, free: State) -> State:
        """Where a nudged phase starts, in this form's variable: at the free state."""

    @abstractmethod
    def landscape(self, landscape: Landscape, free: State) -> Landscape:
        """The landscape in this form's variable, in which ``free`` is at ``start``."""

    @abstractmethod
    def term(self, landscape: Landscape, free: State, term: Coupling) -> Coupling:
        """A term of the states, as one of this form's variable."""

    def check_holomorphic(self, landscape: Landscape) -> None:
        """Raises InputError where a complex nudge meets what has no holomorphic extension."""
        for name, node in landscape.nodes.items():
            if not unit_of(node).holomorphic:
                raise InputError(
                    f"Node {name!r} responds by {node.unit}, which is not holomorphic, so complex nudges do not "
                    "apply: choose a smooth activation (SmoothClip, Sigmoid, Tanh), or a stencil of real nudges. An "
                    "activation of your own says `holomorphic = True`."
                )

    @property
    @abstractmethod
    def phases(self) -> type[Phases]: ...


@dataclass(frozen=True)
class States(Form):
    """States. For every coupling; pooling's winners follow the state."""

    phases = OrdinaryPhases

    def applies(self, landscape: Landscape) -> bool:
        return True

    def start(self, free: State) -> State:
        return free

    def landscape(self, landscape: Landscape, free: State) -> Landscape:
        return landscape

    def term(self, landscape: Landscape, free: State, term: Coupling) -> Coupling:
        return term

    def check_holomorphic(self, landscape: Landscape) -> None:
        super().check_holomorphic(landscape)
        for name, term in landscape.terms.items():
            if not term.holomorphic:
                raise InputError(
                    f"The coupling {name!r} is not holomorphic, so complex nudges do not apply in the ordinary form: "
                    "pool by SoftPool or AveragePool instead of MaxPool, and carry by Dense or Convolution instead of "
                    "a module; or, where all couplings are bilinear, use the difference form. A map or coupling of "
                    "your own says `holomorphic = True`."
                )


@dataclass(frozen=True)
class Displacements(Form):
    """Displacements. For bilinear couplings; pooling's winners are those of the free state.

    So it is holomorphic wherever activations and loss are: what couplings do to displacements is linear.
    """

    phases = DifferencePhases

    def applies(self, landscape: Landscape) -> bool:
        return landscape.bilinear

    def start(self, free: State) -> State:
        return {node: torch.zeros_like(value) for node, value in free.items()}

    def landscape(self, landscape: Landscape, free: State) -> Landscape:
        return displacement(landscape, free)

    def term(self, landscape: Landscape, free: State, term: Coupling) -> Coupling:
        seen = landscape.masked(free)
        return ShiftedTerm(term, [seen[node] for node in term.nodes])


states = States()
displacements = Displacements()
