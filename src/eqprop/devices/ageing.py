"""Memory that is programmed once and read later: errors of programming, drift, read noise, and compensation.

Conductances are in microsiemens, times in seconds after programming. A weight is the difference of two cells, one of
which is at 0; the largest weight of a tensor takes the whole range.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.checks import Positive
from eqprop.devices.cells import normal
from eqprop.errors import InputError

HOUR, DAY, YEAR = 3600.0, 86400.0, 31536000.0
"""In seconds."""


class Ageing(ABC):
    """Memory cells that are programmed once and read later."""

    largest: float
    """The largest conductance, in microsiemens."""
    earliest: float = 0.0
    """The first age at which cells can be read, in seconds."""

    @abstractmethod
    def cells(self, shares: Tensor, age: float, generator: torch.Generator | None = None) -> Tensor:
        """Conductances in microsiemens, programmed to ``shares`` of the largest and read ``age`` seconds later."""

    def weights(self, weights: Tensor, age: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """The weights that are read from cells that were programmed to these.

        Args:
            weights: of any shape.
            age: seconds since programming; 0: at once.
            generator: of all draws; ``None``: the global one of PyTorch. Each call programs the cells anew.
        """
        scale = weights.abs().max()
        if not bool(scale > 0):
            scale = torch.ones_like(scale)
        positive, negative = (self.cells((side * weights).clamp(0) / scale, age, generator) for side in (1, -1))
        return (positive - negative) * scale / self.largest


@dataclass(frozen=True, kw_only=True)
class PhaseChange(Ageing):
    """Phase-change memory (Joshi et al. 2020, doi 10.1038/s41467-020-16108-9, as aihwkit 1.2.0 has it).

    With g the conductance, r = g/largest, and x standard normal numbers: programming g + (0.26348 + 1.965 r - 1.1731
    r^2) x, not negative; drift g (1 + t/start)^-v with v = |m + s x|, m = -0.0155 ln r + 0.0244 within 0.049..0.1 and
    s = -0.0125 ln r - 0.0059 within 0.008..0.045; reading g (1 + Q sqrt(ln((t + start + read)/(2 read))) x) with
    Q = 0.0088 r^-0.65, at most 0.2, of the programmed conductance. The exponents v are those of the target.

    Args:
        largest: conductance, microsiemens.
        start: the time t = ``start`` after programming has the programmed conductance drifted by 2^-v; seconds.
        read: duration of a reading; seconds.
    """

    largest: Positive = 25.0
    start: Positive = 20.0
    read: Positive = 250e-9

    def cells(self, shares: Tensor, age: float, generator: torch.Generator | None = None) -> Tensor:
        # All are drawn at any age, so that a generator of the same seed programs the same cells.
        of_writing, of_drift, of_reading = (normal(shares, generator) for _ in range(3))
        error = 0.26348 + 1.9650 * shares - 1.1731 * shares.square()
        programmed = (self.largest * shares + error * of_writing).clamp(0)
        if not age:
            return programmed
        log = shares.clamp(min=1e-7).log()
        mean, spread = (-0.0155 * log + 0.0244).clamp(0.049, 0.1), (-0.0125 * log - 0.0059).clamp(0.008, 0.045)
        drifted = programmed * (1 + age / self.start) ** -(mean + spread * of_drift).abs()
        noise = (0.0088 / (programmed / self.largest).pow(0.65).clamp(min=1e-3)).clamp(max=0.2)
        noise = noise * math.sqrt(math.log((age + self.start + self.read) / (2 * self.read)))
        return (drifted * (1 + noise * of_reading)).clamp(0)


@dataclass(frozen=True, kw_only=True)
class Filamentary(Ageing):
    """Resistive memory (Wan et al. 2022, doi 10.1038/s41586-022-04992-8, as aihwkit 1.2.0 has it): cells spread by a
    polynomial of r = g/largest, and do not drift on average.

    Args:
        largest: conductance, microsiemens.
        errors: of each known age, (seconds, coefficients of r^0, r^1, ... of the standard deviation, microsiemens).

    Raises:
        InputError: on ``weights``: nothing is known of this age.
    """

    largest: Positive = 40.0
    errors: Sequence[tuple[float, Sequence[float]]] = (
        (1.0, (0.348, 16.030, -43.853, 45.393, -16.815)),
        (DAY, (0.701, 22.086, -50.773, 47.095, -16.458)),
        (2 * DAY, (0.782, 20.274, -43.507, 37.062, -11.934)),
    )

    @property
    def earliest(self) -> float:  # type: ignore[override]
        """The first age of which something is known, in seconds."""
        return min(age for age, _ in self.errors)

    def cells(self, shares: Tensor, age: float, generator: torch.Generator | None = None) -> Tensor:
        errors = dict(self.errors)
        if age not in errors:
            known = ", ".join(f"{each:g}" for each in errors)
            raise InputError(f"Filamentary: nothing is known of the age of {age:g} s: give one of {known}.")
        error = sum(c * shares**power for power, c in enumerate(errors[age]))
        return (self.largest * shares + error * normal(shares, generator)).clamp(0)


def compensated(weights: Tensor, then: Tensor) -> Tensor:
    """The weights times one factor that undoes drift on average: the mean read at programming, over that now.

    Joshi et al. 2020, doi 10.1038/s41467-020-16108-9; the inputs of the reads are one-hot.

    Args:
        weights: as they are read now.
        then: as they were read at programming.
    """
    return weights * (then.abs().mean() / weights.abs().mean())
