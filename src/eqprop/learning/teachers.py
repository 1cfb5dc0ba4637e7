"""Teachers: how a nudge of size beta enters the second phase.

A force adds beta times the loss to the energy. A clamp takes hold of the nodes that the loss reads, at or towards
their targets; what it adds is no part of the energy that a rule compares.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqprop.energy.losses import Nudge
from eqprop.energy.maps import expand_like
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.energy.units import Unit
from eqprop.errors import InputError
from eqprop.learning.forms import Form
from eqprop.settling.displacement import unit_of


class Teacher(ABC):
    holds: bool
    """Whether it takes hold of nodes, instead of adding the nudge to the energy."""

    @abstractmethod
    def __call__(self, form: Form, landscape: Landscape, free: State, nudge: Nudge) -> Landscape:
        """What the nudged phases settle on, in the form's variable, from the form's start at ``free``."""


@dataclass(frozen=True)
class Force(Teacher):
    """F = E + beta * loss (Scellier & Bengio 2017)."""

    holds = False

    def __call__(self, form: Form, landscape: Landscape, free: State, nudge: Nudge) -> Landscape:
        return form.landscape(landscape, free).plus("nudge", form.term(landscape, free, nudge))


@dataclass(frozen=True)
class Clamp(Teacher):
    """The loss's nodes are held at (1 - beta) * free + beta * target: coupled learning (Stern et al. 2021).

    beta 1 holds them at the target, contrastive Hebbian learning's clamp; a negative beta pushes them away. Where a
    loss would hold its node is its ``target_minus_state``. An example's weight scales its own beta.
    """

    holds = True

    def __call__(self, form: Form, landscape: Landscape, free: State, nudge: Nudge) -> Landscape:
        keep, share = self.shares(nudge.scale)
        seen, start, moving = landscape.masked(free), form.start(free), form.landscape(landscape, free)
        held = {}
        for name in nudge.loss.nodes:
            node = moving.nodes[name]
            gap = nudge.loss.target_minus_state(name, nudge.target, *(seen[n] for n in nudge.loss.nodes))
            if name in landscape.masks:  # the gap is that of the state as others see it, scaled up by dropout
                gap = gap * landscape.masks[name] * (1 - node.dropout)
            kept = expand_like(keep, gap)
            aim = (1 - kept) * start[name] + expand_like(share, gap) * gap
            held[name] = replace(node, unit=Towards(unit_of(node), kept, aim))
        return moving.displaced({**moving.nodes, **held}, moving.terms)

    def shares(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        """(batch,) each: the part of a node's own response that is left to it, and of the gap that is closed."""
        return torch.zeros_like(scale), scale


@dataclass(frozen=True)
class SoftClamp(Clamp):
    """The loss's nodes respond by (r(a) + beta * target) / (1 + beta): the weak clamp of Luczak et al. (2022).

    It is where a nudge outside the activation, s <- r(a) + beta (target - s), rests. On a linear node with squared
    error it is the minimiser of E + beta * loss itself, which sweeps of ``force`` only reach for small beta.
    """

    def shares(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        if not scale.is_complex() and scale.device.type == "cpu" and not bool((scale > -1).all()):
            raise InputError(
                f"soft_clamp divides by 1 + beta, and beta times an example's weight is {float(scale.min()):g} here: "
                "keep it above -1, or use clamp."
            )
        return 1 / (1 + scale), scale / (1 + scale)


@dataclass(frozen=True, eq=False)
class Towards(Unit):
    """s = keep * r(a) + aim: another unit's response in part, the rest given.

    ``keep``: in [0, 1] or above, (batch, 1, ...); ``aim``: (batch, *node shape).
    """

    unit: Unit
    keep: Tensor
    aim: Tensor

    def select(self, examples: Tensor) -> Towards:
        return Towards(self.unit.select(examples), self.keep[examples], self.aim[examples])

    def response(self, drive: Tensor) -> Tensor:
        return self.keep * self.unit.response(drive) + self.aim

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        return self.keep * self.unit.difference(drive, change)

    def potential(self, state: Tensor) -> Tensor:
        """keep * G((s - aim) / keep); a node that keeps nothing of its response is at ``aim``, and stores nothing."""
        own = self.unit.potential((state - self.aim) / self.keep)
        return torch.where(self.keep > 0, self.keep * own, 0)


force = Force()
clamp = Clamp()
soft_clamp = SoftClamp()
