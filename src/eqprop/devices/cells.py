"""Arrays of devices, each of which holds one number: how they differ, how a pulse moves them, how they age.

The quantities are those of Gokmen & Vlasov 2016, doi 10.3389/fnins.2016.00333, and of aihwkit (Rasch et al. 2021, doi
10.1109/AICAS51828.2021.9458494), whose behaviour the tests hold these models to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, TypeVar

import torch
from torch import Tensor

from eqprop.checks import Natural, NonNegative, Positive
from eqprop.draws import generator_for
from eqprop.errors import InputError

D = TypeVar("D", bound="Device")
Share = Annotated[float, ">= 0", "<= 1"]


class Cells(ABC):
    """Memory cells, one a weight.

    Values are what an array stores, of any layout; weights are what is read from them, in the shape of the cells.
    """

    @abstractmethod
    def programmed(self, weights: Tensor) -> Tensor:
        """Values that are read as ``weights``; what is out of the range of a cell is set to the end of its range."""

    @abstractmethod
    def read(self, values: Tensor) -> Tensor:
        """The weights that these values stand for."""

    @abstractmethod
    def pulsed(self, values: Tensor, counts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The values after pulses.

        Args:
            values: from ``programmed``, or from here.
            counts: whole numbers in the shape of the cells: positive ones are pulses up, negative ones pulses down.
            generator: of the noise of pulses; ``None``: the global one of PyTorch.
        """

    @abstractmethod
    def flowed(self, values: Tensor, amounts: Tensor) -> Tensor:
        """The values after a change in the limit of many small pulses: no granularity, no noise.

        Args:
            values: from ``programmed``, or from here.
            amounts: in the shape of the cells, each the change of a weight of 0 that its pulses would make.
        """

    @abstractmethod
    def rested(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The values after the time of one update: leak, and diffusion."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceCells(Cells):
    """One device a weight.

    Attributes:
        device: their kind.
        up, down: the size of a pulse up, and of one down, at value 0.
        low, high: the range of the values.
        reference: what is subtracted when a value is read.
        lifetime: updates in which the distance to the reference falls to 1/e; ``None``: a value stays.
        stuck: the value of a cell that does not move; NaN for one that does. ``None``: all do.
        more: what else the kind of device has for each cell.
    """

    device: Device
    up: Tensor
    down: Tensor
    low: Tensor
    high: Tensor
    reference: Tensor
    lifetime: Tensor | None = None
    stuck: Tensor | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def programmed(self, weights: Tensor) -> Tensor:
        return self.clipped(weights + self.reference)

    def read(self, values: Tensor) -> Tensor:
        return values - self.reference

    def pulsed(self, values: Tensor, counts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        chosen = counts.flatten().nonzero().squeeze(1)
        if not len(chosen):
            return values
        part, flat = self.part(chosen), values.flatten()
        moved = self.device.pulsed(part, flat[chosen], counts.flatten()[chosen].to(values.dtype), generator)
        return flat.index_put((chosen,), moved).view(values.shape)

    def flowed(self, values: Tensor, amounts: Tensor) -> Tensor:
        return self.clipped(self.device.flowed(self, values, amounts / self.device.granularity))

    def rested(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if self.lifetime is None and not self.device.diffusion:
            return values
        if self.lifetime is not None:
            values = self.reference + (values - self.reference) * (1 - 1 / self.lifetime)
        if self.device.diffusion:
            values = values + self.device.diffusion * normal(values, generator)
        return self.clipped(values)

    def symmetry_point(self) -> Tensor:
        """The value at which a pulse up and a pulse down cancel; NaN for a device that has none in its range."""

        def excess(value: Tensor) -> Tensor:
            up, down = self.device.response(self, value)
            return self.up * up - self.down * down

        low, high = self.low, self.high
        crosses = (excess(low) > 0) & (excess(high) < 0)
        for _ in range(60):
            middle = (low + high) / 2
            above = excess(middle) > 0
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return torch.where(crosses, (low + high) / 2, torch.nan)

    def clipped(self, values: Tensor) -> Tensor:
        """The nearest values that the cells can have."""
        values = torch.minimum(torch.maximum(values, self.low), self.high)
        return values if self.stuck is None else torch.where(self.stuck.isnan(), values, self.stuck)

    def part(self, chosen: Tensor) -> DeviceCells:
        """The cells of these indices, in a row."""
        return self.mapped(lambda each: each.flatten()[chosen])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> DeviceCells:
        """The cells with every tensor changed."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        tensors: dict[str, Any] = {name: change(value) for name, value in own.items() if isinstance(value, Tensor)}
        return replace(self, more={name: change(value) for name, value in self.more.items()}, **tensors)


@dataclass(frozen=True, kw_only=True)
class Device(ABC):
    """A kind of device. Devices of a kind differ by fixed draws; ``cells`` makes them.

    A pulse up or down moves a value by ``step`` times the ``response`` of the device at this value, within its range.

    Args:
        step: of a pulse at value 0, the mean over devices.
        up_down: how much shorter pulses down are than ``step``, if positive; if negative, pulses up. A share of it.
        low, high: the mean range of values; 0 lies in it.
        step_spread, up_down_spread: of the steps, between devices: up and down alike, and against each other. Standard
            deviations, as shares of ``step``.
        low_spread, high_spread: of the range, between devices: standard deviations, as shares of it.
        log_normal: steps are spread log-normally.
        cycle_noise: of one pulse: a standard deviation, as a share of the pulse.
        additive: it is a share of the pulse at value 0.
        write_noise: a weight is read with an error, drawn when it is written: a standard deviation, in ``step``.
        reference, reference_spread: what is subtracted when a value is read: mean and standard deviation.
        from_symmetry: the symmetry point is subtracted too, at which a pulse up and one down cancel.
        stuck: the share of devices that do not move.
        stuck_range: weights of these are uniform between plus and minus this.
        lifetime: updates in which a value falls to 1/e; 0: it stays.
        lifetime_spread: between devices: a standard deviation, as a share of it.
        diffusion: the standard deviation of the change in each update.

    Raises:
        InputError: the range does not hold 0, or the lifetime is below one update.
    """

    step: Positive = 1e-3
    up_down: float = 0.0
    low: float = -0.6
    high: float = 0.6
    step_spread: NonNegative = 0.3
    up_down_spread: NonNegative = 0.01
    low_spread: NonNegative = 0.3
    high_spread: NonNegative = 0.3
    log_normal: bool = False
    cycle_noise: NonNegative = 0.3
    additive: bool = False
    write_noise: NonNegative = 0.0
    reference: float = 0.0
    reference_spread: NonNegative = 0.0
    from_symmetry: bool = False
    stuck: Share = 0.0
    stuck_range: NonNegative = 0.01
    lifetime: NonNegative = 0.0
    lifetime_spread: NonNegative = 0.0
    diffusion: NonNegative = 0.0

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high or self.low == self.high:
            raise InputError(f"{type(self).__name__}: the range from {self.low:g} to {self.high:g} must hold 0.")
        if 0 < self.lifetime < 1:
            raise InputError(f"{type(self).__name__}: lifetime {self.lifetime:g} is below one update: give 1 or more.")

    @abstractmethod
    def response(self, cells: DeviceCells, values: Tensor) -> tuple[Tensor, Tensor]:
        """The pulse up and the pulse down at these values, as multiples of those in ``cells``."""

    def own(self, draw: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """What else each cell has, as ``DeviceCells.more``. ``draw`` gives normal numbers, one a cell, by name."""
        return {}

    def pulsed(
        self, cells: DeviceCells, values: Tensor, counts: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """As ``Cells.pulsed``, one pulse after the other."""
        up = counts > 0
        base, many = torch.where(up, cells.up, -cells.down), counts.abs()
        for done in range(int(many.max())):
            step = base * torch.where(up, *self.response(cells, values))
            if self.cycle_noise:
                step = step + self.cycle_noise * self.noise(values, step, base) * normal(values, generator)
            values = torch.where(many > done, cells.clipped(values + step), values)
        return values

    def noise(self, values: Tensor, step: Tensor, base: Tensor) -> Tensor:
        """What the noise of a pulse is a share of: the pulse, or (``additive``) the pulse at value 0."""
        return base if self.additive else step

    def flowed(self, cells: DeviceCells, values: Tensor, counts: Tensor) -> Tensor:
        """As ``Cells.flowed``, for counts that need not be whole; eight Runge-Kutta steps of fourth order."""
        up = counts > 0
        base = torch.where(up, cells.up, -cells.down)

        def slope(value: Tensor) -> Tensor:
            return base * torch.where(up, *self.response(cells, cells.clipped(value)))

        size = counts.abs() / 8
        for _ in range(8):
            first = slope(values)
            second = slope(values + size / 2 * first)
            third = slope(values + size / 2 * second)
            fourth = slope(values + size * third)
            values = values + size / 6 * (first + 2 * second + 2 * third + fourth)
        return values

    def cells(
        self,
        shape: Sequence[int],
        seed: Natural = 0,
        name: str = "",
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> DeviceCells:
        """Devices of this kind: the same ones for the same ``seed``, ``name`` and ``shape``.

        Args:
            shape: of the weights that they hold.
            seed: of what differs between them.
            name: of the array, such as that of a parameter.
            dtype, device: of the tensors.
        """

        def draw(what: str) -> Tensor:
            return torch.randn(tuple(shape), generator=generator_for("device", seed, name, what), dtype=torch.float64)

        def spread(mean: float, by: float, what: str) -> Tensor:
            return torch.full(tuple(shape), mean, dtype=torch.float64) * (1 + by * draw(what) if by else 1)

        gain = spread(1.0, self.step_spread, "step")
        if self.log_normal:
            gain = (gain - 1).exp()
        side = self.up_down_spread * draw("up_down") if self.up_down_spread else torch.zeros_like(gain)
        found = DeviceCells(
            device=self,
            up=self.step * (min(self.up_down, 0.0) + gain + side).abs(),
            down=self.step * (min(-self.up_down, 0.0) + gain - side).abs(),
            low=-spread(self.low, self.low_spread, "low").abs(),
            high=spread(self.high, self.high_spread, "high").abs(),
            reference=torch.full_like(gain, self.reference),
            lifetime=spread(self.lifetime, self.lifetime_spread, "lifetime").clamp(1) if self.lifetime else None,
            more=self.own(draw),
        )
        reference = found.reference
        if self.reference_spread:
            reference = reference + self.reference_spread * draw("reference")
        if self.from_symmetry:
            reference = reference + found.symmetry_point().nan_to_num(0.0)
        found = replace(found, reference=reference)
        if self.stuck:
            lot = torch.rand((2, *shape), generator=generator_for("device", seed, name, "stuck"), dtype=torch.float64)
            stays = reference + self.stuck_range * (2 * lot[1] - 1)
            found = replace(found, stuck=torch.where(lot[0] < self.stuck, stays, torch.nan))
        return found.mapped(lambda each: each.to(device, dtype or torch.get_default_dtype()))

    @property
    def mean_cell(self) -> DeviceCells:
        """One device without spreads, float64."""
        none: dict[str, Any] = {each.name: 0.0 for each in fields(self) if each.name.endswith("_spread")}
        return replace(self, stuck=0.0, **none).cells((), dtype=torch.float64)

    @cached_property
    def granularity(self) -> float:
        """The change of a weight of 0 by one pulse: the mean of up and down, of a device without spreads.

        aihwkit takes the pulse down alone for exponential devices.
        """
        cell = self.mean_cell
        up, down = self.response(cell, cell.reference)
        found = float(cell.up * up + cell.down * down) / 2
        return found if found > 0 else self.step


def normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers in the shape of a tensor, the same on every device."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def rounded_at_random(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """Whole numbers whose means are ``values``: each is the next one below or above."""
    return (values + torch.rand(values.shape, generator=generator, dtype=values.dtype).to(values.device)).floor()
