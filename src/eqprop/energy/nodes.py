"""Nodes: populations of units."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqprop.energy.shapes import sum_per_example
from eqprop.energy.units import Unit
from eqprop.errors import InputError

State = dict[str, Tensor]
"""Node name -> (batch, *node shape). No function of this package changes a state in place."""


def select(state: State, examples: Tensor) -> State:
    """The state of the batch of the given ``examples``, (n,) int64."""
    return {node: value[examples] for node, value in state.items()}


def length(state: State) -> Tensor:
    """The Euclidean norm over all nodes, (batch,)."""
    return torch.stack([sum_per_example(value.square()) for value in state.values()]).sum(0).sqrt()


@dataclass(frozen=True)
class Node:
    """A population of units.

    Attributes:
        shape: of one example's units, e.g. ``(channels, height, width)`` or ``(units,)``.
        unit: how a unit responds to its drive; ``None`` for a node that is clamped at data.
        dropout: the fraction of units that are dropped in each training example (see ``Network.draw_masks``).

    Raises:
        InputError: the shape or the dropout is out of range.
    """

    shape: tuple[int, ...]
    unit: Unit | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.shape or any(not isinstance(n, int) or n < 1 for n in self.shape):
            raise InputError(f"A node of shape {self.shape} has no units: give positive whole numbers.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout {self.dropout} is not a fraction of units: it must be in [0, 1).")

    def select(self, examples: Tensor) -> Node:
        """The same node for a batch of the given ``examples``, (n,) int64."""
        unit = self.unit and self.unit.select(examples)
        return self if unit is self.unit else replace(self, unit=unit)

    @property
    def units(self) -> int:
        """The number of units of one example."""
        return math.prod(self.shape)


def check_elementwise(name: str, node: Node) -> None:
    """Tests the response at a few drives.

    Raises:
        InputError: the node's unit has ``elementwise = True`` but is not elementwise, or it mixes examples.
    """
    unit = node.unit
    if unit is None or not unit.has_response or type(unit).__module__ == Unit.__module__:
        return
    with torch.no_grad(), torch.device("cpu"):
        drive = torch.arange(2.0 * node.units).mul(0.7).sin().double().view(2, *node.shape)
        first = torch.zeros(2, node.units, dtype=drive.dtype)
        first[0, 0] = 10
        stiff = (1.0,) if unit.parabolic else ()  # some have no response without
        tries = [
            unit.response(drive + sign * first.view_as(drive), *stiff) - unit.response(drive, *stiff)
            for sign in (1, -1)
        ]
        moved = torch.stack(tries).abs().amax(0).view(2, -1) > 1e-9
    if bool(moved[1].any()):
        raise InputError(f"{unit} of node {name!r} mixes the examples of a batch: none has an equilibrium of its own.")
    if unit.elementwise and bool(moved[0, 1:].any()):
        raise InputError(
            f"{unit} of node {name!r} responds to more than a unit's own drive: state `elementwise = False`."
        )
