"""Landscapes of displacements: how an equilibrium moves, computed without the difference of two nearby states.

Round a free state s* with drives a*, a nudge moves a network of bilinear couplings by d, where

    d = r(a* + A d + nudge(s* + d)) - r(a*)

and A is the derivative of the drives at fixed pooling winners: ``displacement``. For an infinitesimal force f this is
d = r'(a*) (A d + f), which is linear: ``tangent``. Both are landscapes over d that settle from zero, so every solver
applies. In 16 bits d has its full relative precision, however small it is; a difference of states would not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eqprop.energy.holomorphic import gradient, pushforward
from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import Node, State
from eqprop.energy.terms import Field, Term
from eqprop.energy.units import Stiffness, Unit, is_zero
from eqprop.errors import InputError


@dataclass(frozen=True, eq=False)
class ShiftedUnit(Unit):
    """s = r(at + a) - r(at): another unit as a function of the change of its drive ``at``, (batch, *node shape)."""

    unit: Unit
    at: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parabolic", self.unit.parabolic)

    def select(self, examples: Tensor) -> ShiftedUnit:
        return ShiftedUnit(self.unit.select(examples), self.at[examples])

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        if is_zero(stiffness):
            return self.unit.difference(self.at, drive)
        return self.unit.difference(self.at, drive, stiffness)  # type: ignore[call-arg]

    def potential(self, state: Tensor) -> Tensor:
        """G(s* + s) - G(s*) - at s; its minimum is at s = 0, the response to drive 0."""
        rest = self.unit.response(self.at)
        return self.unit.potential(rest + state) - self.unit.potential(rest) - self.at * state


def displacement(landscape: Landscape, state: State) -> Landscape:
    """The landscape of displacements from ``state``, for bilinear couplings, at fixed pooling winners.

    A nudge is added to it as a ``ShiftedTerm``.

    Args:
        landscape: the landscape in which ``state`` is at rest. A remaining force at ``state`` is left out.
        state: the free state.
    """
    nodes = {
        name: Node(node.shape, ShiftedUnit(landscape.unit(name), landscape.drive(state, name)), node.dropout)
        for name, node in landscape.nodes.items()
    }
    return landscape.displaced(nodes, tangents(landscape, state))


def tangents(landscape: Landscape, state: State) -> dict[str, Term]:
    """The tangent of each term that depends on the state."""
    masked = landscape.masked(state)
    return {
        name: term.tangent(*(masked[node] for node in term.nodes))
        for name, term in landscape.terms.items()
        if not isinstance(term, Field)
    }


class CorrectedTerm(Term):
    """drive + (A^T - A) (states - ``at``): a term whose Jacobian A at the states ``at`` is replaced by its transpose.

    At ``at`` its drives are those of the term. If the term is bilinear, its tangent is A^T, at the pooling winners of
    ``at``.
    """

    symmetric = False

    def __init__(self, term: Term, at: Sequence[Tensor], tangent: Term):
        self.term, self.nodes, self.at = term, term.nodes, tuple(at)
        self.forth, self.back = tangent, tangent.transposed()
        self.bilinear, self.quadratic, self.holomorphic = term.bilinear, term.quadratic, term.holomorphic

    def select(self, examples: Tensor) -> Term:
        at = [state[examples] for state in self.at]
        return CorrectedTerm(self.term.select(examples), at, self.forth.select(examples))

    def energy(self, *states: Tensor) -> Tensor:
        return self.term.energy(*states)  # which raises, as its feedback is not the transpose

    def drive(self, node: str, *states: Tensor) -> Tensor:
        moves = [state - at for state, at in zip(states, self.at, strict=True)]
        return self.term.drive(node, *states) + (self.back.drive(node, *moves) - self.forth.drive(node, *moves))

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self.term.stiffness(node, *states)

    def tangent(self, *states: Tensor) -> Term:
        return self.back if self.bilinear else super().tangent(*states)


def corrected(landscape: Landscape, state: State) -> Landscape:
    """The vector field of ``landscape`` plus (J^T - J)(s - state), where J is its Jacobian at ``state``.

    ``state`` stays at rest, and the Jacobian there becomes J^T, which is as stable as J. So a small force moves the
    state by the adjoint of the force, to first order (Scurria et al. 2026, arXiv 2602.03670). Symmetric terms are left
    as they are: a network with an energy does not change.

    Args:
        landscape: in which ``state`` is at rest.
        state: the free state.
    """
    masked, terms = landscape.masked(state), dict(landscape.terms)
    for name, term in terms.items():
        if not term.symmetric:
            at = [masked[node] for node in term.nodes]
            terms[name] = CorrectedTerm(term, at, term.tangent(*at))
    return landscape.only(terms)


class LinearUnit(Unit):
    """A unit of a linear landscape: at rest K d = drive, where K is the unit's own curvature."""

    @abstractmethod
    def precondition(self, residual: Tensor) -> Tensor:
        """An approximate solution of K d = residual: exact where the unit has a response."""

    @abstractmethod
    def curved(self, residual: Tensor, direction: Tensor) -> Tensor:
        """K applied to ``direction``, which is ``precondition(residual)``."""


@dataclass(frozen=True, eq=False)
class Slope(LinearUnit):
    """s = slope * a, with a slope for each unit: (batch, *node shape), not negative."""

    slope: Tensor = field(repr=False)

    def select(self, examples: Tensor) -> Slope:
        return Slope(self.slope[examples])

    def response(self, drive: Tensor) -> Tensor:
        return self.slope * drive

    def potential(self, state: Tensor) -> Tensor:
        """s^2 / (2 slope); 0 for a unit of slope 0, which cannot move."""
        return torch.where(self.slope > 0, 0.5 * state.square() / self.slope, 0)

    def precondition(self, residual: Tensor) -> Tensor:
        return self.slope * residual

    def curved(self, residual: Tensor, direction: Tensor) -> Tensor:
        return residual  # without the inverse of the slope, which may be 0


