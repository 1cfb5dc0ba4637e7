"""Pooling of a convolution's output, before any nonlinearity (Laborieux et al. 2021, doi 10.3389/fnins.2021.633674).

A pool is part of the energy ``<P(w * s), t>``, so a network needs ``P(z)`` and its transposed derivative at z, which
maps the upper state down. ``linearize`` returns both and the derivative, from one pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from eqprop.checks import Count
from eqprop.energy.holomorphic import linearly, softmax
from eqprop.energy.shapes import transformed
from eqprop.errors import InputError

Transform = Callable[[Tensor], Tensor]
BilinearDerivative = Callable[[Tensor, Tensor], Tensor]
"""(pre, post) -> (batch,): 0, with the derivative of <jvp(pre), post> by parameters."""


class Linearization(NamedTuple):
    """A map at one point: its value, derivative and transposed derivative, at fixed pooling winners.

    Attributes:
        value: (batch, *out).
        jvp: (batch, *in) -> (batch, *out).
        vjp: (batch, *out) -> (batch, *in).
        select: examples, (n,) int64 -> the same for these examples.
        bilinear_derivative: for a linear map, if it costs less than ``jvp`` under grad mode.
    """

    value: Tensor
    jvp: Transform
    vjp: Transform
    select: Callable[[Tensor], Linearization]
    bilinear_derivative: BilinearDerivative | None = None

    def scaled(self, factor: float) -> Linearization:
        """The linearisation of ``factor`` times the map."""
        if factor == 1:
            return self
        return Linearization(
            factor * self.value,
            lambda change: factor * self.jvp(change),
            lambda post: factor * self.vjp(post),
            lambda examples: self.select(examples).scaled(factor),
        )

    @staticmethod
    def everywhere(
        value: Tensor, jvp: Transform, vjp: Transform, bilinear_derivative: BilinearDerivative | None = None
    ) -> Linearization:
        """The linearisation of an affine map, whose jvp and vjp are the same at every point."""
        return Linearization(
            value,
            jvp,
            vjp,
            lambda examples: Linearization.everywhere(value[examples], jvp, vjp, bilinear_derivative),
            bilinear_derivative,
        )


@dataclass(frozen=True)
class Pool(ABC):
    """Pooling of square windows of ``size`` units, ``stride`` apart (default: ``size``).

    Raises:
        InputError: size or stride is below 1.
    """

    size: Count = 2
    stride: Count | None = None

    linear = True
    """Whether the pool is linear at fixed winners: then ``jvp`` of ``z`` is its value."""

    holomorphic = False
    """Whether it accepts complex units, as its holomorphic extension."""

    @property
    def step(self) -> int:
        """The distance of windows."""
        return self.stride or self.size

    def output_size(self, size: int) -> int:
        """The number of windows along a side of ``size`` units; an incomplete window is left out."""
        return (size - self.size) // self.step + 1

    @abstractmethod
    def linearize(self, z: Tensor) -> Linearization:
        """The linearisation of P at ``z``, (batch, channels, height, width)."""


class MaxPool(Pool):
    """The maximum of each window. Its vjp is non-zero at the winner for the present z (the first, in a tie)."""

    def linearize(self, z: Tensor) -> Linearization:
        value, winners = F.max_pool2d(z, self.size, self.step, return_indices=True)
        return self._won(value, winners, z.shape[1:])

    def winners(self, z: Tensor) -> Tensor:
        """The index in its channel of each window's maximum, (batch, channels, rows, columns)."""
        return F.max_pool2d(z, self.size, self.step, return_indices=True)[1]

    def _won(self, value: Tensor, winners: Tensor, shape: torch.Size) -> Linearization:

        def rows(image: Tensor) -> Tensor:
            """(batch, rows * columns, channels): channels innermost, as in states, so that no copy is needed."""
            return image.permute(0, 2, 3, 1).flatten(1, 2)

        def jvp(change: Tensor) -> Tensor:
            picked = rows(change).gather(1, rows(winners))
            return picked.unflatten(1, winners.shape[-2:]).permute(0, 3, 1, 2)

        def vjp(post: Tensor) -> Tensor:
            post = post.to(value.dtype)  # of z, which has fewer bits under autocast: cheaper here, before unpooling
            if self.step >= self.size and not (torch.are_deterministic_algorithms_enabled() or transformed()):
                if post.is_cuda:  # there max_unpool2d would copy to another layout and back
                    flat = post.new_zeros(len(post), math.prod(shape[1:]), shape[0])
                    return flat.scatter_(1, rows(winners), rows(post)).unflatten(1, shape[1:]).permute(0, 3, 1, 2)
                sizes = [self.size] * 2, [self.step] * 2
                with torch.autocast(post.device.type, enabled=False):  # autocast would use float32
                    return F.max_unpool2d(post, winners, *sizes, output_size=list(shape[-2:]))
            flat = post.new_zeros(len(post), *shape).flatten(2)  # overlapping windows: one unit can win several
            return flat.scatter_add(2, winners.flatten(2), post.flatten(2)).unflatten(2, shape[-2:])

        return Linearization(value, jvp, vjp, lambda examples: self._won(value[examples], winners[examples], shape))


class AveragePool(Pool):
    """The mean of each window. It is linear: jvp and vjp do not depend on z."""

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


@dataclass(frozen=True)
class SoftPool(Pool):
    """The mean of each window weighted by softmax(z): between average and maximum, and smooth, so holomorphic.

    Raises:
        InputError: size and ``stride`` differ: windows must not overlap.
    """

    linear, holomorphic = False, True

    def __post_init__(self) -> None:
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
