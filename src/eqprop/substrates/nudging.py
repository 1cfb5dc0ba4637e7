"""Faults of the nudge as it arrives at the units, and of the place where a clamp holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.checks import NonNegative
from eqprop.energy.losses import Nudge
from eqprop.energy.shapes import sum_per_example
from eqprop.energy.substrate import Substrate
from eqprop.energy.terms import Term
from eqprop.errors import InputError
from eqprop.substrates.reading import on_parts
from eqprop.substrates.together import Fault

Arrival = Callable[[str, Tensor], Tensor]
"""(node, force of a nudge) -> the force that arrives."""


@dataclass(frozen=True)
class NudgeGain(Fault):
    """The nudge of each unit has a gain of its own, fixed: beta (1 + size x) times the ideal force.

    Effect: size, whatever beta: the outputs weigh differently in the loss.
    Remedy: none needed.
    Source: derived and measured here.

    Args:
        size: standard deviation of the gain.
    """

    size: NonNegative = 0.0

    def injected(self, nudge: Term) -> Term:
        return Arriving(nudge, self.aimed) if self.size else nudge

    def aimed(self, node: str, gap: Tensor) -> Tensor:
        if not self.size:
            return gap
        return gap * (1 + self.size * self.fixed(gap.shape[1:], node).to(gap.device, gap.real.dtype))


@dataclass(frozen=True)
class NudgeOffset(Fault):
    """Every nudge comes with a force of its own, fixed and the same at each beta: size x.

    The target of a clamp is off by as much.

    Effect: size / beta with one-sided nudges; size, whatever beta, with symmetric ones.
    Remedy: symmetric nudges.
    Source: derived and measured here.

    Args:
        size: standard deviation, in units of the drive (of the state, for a clamp).
    """

    size: NonNegative = 0.0

    def injected(self, nudge: Term) -> Term:
        return Arriving(nudge, self.aimed) if self.size else nudge

    def aimed(self, node: str, gap: Tensor) -> Tensor:
        if not self.size:
            return gap
        return gap + self.size * self.fixed(gap.shape[1:], node).to(gap.device, gap.real.dtype)


@dataclass(frozen=True)
class NudgeLevels(Substrate):
    """The nudging force comes in steps, the nearest one; so does the displacement to the target of a clamp.

    Effect: step / beta; an error below step / (2 beta) teaches nothing.
    Remedy: a larger beta; finer steps.
    Source: derived here.

    Args:
        step: in units of the drive (of the state, for a clamp).
    """

    step: NonNegative = 0.0

    def injected(self, nudge: Term) -> Term:
        return Arriving(nudge, self.aimed) if self.step else nudge

    def aimed(self, node: str, gap: Tensor) -> Tensor:
        return on_parts(lambda v: self.step * (v / self.step).round(), gap) if self.step else gap


@dataclass(frozen=True)
class UnequalNudges(Substrate):
    """Nudges towards the target are stronger than those away from it: (1 + size) beta and -beta.

    A clamp is not changed.

    Effect: size, whatever beta.
    Remedy: none needed.
    Source: derived and measured here.

    Args:
        size: the share by which they are stronger.

    Raises:
        InputError: in use, the nudge was replaced by a term without a beta.
    """

    size: NonNegative = 0.0

    def injected(self, nudge: Term) -> Term:
        if not self.size:
            return nudge
        if isinstance(nudge, Arriving):
            return Arriving(self.injected(nudge.nudge), nudge.arrival)
        if not isinstance(nudge, Nudge):
            raise InputError(
                f"UnequalNudges: {type(nudge).__name__} has no beta: put UnequalNudges before what made it."
            )
        scale = torch.where(nudge.scale.real > 0, (1 + self.size) * nudge.scale, nudge.scale)
        return Nudge(nudge.loss, nudge.target, scale, nudge.quadratic)


class Arriving(Term):
    """A nudge whose force is changed on its way. Its energy has the nudge's value and the gradient of what arrives.

    Args:
        nudge: the nudge as it was sent.
        arrival: changes its force.
    """

    def __init__(self, nudge: Term, arrival: Arrival):
        self.nudge, self.arrival, self.nodes = nudge, arrival, nudge.nodes
        self.holomorphic, self.quadratic = nudge.holomorphic, nudge.quadratic

    def select(self, examples: Tensor) -> Term:
        return Arriving(self.nudge.select(examples), self.arrival)

    def energy(self, *states: Tensor) -> Tensor:
        parts = [self.nudge.energy(*states)]
        for node, state in zip(self.nodes, states, strict=True):
            held = [each.detach() for each in states]
            missing = (self.drive(node, *held) - self.nudge.drive(node, *held)).detach()
            parts.append(-sum_per_example(missing * (state - state.detach())))
        return torch.stack(parts).sum(0)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.arrival(node, self.nudge.drive(node, *states))

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self.nudge.stiffness(node, *states)
