"""Maps: what a synapse carries from one node to another, and how its transpose carries back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqprop.energy.attached import Attached
from eqprop.energy.holomorphic import linearly
from eqprop.energy.pooling import AveragePool, BilinearDerivative, Linearization, MaxPool, Pairs, Pool, Transform
from eqprop.errors import InputError

Pair = int | tuple[int, int]


class Map(nn.Module, ABC):
    """A function from one node's units to another's, with its derivative and its transposed derivative.

    ``linearize`` states both directions; a subclass whose transpose needs no forward pass also overrides
    ``transpose``, which may be cheaper, never different.

    Attributes:
        linear: whether, with pooling's winners held, the map is linear (affine, for a module with a bias).
        holomorphic: whether it takes complex units, as the holomorphic extension of what it is.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    linear: bool = True
    holomorphic: bool = False

    @abstractmethod
    def linearize(self, pre: Tensor) -> Linearization:
        """(batch, *in_shape) -> (batch, *out_shape), with jvp and vjp at ``pre``."""

    def forward(self, pre: Tensor) -> Tensor:
        """(batch, *in_shape) -> (batch, *out_shape)"""
        return self.linearize(pre).value

    def jvp(self, pre: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """The value at ``pre``, and how it changes with ``change`` (winners held); each (batch, *out_shape)."""
        carried = self.linearize(pre)
        return carried.value, linearly(carried.jvp, change)

    def transpose(self, pre: Tensor, post: Tensor) -> Tensor:
        """The vjp at ``pre``, applied to ``post``: (batch, *out_shape) -> (batch, *in_shape)."""
        return self.linearize(pre).vjp(post)


class Dense(Map):
    """post = W vec(pre), for nodes of any shape. Weight: (out units, in units).

    Initial weights: uniform in ±1/sqrt(in units), the default of PyTorch and of Laborieux et al. (2021).
    """

    holomorphic = True

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.weight = initial_weight(math.prod(out_shape), math.prod(in_shape))

    def linearize(self, pre: Tensor) -> Linearization:
        return Linearization.everywhere(self(pre), self.forward, lambda post: self.transpose(pre, post))

    def forward(self, pre: Tensor) -> Tensor:
        return linearly(lambda s: F.linear(s, self.weight), pre.flatten(1)).view(-1, *self.out_shape)

    def transpose(self, pre: Tensor, post: Tensor) -> Tensor:
        return linearly(lambda s: s @ self.weight, post.flatten(1)).view(-1, *self.in_shape)


class Convolution(Map):
    """post = P(w * pre): a two-dimensional convolution, then pooling (the order of Laborieux et al. 2021).

    Weight: (channels, in channels / groups, kernel height, kernel width); initially uniform in
    ±1/sqrt(fan in). Without a pool the map is linear.

    Raises:
        InputError: the kernel or the pool does not fit into an input of ``in_shape``.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        channels: int,
        kernel: Pair = 3,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        pool: Pool | None = None,
    ):
        super().__init__()
        if len(in_shape) != 3:
            raise InputError(f"A convolution needs (channels, height, width), not a node of shape {in_shape}.")
        if groups < 1 or in_shape[0] % groups or channels % groups:
            raise InputError(f"groups {groups} must divide both {in_shape[0]} and {channels} channels.")
        self.in_shape = in_shape
        self.kernel, self.stride, self.padding, self.dilation = map(pair, (kernel, stride, padding, dilation))
        self.groups = groups
        self.pool_by(pool)
        sizes = list(zip(in_shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True))
        grid = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
        if min(grid) < 1 or (pool is not None and min(pool.output_size(n) for n in grid) < 1):
            what = f"kernel {self.kernel}, padding {self.padding}" + (f", {pool}" if pool else "")
            raise InputError(
                f"A convolution of {what} does not fit into units of shape {in_shape}: use larger images, "
                "fewer layers, more padding or no pooling."
            )
        # What a strided convolution rounded away, its transpose must add back to return to in_shape.
        self.output_padding = tuple(
            n - ((g - 1) * s - 2 * p + d * (k - 1) + 1) for g, (n, k, s, p, d) in zip(grid, sizes, strict=True)
        )
        self.grid = (channels, *grid)
        self.out_shape = (channels, *(pool.output_size(n) if pool else n for n in grid))
        self.weight = initial_weight(channels, in_shape[0] // groups, *self.kernel)

    def pool_by(self, pool: Pool | None) -> None:
        """Takes ``pool``, of the same windows as the one before. Terms that hold this map are then to be bound anew."""
        self.pool = pool
        self.linear = pool is None or pool.linear
        self.holomorphic = pool is None or pool.holomorphic

    def linearize(self, pre: Tensor) -> Linearization:
        z = self._convolve(pre)
        if self.pool is None:
            return Linearization.everywhere(
                z, self._convolve, self._convolve_transposed, self._bilinear_derivative(z.dtype)
            )
        return self._before(self.pool.linearize(z))

    def transpose(self, pre: Tensor, post: Tensor) -> Tensor:
        if self.pool is None:
            return self._convolve_transposed(post)
        if isinstance(self.pool, AveragePool):  # linear: any z of the right shape will do
            z = post.new_empty(()).expand(len(post), *self.grid)
            return self._convolve_transposed(self.pool.linearize(z).vjp(post))
        return super().transpose(pre, post)

    def winners(self, pre: Tensor) -> Tensor | None:
        """What max pooling takes at ``pre`` (``MaxPool.winners``); ``None`` where another pool, or none, follows."""
        return self.pool.winners(self._convolve(pre)) if isinstance(self.pool, MaxPool) else None

    def _before(self, pooled: Linearization) -> Linearization:
        return Linearization(
            pooled.value,
            lambda change: pooled.jvp(self._convolve(change)),
            lambda post: self._convolve_transposed(pooled.vjp(post)),
            lambda examples: self._before(pooled.select(examples)),
            self._bilinear_derivative(pooled.value.dtype, pooled.vjp) if self.linear else None,
        )

    def _bilinear_derivative(self, bits: torch.dtype, vjp: Transform = lambda z: z) -> BilinearDerivative:
        """The weight's derivative of the sum of <w * pre, vjp(post)>, in ``bits``; no ``w * pre`` is computed."""
        geometry = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups, (False, True, False))

        def derivative(known: Tensor, pairs: Pairs) -> Tensor:
            weight = self.weight.detach().to(bits)

            def part(pre: Tensor, post: Tensor) -> Tensor:
                z = vjp(post.to(bits))
                return torch.ops.aten.convolution_backward(z, pre.to(bits), weight, None, *geometry)[1]

            def backward(each: Tensor) -> tuple[Tensor]:
                parts = [part(pre, expand_like(each, post) * post).to(self.weight) for pre, post in pairs]
                return (torch.stack(parts).sum(0),)

            return Attached.apply(known, backward, self.weight)

        return derivative

    def _convolve(self, pre: Tensor) -> Tensor:
        return linearly(
            lambda s: F.conv2d(s, self.weight, None, self.stride, self.padding, self.dilation, self.groups), pre
        )

    def _convolve_transposed(self, z: Tensor) -> Tensor:
        options = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return linearly(lambda s: F.conv_transpose2d(s, self.weight, None, *options), z)


