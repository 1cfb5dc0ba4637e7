"""Teachers: how a nudge of size beta enters the second phase.

A force adds beta times the loss to the energy. A clamp holds the nodes that the loss reads at their targets, or moves
them towards their targets; it is no part of the energy that a rule compares. Each can act on the network itself, or on
the network with corrected feedback.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqprop.energy.landscape import Landscape
from eqprop.energy.losses import Nudge
from eqprop.energy.nodes import State
from eqprop.energy.shapes import expand_like
from eqprop.energy.units import Stiffness, Unit, is_zero
from eqprop.errors import InputError
from eqprop.learning.forms import Form
from eqprop.settling.displacement import corrected as corrected_field

NUDGE = ".nudge"
"""The name of the nudge among the terms: no coupling's name has a dot."""


class Teacher(ABC):
    """How a nudge acts on a network: ``force``, ``clamp``, ``soft_clamp``, or one of them ``Corrected``."""

    holds: bool
    """Whether it holds nodes, instead of adding the nudge to the energy."""

    corrects: bool = False
    """Whether nodes move by the adjoint of the nudge, also where feedback is not symmetric."""

    def check(self, landscape: Landscape) -> None:
        """Raises InputError if it does not suit the network. Called before the free phase."""

    @abstractmethod
    def __call__(self, form: Form, landscape: Landscape, free: State, nudge: Nudge) -> Landscape:
        """The landscape of the nudged phases, in the form's variable; they start at the form's start for ``free``."""


@dataclass(frozen=True)
class Force(Teacher):
    """F = E + beta * loss (Scellier & Bengio 2017, doi 10.3389/fncom.2017.00024).

    Attributes:
        exact: whether a parabolic unit moves at once to its minimum under a squared error, whose force depends on the
            unit's own state. ``False`` evaluates that force at the state before each sweep, as published programs do:
            the equilibrium is the same, the states before it are not.
    """

    exact: bool = True

    holds = False

    def __call__(self, form: Form, landscape: Landscape, free: State, nudge: Nudge) -> Landscape:
        if not self.exact:
            nudge = Nudge(nudge.loss, nudge.target, nudge.scale, stiff=False)
        arriving = landscape.substrate.injected(nudge)
        return form.landscape(landscape, free).with_term(NUDGE, form.term(landscape, free, arriving))


@dataclass(frozen=True)
class Clamp(Teacher):
    """The loss's nodes are held at (1 - beta) * free + beta * target.

    Coupled learning (Stern et al. 2021, doi 10.1103/PhysRevX.11.021045). With beta 1 it is the clamp of contrastive
    Hebbian learning; a negative beta moves the nodes away from the target. The loss's ``target_minus_state`` defines
    the target.
    """

    holds = True

    def __call__(self, form: Form, landscape: Landscape, free: State, nudge: Nudge) -> Landscape:
        masked, start, moving = landscape.masked(free), form.start(free), form.landscape(landscape, free)
        held = {}
        for name in nudge.loss.nodes:
            node = moving.nodes[name]
            gap = nudge.loss.target_minus_state(name, nudge.target, *(masked[n] for n in nudge.loss.nodes))
            gap = landscape.substrate.aimed(name, gap)
            retained = 1 - node.dropout if name in landscape.masks else 1.0
            if retained < 1:  # the gap is that of the masked state, scaled by dropout
                gap = gap * landscape.masks[name] * retained
            keep, share = self.shares(nudge.scale, retained)
            kept = expand_like(keep, gap)
            aim = (1 - kept) * start[name] + expand_like(share, gap) * gap
            held[name] = replace(node, unit=Towards(moving.unit(name), kept, aim))
        return moving.displaced({**moving.nodes, **held}, moving.terms)

    def shares(self, scale: Tensor, retained: float) -> tuple[Tensor, Tensor]:
        """(batch,) each: the factor of the node's own response, and that of the gap to the target.

        ``retained``: the share of the node's units that dropout leaves.
        """
        return torch.zeros_like(scale), scale


