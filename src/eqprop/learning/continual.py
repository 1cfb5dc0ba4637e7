"""Continual equilibrium propagation: the weights learn at every sweep of the nudged phases, while states still move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from eqprop.energy.network import Landscape
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction, compare, nudge_of
from eqprop.learning.moving import moving
from eqprop.learning.rules import Rule, contrastive
from eqprop.learning.stencils import Nudging
from eqprop.learning.teachers import force
from eqprop.settling.solvers import FixedSweeps, Solution, Solver, joined


@dataclass(frozen=True)
class ContinualEP(Estimator):
    """Each sweep moves the weights by the difference of its two states, under which the next one settles.

    theta <- theta - rate * weight_k * mean over the batch of [dF/dtheta after the sweep - dF/dtheta before it]
    (Ernoult et al. 2020), F before the first sweep being the free one. Phases
    follow one another from the same free state, the weights going on from where the last phase left them. As ``rate``
    falls their sum tends to the estimate of ``EquilibriumPropagation`` with the same stencil, for any stencil.

    The gradient is the weights' whole displacement over -rate, so that SGD with learning rate ``rate`` makes exactly
    this step; the weights themselves are put back. One rate serves all parameters.

    Attributes:
        nudging: the stencil over nudges. Its phases follow in its order; one at beta 0 is the free state.
        free: solver of the free phase, from rest.
        nudged: the sweeps of each nudged phase.
        rate: the learning rate within the phases. Where it is too large beside the betas, states and weights run away
            together; a convolution, whose every weight meets many units, bears less.
        rule: how the two states of a sweep become gradients.
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
        if self.nudging.is_complex:
            forms.states.check_holomorphic(landscape)
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free)

    def generators(self) -> Iterable[torch.Generator]:
        return self.nudging.generators()

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        stencil, once = self.nudging.draw(), replace(self.nudged, n=1)
        total = [torch.zeros_like(parameter) for parameter in parameters]
        settled = []
        with moving(parameters) as move, torch.enable_grad():
            for beta, weight in zip(stencil.betas, stencil.weights, strict=True):
                if beta == 0:
                    continue
                (nudge, _), state, states = nudge_of(cost, [beta]), free.state, [free.state]
                last: complex = 0.0
                for _ in range(self.nudged.n):
                    present = landscape.rebuilt()
                    with torch.no_grad():
                        swept = once(force(forms.states, present, state, nudge), state)
                    both = {node: torch.cat([value, swept.state[node]]) for node, value in state.items()}
                    seen = compare(forms.states, present, cost, [(last, -weight), (beta, weight)], state, both)
                    total = [t + g for t, g in zip(total, self.rule(seen, parameters), strict=True)]
                    move([-self.rate * t for t in total])
                    last, state, states = beta, swept.state, [*states[-2:], swept.state]
                settled.append(self.nudged.solution(landscape, free.state, states))
        return GradientEstimate(tuple(total), joined(settled))
