"""Agnostic equilibrium propagation: the parameters relax like the states, and their displacement is the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.estimators import (
    Cost,
    Estimator,
    GradientEstimate,
    GradientFunction,
    Phase,
    check_one_reading,
    compare,
    nudge_of,
)
from eqprop.learning.moving import MovingParameters
from eqprop.learning.rules import Gradients, contrastive
from eqprop.learning.stencils import Stencil
from eqprop.learning.teachers import force
from eqprop.settling.solvers import FixedSweeps, Solution, Solver, joined


@dataclass(frozen=True)
class AgnosticEP(Estimator):
    """Two phases; in the second one states and parameters relax together (Scellier et al. 2022, arXiv 2205.15021).

    A control variable u holds each parameter theta by the energy (u - theta)^2 / (2 epsilon), which is added to
    F = E + beta * loss, the mean over the batch. At the lower beta, u moves until theta is at rest where it is:
    u = theta + epsilon dF/dtheta. At the higher beta, u is fixed and theta relaxes to u - epsilon dF/dtheta. So theta
    moves by -epsilon times the difference of dF/dtheta: a step of gradient descent with the learning rate ``epsilon``
    times the distance of the betas. The gradient returned is this step divided by minus that rate, so SGD with that
    rate makes the same step; the network's own parameters are not changed. While parameters relax, the weights of
    examples are divided by their mean size, so that the gradient is proportional to them.

    As epsilon tends to 0 the result tends to the stencil's estimate. If E is linear in theta and the lower beta is 0,
    it equals ``ContinualEP`` with that rate.

    Attributes:
        nudging: a stencil of two betas, b apart: ``one_sided(b)`` is the paper's optimistic variant, ``one_sided(-b)``
            the pessimistic one, ``symmetric(b / 2)`` the centred one.
        free: solver of the free phase, from zero.
        nudged: the sweeps of a phase, from the free state. In the second phase parameters respond after each sweep.
        epsilon: the inverse stiffness that holds the parameters. If it is too large, states and parameters diverge
            together; convolutions, whose weights act on many units, need smaller values.

    Raises:
        InputError: the stencil does not have two real betas; epsilon is not positive; or the network has no energy.
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
        check_one_reading(landscape)
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
        cost, size = cost.normalised()
        moving = MovingParameters(landscape, cost, parameters)

        def settle(beta: float, state: State, solver: Solver) -> Solution:
            with torch.no_grad():
                return solver(force(forms.states, moving.landscape(), state, nudge_of(moving.cost(), [beta])[0]), state)

        def slope(beta: float, state: State, reading: int) -> Gradients:
            """dF/dtheta, over the distance of the betas."""
            phases = [Phase(beta, 1 / (high - low), reading)]
            compared = compare(forms.states, moving.landscape(), moving.cost(), phases, state, state)
            return contrastive(compared, moving.now)

        once, state, states = replace(self.nudged, n=1), free.state, [free.state]
        with torch.enable_grad():
            first = free if low == 0 else settle(low, state, self.nudged)
            reading = int(low != 0)  # 0 is the free phase's
            held = slope(low, first.state, reading)
            for _ in range(self.nudged.n):
                second = settle(high, state, once)
                state, states = second.state, [*states[-2:], second.state]
                found = tuple(s - h for s, h in zip(slope(high, state, reading + 1), held, strict=True))
                moving.move([-self.epsilon * (high - low) * each for each in found])
        second = self.nudged.solution(landscape, free.state, states)
        gradients = tuple(size * each for each in found)
        return GradientEstimate(gradients, second if low == 0 else joined([first, second]))
