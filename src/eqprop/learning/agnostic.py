"""Agnostic equilibrium propagation: the parameters relax like the states, and their displacement is the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction, compare, nudge_of
from eqprop.learning.moving import moving
from eqprop.learning.rules import Gradients, contrastive
from eqprop.learning.stencils import Stencil
from eqprop.learning.teachers import force
from eqprop.settling.solvers import FixedSweeps, Solution, Solver, joined


@dataclass(frozen=True)
class AgnosticEP(Estimator):
    """Two phases; in the second one states and parameters relax together (Scellier, Mishra, Bengio & Ollivier 2022).

    Each parameter is held by a knob u through the energy (u - theta)^2 / (2 epsilon), beside F = E + beta * loss, the
    mean over the batch. At the lower beta the knobs go where theta stays as it is: u = theta + epsilon dF/dtheta. At
    the higher one they are frozen, and theta comes to u - epsilon dF/dtheta. So theta has moved by -epsilon times the
    change of dF/dtheta: a step of gradient descent, with learning rate ``epsilon`` times the distance of the betas,
    that nothing computed. The gradient is this step over minus that rate; SGD with it makes the very step, and
    the parameters themselves are put back.

    As epsilon falls it tends to the stencil's estimate. While E is linear in theta and the lower beta is 0, it is
    ``ContinualEP`` with that rate.

    Attributes:
        nudging: a stencil of two betas, b apart: ``one_sided(b)`` is the paper's optimistic variant, ``one_sided(-b)``
            the pessimistic one, ``symmetric(b / 2)`` the centred one.
        free: solver of the free phase, from rest.
        nudged: the sweeps of a phase, from the free state. In the second, the parameters respond after each sweep.
        epsilon: how loosely the knobs hold the parameters. Too loosely, and states and parameters run away together; a
            convolution, whose every weight meets many units, bears less.

    Raises:
        InputError: the stencil has more than two betas, or complex ones; or the network has no energy to relax on.
    """

    nudging: Stencil
    free: Solver
    nudged: FixedSweeps
    epsilon: float

    def __post_init__(self) -> None:
        if len(self.nudging.betas) != 2 or self.nudging.is_complex:
            raise InputError(
                f"Agnostic EP has two phases of real nudges, not {self.nudging.betas}: take "
                "one_sided(b), one_sided(-b) or symmetric(b)."
            )
        if not 0 < self.epsilon < float("inf"):
            raise InputError(f"epsilon {self.epsilon} must be positive: without one, use EquilibriumPropagation.")

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        for name, term in landscape.terms.items():
            if not term.symmetric:
                raise InputError(
                    f"The feedback of {name!r} is not the transpose of its feedforward path, so there is no energy for "
                    "the parameters to relax on: use ContinualEP or EquilibriumPropagation."
                )
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free)

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        low, high = sorted(beta.real for beta in self.nudging.betas)

        def settle(present: Landscape, beta: float, state: State, solver: Solver) -> Solution:
            with torch.no_grad():
                return solver(force(forms.states, present, state, nudge_of(cost, [beta])[0]), state)

        def slope(present: Landscape, beta: float, state: State) -> Gradients:
            """dF/dtheta, over the distance of the betas."""
            return contrastive(
                compare(forms.states, present, cost, [(beta, 1 / (high - low))], state, state), parameters
            )

        once, state, states = replace(self.nudged, n=1), free.state, [free.state]
        with moving(parameters) as move, torch.enable_grad():
            first = free if low == 0 else settle(landscape, low, state, self.nudged)
            held = slope(landscape.rebuilt(), low, first.state)
            for _ in range(self.nudged.n):
                present = landscape.rebuilt()
                second = settle(present, high, state, once)
                state, states = second.state, [*states[-2:], second.state]
                found = tuple(s - h for s, h in zip(slope(present, high, state), held, strict=True))
                move([-self.epsilon * (high - low) * each for each in found])
        second = self.nudged.solution(landscape, free.state, states)
        return GradientEstimate(found, second if low == 0 else joined([first, second]))
