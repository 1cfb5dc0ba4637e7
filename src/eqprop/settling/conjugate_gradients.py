"""Conjugate gradients for linear landscapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.checks import Count, NonNegative
from eqprop.energy.gains import self_adjoint_weights
from eqprop.energy.landscape import Landscape, weighted
from eqprop.energy.nodes import State
from eqprop.energy.shapes import capturing, example_dims, expand_like
from eqprop.energy.terms import Field, Term
from eqprop.errors import InputError
from eqprop.settling.displacement import linear_unit_of
from eqprop.settling.progress import swept
from eqprop.settling.solvers import Solution, Solver, Status


@dataclass(frozen=True)
class ConjugateGradients(Solver):
    """Solves a linear landscape (``tangent``) with an energy, example by example; an iteration costs a sweep.

    With feedback gains the landscape is symmetric in an inner product weighted by the amplification of each node
    (``gains.self_adjoint_weights``). Displacements are then compared times that weight, as learning reads them.

    If no term couples two nodes of one colour, one colour is eliminated exactly and the iteration runs on the other.
    An example is settled when a sweep would move none of its units by more than ``tolerance`` times the first step of
    its force. It stops as UNSTABLE at negative curvature: the landscape is then not linearised at a stable equilibrium.
    It stops as NON_FINITE if a force or a residual is infinite or NaN; its state is then NaN. The estimated distance to
    rest is the residual: how far the next sweep would move a unit.

    Attributes:
        iterations: the largest number of iterations.
        tolerance: see above.

    Raises:
        InputError: an argument is out of range; the landscape is not linear, or its feedback not the transpose; or a
            feedback gain is 0 or negative, or differs between two ways to a node.
    """

    iterations: Count
    tolerance: NonNegative = 1e-6

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        """The solution; ``start`` must be zero."""
        units = {name: linear_unit_of(name, node) for name, node in landscape.nodes.items()}
        fields: dict[str, Term] = {name: term for name, term in landscape.terms.items() if isinstance(term, Field)}
        couplings = {name: term for name, term in landscape.terms.items() if name not in fields}
        check_reciprocal(couplings)
        free, force = landscape.only(couplings), landscape.only(fields)  # A, and b
        forced = {term.nodes[0] for term in fields.values()}
        retained, eliminated = self._split(landscape, forced)
        weights = self_adjoint_weights(landscape, sorted(forced, key=list(landscape.nodes).index))

        # Eliminated nodes are always at their exact response to the retained ones, which start at zero.
        d = start | force.step(start, eliminated)
        driven = force if forced.isdisjoint(eliminated) else landscape  # at first only b acts
        residual = {n: driven.drive(d, n) for n in retained}
        q, p = residual, {n: units[n].precondition(residual[n]) for n in retained}
        norm = landscape.inner(residual, p, weights)
        first = largest(weighted(p, weights))
        frontier = forced if forced.isdisjoint(eliminated) else neighbours(free, forced)
        wild, unstable, moving = ~norm.isfinite(), torch.zeros_like(norm, dtype=torch.bool), norm > 0
        taken = torch.zeros_like(norm, dtype=torch.int64)
        for _ in range(self.iterations):
            swept()
            if not capturing(norm) and not moving.any():
                break
            # At first only nodes within a few edges of the force are non-zero: the other terms are skipped.
            along = start | p
            along = along | incident(free, frontier).step(along, eliminated)
            reached = frontier | (neighbours(free, frontier) & set(eliminated))
            near = incident(free, reached)
            image = {n: units[n].curved(q[n], p[n]) - near.drive(along, n) for n in retained}  # (K - A) p
            frontier = neighbours(free, reached)
            curvature = landscape.inner(p, image, weights)
            wild |= moving & ~curvature.isfinite()
            unstable |= moving & (curvature <= 0)
            moving &= (curvature > 0) & ~wild
            step = torch.where(moving, norm / curvature, 0)
            d = {n: torch.addcmul(value, expand_like(step, value), along[n]) for n, value in d.items()}
            residual = {
                n: torch.addcmul(residual[n], expand_like(step, residual[n]), image[n], value=-1) for n in retained
            }
            taken += moving
            moved = {n: units[n].precondition(residual[n]) for n in retained}
            new = landscape.inner(residual, moved, weights)
            wild |= moving & ~new.isfinite()
            left = largest(weighted(moved, weights))
            far = left > self.tolerance * first if frontier == reached else new > 0  # or not reached
            moving &= far & ~wild
            turn = torch.where(moving, new / norm, 0)
            q = {n: torch.addcmul(residual[n], expand_like(turn, q[n]), q[n]) for n in retained}
            p = {n: units[n].precondition(q[n]) for n in retained}
            norm = torch.where(moving, new, norm)
        residuals = {n: largest({n: units[n].precondition(residual[n])}) for n in retained}
        residuals |= {n: torch.zeros_like(norm) for n in eliminated}
        residuals = {n: torch.where(wild, torch.nan, each) for n, each in residuals.items()}
        d = {n: torch.where(expand_like(wild, value), torch.nan, value) for n, value in d.items()}
        status = moving.to(torch.int8)  # SETTLED is 0, OUT_OF_SWEEPS is 1
        status = status.masked_fill(unstable, Status.UNSTABLE).masked_fill(wild, Status.NON_FINITE)
        distance = torch.stack(list(residuals.values())).amax(0).nan_to_num(nan=torch.inf)
        return Solution(d, residuals, taken, status, distance)

    def _split(self, landscape: Landscape, forced: set[str]) -> tuple[list[str], list[str]]:
        """The nodes to iterate on, and those to eliminate."""
        everyone = list(landscape.nodes)
        if len(landscape.colours) != 2 or not landscape.bilinear:
            return everyone, []
        retained = max(landscape.colours, key=lambda colour: len(forced & set(colour)))
        eliminated = [node for node in everyone if node not in retained]
        if not all(landscape.unit(node).has_response for node in eliminated):
            return everyone, []
        return list(retained), eliminated


def incident(landscape: Landscape, frontier: set[str]) -> Landscape:
    """The terms of ``landscape`` that involve one of these nodes."""
    return landscape.only({name: term for name, term in landscape.terms.items() if not frontier.isdisjoint(term.nodes)})


def neighbours(landscape: Landscape, frontier: set[str]) -> set[str]:
    """These nodes, and those coupled to them."""
    return frontier.union(*(t.nodes for t in landscape.terms.values() if not frontier.isdisjoint(t.nodes)))


def check_reciprocal(terms: dict[str, Term]) -> None:
    for name, term in terms.items():
        if not term.reciprocal:
            raise InputError(
                f"The feedback of {name!r} is not the transpose of its feedforward path, so conjugate gradients do not "
                "apply: use FixedSweeps or UntilConverged for the response."
            )


def largest(state: State) -> Tensor:
    """(batch,)"""
    return torch.stack([value.abs().amax(example_dims(value)) for value in state.values()]).amax(0)
