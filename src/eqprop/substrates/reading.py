"""Faults of the reading of states. Predictions are readings too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.checks import Bound, Count, NonNegative
from eqprop.energy.nodes import State
from eqprop.energy.substrate import Substrate
from eqprop.errors import InputError
from eqprop.substrates.together import Anew, Fault


@dataclass(frozen=True)
class ReadNoise(Anew):
    """Each reading of a state has noise of its own: the mean of several reads of s + size x, x standard normal.

    Both parts of a complex state have it.

    Effect: size / beta, over the root of reads; symmetric nudges halve it.
    Remedy: more reads, a larger beta. A batch averages over its examples, as the root of its size.
    Source: Peters & Talatchian 2025, arXiv 2503.22810, for the root of the number of reads.

    Args:
        size: standard deviation of one read, in units of the state.
        reads: of each state.
    """

    size: NonNegative = 0.0
    reads: Count = 1

    def measured(self, state: State, reading: int) -> State:
        if not self.size:
            return state
        size = self.size / math.sqrt(self.reads)
        return {node: value + size * self.noise(value, node, reading) for node, value in state.items()}


@dataclass(frozen=True)
class ReadConverter(Anew):
    """A converter reads states in steps within a range: the nearest step, or one of the two at random.

    Effect: step / beta.
    Remedy: a smaller step, a larger beta; round to the nearest, as two readings that differ by less than a step then
        round alike, which random ones do not.
    Source: 4-bit readings suffice an oscillator machine (arXiv 2505.02103).

    Args:
        step: in units of the state.
        low, high: of the range.
        random: whether it rounds at random, with the right mean.

    Raises:
        InputError: ``low`` is not below ``high``.
    """

    step: NonNegative = 0.0
    low: Bound = -math.inf
    high: Bound = math.inf
    random: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high:
            raise InputError(f"ReadConverter: low {self.low:g} must be below high {self.high:g}.")

    def measured(self, state: State, reading: int) -> State:
        if not self.step and self.low == -math.inf and self.high == math.inf:
            return state
        return {n: on_parts(lambda v, n=n: self._read(v, n, reading), value) for n, value in state.items()}  # type: ignore[misc]

    def _read(self, value: Tensor, node: str, reading: int) -> Tensor:
        if self.step and self.random:
            drawn = torch.rand(value.shape, generator=self.drawn(node, reading), dtype=torch.float64).to(value)
            value = self.step * (value / self.step + drawn).floor()
        elif self.step:
            value = self.step * (value / self.step).round()
        return value.clamp(self.low, self.high)


@dataclass(frozen=True)
class ReadSpread(Fault):
    """Each unit is read with a gain and an offset of its own, the same in all phases: (1 + gain x) s + offset x'.

    Effect: gain + offset, whatever beta. Two readers: as TwoCircuits.
    Remedy: one reader for all phases.
    Source: derived and measured here.

    Args:
        gain: standard deviation of the gain.
        offset: standard deviation of the offset, in units of the state.
    """

    gain: NonNegative = 0.0
    offset: NonNegative = 0.0

    def measured(self, state: State, reading: int) -> State:
        if not (self.gain or self.offset):
            return state

        def read(node: str, value: Tensor) -> Tensor:
            gain, offset = (
                size * self.fixed(value.shape[1:], node, name).to(value.device, value.real.dtype)
                for name, size in (("gain", self.gain), ("offset", self.offset))
            )
            return value * (1 + gain) + offset

        return {node: read(node, value) for node, value in state.items()}


@dataclass(frozen=True)
class Droop(Substrate):
    """Readings lose a share of their value with time: the n-th nudged phase is read as (1 - size n) s.

    So do a gain that drifts, and a value that is held while the other phases settle.

    Effect: size / beta.
    Remedy: phases in the order A B B A, the option ``there_and_back`` of EquilibriumPropagation: size, whatever beta.
    Source: derived and measured here.

    Args:
        size: the share that is lost from one reading to the next.
    """

    size: NonNegative = 0.0

    def measured(self, state: State, reading: int) -> State:
        if not self.size or reading <= 0:
            return state
        return {node: value * (1 - self.size * reading) for node, value in state.items()}


def on_parts(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """A function of real numbers, applied to the real and to the imaginary part."""
    return torch.complex(function(value.real), function(value.imag)) if value.is_complex() else function(value)
