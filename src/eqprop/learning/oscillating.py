"""Holomorphic equilibrium propagation in continuous time: the nudge turns, and the state is never reset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.energy.network import Landscape
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.estimators import Cost, GradientEstimate, PhaseEstimator
from eqprop.learning.forms import Form
from eqprop.learning.rules import Rule, contrastive
from eqprop.learning.stencils import check_beta, circle
from eqprop.learning.teachers import Teacher, force
from eqprop.settling.solvers import Solution, Solver


@dataclass(frozen=True)
class OscillatingNudge(PhaseEstimator):
    """The nudge goes round the circle of ``holomorphic(beta, points)``; the gradient is demodulated as it turns.

    Each step starts from where the last one ended, and adds its share to the estimate: the memory of one phase, and no
    return to a free state (Laborieux & Zenke 2022). Where each step settles fully, a turn is the holomorphic estimate;
    where it takes a few sweeps, the state lags behind the nudge, and the error falls like points^-2.

    In the ordinary form the contrastive rule needs no free state, as what does not turn averages out over a turn; the
    free phase serves the prediction, and as a start. The difference form and ``vector_field`` look back to it.

    Attributes:
        beta: radius of the circle.
        points: steps in one turn.
        free, nudged, rule, form, teacher: see ``PhaseEstimator``; ``nudged`` takes one step, e.g. ``FixedSweeps(1)``.
        turns: turns that the estimate averages over.
        transient: turns before those, in which the state comes to turn steadily; 0 where each step settles.

    ``Record.nudged`` is the last step's phase.

    Raises:
        InputError: the network is not holomorphic.
    """

    beta: float
    points: int
    free: Solver
    nudged: Solver
    turns: int = 1
    transient: int = 1
    rule: Rule = contrastive
    form: Form = forms.displacements
    teacher: Teacher = force

    def __post_init__(self) -> None:
        check_beta(self.beta)
        if self.points < 3 or self.turns < 1 or self.transient < 0:
            raise InputError(f"{self}: points must be at least 3, turns at least 1 and transient not negative.")

    @property
    def is_complex(self) -> bool:
        return True

    def _learn(
        self, landscape: Landscape, free: Solution, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        at = self._form(landscape).start(free.state)
        total = tuple(torch.zeros_like(parameter) for parameter in parameters)
        for turn in range(-self.transient, self.turns):
            for beta, weight in circle(self.beta, self.points):
                settled = self._settle(landscape, free.state, cost, [beta], at)
                at = settled.state
                if turn >= 0:
                    phase = (beta, weight / self.turns)
                    share, state = self._compare(landscape, free.state, cost, [phase], at, parameters)
                    total = tuple(old + new for old, new in zip(total, share, strict=True))
        return GradientEstimate(total, settled._replace(state=state))
