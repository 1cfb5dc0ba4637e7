"""Maps: the function of a synapse from one node to another, and its transpose."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqprop.checks import Count, Natural
from eqprop.energy.attached import attached
from eqprop.energy.holomorphic import linearly, pushforward
from eqprop.energy.pooling import AveragePool, BilinearDerivative, Linearization, MaxPool, Pool, Transform
from eqprop.energy.shapes import expand_like
from eqprop.energy.substitution import resolve, swap
from eqprop.errors import InputError

Pair = Count | tuple[Count, Count]
Padding = Natural | tuple[Natural, Natural]


class Map(nn.Module, ABC):
    """A function from one node's units to another's, with its derivative and its transposed derivative.

    ``linearize`` defines both directions. A subclass whose transpose needs no forward pass also overrides
    ``transpose``, with the same values.

    Attributes:
        in_shape, out_shape: of one example.
        linear: whether the map is linear at fixed pooling winners; a bias is allowed.
        holomorphic: whether it accepts complex units, as its holomorphic extension.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    linear: bool = True
    holomorphic: bool = False

    @abstractmethod
    def linearize(self, pre: Tensor) -> Linearization:
        """The value (batch, *out_shape), jvp and vjp at ``pre``, (batch, *in_shape)."""

    def forward(self, pre: Tensor) -> Tensor:
        """(batch, *in_shape) -> (batch, *out_shape)"""
        return self.linearize(pre).value

    def transpose(self, pre: Tensor, post: Tensor) -> Tensor:
        """The vjp at ``pre``, applied to ``post``: (batch, *out_shape) -> (batch, *in_shape)."""
        return self.linearize(pre).vjp(post)


class Dense(Map):
    """post = W vec(pre), for nodes of any shape. ``weight``: (out units, in units).

    Initial weights are uniform in ±1/sqrt(in units), the default of PyTorch.

    Args:
        in_shape, out_shape: of one example's nodes.
    """

    holomorphic = True

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.weight = initial_weight(math.prod(out_shape), math.prod(in_shape))

    def linearize(self, pre: Tensor) -> Linearization:
        value, own = self.forward(pre), type(self).forward is Dense.forward
        derivative = self._bilinear_derivative(value.dtype) if own else None
        return Linearization.everywhere(value, self.forward, lambda post: self.transpose(pre, post), derivative)

    def _bilinear_derivative(self, bits: torch.dtype) -> BilinearDerivative:
        """The derivative by the weight of <W pre, post>, in ``bits``, without ``W pre``."""

        def derivative(pre: Tensor, post: Tensor) -> Tensor:
            def backward(each: Tensor) -> tuple[Tensor]:
                scaled = (expand_like(each, post) * post).flatten(1).to(bits)
                return ((scaled.T @ pre.flatten(1).to(bits)).to(self.weight),)

            return attached(len(pre), backward, self.weight)

        return derivative

    def forward(self, pre: Tensor) -> Tensor:
        return linearly(lambda s: F.linear(s, self.weight), pre.flatten(1)).view(-1, *self.out_shape)

    def transpose(self, pre: Tensor, post: Tensor) -> Tensor:
        return linearly(lambda s: s @ self.weight, post.flatten(1)).view(-1, *self.in_shape)


