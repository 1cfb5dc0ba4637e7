"""Functions of complex states, each the holomorphic extension of a real function.

Complex nudges make the nudged states complex (``learning.stencils.holomorphic``); parameters, data and the free state
stay real. No function here uses a modulus, a conjugate or a maximum. For real tensors they are torch's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def linearly(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(*tensors)`` for a real function that is linear in all ``tensors`` together, all real or all complex.

    For complex tensors it is two real calls, in 16 bits under autocast. torch's complex products cost three or four
    real ones, or do not exist.
    """
    if not tensors[0].is_complex():
        return function(*tensors)
    precision = tensors[0].real.dtype
    real, imaginary = function(*(t.real for t in tensors)), function(*(t.imag for t in tensors))
    return torch.complex(real.to(precision), imaginary.to(precision))


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The derivative of a scalar function; the complex derivative if ``at`` is complex and the function holomorphic."""
    if not at.is_complex():
        return torch.func.grad(function)(at)
    value, pullback, *_ = torch.func.vjp(function, at)
    return pullback(torch.ones_like(value))[0].conj()  # torch's vjp multiplies by the conjugate derivative


def pushforward(function: Callable[..., Tensor], at: tuple[Tensor, ...], displacements: tuple[Tensor, ...]) -> Tensor:
    """The derivative of ``function`` at ``at``, applied to ``displacements``; for real tensors.

    It is the vjp of the vjp, which is linear. Forward mode would be cheaper, but its state is global to the process,
    so two threads would disturb each other.
    """
    value, pullback, *_ = torch.func.vjp(function, *at)
    return torch.func.vjp(pullback, torch.zeros_like(value))[1](displacements)[0]


def sigmoid(z: Tensor) -> Tensor:
    """1 / (1 + exp(-z)); torch's own overflows for complex z with a large negative real part."""
    return 0.5 + 0.5 * torch.tanh(0.5 * z) if z.is_complex() else torch.sigmoid(z)


def softmax(z: Tensor, dim: int) -> Tensor:
    """exp(z_i) / sum_j exp(z_j)"""
    if not z.is_complex():
        return z.softmax(dim)
    share = (z - largest(z, dim)).exp()
    return share / share.sum(dim, keepdim=True)


def log_softmax(z: Tensor, dim: int) -> Tensor:
    """z_i - log sum_j exp(z_j); for complex z up to a multiple of 2 pi i, which does not change derivatives."""
    if not z.is_complex():
        return z.log_softmax(dim)
    z = z - largest(z, dim)
    return z - z.exp().sum(dim, keepdim=True).log()


def largest(z: Tensor, dim: int) -> Tensor:
    """The largest real part: subtracting this constant does not change a softmax, and exp does not overflow."""
    return z.real.detach().amax(dim, keepdim=True)
