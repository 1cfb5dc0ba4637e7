"""Dyadic equilibrium propagation: two copies of each unit settle together; their difference is the error signal.

The dyad is an energy over twice the states, of any vector field F: E(x, x') = -<F((x + x')/2), x - x'>. One copy
descends it, the other ascends, so both rest where the mean is at rest in F (Scurria et al. 2026, arXiv 2602.03670,
define such an energy; its form here, and the estimate, are derived in docs/estimators.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.energy.shapes import sum_per_example
from eqprop.energy.terms import Field, Term
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.contrasts import drive_dot
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction, nudge_of
from eqprop.learning.forms import Form
from eqprop.learning.rules import differentiate
from eqprop.learning.stencils import check_beta
from eqprop.learning.teachers import NUDGE
from eqprop.settling.solvers import Solution, Solver

TWIN = ".twin."
"""The prefix of the second copy of a node."""


@dataclass(frozen=True)
class DyadicEP(Estimator):
    """One phase of two copies x and x' of the network, nudged by beta and by -beta.

    With their mean m and difference d, the drives on the copies are a(m) + A(m)^T d/2 and a(m) - A(m)^T d/2, where a
    are the drives of the network and A is their Jacobian. So F(m) vanishes and d is 2 beta times the adjoint, up to
    order beta^2, for feedback weights of any kind. The estimate is -<d drive/d theta at m, d> / (2 beta), plus a
    read-out's own gradient at the copies, with an error of order beta^2 on smooth networks: that of
    ``EquilibriumPropagation(symmetric(beta), ...)`` with the teacher ``corrected``, whose two phases each use the
    Jacobian at a stored free state (Scurria et al. 2026, arXiv 2602.03670). Without feedback it is
    ``DualPropagation(2 * beta, 1/2)`` at its fixed point (Høier et al. 2023, arXiv 2302.01228).

    ``Record.nudged`` holds the two copies, stacked along the batch.

    Attributes:
        beta: the nudge.
        free: solver of the free phase, from zero: the prediction, and where both copies start.
        nudged: solver of the two copies together. A sweep sends four times the messages of an ordinary one.
        form: see ``PhaseEstimator``.

    Raises:
        InputError: beta does not nudge; or, on use, the substrate reads its weights anew in each phase.
    """

    beta: float
    free: Solver
    nudged: Solver
    form: Form = forms.displacements

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return self._form(landscape) is forms.displacements

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        if landscape.substrate.per_phase:
            raise InputError(
                f"{landscape.substrate} reads its weights anew in each phase, and the two copies of DyadicEP settle in "
                "one: take EquilibriumPropagation with stacked=False."
            )
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free.state)

    def _form(self, landscape: Landscape) -> Form:
        return self.form if self.form.applies(landscape) else forms.states

    def _learn(self, landscape: Landscape, free: State, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
        form, doubled = self._form(landscape), dyad(landscape)
        both = free | {TWIN + node: value for node, value in free.items()}
        with torch.no_grad():
            moving = form.landscape(doubled, both)
            for prefix, beta in (("", self.beta), (TWIN, -self.beta)):
                arriving = landscape.substrate.injected(nudge_of(cost, [beta])[0])
                moving = moving.with_term(prefix + NUDGE, form.term(doubled, both, Copy(arriving, prefix)))
            settled = self.nudged(moving, form.start(both))
            moved = form.displacement(both, settled.state)
            high, low = ({node: moved[prefix + node] for node in free} for prefix in ("", TWIN))
            copies = [{node: free[node] + each[node] for node in free} for each in (high, low)]
            apart = {node: high[node] - low[node] for node in free}
            measured = [landscape.substrate.measured(each, reading) for reading, each in enumerate(copies, 1)]
            if any(one is not other for one, other in zip(measured, copies, strict=True)):  # subtracting would round
                copies, apart = measured, {node: measured[0][node] - measured[1][node] for node in free}
            mean = {node: (copies[0][node] + copies[1][node]) / 2 for node in free}
        with torch.enable_grad():
            rebuilt = landscape.rebuilt()
            work = drive_dot(rebuilt, mean, apart, {}) / (2 * self.beta)
            losses = torch.stack([cost.values(rebuilt, each) for each in copies]).mean(0)
            gradients = differentiate(cost.mean(losses - work), parameters)
        return GradientEstimate(gradients, stacked(settled, copies))


def stacked(settled: Solution, copies: Sequence[State]) -> Solution:
    """The solution of a dyad as that of two phases."""
    return Solution(
        {node: torch.cat([each[node] for each in copies]) for node in copies[0]},
        {node: torch.cat([settled.residuals[p + node] for p in ("", TWIN)]) for node in copies[0]},
        settled.sweeps.repeat(2),
        settled.status.repeat(2),
        settled.distance.repeat(2),
    )


def dyad(landscape: Landscape) -> Landscape:
    """The landscape of two copies of a network; a node and its twin respond at the same time."""

    def twins(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(TWIN + name for name in names)

    terms: dict[str, Term] = {}
    for name, term in landscape.terms.items():
        if isinstance(term, Field):
            terms |= {name: term, TWIN + name: Field(TWIN + term.nodes[0], term.strength)}
        else:
            terms[name] = DyadicTerm(term)
    return replace(
        landscape.displaced({p + name: node for p in ("", TWIN) for name, node in landscape.nodes.items()}, terms),
        masks={p + name: mask for p in ("", TWIN) for name, mask in landscape.masks.items()},
        colours=tuple((*colour, *twins(colour)) for colour in landscape.colours),
    )


class DyadicTerm(Term):
    """-<drive((x + x')/2), x - x'>, which x descends and its twin x' ascends, for the drives of another term."""

    symmetric = False

    def __init__(self, term: Term):
        self.term, self.nodes = term, (*term.nodes, *(TWIN + node for node in term.nodes))
        self.bilinear, self.quadratic = term.bilinear, term.quadratic

    def select(self, examples: Tensor) -> Term:
        return DyadicTerm(self.term.select(examples))

    def energy(self, *states: Tensor) -> Tensor:
        mean, apart = self._split(states)
        pairs = zip(self.term.nodes, apart, strict=True)
        return -torch.stack([sum_per_example(self.term.drive(node, *mean) * each) for node, each in pairs]).sum(0)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self._sign(node) * self.energy(*states)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        mean, apart = self._split(states)
        own = node.removeprefix(TWIN)
        back = self.term.tangent(*mean).transposed().drive(own, *apart)
        stiffness = self.term.stiffness(own, *mean) if self.term.quadratic else None  # left out by a tangent
        if stiffness is not None:
            back = back - stiffness * apart[self.term.nodes.index(own)]
        return self.term.drive(own, *mean) + 0.5 * self._sign(node) * back

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self.term.stiffness(node.removeprefix(TWIN), *self._split(states)[0])

    def tangent(self, *states: Tensor) -> Term:
        return DyadicTerm(self.term.tangent(*self._split(states)[0])) if self.bilinear else super().tangent(*states)

    def _split(self, states: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The means and the differences of the copies."""
        half = len(self.term.nodes)
        pairs = list(zip(states[:half], states[half:], strict=True))
        return [(x + twin) / 2 for x, twin in pairs], [x - twin for x, twin in pairs]

    def _sign(self, node: str) -> int:
        return -1 if node.startswith(TWIN) else 1


class Copy(Term):
    """Another term, of the copies whose names have a ``prefix``."""

    def __init__(self, term: Term, prefix: str):
        self.term, self.prefix, self.nodes = term, prefix, tuple(prefix + node for node in term.nodes)
        self.quadratic = term.quadratic

    def select(self, examples: Tensor) -> Term:
        return Copy(self.term.select(examples), self.prefix)

    def energy(self, *states: Tensor) -> Tensor:
        return self.term.energy(*states)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.term.drive(node.removeprefix(self.prefix), *states)

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self.term.stiffness(node.removeprefix(self.prefix), *states)
