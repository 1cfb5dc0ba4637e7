"""Landscapes of displacements: how an equilibrium moves, without ever subtracting two nearby states.

Round a free state s* with drives a*, a network of bilinear couplings moves by d under a nudge, where

    d = r(a* + A d + nudge(s* + d)) - r(a*)

and A is the derivative of the drives, pooling's winners held: `displacement`. For an infinitesimal force f that is
d = r'(a*) (A d + f), which is linear: `tangent`. Either is a landscape like any other, over d and settled from zero, so
every solver serves. In 16 bits d keeps its relative precision however small it is, where states would lose it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.energy.couplings import Coupling, Field
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import Node, State
from eqprop.energy.units import Unit
from eqprop.errors import InputError


@dataclass(frozen=True, eq=False)
class ShiftedUnit(Unit):
    """s = r(at + a) - r(at): another unit, seen from the drive ``at``, (batch, *node shape)."""

    unit: Unit
    at: Tensor

    def select(self, examples: Tensor) -> ShiftedUnit:
        return ShiftedUnit(self.unit, self.at[examples])

    def response(self, drive: Tensor) -> Tensor:
        return self.unit.difference(self.at, drive)

    def potential(self, state: Tensor) -> Tensor:
        """G(s* + s) - G(s*) - at s: least where the response to no drive is, at s = 0."""
        rest = self.unit.response(self.at)
        return self.unit.potential(rest + state) - self.unit.potential(rest) - self.at * state


class ShiftedTerm(Coupling):
    """A term seen from given states: a function of displacements."""

    def __init__(self, coupling: Coupling, states: Sequence[Tensor]):
        super().__init__()
        self.coupling, self.nodes, self.states = coupling, coupling.nodes, tuple(states)

    def select(self, examples: Tensor) -> Coupling:
        return ShiftedTerm(self.coupling.select(examples), [state[examples] for state in self.states])

    def energy(self, *states: Tensor) -> Tensor:
        return self.coupling.energy(*self._at(states))

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.coupling.drive(node, *self._at(states))

    def _at(self, moves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(state + move for state, move in zip(self.states, moves, strict=True))


def displacement(landscape: Landscape, state: State) -> Landscape:
    """The landscape of displacements from ``state``, for bilinear couplings, winners held.

    A nudge is one more term of it, ``ShiftedTerm``.

    Args:
        landscape: where ``state`` is at rest. What it is short of rest is left out of the displacement.
    """
    nodes = {
        name: Node(node.shape, ShiftedUnit(unit_of(node), landscape.drive(state, name)), node.dropout)
        for name, node in landscape.nodes.items()
    }
    return landscape.displaced(nodes, tangents(landscape, state))


def tangents(landscape: Landscape, state: State) -> dict[str, Coupling]:
    """The tangent of each term that depends on the state."""
    seen = landscape.masked(state)
    return {
        name: term.tangent(*(seen[node] for node in term.nodes))
        for name, term in landscape.terms.items()
        if not isinstance(term, Field)
    }


@dataclass(frozen=True, eq=False)
class Slope(Unit):
    """s = slope * a, the slope each unit's own: (batch, *node shape), not negative."""

    slope: Tensor

    def select(self, examples: Tensor) -> Slope:
        return Slope(self.slope[examples])

    def response(self, drive: Tensor) -> Tensor:
        return self.slope * drive

    def potential(self, state: Tensor) -> Tensor:
        """s^2 / (2 slope); a unit of slope 0 cannot move, and stores nothing."""
        return torch.where(self.slope > 0, 0.5 * state.square() / self.slope, 0)


def tangent(landscape: Landscape, state: State, force: State, damping: float = 0.0) -> Landscape:
    """The landscape of displacements round ``state``, pushed by ``force``.

    Args:
        landscape: where ``state`` is at rest.
        force: node -> (batch, *node shape), on the nodes that are pushed.
        damping: every unit's stiffness 1/r' is multiplied by ``1 + damping``: a leak, for equilibria that are
            nearly unstable.
    """
    nodes = {
        name: Node(node.shape, Slope(slope(node, landscape.drive(state, name)) / (1 + damping)), node.dropout)
        for name, node in landscape.nodes.items()
    }
    forces = {f"force_{node}": Field(node, push) for node, push in force.items()}
    return landscape.displaced(nodes, tangents(landscape, state) | forces)


def slope(node: Node, drive: Tensor) -> Tensor:
    """r'(drive), unit by unit."""
    return torch.func.jvp(unit_of(node).response, (drive,), (torch.ones_like(drive),))[1]


def slope_of(name: str, node: Node) -> Tensor:
    """The slopes of a node of a linear landscape (``tangent``). Raises InputError for any other."""
    if not isinstance(node.unit, Slope):
        raise InputError(
            f"Node {name!r} responds by {node.unit}, which has no slope: make a `tangent` landscape first."
        )
    return node.unit.slope


def unit_of(node: Node) -> Unit:
    assert node.unit is not None
    return node.unit
