"""Continual equilibrium propagation: weights change at every sweep of the nudged phases, while states still move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from eqprop.energy.landscape import Landscape
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
    phases_of,
)
from eqprop.learning.moving import MovingParameters
from eqprop.learning.rules import Rule, contrastive
from eqprop.learning.stencils import Nudging
from eqprop.learning.teachers import force
from eqprop.settling.solvers import FixedSweeps, Solution, Solver, joined


@dataclass(frozen=True)
class ContinualEP(Estimator):
    """Each sweep changes the weights by the contrast of its two states; the next sweep uses the new weights.

    theta <- theta - rate * weight_k * mean over the batch of [dF/dtheta after the sweep - dF/dtheta before it]
    (Ernoult et al. 2020, arXiv 2005.04168); before the first sweep F is the free energy. All phases start from the
    same free state; each keeps the weights of the phase before. As ``rate`` tends to 0 the sum of the steps tends to
    the estimate of ``EquilibriumPropagation`` with the same stencil, for any stencil.

    The gradient returned is the total displacement of the weights divided by -rate, so SGD with learning rate ``rate``
    makes the same step; the network's own weights are not changed. All parameters have the same rate. While weights
    change, the weights of examples are divided by their mean size, so that the gradient is proportional to them.

    Attributes:
        nudging: the stencil over nudges. Its phases run in its order; a phase at beta 0 is the free state.
        free: solver of the free phase, from zero.
        nudged: the sweeps of each nudged phase.
        rate: the learning rate within the phases. If it is too large relative to the betas, states and weights
            diverge together; convolutions, whose weights act on many units, need smaller values.
        rule: how the two states of a sweep become gradients.

    Raises:
        InputError: the rate is not positive; or a nudge is complex and the network is not holomorphic.
    """

    nudging: Nudging
    free: Solver
    nudged: FixedSweeps
    rate: float
    rule: Rule = contrastive

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise InputError(f"rate {self.rate} must be positive: without one, use EquilibriumPropagation.")

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        check_one_reading(landscape)
        if self.nudging.is_complex:
            forms.states.check_holomorphic(landscape)
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(replace(self, nudging=self.nudging.once())._learn, landscape, free)

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        stencil, once = self.nudging.draw(), replace(self.nudged, n=1)
        cost, size = cost.normalised()
        total = [torch.zeros_like(parameter) for parameter in parameters]
        moving, settled = MovingParameters(landscape, cost, parameters), []
        with torch.enable_grad():
            for beta, weight, reading in phases_of(stencil):
                if beta == 0:
                    continue
                state, states = free.state, [free.state]
                before = Phase(0.0, -weight, 0)
                for _ in range(self.nudged.n):
                    present, priced = moving.landscape(), moving.cost()
                    with torch.no_grad():
                        swept = once(force(forms.states, present, state, nudge_of(priced, [beta])[0]), state)
                    both = {node: torch.cat([value, swept.state[node]]) for node, value in state.items()}
                    pair = [before, Phase(beta, weight, reading)]
                    phases = compare(forms.states, present, priced, pair, state, both)
                    total = [t + g for t, g in zip(total, self.rule(phases, moving.now), strict=True)]
                    moving.move([-self.rate * t for t in total])
                    before, state = Phase(beta, -weight, reading), swept.state
                    states = [*states[-2:], state]
                settled.append(self.nudged.solution(landscape, free.state, states))
        return GradientEstimate(tuple(size * each for each in total), joined(settled))
