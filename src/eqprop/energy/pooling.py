"""Pooling, as the seed paper has it: of a convolution's output, before any nonlinearity.

A pool is part of the energy ``<P(w * s), t>``, so a network needs it both ways: ``P(z)``, and its transposed
derivative at z, which carries the upper state back down. ``carry`` returns both from one pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from eqprop.errors import InputError

Pull = Callable[[Tensor], Tensor]
"""The transposed derivative of a map at the point where it was carried: (batch, *out) -> (batch, *in)."""


@dataclass(frozen=True)
class Pool(ABC):
    """Pooling of square windows of ``size`` units, ``stride`` apart (default: ``size``)."""

    size: int = 2
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.step < 1:
            raise InputError(f"{self}: size and stride must be at least 1.")

    @property
    def step(self) -> int:
        return self.stride or self.size

    def output_size(self, size: int) -> int:
        """Units along one side after pooling ``size`` of them; what does not fill a window is left out."""
        return (size - self.size) // self.step + 1

    @abstractmethod
    def carry(self, z: Tensor) -> tuple[Tensor, Pull]:
        """P(z) and its pull at z; z: (batch, channels, height, width)."""


class MaxPool(Pool):
    """The largest of each window. Its pull goes to the winner at the current z (the first, in a tie)."""

    def carry(self, z: Tensor) -> tuple[Tensor, Pull]:
        window, step = [self.size, self.size], [self.step, self.step]
        value, winners = F.max_pool2d(z, window, step, return_indices=True)

        def pull(post: Tensor) -> Tensor:
            if self.step >= self.size:
                return F.max_unpool2d(post, winners, window, step, output_size=list(z.shape[-2:]))
            flat = z.new_zeros(z.shape).flatten(2)  # overlapping windows: one unit can win several
            return flat.scatter_add(2, winners.flatten(2), post.flatten(2)).view(z.shape)

        return value, pull


class AveragePool(Pool):
    """The mean of each window. Linear: its pull does not depend on z."""

    def carry(self, z: Tensor) -> tuple[Tensor, Pull]:
        window, step = [self.size, self.size], [self.step, self.step]

        def pull(post: Tensor) -> Tensor:
            backward = torch.ops.aten.avg_pool2d_backward
            return backward(post, z, window, step, [0, 0], False, True, None)

        return F.avg_pool2d(z, window, step), pull


class SoftPool(Pool):
    """The mean of each window weighted by softmax(z): between average and maximum, and smooth.

    Holomorphic EP uses it for that reason. Windows may not overlap.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step != self.size:
            raise InputError(f"{self}: soft pooling needs windows that touch; leave out stride.")

    def carry(self, z: Tensor) -> tuple[Tensor, Pull]:
        windows = self._windows(z)
        share = windows.softmax(-1)
        value = (share * windows).sum(-1)

        def pull(post: Tensor) -> Tensor:
            # d value / d z_j = share_j (1 + z_j - value)
            spread = post.unsqueeze(-1) * share * (1 + windows - value.unsqueeze(-1))
            k, (rows, columns) = self.size, value.shape[-2:]
            tiles = spread.unflatten(-1, (k, k)).transpose(-3, -2).flatten(-2).flatten(-3, -2)
            return F.pad(tiles, (0, z.shape[-1] - k * columns, 0, z.shape[-2] - k * rows))

        return value, pull

    def _windows(self, z: Tensor) -> Tensor:
        """(batch, channels, rows, columns, size * size)"""
        k = self.size
        return z.unfold(2, k, k).unfold(3, k, k).flatten(-2)
