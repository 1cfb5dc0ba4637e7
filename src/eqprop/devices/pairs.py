"""A weight as the difference of two devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eqprop.checks import Natural
from eqprop.devices.cells import Cells, Device, DeviceCells, Share


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCells(Cells):
    """Two devices a weight, which is their difference; values are (2, *shape).

    Attributes:
        pair: their kind.
        positive, negative: the devices; only pulses up reach them.
    """

    pair: Pair
    positive: DeviceCells
    negative: DeviceCells

    def programmed(self, weights: Tensor) -> Tensor:
        return torch.stack([self.positive.programmed(weights.clamp(0)), self.negative.programmed((-weights).clamp(0))])

    def read(self, values: Tensor) -> Tensor:
        return self.positive.read(values[0]) - self.negative.read(values[1])

    def pulsed(self, values: Tensor, counts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As ``Cells.pulsed``; then pairs that are used up are written anew, as in ``Pair``."""
        return self._refreshed(
            torch.stack(
                [
                    self.positive.pulsed(values[0], counts.clamp(0), generator),
                    self.negative.pulsed(values[1], (-counts).clamp(0), generator),
                ]
            )
        )

    def flowed(self, values: Tensor, amounts: Tensor) -> Tensor:
        parts = [
            self.positive.flowed(values[0], amounts.clamp(0)),
            self.negative.flowed(values[1], -amounts.clamp(max=0)),
        ]
        return self._refreshed(torch.stack(parts))

    def rested(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.stack([self.positive.rested(values[0], generator), self.negative.rested(values[1], generator)])

    def _refreshed(self, values: Tensor) -> Tensor:
        shares = torch.stack([values[0] / self.positive.high, values[1] / self.negative.high])
        used = (shares.amax(0) > self.pair.upper) & (shares.amin(0) > self.pair.lower)
        return torch.where(used, self.programmed(self.read(values)), values)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A weight is the difference of two devices, which receive pulses up alone: for devices that cannot go down slowly.

    A pair is refreshed, both devices reset and the difference written, once the fuller device is above ``upper`` of its
    range and the other above ``lower``.

    Args:
        device: of both.
        upper, lower: see above.
    """

    device: Device
    upper: Share = 0.75
    lower: Share = 0.25

    def cells(
        self,
        shape: Sequence[int],
        seed: Natural = 0,
        name: str = "",
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> PairCells:
        """As ``Device.cells``."""
        sides = (self.device.cells(shape, seed, f"{name}:{side}", dtype, device) for side in ("positive", "negative"))
        return PairCells(pair=self, **dict(zip(("positive", "negative"), sides, strict=True)))

    @cached_property
    def granularity(self) -> float:
        """Of each device: that of its pulse up, at 0."""
        cell = self.device.mean_cell
        return float(cell.up * self.device.response(cell, cell.reference)[0])

    @property
    def write_noise(self) -> float:
        """Of each device."""
        return self.device.write_noise

    @property
    def step(self) -> float:
        """Of each device."""
        return self.device.step

    @property
    def low(self) -> float:
        """The least weight."""
        return -self.device.high

    @property
    def high(self) -> float:
        """The largest weight."""
        return self.device.high