@dataclass(frozen=True)
class SoftClamp(Clamp):
    """The loss's nodes respond by (r(a) + beta * target) / (1 + beta).

    The weak clamp of Luczak et al. (2022, doi 10.1038/s42256-021-00430-y): the fixed point of a nudge outside the
    response, s <- r(a) + beta (target - s). On a linear node with squared error it minimises E + beta * loss.
    """

    def __call__(self, form: Form, landscape: Landscape, free: State, nudge: Nudge) -> Landscape:
        for name in nudge.loss.nodes:
            try:
                landscape.unit(name).response(free[name])
            except InputError as error:
                raise InputError(
                    f"soft_clamp leaves node {name!r} a share of its own response, which it lacks ({error}): take "
                    "force or clamp."
                ) from error
        return super().__call__(form, landscape, free, nudge)

    def shares(self, scale: Tensor, retained: float) -> tuple[Tensor, Tensor]:
        scale = scale / retained  # a retained unit counts so much more in the loss than in its own energy
        if not scale.is_complex() and scale.device.type == "cpu" and not bool((scale > -1).all()):
            raise InputError(
                f"soft_clamp divides by 1 + beta, and beta is {float(scale.min()):g} here: "
                "keep it above -1, or use clamp."
            )
        return 1 / (1 + scale), scale / (1 + scale)


@dataclass(frozen=True)
class Corrected(Teacher):
    """Another teacher on the vector field plus (J^T - J)(s - s*), J its Jacobian at the free state s*: asymmetric EP.

    The free state stays at rest, and to first order a nudge moves it by the adjoint -beta J^-T dC/ds. So the rule
    ``vector_field``, -<d drive/d theta at s*, displacement>, is the exact gradient in the limit for feedback weights of
    any kind, with the stencil's order of error (Scurria et al. 2026, arXiv 2602.03670). The vector field is the force
    drive - dG/ds on each unit, so with symmetric feedback there is nothing to correct. In the form ``displacements`` it
    costs no more than the other teacher: messages go through the transposes. In ``states`` it takes three times as
    many messages. The correction is computed exactly: a device needs a second path for it.

    Attributes:
        teacher: how the nudge itself acts.

    Raises:
        InputError: on use, the substrate reads its weights anew in each phase; or the rule compares contrasts.
    """

    teacher: Teacher = Force()

    corrects = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "holds", self.teacher.holds)

    def check(self, landscape: Landscape) -> None:
        if landscape.substrate.per_phase:
            raise InputError(
                f"{landscape.substrate} reads its weights anew in each phase, so the Jacobian of the free phase is not "
                "that of the next: take a substrate without such reads, or the teacher force."
            )
        self.teacher.check(landscape)

    def __call__(self, form: Form, landscape: Landscape, free: State, nudge: Nudge) -> Landscape:
        return self.teacher(form, corrected_field(landscape, free), free, nudge)


@dataclass(frozen=True, eq=False)
class Towards(Unit):
    """s = keep * r(a) + aim: a part of another unit's response plus a given state.

    ``keep``: in [0, 1] or above, (batch, 1, ...); ``aim``: (batch, *node shape).
    """

    unit: Unit
    keep: Tensor
    aim: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "parabolic", self.unit.parabolic)

    def select(self, examples: Tensor) -> Towards:
        return Towards(self.unit.select(examples), self.keep[examples], self.aim[examples])

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        if is_zero(stiffness):
            return self.keep * self.unit.response(drive) + self.aim
        # With s = keep u + aim, the terms' k s^2/2 is of u a stiffness keep k and a drive -aim k.
        own = self.unit.response(drive - stiffness * self.aim, self.keep * stiffness)  # type: ignore[call-arg]
        return torch.where(self.keep > 0, self.keep * own, 0) + self.aim

    def difference(self, drive: Tensor, change: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        more = () if is_zero(stiffness) else (self.keep * stiffness,)
        return self.keep * self.unit.difference(drive, change, *more)

    def potential(self, state: Tensor) -> Tensor:
        """keep * G((s - aim) / keep); 0 where keep is 0, as the state is then ``aim``."""
        own = self.unit.potential((state - self.aim) / self.keep)
        return torch.where(self.keep > 0, self.keep * own, 0)


force = Force()
"""The nudge is added to the energy: F = E + beta * loss."""
clamp = Clamp()
"""The output is held at (1 - beta) * free + beta * target."""
corrected = Corrected()
"""A force on the network with corrected feedback: asymmetric EP, with the rule ``vector_field``."""
soft_clamp = SoftClamp()
"""The output responds by (r(a) + beta * target) / (1 + beta)."""
