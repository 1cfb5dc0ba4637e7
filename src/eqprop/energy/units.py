"""Units: a unit's own energy G, its force -dG/ds, and its response to a drive if there is a closed form.

A unit with state s and drive a is at rest at the minimum of ``G(s) - a s``, where the drive balances the unit's own
force. ``response(a)`` is that minimiser; e.g. ``clip(a, 0, 1)`` belongs to ``G = s^2/2`` on [0, 1].
``eqprop.testing.check_unit`` compares the two. A unit without a closed form defines G only, and descends in steps.
"""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from eqprop.checks import Bound, Positive
from eqprop.energy.holomorphic import gradient, pushforward, sigmoid as logistic
from eqprop.energy.shapes import expand_like
from eqprop.errors import InputError

Stiffness = Tensor | float
"""Minus the derivative of a unit's drive by its own state."""


class Unit(ABC):
    """The units of one node. Methods take tensors (batch, *node shape), or of any shape if ``elementwise``.

    A subclass defines ``potential``, or ``response``, or both.
    """

    holomorphic: bool = False
    """Whether ``response`` and ``difference`` accept complex drives, as their holomorphic extension."""

    elementwise: bool = True
    """Whether each unit's response depends on its own drive only; ``False`` for softmax and normalisation."""

    continuous: bool = True
    """Whether the state follows the drive without jumps; ``False`` for spins, which no derivative describes."""

    parabolic: bool = False
    """Whether ``response`` and ``difference`` also take the stiffness of the node's terms, as where G is a parabola."""

    low: float = -math.inf
    high: float = math.inf
    """The range of the states."""

    rate: float = 0.1
    """The length of a descent step, for units without a closed-form response."""

    def potential(self, state: Tensor) -> Tensor:
        """G(s), finite on the whole range: a tensor (batch, ...) whose sum over each example is the node's energy.

        Raises:
            InputError: the unit has no energy: its response minimises none.
        """
        raise InputError(f"{self} states no potential, so a unit has no energy of its own.")

    def response(self, drive: Tensor) -> Tensor:
        """argmin over s of G(s) - drive * s, in closed form.

        Raises:
            InputError: there is no closed form.
        """
        raise InputError(f"{self} has no closed-form response: use `step`, or define one.")

    @property
    def has_response(self) -> bool:
        """Whether ``response`` is defined."""
        return type(self).response is not Unit.response

    def force(self, state: Tensor) -> Tensor:
        """-dG/ds, by automatic differentiation of ``potential``; shaped as ``state``."""
        return -gradient(lambda s: self.potential(s).sum(), state)

    def step(self, state: Tensor, drive: Tensor, rate: Tensor | float = 1.0) -> Tensor:
        """The state after ``rate``, a number or (batch,), times the way to the response; without one, a descent step.

        No state leaves [``low``, ``high``].
        """
        if self.has_response:
            return self.towards(state, self.response(drive), rate)
        length = rate if isinstance(rate, float) else expand_like(rate, state)
        return (state + length * self.rate * (drive + self.force(state))).clamp(self.low, self.high)

    def towards(self, state: Tensor, response: Tensor, rate: Tensor | float) -> Tensor:
        """The state after ``rate`` times the way from ``state`` to ``response``, within the range."""
        if isinstance(rate, float):
            return response if rate == 1 else torch.lerp(state, response, rate)
        return torch.lerp(state, response, expand_like(rate, state)).clamp_(self.low, self.high)

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        """response(drive + change) - response(drive). An override computes it without cancellation."""
        return self.response(drive + change) - self.response(drive)

    def compliance(self, drive: Tensor, vector: Tensor) -> Tensor:
        """The derivative of ``response`` at ``drive``, applied to ``vector``."""
        return pushforward(self.response, (drive,), (vector,))

    def slope_at(self, state: Tensor) -> Tensor:
        """The derivative of ``response`` at the drive whose response is ``state``; for elementwise units, optional.

        Raises:
            InputError: the state does not tell it.
        """
        raise InputError(f"{self} does not say its slope at a state: use that at a drive.")

    @property
    def has_slope_at(self) -> bool:
        """Whether ``slope_at`` is defined, and ``response`` is not replaced in a class below its own."""
        told, answered = (next(c for c in type(self).__mro__ if name in vars(c)) for name in ("slope_at", "response"))
        return told is not Unit and issubclass(told, answered)

    def select(self, examples: Tensor) -> Unit:
        """The unit for the given ``examples``, (n,) int64; it differs only if it stores values for each example."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True)
class Identity(Unit):
    """s = a; G(s) = s^2/2."""

    holomorphic = True
    parabolic = True

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        return drive if is_zero(stiffness) else drive / (1 + stiffness)

    def difference(self, drive: Tensor, change: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        return self.response(change, stiffness)

    def potential(self, state: Tensor) -> Tensor:
        return 0.5 * state.square()

    def slope_at(self, state: Tensor) -> Tensor:
        return torch.ones_like(state)


@dataclass(frozen=True)
class Clip(Unit):
    """s = clip(``slope`` * a, ``low``, ``high``); G(s) = s^2 / (2 slope) on [low, high].

    The derivative at a corner is 0 (``hardtanh``), as in the program of Laborieux et al. (2021, doi
    10.3389/fnins.2021.633674).

    Raises:
        InputError: slope is not positive, or low not below high.
    """

    slope: Positive = 1.0
    low: Bound = 0.0
    high: Bound = 1.0

    parabolic = True

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"{self}: low must be below high.")

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        scaled = drive if self.slope == 1 else self.slope * drive
        if not is_zero(stiffness):
            scaled = scaled / (1 + self.slope * stiffness)
        return F.hardtanh(scaled, self.low, self.high)

    def potential(self, state: Tensor) -> Tensor:
        return state.square() / (2 * self.slope)

    def slope_at(self, state: Tensor) -> Tensor:
        slope = state.new_full((), self.slope).expand_as(state)
        return torch.ops.aten.hardtanh_backward(slope, state, self.low, self.high)  # 0 at the ends of the range

    def difference(self, drive: Tensor, change: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        below, above = self.low - self.slope * drive, self.high - self.slope * drive
        rest = torch.clamp(torch.zeros_like(drive), below, above)  # not 0 if the drive itself is clipped
        if is_zero(stiffness):
            return torch.clamp(self.slope * change, below, above) - rest
        return torch.clamp((self.slope * change - rest) / (1 + self.slope * stiffness), below - rest, above - rest)


@dataclass(frozen=True)
class Wire(Unit):
    """A node of a circuit: no energy of its own on [``low``, ``high``], so s = clip(a / k, low, high).

    k is the stiffness of the node's terms. A finite ``low`` or ``high`` is an ideal diode. At rest the currents of the
    terms sum to 0.

    Raises:
        InputError: low is not below high; on use, no term of the node has a stiffness.
    """

    low: Bound = -math.inf
    high: Bound = math.inf

    parabolic = True

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"{self}: low must be below high.")

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        if is_zero(stiffness):
            raise InputError(
                f"{self} has no energy of its own: couple its node by a term with stiffness, as resistors."
            )
        return F.hardtanh(drive / stiffness, self.low, self.high)

    def difference(self, drive: Tensor, change: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        raise InputError(f"{self}: a circuit's nodes settle as states; there is no displacement without their terms.")

    def potential(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)


def is_zero(stiffness: Stiffness) -> bool:
    """Whether there is no stiffness; a tensor counts as one."""
    return isinstance(stiffness, float) and stiffness == 0


@dataclass(frozen=True)
class Sigmoid(Unit):
    """s = 1 / (1 + exp(-``slope`` (a - ``centre``))); its largest derivative is slope / 4.

    G(s) = centre * s + (s log s + (1 - s) log(1 - s)) / slope.

    Raises:
        InputError: slope is not positive.
    """

    slope: Positive = 4.0
    centre: float = 0.5

    holomorphic = True
    low, high = 0.0, 1.0

    def response(self, drive: Tensor) -> Tensor:
        shifted = drive - self.centre if self.centre else drive
        return logistic(shifted if self.slope == 1 else self.slope * shifted)

    def potential(self, state: Tensor) -> Tensor:
        entropy = torch.xlogy(state, state) + torch.xlogy(1 - state, 1 - state)
        return self.centre * state + entropy / self.slope

    def slope_at(self, state: Tensor) -> Tensor:
        return self.slope * state * (1 - state)

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        return logistic_difference(self.slope * (drive - self.centre), self.slope * change)


@dataclass(frozen=True)
class Tanh(Unit):
    """s = tanh(a); G(s) = ((1 + s) log(1 + s) + (1 - s) log(1 - s)) / 2."""

    holomorphic = True
    low, high = -1.0, 1.0

    def response(self, drive: Tensor) -> Tensor:
        return torch.tanh(drive)

    def potential(self, state: Tensor) -> Tensor:
        return 0.5 * (torch.xlogy(1 + state, 1 + state) + torch.xlogy(1 - state, 1 - state))

    def slope_at(self, state: Tensor) -> Tensor:
        return 1 - state.square()

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        return tanh_difference(drive, change)


@dataclass(frozen=True)
class SmoothClip(Unit):
    """s = a/2 sigma(g a) + (1 - a/2) sigma(g (a - 2)), g = ``gain``: a holomorphic approximation of clip(a/2, 0, 1).

    Laborieux & Zenke (2022, arXiv 2209.00530). Like SiLU it is not monotone, so it minimises no energy of the state.
    Equilibrium propagation needs none: with f the response and Phi minus the energy of the couplings, for any f the
    equilibria are stationary points in the drives of sum_k [a_k f(a_k) - integral of f up to a_k] - Phi(f(a)).

    Raises:
        InputError: gain is not positive; or its potential, which it does not have, is asked for.
    """

    gain: Positive = 1.0

    holomorphic = True

    def response(self, drive: Tensor) -> Tensor:
        low, high = logistic(self.gain * drive), logistic(self.gain * (drive - 2))
        return high + 0.5 * drive * (low - high)

    def potential(self, state: Tensor) -> Tensor:
        raise InputError(f"{self} is not monotone, so a unit has no energy of its own: use that of the couplings.")

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        at, step, after = self.gain * drive, self.gain * change, self.gain * (drive + change)
        low, high = logistic_difference(at, step), logistic_difference(at - 2 * self.gain, step)
        slope = logistic(after) - logistic(after - 2 * self.gain)
        return high + 0.5 * (drive * (low - high) + change * slope)


def tanh_difference(a: Tensor, change: Tensor) -> Tensor:
    """tanh(a + change) - tanh(a) = -e expm1(-e change) sigma(e (a + change)) sigma(-e a) for e = ±2, as the change.

    No factor cancels or overflows, for any saturation of the unit. The change may be complex.
    """
    e = 2 * torch.ones_like(change.real).copysign(change.real)
    return -e * torch.expm1(-e * change) * logistic(e * (a + change)) * logistic(-e * a)


def logistic_difference(a: Tensor, change: Tensor) -> Tensor:
    """sigma(a + change) - sigma(a), where sigma(z) = (1 + tanh(z/2)) / 2."""
    return 0.5 * tanh_difference(0.5 * a, 0.5 * change)


identity = Identity()
"""s = a."""
relu = Clip(high=math.inf)
"""max(a, 0)."""
hard_sigmoid = Clip()
"""clip(a, 0, 1)."""
half_hard_sigmoid = Clip(slope=0.5)
"""clip(a/2, 0, 1), of Laborieux et al. (2021, doi 10.3389/fnins.2021.633674): deep networks with PyTorch's initial
weights then settle."""
centred_hard_sigmoid = Clip(low=-0.5, high=0.5)
"""clip(a, -1/2, 1/2)."""
sigmoid = Sigmoid()
"""1 / (1 + exp(-4 (a - 1/2))), whose largest derivative is 1."""
half_sigmoid = Sigmoid(slope=2.0, centre=1.0)
"""1 / (1 + exp(-2 (a - 1))), whose largest derivative is 1/2: the smooth variant of clip(a/2, 0, 1)."""
smooth_clip = SmoothClip()
"""The smooth variant of clip(a/2, 0, 1) in Laborieux & Zenke (2022, arXiv 2209.00530)."""
tanh = Tanh()
"""tanh(a)."""
