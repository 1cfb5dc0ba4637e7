"""The precision of messages."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from lightning_fabric.plugins.precision import Precision


class MessagePrecision(Precision):
    """bfloat16 in messages only, by autocast, if ``sixteen_bits`` is set.

    Fabric's own precision would also cast the data; states, sums and weights of examples have the data's precision.
    """

    def __init__(self, device: str):
        self.device, self.sixteen_bits = device, False

    def forward_context(self) -> AbstractContextManager:
        return torch.autocast(self.device, torch.bfloat16) if self.sixteen_bits else nullcontext()
