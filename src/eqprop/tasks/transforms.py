"""What is done to inputs: normalisation, and random changes of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from eqprop.checks import Natural, checked
from eqprop.errors import InputError

if TYPE_CHECKING:
    from eqprop.tasks.images import Images

CHUNK = 4096
"""Images that are counted at once."""


@dataclass(frozen=True)
class Flip:
    """Mirrors each image left to right with ``probability``.

    Raises:
        InputError: it is not in [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"probability {self.probability} of a flip is not in [0, 1].")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draws = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
        return torch.where(draws.to(images.device) < self.probability, images.flip(-1), images)


@dataclass(frozen=True)
class Crop:
    """A random window, of the image's size, of the image padded by ``padding`` pixels that repeat its edge.

    Raises:
        InputError: ``padding`` is negative.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"padding {self.padding} of a crop is negative: give pixels, 0 or more.")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        batch, channels, height, width = images.shape
        draws = torch.randint(
            -self.padding, self.padding + 1, (2, batch, 1), generator=generator, device=generator.device
        )
        down, right = draws.to(images.device)
        rows = (torch.arange(height, device=images.device) + down).clamp(0, height - 1)
        columns = (torch.arange(width, device=images.device) + right).clamp(0, width - 1)
        return images[
            torch.arange(batch, device=images.device)[:, None, None, None],
            torch.arange(channels, device=images.device)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]


@checked
@dataclass(frozen=True)
class Cutout:
    """Sets a square of each image to 0, the mean of normalised images (DeVries & Taylor 2017, arXiv 1708.04552).

    Its centre is any pixel, with the same probability; what lies outside of the image is cut off.

    Args:
        size: of its sides, in pixels; 0 for none.

    Raises:
        InputError: ``size`` is negative, or as large as an image.
    """

    size: Natural = 8

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        batch, _, height, width = images.shape
        if self.size >= min(height, width):
            raise InputError(
                f"A cutout of {self.size} pixels (--cutout) is as large as images of {height}x{width}: make it "
                "smaller, or 0 for none."
            )
        inside = []
        for pixels in (height, width):
            centre = torch.randint(pixels, (batch, 1), generator=generator, device=generator.device).to(images.device)
            distance = torch.arange(pixels, device=images.device) - centre + self.size // 2
            inside.append((distance >= 0) & (distance < self.size))
        rows, columns = inside
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


@dataclass(frozen=True)
class Normalise:
    """``(pixels / 255 - mean) / std``, with one mean and one std a channel.

    Attributes:
        mean, std: one each a channel, in units of the brightest pixel.

    Raises:
        InputError: they differ in number, or one is not finite, or a std is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise InputError(f"mean {self.mean} and std {self.std} differ in length: give one each a channel.")
        if not all(math.isfinite(value) for value in self.mean + self.std) or min(self.std, default=1) <= 0:
            raise InputError(f"mean {self.mean}, std {self.std}: give finite numbers, each std above 0.")

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (batch, channels, height, width) -> float32 of that shape. Raises as ``check`` does."""
        self.check(pixels.shape[1])
        mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std

    @classmethod
    def measured(cls, images: Images) -> Self:
        """The one after which ``images`` have mean 0 and std 1 a channel; std 1 for a channel of one value only.

        Args:
            images: of the training side.
        """
        means, stds = [], []
        values = torch.arange(256, dtype=torch.float64) / 255
        for channel in range(images.pixels.shape[1]):
            chunks = images.pixels[:, channel].split(CHUNK)
            counts = torch.stack([torch.bincount(chunk.flatten(), minlength=256).cpu() for chunk in chunks]).sum(0)
            shares = counts.double() / counts.sum()
            mean = (shares * values).sum()
            std = (shares * (values - mean).square()).sum().sqrt() if counts.count_nonzero() > 1 else 1.0
            means.append(float(mean))
            stds.append(float(std))
        return cls(tuple(means), tuple(stds))

    def check(self, channels: int) -> None:
        """Raise InputError unless there is one mean for each of the ``channels``."""
        if len(self.mean) != channels:
            raise InputError(
                f"mean {self.mean} is for {len(self.mean)} channels and the images have {channels}: give one "
                "mean and one std a channel."
            )