@dataclass(frozen=True, eq=False)
class Compliance(LinearUnit):
    """s = r'(at) a / (1 + damping), for a response that is not elementwise; ``at``: (batch, *node shape)."""

    unit: Unit
    at: Tensor = field(repr=False)
    damping: float

    elementwise = False

    def select(self, examples: Tensor) -> Compliance:
        return Compliance(self.unit.select(examples), self.at[examples], self.damping)

    def response(self, drive: Tensor) -> Tensor:
        return self.unit.compliance(self.at, drive) / (1 + self.damping)

    def precondition(self, residual: Tensor) -> Tensor:
        return self.response(residual)

    def curved(self, residual: Tensor, direction: Tensor) -> Tensor:
        return residual


@dataclass(frozen=True, eq=False)
class Curvature(LinearUnit):
    """The energy of a unit without a response, to second order round ``at``, (batch, *node shape)."""

    unit: Unit
    at: Tensor = field(repr=False)
    damping: float

    elementwise = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", self.unit.rate)

    def select(self, examples: Tensor) -> Curvature:
        return Curvature(self.unit.select(examples), self.at[examples], self.damping)

    def force(self, state: Tensor) -> Tensor:
        return (1 + self.damping) * pushforward(self.unit.force, (self.at,), (state,))

    def potential(self, state: Tensor) -> Tensor:
        return -0.5 * state * self.force(state)

    def precondition(self, residual: Tensor) -> Tensor:
        return self.rate * residual

    def curved(self, residual: Tensor, direction: Tensor) -> Tensor:
        return -self.force(direction)


def tangent(
    landscape: Landscape, state: State, force: State, damping: float = 0.0, slopes_from_states: bool = False
) -> Landscape:
    """The linear landscape of displacements from ``state`` under a small ``force``.

    Args:
        landscape: the landscape in which ``state`` is at rest.
        force: node -> (batch, *node shape), for the nodes on which it acts.
        damping: every unit's own curvature is multiplied by ``1 + damping``: a leak, for equilibria that are
            nearly unstable.
        slopes_from_states: take slopes at the units' states instead of at their drives, where units can tell them
            (``slope_at``). At rest both are the same; the drives of a state that is not cost half a sweep.

    Raises:
        InputError: a unit has no derivative.
    """
    check_differentiable(landscape)
    nodes = {
        name: Node(node.shape, linear_unit(landscape, state, name, damping, slopes_from_states), node.dropout)
        for name, node in landscape.nodes.items()
    }
    forces = {f".force.{node}": Field(node, push) for node, push in force.items()}  # no coupling's name has a dot
    return landscape.displaced(nodes, tangents(landscape, state) | forces)


def check_differentiable(landscape: Landscape) -> None:
    """Raises InputError where a unit jumps, so that a gradient through it would be 0 whatever it does to the loss."""
    for name in landscape.nodes:
        if not landscape.unit(name).continuous:
            raise InputError(
                f"Node {name!r} responds by {landscape.unit(name)}, which jumps and has no derivative: learn from "
                "nudges that flip spins, by EquilibriumPropagation, or at a temperature, by ThermalEP or CovarianceEP."
            )


def linear_unit(
    landscape: Landscape, state: State, name: str, damping: float, slopes_from_states: bool = False
) -> LinearUnit:
    """A node's unit to first order, including the stiffness of the node's terms, which ``tangents`` leave out."""
    unit, stiffness = landscape.unit(name), landscape.stiffness(state, name)
    if slopes_from_states and unit.has_slope_at and unit.elementwise:
        own = unit.slope_at(state[name])
        return Slope((own if stiffness is None else own / (1 + own * stiffness)) / (1 + damping))
    drive = landscape.drive(state, name)
    if not unit.has_response:
        if stiffness is not None:
            raise InputError(f"{unit} of node {name!r} has no response, so it cannot include its terms' stiffness.")
        return Curvature(unit, state[name], damping)
    if not unit.elementwise:
        if stiffness is not None:
            raise InputError(f"{unit} of node {name!r} is not elementwise, so it cannot include its terms' stiffness.")
        return Compliance(unit, drive, damping)
    if stiffness is None:
        return Slope(slope(unit.response, drive) / (1 + damping))
    if unit.parabolic:
        stiff = slope(lambda a: unit.response(a, stiffness), drive + stiffness * state[name])  # type: ignore[call-arg]
        return Slope(stiff / (1 + damping))
    own = slope(unit.response, drive)
    return Slope(own / (1 + own * stiffness) / (1 + damping))


def slope(response: Callable[[Tensor], Tensor], drive: Tensor) -> Tensor:
    """The derivative of an elementwise response, unit by unit."""
    return gradient(lambda a: response(a).sum(), drive)


def linear_unit_of(name: str, node: Node) -> LinearUnit:
    """The unit of a node of a linear landscape (``tangent``). Raises InputError for any other."""
    if not isinstance(node.unit, LinearUnit):
        raise InputError(f"Node {name!r} responds by {node.unit}, which is not linear: use a `tangent` landscape.")
    return node.unit


def slope_of(name: str, node: Node) -> Tensor:
    """The slopes of a node of a linear landscape (``tangent``).

    Raises:
        InputError: the node is not of such a landscape, or its unit is not elementwise or has no response.
    """
    if not isinstance(node.unit, Slope):
        raise InputError(f"Node {name!r} responds by {node.unit}, which has no slope for each unit.")
    return node.unit.slope
