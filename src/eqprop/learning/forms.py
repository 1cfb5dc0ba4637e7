"""Forms: in which variable the nudged phases settle, and what a rule then reads off them.

The ordinary form settles states, as the papers write it, and compares them. The difference form settles each phase's
displacement from the free state. The two agree where no pooling winner switches; the second neither settles nor
subtracts large numbers, so it is right for nudges, and in precisions, where the first drowns in rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.energy.couplings import Coupling
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.settling.displacement import displacement
from eqprop.settling.solvers import Settled, Solver


@dataclass(frozen=True)
class Phases(ABC):
    """The equilibria that a rule compares, stacked along the batch, phase by phase.

    ``landscape`` and ``nudge`` carry the autograd graph of the parameters; the states are constants.
    """

    landscape: Landscape
    nudge: Coupling
    free: State  # node -> (phases * batch, *node shape), before nudging
    moved: State  # the same after: the states, or their displacements
    weight: Tensor  # (phases * batch,), the stencil's weights over the batch size

    @property
    @abstractmethod
    def state(self) -> State:
        """The nudged state of each phase."""

    @abstractmethod
    def contrast(self) -> Tensor:
        """(phases * batch,): what contrastive rules compare, up to what all phases share."""

    @abstractmethod
    def work(self) -> Tensor:
        """(phases * batch,): each node's potential with that node nudged and its neighbours still free, summed."""

    def cost(self) -> Tensor:
        """(phases * batch,): beta times the loss at the nudged state, through which a read-out learns."""
        seen = self.landscape.visible(self.state)
        return self.nudge.energy(*(seen[node] for node in self.nudge.nodes))


class OrdinaryPhases(Phases):
    @property
    def state(self) -> State:
        return self.moved

    def contrast(self) -> Tensor:
        return self.landscape.contrast(self.moved)

    def work(self) -> Tensor:
        free, moved = self.landscape.visible(self.free), self.landscape.visible(self.moved)
        parts = [
            term.potential(node, *((moved if n == node else free)[n] for n in term.nodes))
            for term in self.landscape.terms.values()
            for node in term.nodes
        ]
        return torch.stack(parts).sum(0)


class DifferencePhases(Phases):
    @property
    def state(self) -> State:
        return {node: value + self.moved[node] for node, value in self.free.items()}

    def contrast(self) -> Tensor:
        return self.landscape.change(self.free, self.moved)

    def work(self) -> Tensor:
        return -self.landscape.work(self.free, self.moved)


class Form(ABC):
    @abstractmethod
    def applies(self, landscape: Landscape) -> bool: ...

    @abstractmethod
    def start(self, free: State) -> State:
        """Where a nudged phase starts, in this form's variable: at the free state."""

    @abstractmethod
    def settle(self, landscape: Landscape, free: State, nudge: Coupling, solver: Solver) -> Settled:
        """The nudged phases, in this form's variable."""

    @property
    @abstractmethod
    def phases(self) -> type[Phases]: ...


@dataclass(frozen=True)
class Ordinary(Form):
    """States. For every coupling; pooling's winners follow the state."""

    phases = OrdinaryPhases

    def applies(self, landscape: Landscape) -> bool:
        return True

    def start(self, free: State) -> State:
        return free

    def settle(self, landscape: Landscape, free: State, nudge: Coupling, solver: Solver) -> Settled:
        return solver(landscape.plus("nudge", nudge), free)


@dataclass(frozen=True)
class Difference(Form):
    """Displacements. For bilinear couplings; pooling's winners are those of the free state."""

    phases = DifferencePhases

    def applies(self, landscape: Landscape) -> bool:
        return landscape.bilinear

    def start(self, free: State) -> State:
        return {node: torch.zeros_like(value) for node, value in free.items()}

    def settle(self, landscape: Landscape, free: State, nudge: Coupling, solver: Solver) -> Settled:
        return solver(displacement(landscape, free, nudge), self.start(free))


ordinary = Ordinary()
difference = Difference()
