"""Pooling, as in Laborieux et al. (2021): of a convolution's output, before any nonlinearity.

A pool is part of the energy ``<P(w * s), t>``, so a network needs it both ways: ``P(z)``, and its transposed
derivative at z, which carries the upper state back down. ``linearize`` returns both
from one pass, and the derivative too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from eqprop.energy.holomorphic import linearly, softmax
from eqprop.errors import InputError

Transform = Callable[[Tensor], Tensor]
Pairs = Sequence[tuple[Tensor, Tensor]]
BilinearDerivative = Callable[[Tensor, Pairs], Tensor]
"""(known, pairs) -> known: (batch,), the sum of <jvp(pre), post> over the pairs, and its derivative by parameters."""


class Linearization(NamedTuple):
    """A map at one point: its value, its derivative, and its transposed derivative there (winners held)."""

    value: Tensor  # (batch, *out)
    jvp: Transform  # (batch, *in) -> (batch, *out)
    vjp: Transform  # (batch, *out) -> (batch, *in)
    select: Callable[[Tensor], Linearization]  # the same for some of the examples: (n,) int64
    bilinear_derivative: BilinearDerivative | None = (
        None  # for a linear map, where it costs less than ``jvp`` under grad mode
    )

    @staticmethod
    def everywhere(
        value: Tensor, jvp: Transform, vjp: Transform, bilinear_derivative: BilinearDerivative | None = None
    ) -> Linearization:
        """A map whose jvp and vjp are the same at every point: an affine one."""
        return Linearization(
            value,
            jvp,
            vjp,
            lambda examples: Linearization.everywhere(value[examples], jvp, vjp, bilinear_derivative),
            bilinear_derivative,
        )


@dataclass(frozen=True)
class Pool(ABC):
    """Pooling of square windows of ``size`` units, ``stride`` apart (default: ``size``)."""

    size: int = 2
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.step < 1:
            raise InputError(f"{self}: size and stride must be at least 1.")

    linear = True
    """Whether, with the winners held, the pool is linear: then ``jvp`` of ``z`` itself is its value."""

    holomorphic = False
    """Whether it takes complex units, as the holomorphic extension of what it is."""

    @property
    def step(self) -> int:
        return self.stride or self.size

    def output_size(self, size: int) -> int:
        """Units along one side after pooling ``size`` of them; what does not fill a window is left out."""
        return (size - self.size) // self.step + 1

    @abstractmethod
    def linearize(self, z: Tensor) -> Linearization:
        """P at z; z: (batch, channels, height, width)."""


class MaxPool(Pool):
    """The largest of each window. Its vjp goes to the winner at the current z (the first, in a tie)."""

    def linearize(self, z: Tensor) -> Linearization:
        value, winners = F.max_pool2d(z, self.size, self.step, return_indices=True)
        return self._won(value, winners, z.shape[1:])

    def winners(self, z: Tensor) -> Tensor:
        """Which unit of a channel is the largest of each window, by its place; (batch, channels, rows, columns)."""
        return F.max_pool2d(z, self.size, self.step, return_indices=True)[1]

    def _won(self, value: Tensor, winners: Tensor, shape: torch.Size) -> Linearization:

        def jvp(change: Tensor) -> Tensor:
            # Channels innermost, as the states are, so that nothing is copied to be gathered from.
            flat, where = (t.permute(0, 2, 3, 1).flatten(1, 2) for t in (change, winners))
            return flat.gather(1, where).unflatten(1, winners.shape[-2:]).permute(0, 3, 1, 2)

        def vjp(post: Tensor) -> Tensor:
            post = post.to(value.dtype)  # under autocast what z has: fewer bits of few units, before they become many
            if self.step >= self.size:
                sizes = [self.size] * 2, [self.step] * 2
                with torch.autocast(post.device.type, enabled=False):  # which would have float32
                    return F.max_unpool2d(post, winners, *sizes, output_size=list(shape[-2:]))
            flat = post.new_zeros(len(post), *shape).flatten(2)  # overlapping windows: one unit can win several
            return flat.scatter_add(2, winners.flatten(2), post.flatten(2)).unflatten(2, shape[-2:])

        return Linearization(value, jvp, vjp, lambda examples: self._won(value[examples], winners[examples], shape))


class AveragePool(Pool):
    """The mean of each window. Linear: neither its jvp nor its vjp depends on z."""

    holomorphic = True

    def linearize(self, z: Tensor) -> Linearization:
        window, step, shape = [self.size, self.size], [self.step, self.step], z.shape

        def jvp(change: Tensor) -> Tensor:
            return linearly(lambda part: F.avg_pool2d(part, window, step), change)

        def vjp(post: Tensor) -> Tensor:
            return linearly(back, post)

        def back(post: Tensor) -> Tensor:
            like = post.new_empty(()).expand(shape)
            return torch.ops.aten.avg_pool2d_backward(post, like, window, step, [0, 0], False, True, None)

        return Linearization(jvp(z), jvp, vjp, lambda examples: self.linearize(z[examples]))


class SoftPool(Pool):
    """The mean of each window weighted by softmax(z): between average and maximum, and smooth.

    Holomorphic EP uses it for that reason. Windows may not overlap.
    """

    linear, holomorphic = False, True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step != self.size:
            raise InputError(f"{self}: soft pooling needs windows that touch; leave out stride.")

    def linearize(self, z: Tensor) -> Linearization:
        windows, shape = self._windows(z), z.shape
        share = softmax(windows, -1)
        value = (share * windows).sum(-1)
        slope = share * (1 + windows - value.unsqueeze(-1))  # d value / d z_j

        def jvp(change: Tensor) -> Tensor:
            return (slope * self._windows(change)).sum(-1)

        def vjp(post: Tensor) -> Tensor:
            k, (rows, columns) = self.size, value.shape[-2:]
            spread = post.unsqueeze(-1) * slope
            tiles = spread.unflatten(-1, (k, k)).transpose(-3, -2).flatten(-2).flatten(-3, -2)
            return F.pad(tiles, (0, shape[-1] - k * columns, 0, shape[-2] - k * rows))

        return Linearization(value, jvp, vjp, lambda examples: self.linearize(z[examples]))

    def _windows(self, z: Tensor) -> Tensor:
        """(batch, channels, rows, columns, size * size)"""
        k = self.size
        return z.unfold(2, k, k).unfold(3, k, k).flatten(-2)
