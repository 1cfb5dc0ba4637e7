"""Derivatives without a value: for rules that differentiate a quantity which nothing reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Backward = Callable[[Tensor], tuple[Tensor | None, ...]]
"""The incoming gradient, (batch,) -> one for each input."""


def attached(batch: int, backward: Backward, *inputs: Tensor) -> Tensor:
    """Zeros, (batch,), as a function of ``inputs``, whose derivative ``backward`` computes."""
    value: Tensor = Attached.apply(inputs[0].new_zeros(batch), backward, *inputs)
    return value


class Attached(torch.autograd.Function):
    """``value`` as a function of ``inputs``; ``backward`` computes its derivative."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, backward: Backward, *inputs: Tensor) -> Tensor:
        ctx.found = backward
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.found(gradient)
