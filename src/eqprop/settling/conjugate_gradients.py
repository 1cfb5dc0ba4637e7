"""Conjugate gradients for linear landscapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.energy.couplings import Coupling, Field
from eqprop.energy.maps import example_dims, expand_like
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.settling.displacement import slope_of
from eqprop.settling.solvers import Solution, Solver, Status


@dataclass(frozen=True)
class ConjugateGradients(Solver):
    """Solves a symmetric linear landscape (``tangent``), example by example, each iteration at a sweep's cost.

    Where no term couples two nodes of one colour, one colour is eliminated exactly and the iteration runs on the
    other. An example has settled when a sweep would move none of its units by more than ``tolerance`` times its force's
    first step. It stops as UNSTABLE at negative curvature, as the state that the landscape is linear around is then no
    stable equilibrium; and as NON_FINITE where a force or a residual is infinite or NaN: its state is then NaN.

    The estimated distance to rest is the residual: how far the next sweep would move a unit.

    Raises:
        InputError: the landscape is not linear, or its feedback is not the transpose of its feedforward path.
    """

    iterations: int
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.tolerance < 0:
            raise InputError(f"{self}: iterations must be at least 1 and tolerance not negative.")

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        """``start`` must be at rest: all zero."""
        slopes = {name: slope_of(name, node) for name, node in landscape.nodes.items()}
        fields: dict[str, Coupling] = {name: term for name, term in landscape.terms.items() if isinstance(term, Field)}
        pushes = {name: term for name, term in landscape.terms.items() if name not in fields}
        check_symmetric(pushes)
        free, force = landscape.only(pushes), landscape.only(fields)  # A, and b
        forced = {term.nodes[0] for term in fields.values()}
        kept, others = self._split(landscape, forced)

        # What is eliminated always stands at its exact response to what is kept, which starts at zero.
        d = start | force.relax(start, others)
        pushed = force if forced.isdisjoint(others) else landscape  # nothing moves yet but what b pushes
        residual = {n: pushed.drive(d, n) for n in kept}
        q, p = residual, {n: slopes[n] * residual[n] for n in kept}
        norm = landscape.inner(residual, p)
        first = largest(p)
        frontier = forced if forced.isdisjoint(others) else neighbours(free, forced)
        wild, unstable, moving = ~norm.isfinite(), torch.zeros_like(norm, dtype=torch.bool), norm > 0
        taken = torch.zeros_like(norm, dtype=torch.int64)
        for _ in range(self.iterations):
            if not moving.any():
                break
            # At first only nodes within a few edges of the force are non-zero: the other terms are skipped.
            along = start | p
            along = along | incident(free, frontier).relax(along, others)
            reached = frontier | (neighbours(free, frontier) & set(others))
            heard = incident(free, reached)
            image = {n: q[n] - heard.drive(along, n) for n in kept}  # (D^-1 - A) p, where p = D q
            frontier = neighbours(free, reached)
            curvature = landscape.inner(p, image)
            wild |= moving & ~curvature.isfinite()
            unstable |= moving & (curvature <= 0)
            moving &= (curvature > 0) & ~wild
            step = torch.where(moving, norm / curvature, 0)
            d = {n: torch.addcmul(value, expand_like(step, value), along[n]) for n, value in d.items()}
            residual = {n: torch.addcmul(residual[n], expand_like(step, residual[n]), image[n], value=-1) for n in kept}
            taken += moving
            moved = {n: slopes[n] * residual[n] for n in kept}
            new = landscape.inner(residual, moved)
            wild |= moving & ~new.isfinite()
            far = largest(moved) > self.tolerance * first if frontier == reached else new > 0  # or a node not reached
            moving &= far & ~wild
            turn = torch.where(moving, new / norm, 0)
            q = {n: torch.addcmul(residual[n], expand_like(turn, q[n]), q[n]) for n in kept}
            p = {n: slopes[n] * q[n] for n in kept}
            norm = torch.where(moving, new, norm)
        residuals = {n: largest({n: slopes[n] * residual[n]}) for n in kept}
        residuals |= {n: torch.zeros_like(norm) for n in others}
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
        kept = max(landscape.colours, key=lambda colour: len(forced & set(colour)))
        return list(kept), [node for node in everyone if node not in kept]


def incident(landscape: Landscape, frontier: set[str]) -> Landscape:
    """The terms of ``landscape`` that involve one of these nodes."""
    return landscape.only({name: term for name, term in landscape.terms.items() if not frontier.isdisjoint(term.nodes)})


def neighbours(landscape: Landscape, frontier: set[str]) -> set[str]:
    """These nodes, and those coupled to them."""
    return frontier.union(*(t.nodes for t in landscape.terms.values() if not frontier.isdisjoint(t.nodes)))


def check_symmetric(terms: dict[str, Coupling]) -> None:
    for name, term in terms.items():
        if not term.symmetric:
            raise InputError(
                f"The feedback of {name!r} is not the transpose of its feedforward path, so conjugate gradients do not "
                "apply: use FixedSweeps or UntilConverged for the response."
            )


def largest(state: State) -> Tensor:
    """(batch,)"""
    return torch.stack([value.abs().amax(example_dims(value)) for value in state.values()]).amax(0)
