"""Substrates: models of the machine that carries out the ideal mathematics.

A substrate has few gates: weights as they are read, units as they were built, the nudge as it arrives, the place where
a clamp holds, the state as it is measured. Every estimator of finite nudges passes through them; ``InfinitesimalNudge``
and the reference gradients pass the first two, and give the exact gradient of the network as it stands there. The ideal
substrate, the default, returns what it is given. Writing is no gate: the optimiser is the device. A loss's own
parameters are read exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import torch
from torch import Tensor

from eqprop.energy.nodes import Node, State
from eqprop.energy.substitution import swap
from eqprop.energy.terms import Term
from eqprop.errors import InputError

if TYPE_CHECKING:
    from eqprop.energy.couplings import Coupling

C = TypeVar("C", bound="Coupling")


class Substrate:
    """The ideal substrate, and the base of all others: a subclass overrides the methods in which it differs.

    ``reading`` is the index of a physical reading: 0 for the free phase, 1, 2, ... for nudged phases, -1 for a
    prediction, and -2, -3, ... for the free phase before it rests.
    """

    per_phase: bool = False
    """Whether weights are read anew for each phase: phases then settle in turn, as states, and not stacked."""

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        """The coupling with its weights as they are read; see ``read_weights``."""
        return coupling

    def unit(self, name: str, node: Node) -> Node:
        """The node with its unit as it is built."""
        return node

    def injected(self, nudge: Term) -> Term:
        """The nudge as it arrives at its nodes."""
        return nudge

    def aimed(self, node: str, gap: Tensor) -> Tensor:
        """The displacement by which a clamp moves ``node`` if ``gap``, (batch, *node shape), is required."""
        return gap

    def measured(self, state: State, reading: int) -> State:
        """The state as it is measured, for rules and predictions."""
        return state

    def as_made(self) -> Substrate:
        """The machine without what differs between readings: the network on it is the one that learning in situ trains.

        Weights and units are as they were built; nudges arrive as they are sent, and states are measured as they are. A
        fault that is drawn anew, or that rounds the states, returns the ideal substrate here.
        """
        return self if self.is_ideal else AsMade(self)

    def once(self) -> Self:
        """The same for one batch: gates that draw anew return the same results for the same arguments from then on."""
        return self

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators of the draws of ``once``; a checkpoint stores their states."""
        return ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def is_ideal(self) -> bool:
        """Whether this is the ideal substrate."""
        return type(self) is Substrate


IDEAL = Substrate()


@dataclass(frozen=True)
class AsMade(Substrate):
    """The weights of another substrate's free phase, and its units.

    Args:
        of: the other one.
    """

    of: Substrate

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        return self.of.mounted(name, coupling, 0)

    def unit(self, name: str, node: Node) -> Node:
        return self.of.unit(name, node)

    def as_made(self) -> Substrate:
        return self

    def once(self) -> Self:
        return type(self)(self.of.once())

    def generators(self) -> Iterable[torch.Generator]:
        return self.of.generators()


def read_weights(coupling: C, read: Callable[[str, Tensor], Tensor]) -> C:
    """A copy of ``coupling`` with ``read(name, parameter)`` as the value of every parameter.

    The dynamics uses the value that is read; the gradient is that of an exact reading (straight through): the local
    rule of a device, which multiplies measured activities. Where the way down has weights of its own, as on
    ``FeedbackSpread``, they are read likewise. Where weights are conductances, as of ``Resistors``, what would be below
    0 is read as 0.

    Args:
        coupling: whose parameters are read.
        read: (name, parameter) -> the value, in the parameter's shape.

    Raises:
        InputError: a value has another shape.
    """

    def straight(name: str, w: Tensor) -> Tensor:
        value = read(name, w)
        if value.shape != w.shape:
            raise InputError(f"{name} of shape {tuple(w.shape)} is read as {tuple(value.shape)}: keep its shape.")
        return w + ((value.clamp(min=0) if coupling.passive else value) - w).detach()

    found = swap(coupling, {id(w): straight(name, w) for name, w in coupling.named_parameters()})
    if coupling.downwards:
        found.downwards = tuple(read_weights(each, read) for each in coupling.downwards)
    return found
