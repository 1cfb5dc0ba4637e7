"""Equilibrium propagation in continuous time: the nudge oscillates, and the state is never reset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from eqprop.checks import Count, Natural
from eqprop.energy.landscape import Landscape
from eqprop.learning import forms
from eqprop.learning.estimators import (
    Cost,
    GradientEstimate,
    GradientFunction,
    Phase,
    PhaseEstimator,
    check_one_reading,
)
from eqprop.learning.forms import Form
from eqprop.learning.rules import Rule, contrastive
from eqprop.learning.stencils import check_beta, circle
from eqprop.learning.teachers import Teacher, force
from eqprop.settling.solvers import Solution, Solver


@dataclass(frozen=True)
class OscillatingNudge(PhaseEstimator):
    """The nudge moves round the circle of ``holomorphic(beta, points)``; the gradient is demodulated step by step.

    Each step starts at the end of the last one and adds its share to the estimate, so it needs the memory of one phase
    and no return to a free state (Laborieux & Zenke 2022, arXiv 2209.00530). If each step settles fully, a turn gives
    the holomorphic estimate. If a step has few sweeps, the state lags behind the nudge, with an error like points^-2.

    In the form ``states`` the contrastive rule needs no free state, as constant terms average out over a turn; the free
    phase gives the prediction and the start. The form ``displacements`` and ``vector_field`` use the free state.
    ``Record.nudged`` is the phase of the last step.

    Attributes:
        beta: radius of the circle.
        points: steps in one turn.
        free, nudged, rule, form, teacher: see ``PhaseEstimator``; ``nudged`` takes one step, e.g. ``FixedSweeps(1)``.
        turns: turns that the estimate averages over.
        transient: turns before those, until the oscillation of the state is steady; 0 if each step settles.

    Raises:
        InputError: an argument is out of range, or the network is not holomorphic.
    """

    beta: float
    points: Annotated[int, ">= 3"]
    free: Solver
    nudged: Solver
    turns: Count = 1
    transient: Natural = 1
    rule: Rule = contrastive
    form: Form = forms.displacements
    teacher: Teacher = force

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        check_one_reading(landscape)
        return super().__call__(landscape)

    @property
    def is_complex(self) -> bool:
        return True

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        at = self._form(landscape).start(free.state)
        total = tuple(torch.zeros_like(parameter) for parameter in parameters)
        for turn in range(-self.transient, self.turns):
            for k, (beta, weight) in enumerate(self._turn()):
                settled = self._settle(landscape, free, cost, [beta], at)
                at = settled.state
                if turn >= 0:
                    phase = Phase(beta, weight / self.turns, 1 + turn * self.points + k)
                    share, state = self._compare(landscape, free.state, cost, [phase], at, parameters)
                    total = tuple(old + new for old, new in zip(total, share, strict=True))
        return GradientEstimate(total, settled._replace(state=state))

    def _turn(self) -> Sequence[tuple[complex, complex]]:
        """The pairs (nudge, weight) of one turn, in the order of time."""
        return circle(self.beta, self.points)


@dataclass(frozen=True)
class LockIn(OscillatingNudge):
    """Real nudges beta cos(t_k), t_k = 2 pi (k + 1/2) / points, whose products are demodulated step by step.

    A weight's gradient is the sum over the steps of 2 cos(t_k) / (points beta) times its product there, averaged over
    turns: frequency propagation with small steps (Anisetti et al. 2024, arXiv 2208.08862). The weights sum to 0
    and are symmetric in time about the middle of a turn. So offsets that stay the same cancel, and so do drifts that
    are linear in time; what is left of others falls with the number of ``turns``, as does noise. The order in beta is
    2, or 1 with three points. If each step settles, the estimate is that of ``EquilibriumPropagation`` with the
    stencil of these nudges, equal ones merged; with four points that is ``symmetric(beta / sqrt(2))``, read in the
    order + - - +. No state is complex, so every network will do.

    Attributes:
        beta: amplitude of the nudge.
        points, free, nudged, turns, transient, rule, form, teacher: see ``OscillatingNudge``.

    Raises:
        InputError: an argument is out of range.
    """

    @property
    def is_complex(self) -> bool:
        return False

    def _turn(self) -> Sequence[tuple[complex, complex]]:
        waves = [math.cos(2 * math.pi * (k + 0.5) / self.points) for k in range(self.points)]
        return [(self.beta * wave, 2 * wave / (self.points * self.beta)) for wave in waves]
