"""Faults of units as they were built."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from eqprop.checks import NonNegative
from eqprop.energy.nodes import Node
from eqprop.energy.substrate import IDEAL, Substrate
from eqprop.energy.units import Stiffness, Unit, is_zero
from eqprop.errors import InputError
from eqprop.substrates.together import Anew, Fault


@dataclass(frozen=True)
class UnitSpread(Fault):
    """Each unit has a slope and an offset of its own: s = f(g (a + o)), g = e^(slope x), o = offset x', fixed.

    Effect: none on learning in situ. The ideal network's gradient is wrong for this machine by about the spread.
    Remedy: learn in situ.
    Source: derived and measured here.

    Args:
        slope: standard deviation of the slope's logarithm.
        offset: standard deviation of the offset, in units of the drive.
    """

    slope: NonNegative = 0.0
    offset: NonNegative = 0.0

    def unit(self, name: str, node: Node) -> Node:
        if not (self.slope or self.offset) or node.unit is None:
            return node
        slope = (self.slope * self.fixed(node.shape, name, "slope")).exp()
        return replace(node, unit=Spread(node.unit, slope, self.offset * self.fixed(node.shape, name, "offset")))


@dataclass(frozen=True)
class UnitNoise(Anew):
    """Each sweep adds noise to each unit's state: s = f(a) + size x, x standard normal and drawn anew.

    Nothing comes to rest below the noise: settle by ``FixedSweeps``.

    Effect: size / beta, of the last state.
    Remedy: a larger beta; the mean of the last sweeps (``settling.Averaged``): it falls about as one over their root.
    Source: the published program of Laborieux & Zenke 2022, arXiv 2209.00530, where 0.04 ends one-sided learning.

    Args:
        size: standard deviation, in units of the state.
    """

    size: NonNegative = 0.0

    def unit(self, name: str, node: Node) -> Node:
        if not self.size or node.unit is None:
            return node
        return replace(node, unit=Noisy(checked_unit(self, name, node.unit), self.size, self.drawn(name)))


@dataclass(frozen=True)
class LoopConverter(Fault):
    """Each unit sends its state, and hears its drive, in steps, the nearest one, in every sweep.

    So do converters at the inputs and at the outputs of the matrix products between the layers. The products that reach
    a unit are added before they are rounded; data are not rounded. Gradients of simulation (implicit, through time) go
    straight through the rounding.

    Effect: step / beta, as ReadConverter, once the states rest; where they do not, they turn in a cycle of one step.
    Remedy: a larger beta; finer steps. With converters of the reads alone it is 0.7 to 0.9 of this, no cure.
    Source: 7 bits in and 9 bits out in the presets of aihwkit 1.2.0.

    Args:
        step: of states, in their units.
        drive_step: of drives, in their units.
    """

    step: NonNegative = 0.0
    drive_step: NonNegative = 0.0

    def unit(self, name: str, node: Node) -> Node:
        if not (self.step or self.drive_step) or node.unit is None:
            return node
        return replace(node, unit=Rounded(checked_unit(self, name, node.unit), self.step, self.drive_step))

    def as_made(self) -> Substrate:
        return IDEAL


def checked_unit(fault: Fault, name: str, unit: Unit) -> Unit:
    """The unit. Raises InputError if it has no response."""
    if not unit.has_response:
        raise InputError(f"{fault}: node {name!r} has {unit}, without a response: take a unit with a closed form.")
    return unit


@dataclass(frozen=True, eq=False)
class Altered(Unit):
    """Another unit, altered."""

    of: Unit

    def __post_init__(self) -> None:
        for name in ("holomorphic", "elementwise", "continuous", "parabolic", "low", "high", "rate"):
            object.__setattr__(self, name, getattr(self.of, name))

    @property
    def has_response(self) -> bool:
        return self.of.has_response

    def select(self, examples: Tensor) -> Self:
        return replace(self, of=self.of.select(examples))


@dataclass(frozen=True, eq=False)
class Spread(Altered):
    """s = f(slope (a + offset)), so G_of(s) / slope - offset s."""

    slope: Tensor = field(repr=False)
    offset: Tensor = field(repr=False)

    def potential(self, state: Tensor) -> Tensor:
        slope, offset = self._at(state)
        return self.of.potential(state) / slope - offset * state

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        slope, offset = self._at(drive)
        more = () if is_zero(stiffness) else (slope * stiffness,)
        return self.of.response(slope * (drive + offset), *more)

    def difference(self, drive: Tensor, change: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        slope, offset = self._at(drive)
        more = () if is_zero(stiffness) else (slope * stiffness,)
        return self.of.difference(slope * (drive + offset), slope * change, *more)

    def _at(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.slope.to(like.device, like.real.dtype), self.offset.to(like.device, like.real.dtype)


@dataclass(frozen=True, eq=False)
class Noisy(Altered):
    """f(a) + size x; the generator is this batch's own."""

    size: float
    generator: torch.Generator = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "holomorphic", False)

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        more = () if is_zero(stiffness) else (stiffness,)
        return self.of.response(drive, *more) + self._noise(drive)

    def difference(self, drive: Tensor, change: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        more = () if is_zero(stiffness) else (stiffness,)
        return self.of.difference(drive, change, *more) + self._noise(drive)

    def compliance(self, drive: Tensor, vector: Tensor) -> Tensor:
        return self.of.compliance(drive, vector)

    def _noise(self, like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=self.generator, dtype=like.real.dtype)
        return self.size * drawn.to(like.device)


@dataclass(frozen=True, eq=False)
class Rounded(Altered):
    """f(a), with f rounded to a multiple of ``size`` and a of ``drive_size``; its derivative is that of f."""

    size: float
    drive_size: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "holomorphic", False)

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        more = () if is_zero(stiffness) else (stiffness,)
        return nearest(self.of.response(nearest(drive, self.drive_size), *more), self.size)

    def difference(self, drive: Tensor, change: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        return self.response(drive + change, stiffness) - self.response(drive, stiffness)


def nearest(value: Tensor, step: float) -> Tensor:
    """The nearest multiples of ``step``, 0 for any; gradients go straight through."""
    return value + (step * (value / step).round() - value).detach() if step else value
