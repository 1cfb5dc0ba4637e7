"""The dimensions of a batch and of its examples."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_per_example(tensor: Tensor) -> Tensor:
    """The sum of ``tensor``, (batch, ...), over all dimensions but the batch: (batch,)."""
    return tensor.sum(example_dims(tensor)) if tensor.ndim > 1 else tensor


def expand_like(each: Tensor, like: Tensor) -> Tensor:
    """The tensor ``each``, (batch,), reshaped to multiply ``like``, (batch, ...)."""
    return each.view(-1, *(1 for _ in example_dims(like)))


def example_dims(tensor: Tensor) -> tuple[int, ...]:
    """All dimensions of ``tensor`` but the first: to reduce over them without the copy that ``flatten`` makes."""
    return tuple(range(1, tensor.ndim))


def channels_last(tensor: Tensor) -> Tensor:
    """The same tensor; images with their channels innermost, which is fastest for pooling and convolution."""
    if tensor.ndim != 4 or transformed():
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def zeros_like_images(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of ``shape``, of the precision and on the device of ``like``; as ``channels_last`` lays them out."""
    if len(shape) != 4 or transformed():
        return like.new_zeros(shape)
    format = torch.channels_last
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=format).zero_()


def transformed() -> bool:
    """Whether a ``torch.func`` transform (``vmap``, ``grad``, ...) is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def capturing(tensor: Tensor) -> bool:
    """Whether operations on the device of ``tensor`` are being captured in a CUDA graph: none may then wait for it."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()
