"""Values whose derivative is found otherwise than by the graph that made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Backward = Callable[[Tensor], tuple[Tensor | None, ...]]
"""The gradient that comes in -> one for each input."""


class Attached(torch.autograd.Function):
    """``value``, as a function of ``inputs`` whose derivative is ``backward``."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, backward: Backward, *inputs: Tensor) -> Tensor:
        ctx.found = backward
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.found(gradient)
