"""Values with a derivative of their own, in place of that of the graph that computed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Backward = Callable[[Tensor], tuple[Tensor | None, ...]]
"""The incoming gradient -> one for each input."""


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
