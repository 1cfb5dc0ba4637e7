"""Pooling, as the seed paper has it: of a convolution's output, before any nonlinearity.

A pool is part of the energy ``<P(w * s), t>``, so a network needs it both ways: ``P(z)``, and its transposed
derivative at z, which carries the upper state back down. ``carry`` returns both from one pass, and the derivative too.
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
Attach = Callable[[Tensor, Pairs], Tensor]
"""(known, pairs) -> known: (batch,), the sum of <push(pre), post> over the pairs, and its derivative by parameters."""


class Carried(NamedTuple):
    """A map at one point: its value, its derivative, and its transposed derivative there (winners held)."""

    value: Tensor  # (batch, *out)
    push: Transform  # (batch, *in) -> (batch, *out)
    pull: Transform  # (batch, *out) -> (batch, *in)
    taken: Callable[[Tensor], Carried]  # the same for some of the examples: (n,) int64
    attach: Attach | None = None  # for a linear map, where it costs less than ``push`` under grad mode

    @staticmethod
    def everywhere(value: Tensor, push: Transform, pull: Transform, attach: Attach | None = None) -> Carried:
        """A map whose push and pull are the same at every point: an affine one."""
        return Carried(
            value, push, pull, lambda examples: Carried.everywhere(value[examples], push, pull, attach), attach
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
    """Whether, with the winners held, the pool is linear: then ``push`` of ``z`` itself is its value."""

    holomorphic = False
    """Whether it takes complex units, as the holomorphic extension of what it is."""

    @property
    def step(self) -> int:
        return self.stride or self.size

    def output_size(self, size: int) -> int:
        """Units along one side after pooling ``size`` of them; what does not fill a window is left out."""
        return (size - self.size) // self.step + 1

    @abstractmethod
    def carry(self, z: Tensor) -> Carried:
        """P at z; z: (batch, channels, height, width)."""


class MaxPool(Pool):
    """The largest of each window. Its pull goes to the winner at the current z (the first, in a tie)."""

    def carry(self, z: Tensor) -> Carried:
        value, winners = F.max_pool2d(z, self.size, self.step, return_indices=True)
        return self._won(value, winners, z.shape[1:])

    def winners(self, z: Tensor) -> Tensor:
        """Which unit of a channel is the largest of each window, by its place; (batch, channels, rows, columns)."""
        return F.max_pool2d(z, self.size, self.step, return_indices=True)[1]

    def _won(self, value: Tensor, winners: Tensor, shape: torch.Size) -> Carried:

        def push(change: Tensor) -> Tensor:
            # Channels innermost, as the states are, so that nothing is copied to be gathered from.
            flat, where = (t.permute(0, 2, 3, 1).flatten(1, 2) for t in (change, winners))
            return flat.gather(1, where).unflatten(1, winners.shape[-2:]).permute(0, 3, 1, 2)

        def pull(post: Tensor) -> Tensor:
            post = post.to(value.dtype)  # under autocast what z has: fewer bits of few units, before they become many
            if self.step >= self.size:
                sizes = [self.size] * 2, [self.step] * 2
                with torch.autocast(post.device.type, enabled=False):  # which would have float32
                    return F.max_unpool2d(post, winners, *sizes, output_size=list(shape[-2:]))
            flat = post.new_zeros(len(post), *shape).flatten(2)  # overlapping windows: one unit can win several
            return flat.scatter_add(2, winners.flatten(2), post.flatten(2)).unflatten(2, shape[-2:])

        return Carried(value, push, pull, lambda examples: self._won(value[examples], winners[examples], shape))


class AveragePool(Pool):
    """The mean of each window. Linear: neither its push nor its pull depends on z."""

    holomorphic = True

    def carry(self, z: Tensor) -> Carried:
        window, step, shape = [self.size, self.size], [self.step, self.step], z.shape

        def push(change: Tensor) -> Tensor:
            return linearly(lambda part: F.avg_pool2d(part, window, step), change)

        def pull(post: Tensor) -> Tensor:
            return linearly(back, post)

        def back(post: Tensor) -> Tensor:
            like = post.new_empty(()).expand(shape)
            return torch.ops.aten.avg_pool2d_backward(post, like, window, step, [0, 0], False, True, None)

        return Carried(push(z), push, pull, lambda examples: self.carry(z[examples]))


class SoftPool(Pool):
    """The mean of each window weighted by softmax(z): between average and maximum, and smooth.

    Holomorphic EP uses it for that reason. Windows may not overlap.
    """

    linear, holomorphic = False, True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step != self.size:
            raise InputError(f"{self}: soft pooling needs windows that touch; leave out stride.")

    def carry(self, z: Tensor) -> Carried:
        windows, shape = self._windows(z), z.shape
        share = softmax(windows, -1)
        value = (share * windows).sum(-1)
        slope = share * (1 + windows - value.unsqueeze(-1))  # d value / d z_j

        def push(change: Tensor) -> Tensor:
            return (slope * self._windows(change)).sum(-1)

        def pull(post: Tensor) -> Tensor:
            k, (rows, columns) = self.size, value.shape[-2:]
            spread = post.unsqueeze(-1) * slope
            tiles = spread.unflatten(-1, (k, k)).transpose(-3, -2).flatten(-2).flatten(-3, -2)
            return F.pad(tiles, (0, shape[-1] - k * columns, 0, shape[-2] - k * rows))

        return Carried(value, push, pull, lambda examples: self.carry(z[examples]))

    def _windows(self, z: Tensor) -> Tensor:
        """(batch, channels, rows, columns, size * size)"""
        k = self.size
        return z.unfold(2, k, k).unfold(3, k, k).flatten(-2)
