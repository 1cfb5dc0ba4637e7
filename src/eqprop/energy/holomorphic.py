"""Functions that complex states pass through, each the holomorphic extension of a real one.

Nudges of complex strength make the nudged states complex (``learning.stencils.holomorphic``); parameters, data and the
free state stay real. Nothing here takes a modulus, a conjugate or the larger of two, and real tensors are torch's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def linearly(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(*tensors)``, real and linear in all of them together, of tensors all real or all complex.

    A complex tensor goes through in two parts: two real calls, in 16 bits under autocast, where torch's complex
    product would be three or four, or is not there.
    """
    if not tensors[0].is_complex():
        return function(*tensors)
    precision = tensors[0].real.dtype
    real, imaginary = function(*(t.real for t in tensors)), function(*(t.imag for t in tensors))
    return torch.complex(real.to(precision), imaginary.to(precision))


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The derivative of a scalar function; of a complex one, which must be holomorphic, its complex derivative."""
    if not at.is_complex():
        return torch.func.grad(function)(at)
    value, pullback, *_ = torch.func.vjp(function, at)
    return pullback(torch.ones_like(value))[0].conj()  # torch pulls back by the conjugate derivative


def sigmoid(z: Tensor) -> Tensor:
    """1 / (1 + exp(-z)); torch's own overflows at complex z far to the left."""
    return 0.5 + 0.5 * torch.tanh(0.5 * z) if z.is_complex() else torch.sigmoid(z)


def softmax(z: Tensor, dim: int) -> Tensor:
    """exp(z_i) / sum_j exp(z_j)"""
    if not z.is_complex():
        return z.softmax(dim)
    share = (z - largest(z, dim)).exp()
    return share / share.sum(dim, keepdim=True)


def log_softmax(z: Tensor, dim: int) -> Tensor:
    """z_i - log sum_j exp(z_j); of complex z up to a multiple of 2 pi i, which no derivative sees."""
    if not z.is_complex():
        return z.log_softmax(dim)
    z = z - largest(z, dim)
    return z - z.exp().sum(dim, keepdim=True).log()


def largest(z: Tensor, dim: int) -> Tensor:
    """The largest real part: a constant that softmax does not feel, and that keeps exp from overflowing."""
    return z.real.detach().amax(dim, keepdim=True)
