"""Equilibrium propagation in the limit beta -> 0: one linear phase instead of finite nudges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from eqprop.checks import NonNegative
from eqprop.energy.gains import amplification_from
from eqprop.energy.landscape import Landscape
from eqprop.learning.contrasts import at, drive_derivative
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction
from eqprop.learning.rules import differentiate
from eqprop.settling.conjugate_gradients import ConjugateGradients
from eqprop.settling.displacement import check_differentiable, corrected, tangent
from eqprop.settling.solvers import Solution, Solver


@dataclass(frozen=True)
class InfinitesimalNudge(Estimator):
    """The gradient from the network's response d = ds/dbeta to an infinitesimal nudge.

    The estimate is -<d drive/d theta at the free state, d>. For a network with an energy it is the limit of every
    stencil, and the exact gradient of the loss at the equilibrium. It needs the network's forward and transposed
    messages only. With separate feedback weights it is the limit of the vector-field rule, and of asymmetric EP if
    ``corrected``. It is for simulations: devices have read noise and need finite nudges.

    Attributes:
        free: solver of the free phase, from zero.
        response: solver of the linear phase; ``FixedSweeps`` or ``UntilConverged`` if feedback weights are separate.
        damping: leak of the linear phase, relative to each unit's own curvature; 0 is the exact limit. Near
            instability the exact gradient explodes and training with it fails: ``cifar10-small`` has 0.25.
        corrected: send the response through the transposes of all messages, so that the limit is the exact gradient for
            feedback weights of any kind (Scurria et al. 2026, arXiv 2602.03670).
        slopes_from_states: linearise units at their states instead of at their drives (``tangent``). At rest it is the
            same. After directed sweeps, which drive every node but the last ones once more, it saves half a sweep.

    Raises:
        InputError: on use, a unit has no derivative, as a spin.
    """

    free: Solver
    response: Solver = ConjugateGradients(6)  # noqa: RUF009 - frozen
    damping: NonNegative = 0.0
    corrected: bool = False
    slopes_from_states: bool = False

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return True

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        check_differentiable(landscape)
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free)

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        seen = at(cost.loss, landscape.masked(free.state))
        with torch.no_grad():
            force = {node: cost.loss.force(node, cost.target, *seen) for node in cost.loss.nodes}
            field = corrected(landscape, free.state) if self.corrected else landscape
            moved = tangent(field, free.state, force, self.damping, self.slopes_from_states)
            response = self.response(moved, moved.zeros())
        with torch.enable_grad():
            rebuilt = landscape.rebuilt().remembering(landscape)
            amplification = {} if self.corrected else amplification_from(rebuilt, cost.loss.nodes)
            work = drive_derivative(rebuilt, free.state, response.state, amplification)
            objective = cost.mean(cost.values(rebuilt, free.state) - work)
            return GradientEstimate(differentiate(objective, parameters), response)
