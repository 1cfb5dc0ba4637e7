"""Settling in fewer bits than the weights have."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.settling.solvers import Settled, Solver


@dataclass(frozen=True)
class Reduced(Solver):
    """Another solver with its messages (convolutions, matrix products) in 16 bits.

    States, activations and sums keep the precision of the data, and so do weights and what is learnt: each message is
    rounded where it is made. ``bfloat16`` has the range of float32; ``float16`` three more bits of precision.
    """

    solver: Solver
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        if self.dtype not in (torch.bfloat16, torch.float16):
            raise InputError(f"{self.dtype} is no reduced precision: use torch.bfloat16 or torch.float16.")

    def __call__(self, landscape: Landscape, start: State) -> Settled:
        device = next(iter(start.values())).device.type
        with torch.autocast(device, dtype=self.dtype):
            settled = self.solver(landscape, start)
        return settled._replace(state={node: value.to(start[node].dtype) for node, value in settled.state.items()})
