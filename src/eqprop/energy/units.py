"""Activations as pairs: a unit's own energy G, and the response it gives to a drive.

A unit driven by ``a`` comes to rest where ``G(s) - a s`` is least, so ``response(a)`` is that minimiser and
``potential`` is G. Stating both says *why* ``clip(a, 0, 1)`` is the activation of the energy ``s^2/2`` on
[0, 1], and lets one test check every activation: ``response`` must minimise what ``potential`` says.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from eqprop.energy.holomorphic import sigmoid as logistic
from eqprop.errors import InputError


class Unit(ABC):
    """A unit's own energy and its response. Both act elementwise on tensors of any shape."""

    holomorphic: bool = False
    """Whether ``response`` and ``difference`` take complex drives, as the holomorphic extension of what they are."""

    low: float = -math.inf
    high: float = math.inf
    """The range of ``response``: no unit may be moved out of it."""

    @abstractmethod
    def response(self, drive: Tensor) -> Tensor:
        """argmin over s of ``potential(s) - drive * s``."""

    @abstractmethod
    def potential(self, state: Tensor) -> Tensor:
        """G(s), finite on the whole range of ``response``.

        Raises:
            InputError: the response is not monotone, so it is the minimum of no such energy.
        """

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        """response(drive + change) - response(drive). An override does it without cancellation."""
        return self.response(drive + change) - self.response(drive)

    def select(self, examples: Tensor) -> Unit:
        """The same for some examples of the batch; only an activation that holds something for each one differs."""
        return self


@dataclass(frozen=True)
class Identity(Unit):
    """s = a; G(s) = s^2/2."""

    holomorphic = True

    def response(self, drive: Tensor) -> Tensor:
        return drive

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        return change

    def potential(self, state: Tensor) -> Tensor:
        return 0.5 * state.square()


@dataclass(frozen=True)
class Clip(Unit):
    """s = clip(slope * a, low, high); G(s) = s^2 / (2 slope) on [low, high].

    The derivative at a corner is 0, as in the program of Laborieux et al. (2021) (``hardtanh``; ``clamp`` would give
    1).
    """

    slope: float = 1.0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (self.slope > 0 and self.low < self.high):
            raise InputError(f"{self}: slope must be positive and low below high.")

    def response(self, drive: Tensor) -> Tensor:
        scaled = drive if self.slope == 1 else self.slope * drive
        return F.hardtanh(scaled, self.low, self.high)

    def potential(self, state: Tensor) -> Tensor:
        return state.square() / (2 * self.slope)

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        below, above = self.low - self.slope * drive, self.high - self.slope * drive
        rest = torch.clamp(torch.zeros_like(drive), below, above)  # not 0 where the drive itself is clipped
        return torch.clamp(self.slope * change, below, above) - rest


@dataclass(frozen=True)
class Sigmoid(Unit):
    """s = 1 / (1 + exp(-slope (a - centre))); its steepest slope is ``slope / 4``.

    G(s) = centre * s + (s log s + (1 - s) log(1 - s)) / slope.
    """

    slope: float = 4.0
    centre: float = 0.5

    holomorphic = True
    low, high = 0.0, 1.0

    def __post_init__(self) -> None:
        if not self.slope > 0:
            raise InputError(f"{self}: slope must be positive.")

    def response(self, drive: Tensor) -> Tensor:
        shifted = drive - self.centre if self.centre else drive
        return logistic(shifted if self.slope == 1 else self.slope * shifted)

    def potential(self, state: Tensor) -> Tensor:
        entropy = torch.xlogy(state, state) + torch.xlogy(1 - state, 1 - state)
        return self.centre * state + entropy / self.slope

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

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        return tanh_difference(drive, change)


@dataclass(frozen=True)
class SmoothClip(Unit):
    """s = a/2 sigma(g a) + (1 - a/2) sigma(g (a - 2)), g = ``gain``: a holomorphic stand-in for clip(a/2, 0, 1).

    Laborieux & Zenke (2022). Like SiLU it dips below 0 on its way there, so no energy of its state makes it a minimum.
    Equilibrium propagation needs none: with f the response and Phi minus the energy of the couplings, equilibria are
    stationary in the drives, for any f, of sum_k [a_k f(a_k) - integral of f up to a_k] - Phi(f(a)).
    """

    gain: float = 1.0

    holomorphic = True

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise InputError(f"{self}: gain must be positive.")

    def response(self, drive: Tensor) -> Tensor:
        low, high = logistic(self.gain * drive), logistic(self.gain * (drive - 2))
        return high + 0.5 * drive * (low - high)

    def potential(self, state: Tensor) -> Tensor:
        raise InputError(f"{self} is not monotone, so a unit has no energy of its own: ask for the couplings' alone.")

    def difference(self, drive: Tensor, change: Tensor) -> Tensor:
        at, step, after = self.gain * drive, self.gain * change, self.gain * (drive + change)
        low, high = logistic_difference(at, step), logistic_difference(at - 2 * self.gain, step)
        slope = logistic(after) - logistic(after - 2 * self.gain)
        return high + 0.5 * (drive * (low - high) + change * slope)


def tanh_difference(a: Tensor, change: Tensor) -> Tensor:
    """tanh(a + change) - tanh(a) = -e expm1(-e change) sigma(e (a + change)) sigma(-e a) for e = ±2, as the change.

    No factor cancels, and none overflows, however saturated the unit is before or after. The change may be complex.
    """
    e = 2 * torch.ones_like(change.real).copysign(change.real)
    return -e * torch.expm1(-e * change) * logistic(e * (a + change)) * logistic(-e * a)


def logistic_difference(a: Tensor, change: Tensor) -> Tensor:
    """sigma(a + change) - sigma(a), where sigma(z) = (1 + tanh(z/2)) / 2."""
    return 0.5 * tanh_difference(0.5 * a, 0.5 * change)


identity = Identity()
"""s = a."""
hard_sigmoid = Clip()
"""clip(a, 0, 1)."""
half_hard_sigmoid = Clip(slope=0.5)
"""clip(a/2, 0, 1): that of Laborieux et al. (2021), which lets deep networks settle from default initial weights."""
centred_hard_sigmoid = Clip(low=-0.5, high=0.5)
"""clip(a, -1/2, 1/2)."""
sigmoid = Sigmoid()
"""1 / (1 + exp(-4 (a - 1/2))): steepest slope 1."""
half_sigmoid = Sigmoid(slope=2.0, centre=1.0)
"""1 / (1 + exp(-2 (a - 1))): the smooth variant of clip(a/2, 0, 1), steepest slope 1/2."""
smooth_clip = SmoothClip()
"""The smooth variant of clip(a/2, 0, 1) that holomorphic equilibrium propagation was published with."""
tanh = Tanh()
