"""Models of one pulse: how its size depends on the value of the device.

With r the response, a pulse moves a value w by u r_up(w), or by -d r_down(w); u and d are the pulses at value 0. The
equations are those of aihwkit 1.2.0 (Rasch et al. 2021, doi 10.1109/AICAS51828.2021.9458494).
"""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqprop.checks import Count, NonNegative
from eqprop.devices.cells import Device, DeviceCells, Share, normal
from eqprop.errors import InputError
from eqprop.files import explained


@dataclass(frozen=True, kw_only=True)
class Affine(Device):
    """A response that is affine in the value: many pulses, and the limit of small ones, have a closed form.

    Subclasses give the ``falls``.
    """

    @abstractmethod
    def falls(self, cells: DeviceCells) -> tuple[Tensor | float, Tensor | float]:
        """(a, b) of r_up = 1 - a w and r_down = 1 + b w; neither is negative."""

    def response(self, cells: DeviceCells, values: Tensor) -> tuple[Tensor, Tensor]:
        up, down = self.falls(cells)
        return 1 - up * values, 1 + down * values

    def pulsed(
        self, cells: DeviceCells, values: Tensor, counts: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """As ``Cells.pulsed``; the noise of n pulses has the variance of n single ones, to first order."""
        base, shrinking, first = self._at(cells, values, counts)
        many = counts.abs()
        log = torch.log1p(-shrinking.clamp(max=1 - torch.finfo(values.dtype).eps))
        moved = values + first * _sum_of_powers(log, shrinking, many)
        if self.cycle_noise:
            if self.additive:
                size = base.abs() * _sum_of_powers(2 * log, -torch.expm1(2 * log), many).sqrt()
            else:
                size = first.abs() * (log * (many - 1)).exp() * many.sqrt()
            moved = moved + self.cycle_noise * size * normal(values, generator)
        return cells.clipped(moved)

    def flowed(self, cells: DeviceCells, values: Tensor, counts: Tensor) -> Tensor:
        """As ``Cells.flowed``, for counts that need not be whole."""
        _, shrinking, first = self._at(cells, values, counts)
        return values + first * _sum_of_powers(-shrinking, shrinking, counts.abs())

    def _at(self, cells: DeviceCells, values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of one pulse: its signed size at value 0, the share by which it shortens the next one, its signed size."""
        up = counts > 0
        rising, falling = (
            torch.as_tensor(each, dtype=values.dtype, device=values.device) for each in self.falls(cells)
        )
        base = torch.where(up, cells.up, -cells.down)
        return (
            base,
            base.abs() * torch.where(up, rising, falling),
            base * torch.where(up, *self.response(cells, values)),
        )


def _sum_of_powers(log: Tensor, lost: Tensor, many: Tensor) -> Tensor:
    """1 + q + ... + q^(many - 1) with q = exp(log) and lost = 1 - q, or its limit; ``many`` where nothing is lost."""
    found = -torch.expm1(log * many) / torch.where(lost > 0, lost, 1.0)
    return torch.where(lost > 0, found, many)


@dataclass(frozen=True, kw_only=True)
class Constant(Affine):
    """Pulses of one size: r = 1."""

    def falls(self, cells: DeviceCells) -> tuple[Tensor | float, Tensor | float]:
        return 0.0, 0.0


@dataclass(frozen=True, kw_only=True)
class Linear(Affine):
    """Pulses that get shorter towards the ends of the mean range: r_up = 1 - w up_slope/high, r_down likewise.

    Args:
        up_slope, down_slope: the share that is lost at the end of the range.
        slope_spread: between devices: a standard deviation, as a share.
    """

    up_slope: Share = 0.5
    down_slope: Share = 0.5
    slope_spread: NonNegative = 0.0

    def own(self, draw: Callable[[str], Tensor]) -> dict[str, Tensor]:
        found = {}
        for side, slope, end in (("up", self.up_slope, self.high), ("down", self.down_slope, -self.low)):
            drawn = slope * (1 + self.slope_spread * draw(f"{side}_slope")).abs()
            found[f"{side}_fall"] = drawn / end if end else torch.zeros_like(drawn)
        return found

    def falls(self, cells: DeviceCells) -> tuple[Tensor | float, Tensor | float]:
        return cells.more["up_fall"], cells.more["down_fall"]


@dataclass(frozen=True, kw_only=True)
class SoftBounds(Affine):
    """Pulses that vanish at the ends of each device's own range: r_up = 1 - w/high, r_down = 1 - w/low.

    With ``from_symmetry`` it is the device whose reference stands at its symmetry point.

    Raises:
        InputError: the range ends at 0.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < 0 < self.high:
            raise InputError(
                f"SoftBounds: the range from {self.low:g} to {self.high:g} must reach beyond 0 on both sides."
            )

    def falls(self, cells: DeviceCells) -> tuple[Tensor | float, Tensor | float]:
        return 1 / cells.high, -1 / cells.low


@dataclass(frozen=True, kw_only=True)
class Exponential(Device):
    """r_up = max(0, 1 - up_weight exp(rate z)), r_down = max(0, 1 - down_weight exp(-rate z)), z = 2 scale w/(high -
    low) + offset, with the range of each device.

    Args:
        rate, up_weight, down_weight, scale, offset: see above; ``rate`` holds for up and down.
        noise_offset, noise_slope: the noise of a pulse is ``cycle_noise`` (|pulse| + noise_offset + noise_slope |w|).
    """

    rate: float = 1.0
    up_weight: float = 0.0
    down_weight: float = 0.0
    scale: float = 1.0
    offset: float = 0.0
    noise_offset: NonNegative = 0.0
    noise_slope: NonNegative = 0.0

    def response(self, cells: DeviceCells, values: Tensor) -> tuple[Tensor, Tensor]:
        z = 2 * self.scale * values / (cells.high - cells.low) + self.offset
        up = 1 - self.up_weight * (self.rate * z).exp()
        return up.clamp(0), (1 - self.down_weight * (-self.rate * z).exp()).clamp(0)

    def noise(self, values: Tensor, step: Tensor, base: Tensor) -> Tensor:
        if self.noise_offset or self.noise_slope:
            return step.abs() + self.noise_offset + self.noise_slope * values.abs()
        return super().noise(values, step, base)


@dataclass(frozen=True, kw_only=True)
class Power(Device):
    """r_up = ((high - w)/(high - low))^exponent, r_down = ((w - low)/(high - low))^exponent, with each device's range.

    Args:
        exponent: see above. At value 0 a pulse is shorter than ``step``.
    """

    exponent: NonNegative = 1.0

    def response(self, cells: DeviceCells, values: Tensor) -> tuple[Tensor, Tensor]:
        width = cells.high - cells.low
        return ((cells.high - values) / width).clamp(0) ** self.exponent, ((values - cells.low) / width).clamp(0) ** (
            self.exponent
        )


@dataclass(frozen=True, kw_only=True)
class Table(Device):
    """The response at nodes that lie evenly over each device's range, and linear between them.

    Args:
        up, down: r_up and r_down at the nodes, from the lowest value to the highest: two or more, as many each.

    Raises:
        InputError: there are fewer nodes, they differ in number, or one is negative.
    """

    up: Sequence[float] = (1.0, 1.0)
    down: Sequence[float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.up) < 2 or len(self.up) != len(self.down):
            raise InputError(f"Table: {len(self.up)} and {len(self.down)} nodes: give two or more, as many up as down.")
        if min(*self.up, *self.down) < 0:
            raise InputError(f"Table: a pulse of size {min(*self.up, *self.down):g}: up and down are not negative.")

    def response(self, cells: DeviceCells, values: Tensor) -> tuple[Tensor, Tensor]:
        last = len(self.up) - 1
        place = ((values - cells.low) / (cells.high - cells.low) * last).clamp(0, last)
        left = place.floor().clamp(max=last - 1).long()
        up, down = (self._between(nodes, left, place - left) for nodes in (self.up, self.down))
        return up, down

    def _between(self, nodes: Sequence[float], left: Tensor, share: Tensor) -> Tensor:
        table = torch.tensor(nodes, dtype=share.dtype, device=share.device)
        return table[left] * (1 - share) + table[left + 1] * share

    @classmethod
    def from_csv(cls, path: str | Path, nodes: Count = 9, **more: Any) -> Table:
        """A device that was measured: a line each pulse with its number, the conductance on the way up after it, and
        that on the way down. A first line of titles is skipped. Numbers rise by 1 from line to line.

        The measured range becomes the weights from -1 to 1. A pulse at a node is the mean of those measured about it;
        what they scatter about the table is the noise of a pulse.

        Args:
            path: of the file; columns are separated by commas, decimals by points.
            nodes: of the table, at least 2.
            more: other parameters of the device, such as its spreads, which one device does not tell; default: none.

        Returns:
            The device.

        Raises:
            InputError: the file cannot be read, is too short, leaves out pulses, or does not rise and fall.
        """
        if nodes < 2:
            raise InputError(f"nodes {nodes}: a table has two or more.")
        up, down = measured(Path(path), nodes)
        low, high = min(*up, *down), max(*up, *down)
        ends = [up[-1] - up[0], down[0] - down[-1]]
        if min(ends) <= (high - low) / 2:
            raise InputError(
                f"{path}: the conductance must rise in the second column and fall in the third by more than half "
                f"the range; it changes by {up[-1] - up[0]:g} and {down[-1] - down[0]:g} in a range of {high - low:g}."
            )
        curves = [torch.tensor(each, dtype=torch.float64) for each in (up, down)]
        weights = [2 * (curve - low) / (high - low) - 1 for curve in curves]
        sides = [about_nodes(each, sign, nodes) for each, sign in zip(weights, (1, -1), strict=True)]
        step = float(sum(side.mean() for side in sides)) / 2
        spread = {f"{name}_spread": 0.0 for name in ("step", "up_down", "low", "high")}
        tables = {name: tuple((side / step).tolist()) for name, side in zip(("up", "down"), sides, strict=True)}
        found = cls(**{**spread, "step": step, "low": -1.0, "high": 1.0, "cycle_noise": 0.0, **tables, **more})
        if "cycle_noise" in more:
            return found
        return replace(found, cycle_noise=scatter(found, weights))


def measured(path: Path, nodes: int) -> tuple[list[float], list[float]]:
    """The second and the third column of a CSV file. Raises InputError if they hold other than enough numbers."""
    with explained(f"{path} cannot be read as measured pulses ({{}}).", OSError, UnicodeDecodeError, csv.Error):
        reader = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
        rows = [(reader.line_num, row) for row in reader if any(row)]
    up, down, before = [], [], None
    for line, row in rows:
        try:
            number, rising, falling = map(float, row)
        except ValueError as error:
            if line == rows[0][0] and not any(map(is_number, row)):
                continue
            raise InputError(
                f"{path}, line {line}: {','.join(row)!r} is not a pulse number, a conductance up and one down: give "
                "three numbers, with commas between them and decimal points."
            ) from error
        if not torch.tensor([rising, falling]).isfinite().all():
            raise InputError(f"{path}, line {line}: a conductance is not finite.")
        if before is not None and number != before + 1:
            raise InputError(
                f"{path}, line {line}: pulse {number:g} comes after pulse {before:g}: give a line for each pulse, in "
                "order, of one way up and one way down."
            )
        before = number
        up.append(rising)
        down.append(falling)
    if len(up) < max(nodes, 3):
        raise InputError(f"{path} has {len(up)} pulses: give {max(nodes, 3)} or more, or fewer nodes.")
    return up, down


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def about_nodes(weights: Tensor, sign: int, nodes: int) -> Tensor:
    """The mean pulse about each node of -1..1, from a curve of weights; between nodes without any, interpolated."""
    places = ((weights[1:] + weights[:-1]) / 4 + 0.5) * (nodes - 1)
    nearest, pulses = places.round().long(), sign * weights.diff()
    counts = torch.zeros(nodes, dtype=torch.float64).index_add(0, nearest, torch.ones_like(pulses))
    sums = torch.zeros(nodes, dtype=torch.float64).index_add(0, nearest, pulses)
    known = counts.nonzero().squeeze(1)
    means = (sums[known] / counts[known]).clamp(0)
    right = torch.searchsorted(known, torch.arange(nodes)).clamp(1, max(len(known) - 1, 1))
    if len(known) == 1:
        return means.expand(nodes)
    left = right - 1
    share = ((torch.arange(nodes) - known[left]) / (known[right] - known[left])).clamp(0, 1)
    return means[left] + share * (means[right] - means[left])


def scatter(device: Table, curves: Sequence[Tensor]) -> float:
    """The root mean square of what measured pulses differ from the table's, as a share of the pulse there."""
    errors, sizes = [], []
    for side, curve in enumerate(curves):
        pulses = curve.diff() * (1 - 2 * side)
        expected = device.step * device.response(device.mean_cell, (curve[1:] + curve[:-1]) / 2)[side]
        errors.append(pulses - expected)
        sizes.append(expected)
    return float(torch.cat(errors).square().mean().sqrt() / torch.cat(sizes).square().mean().sqrt())
