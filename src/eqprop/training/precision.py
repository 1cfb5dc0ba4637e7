"""The device of a run, and which precision is faster on it."""

from __future__ import annotations

import time

import torch


def chosen_device(device: str) -> str:
    """The device for ``--device``; ``auto`` is cuda if PyTorch finds one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def faster_in_16_bits(device: str) -> bool:
    """Whether bfloat16 messages are at least a fifth faster here: a convolution is timed both ways.

    ``device``: cpu or cuda. A machine without bfloat16 instructions emulates it, slowly. The measurement draws no
    random number, so it does not change a training.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    full, half = (seconds(torch.ones(8, 64, 16, 16), dtype) for dtype in (torch.float32, torch.bfloat16))
    return half < 0.8 * full


@torch.no_grad()
def seconds(x: torch.Tensor, dtype: torch.dtype) -> float:
    """The shortest time of several convolutions of ``x``, (batch, channels, height, width)."""
    x, weight = x.to(dtype, memory_format=torch.channels_last), torch.ones(128, x.shape[1], 3, 3, dtype=dtype)
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        torch.nn.functional.conv2d(x, weight, padding=1)
        times.append(time.perf_counter() - begin)
    return min(times)