class Convolution(Map):
    """post = P(w * pre): a two-dimensional convolution, then pooling.

    The order is that of Laborieux et al. 2021, doi 10.3389/fnins.2021.633674. ``weight``: (channels, in channels /
    groups, kernel height, kernel width), initially uniform in ±1/sqrt(fan in). Without a pool the map is linear.

    Args:
        in_shape: (channels, height, width).
        channels: of the output.
        kernel, stride, padding, dilation: one number, or (vertical, horizontal).
        groups: as in PyTorch.
        pool: P; ``None`` for none.

    Raises:
        InputError: the kernel, the pool or the groups do not fit ``in_shape``.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        channels: Count,
        kernel: Pair = 3,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: Count = 1,
        pool: Pool | None = None,
    ):
        super().__init__()
        if len(in_shape) != 3:
            raise InputError(f"A convolution needs (channels, height, width), not a node of shape {in_shape}.")
        if in_shape[0] % groups or channels % groups:
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
        # The transpose of a strided convolution must add the rows that rounding removed, to return to in_shape.
        self.output_padding = tuple(
            n - ((g - 1) * s - 2 * p + d * (k - 1) + 1) for g, (n, k, s, p, d) in zip(grid, sizes, strict=True)
        )
        self.grid = (channels, *grid)
        self.out_shape = (channels, *(pool.output_size(n) if pool else n for n in grid))
        self.weight = initial_weight(channels, in_shape[0] // groups, *self.kernel)

    def pool_by(self, pool: Pool | None) -> None:
        """Replaces the pool by one with the same windows. Terms with this map must then be bound again."""
        self.pool = pool
        self.linear = pool is None or pool.linear
        self.holomorphic = pool is None or pool.holomorphic

    @property
    def channels(self) -> int:
        """The number of channels of the output."""
        return self.grid[0]

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
        if isinstance(self.pool, AveragePool):  # linear: any z of the right shape
            z = post.new_empty(()).expand(len(post), *self.grid)
            return self._convolve_transposed(self.pool.linearize(z).vjp(post))
        return super().transpose(pre, post)

    def winners(self, pre: Tensor) -> Tensor | None:
        """The winners of max pooling at ``pre`` (``MaxPool.winners``); ``None`` with another pool or none."""
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
        """The derivative by the weight of <w * pre, vjp(post)>, in ``bits``, without ``w * pre``."""
        geometry = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups, (False, True, False))

        def derivative(pre: Tensor, post: Tensor) -> Tensor:
            weight = self.weight.detach().to(bits)

            def backward(each: Tensor) -> tuple[Tensor]:
                z = vjp((expand_like(each, post) * post).to(bits))
                found = torch.ops.aten.convolution_backward(z, pre.to(bits), weight, None, *geometry)[1]
                return (found.to(self.weight),)

            return attached(len(pre), backward, self.weight)

        return derivative

    def _convolve(self, pre: Tensor) -> Tensor:
        return linearly(
            lambda s: F.conv2d(s, self.weight, None, self.stride, self.padding, self.dilation, self.groups), pre
        )

    def _convolve_transposed(self, z: Tensor) -> Tensor:
        options = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return linearly(lambda s: F.conv_transpose2d(s, self.weight, None, *options), z)


class Skip(Map):
    """post = pre, for two nodes of one shape; no parameters."""

    holomorphic = True

    def __init__(self, in_shape: tuple[int, ...]):
        super().__init__()
        self.in_shape = self.out_shape = tuple(in_shape)

    def linearize(self, pre: Tensor) -> Linearization:
        return Linearization.everywhere(pre, lambda change: change, lambda post: post)


class ModuleMap(Map):
    """Any ``nn.Module`` as a map; its transpose is derived by automatic differentiation at each use.

    A test at a few points shows whether it is linear in its input.

    Args:
        module: the function.
        in_shape: of one example.

    Raises:
        InputError: the module does not accept units of ``in_shape``, is random (dropout), or mixes the examples of a
            batch (batch normalisation in training mode).
    """

    def __init__(self, module: nn.Module, in_shape: tuple[int, ...]):
        super().__init__()
        self.module, self.in_shape = module, in_shape
        self._evaluated = [part for part in module.modules() if not part.training]
        try:
            two = self._probe(2)
            self.out_shape = tuple(two.shape[1:])
            if not two.is_meta:
                self._check(two)
                self.linear = is_linear(self)
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            reason = str(error).splitlines()[0]
            raise InputError(f"{module} does not accept units of shape {in_shape}: {reason}") from error

    def linearize(self, pre: Tensor) -> Linearization:
        module = resolve(self.module)  # a hook that sets a weight must not run inside a transform
        value, pullback, *_ = torch.func.vjp(module, pre)
        return Linearization(
            value,
            lambda change: pushforward(module, (pre,), (change,)),
            lambda post: pullback(post)[0],
            lambda examples: self.linearize(pre[examples]),
        )

    def forward(self, pre: Tensor) -> Tensor:
        return self.module(pre)

    def train(self, mode: bool = True) -> ModuleMap:
        """What was in evaluation mode when it was tried stays so: in training it might draw, or mix examples."""
        super().train(mode)
        for part in self._evaluated:
            part.training = False
        return self

    @torch.no_grad()
    def _probe(self, batch: int) -> Tensor:
        like = next(self.module.parameters(), torch.zeros(()))
        tried = swap(self.module, {id(buffer): buffer.clone() for buffer in self.module.buffers()})
        found: Tensor = tried(points(self.in_shape, batch, like))
        return found

    def _check(self, two: Tensor) -> None:
        if not torch.equal(two, self._probe(2)):
            raise InputError(
                f"{self.module} is random: it gives different outputs for the same input, so that a network with it "
                "has no energy. Remove dropout and other noise from a synapse (a Node has `dropout`)."
            )
        if not torch.allclose(two, self._probe(3)[:2], rtol=1e-3, atol=1e-4):
            raise InputError(
                f"{self.module} mixes the examples of a batch, so that none has an equilibrium of its own: put batch "
                "normalisation into evaluation mode, or outside the network."
            )


def points(shape: tuple[int, ...], batch: int, like: Tensor) -> Tensor:
    """(batch, *shape): different values for all units, the same in each call, in the precision of ``like``."""
    waves = torch.arange(1.0, batch * math.prod(shape) + 1, device=like.device).mul(0.7).sin()
    return waves.to(like.dtype).view(batch, *shape)


@torch.no_grad()
def is_linear(map: Map) -> bool:
    """Whether the map is affine at fixed derivative (pooling's winners, rectified units), at a few test points."""
    at = points(map.in_shape, 2, next(map.parameters(), torch.zeros(())))
    here, zero = map.linearize(at), map.forward(torch.zeros_like(at))
    scale = here.value.abs().max() + zero.abs().max()
    return bool((here.value - here.jvp(at) - zero).abs().max() <= 1e-3 * scale)


def linearization(map: Map, pre: Tensor) -> Linearization:
    """``map.linearize(pre)``; the forward hooks of the map are called as for any module.

    Raises:
        InputError: a hook returns another input or output, which the transpose would not include.
    """
    answers = [hook(map, (pre,)) for hook in map._forward_pre_hooks.values()]  # they may set the weights
    found = map.linearize(pre)
    answers += [hook(map, (pre,), found.value) for hook in map._forward_hooks.values()]
    if any(answer is not None for answer in answers):
        raise InputError(f"A forward hook of {map} returns a value: a synapse's map may be watched, not changed.")
    return found


def initial_weight(*shape: int) -> nn.Parameter:
    """Uniform in ±1/sqrt(fan in); fan in is the product of all dimensions but the first."""
    return nn.Parameter(nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5)))


def fan_in(weight: Tensor) -> int:
    return math.prod(weight.shape[1:])


def pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