class ModuleMap(Map):
    """Any ``nn.Module`` as a map; its transpose is derived by automatic differentiation at each use."""

    def __init__(self, module: nn.Module, in_shape: tuple[int, ...]):
        super().__init__()
        self.module, self.in_shape = module, in_shape
        with torch.no_grad():
            try:
                like = next(module.parameters(), torch.zeros(()))
                self.out_shape = tuple(module(like.new_zeros(1, *in_shape)).shape[1:])
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{module} does not accept units of shape {in_shape}: {reason}") from error

    def linearize(self, pre: Tensor) -> Linearization:
        value, pullback, *_ = torch.func.vjp(self.module, pre)
        return Linearization(
            value,
            lambda change: torch.func.jvp(self.module, (pre,), (change,))[1],
            lambda post: pullback(post)[0],
            lambda examples: self.linearize(pre[examples]),
        )

    def forward(self, pre: Tensor) -> Tensor:
        return self.module(pre)


def initial_weight(*shape: int) -> nn.Parameter:
    """Uniform in ±1/sqrt(fan in), fan in being all but the first dimension."""
    return nn.Parameter(nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5)))


def fan_in(weight: Tensor) -> int:
    return math.prod(weight.shape[1:])


def pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def sum_per_example(tensor: Tensor) -> Tensor:
    """(batch, ...) -> (batch,), summed over everything but the batch."""
    return tensor.sum(example_dims(tensor))


def expand_like(each: Tensor, like: Tensor) -> Tensor:
    """(batch,), shaped to multiply (batch, ...)."""
    return each.view(-1, *(1 for _ in example_dims(like)))


def example_dims(tensor: Tensor) -> tuple[int, ...]:
    """The dimensions of one example: to reduce over them as they lie in memory, where ``flatten`` would copy."""
    return tuple(range(1, tensor.ndim))
