"""Parameters that move along with the states, and are put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Move = Callable[[Sequence[Tensor]], None]
"""Lets every parameter stand at its first value plus its own step."""


@contextmanager
def moving(parameters: Sequence[Tensor]) -> Iterator[Move]:
    """Yields ``move``; at the end, after an error too, every parameter has its first value back, bit for bit.

    Tensors that are no ``nn.Parameter`` are data, and stay. A landscape sees parameters as they are when it is built.
    """
    held = [
        (i, parameter, parameter.data) for i, parameter in enumerate(parameters) if isinstance(parameter, nn.Parameter)
    ]

    def move(steps: Sequence[Tensor]) -> None:
        # Another tensor takes its place, so that nothing saved for another backward pass is overwritten.
        for i, parameter, first in held:
            parameter.data = first + steps[i]
        torch.clear_autocast_cache()  # it remembers the weights as they were

    try:
        yield move
    finally:
        for _, parameter, first in held:
            parameter.data = first
        torch.clear_autocast_cache()
