"""Equilibrium propagation in its own limit beta -> 0: one linear phase in the place of finite nudges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from eqprop.energy.maps import expand_like
from eqprop.energy.network import Landscape
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction
from eqprop.learning.rules import differentiate
from eqprop.settling.conjugate_gradients import ConjugateGradients
from eqprop.settling.displacement import tangent
from eqprop.settling.solvers import Solution, Solver


@dataclass(frozen=True)
class InfinitesimalNudge(Estimator):
    """The network's response d = ds/dbeta to an infinitesimal nudge, and what each weight reads off it.

    The estimate is -<d drive/d theta at the free state, d>, which for a network with energy is the limit of every
    stencil, and the exact gradient of the loss at the equilibrium; found by the network's forward and transposed
    messages alone. With separate feedback weights it is the limit of the vector-field rule. It is a simulation's
    tool: a device has read noise, and needs finite nudges.

    Attributes:
        free: solver of the free phase, from rest.
        response: solver of the linear phase; ``FixedSweeps`` or ``UntilConverged`` where feedback weights are separate.
        damping: leak of the linear phase, as a share of each unit's stiffness. Near instability the exact gradient
            explodes and training on it fails; 0 is the exact limit.
    """

    free: Solver
    response: Solver = ConjugateGradients(6)  # noqa: RUF009 - frozen
    damping: float = 0.25

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return True

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free)

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        seen = landscape.masked(free.state)
        at = [seen[node] for node in cost.loss.nodes]
        with torch.no_grad():
            forces = (cost.loss.force(node, cost.target, *at) for node in cost.loss.nodes)
            force = {
                node: expand_like(cost.weight, push) * push for node, push in zip(cost.loss.nodes, forces, strict=True)
            }
            moved = tangent(landscape, free.state, force, self.damping)
            response = self.response(moved, moved.zeros())
        with torch.enable_grad():
            rebuilt = landscape.rebuilt().remembering(landscape)
            amplification = rebuilt.amplification(cost.loss.nodes)
            work = rebuilt.work(free.state, response.state, amplification)
            objective = (cost.values(rebuilt, free.state) - work).mean()
            return GradientEstimate(differentiate(objective, parameters), response)
