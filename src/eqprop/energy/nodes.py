"""Nodes: populations of units."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqprop.energy.maps import sum_per_example
from eqprop.energy.units import Unit
from eqprop.errors import InputError

State = dict[str, Tensor]
"""Node name -> (batch, *node shape). A value: nothing in this package changes one in place."""


def select(state: State, examples: Tensor) -> State:
    """The state of a batch made of these examples; (n,) int64."""
    return {node: value[examples] for node, value in state.items()}


def length(state: State) -> Tensor:
    """Of all nodes together, (batch,)."""
    return torch.stack([sum_per_example(value.square()) for value in state.values()]).sum(0).sqrt()


@dataclass(frozen=True)
class Node:
    """A population of units.

    Attributes:
        shape: the shape of one example's units, e.g. ``(channels, height, width)`` or ``(units,)``.
        unit: how a unit responds to its drive; ``None`` for the node that is held at the data.
        dropout: the share of units that each training example silences (see ``Network.draw_masks``).
    """

    shape: tuple[int, ...]
    unit: Unit | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.shape or any(not isinstance(n, int) or n < 1 for n in self.shape):
            raise InputError(f"A node of shape {self.shape} has no units: give positive whole numbers.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout} is not a share of units: it must be in [0, 1).")

    def select(self, examples: Tensor) -> Node:
        """The same node for a batch made of these examples."""
        unit = self.unit and self.unit.select(examples)
        return self if unit is self.unit else replace(self, unit=unit)

    @property
    def units(self) -> int:
        return math.prod(self.shape)
