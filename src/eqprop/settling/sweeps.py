"""Sweeps: one pass over the free nodes. They differ in which nodes respond at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError

Sweep = Callable[[Landscape, State], State]
"""Takes a state to the next one. A compiled or hand-written sweep has this signature too."""


def synchronous(landscape: Landscape, state: State) -> State:
    """All nodes at once, from the same old state, as in Laborieux et al. (2021)."""
    return in_turn(landscape, state, [landscape.nodes])


def alternating(landscape: Landscape, state: State) -> State:
    """The nodes of one colour, then of the next: even and odd layers of a chain, found from the couplings.

    A synchronous sweep of a chain advances two interleaved and independent alternating ones, so this comes to
    the same rest in half the sweeps.
    """
    return in_turn(landscape, state, landscape.colours)


def forward_order(landscape: Landscape, state: State) -> State:
    """One node after another, from the input to the output."""
    return in_turn(landscape, state, [[node] for node in landscape.nodes])


def backward_order(landscape: Landscape, state: State) -> State:
    """One node after another, from the output to the input."""
    return in_turn(landscape, state, [[node] for node in reversed(list(landscape.nodes))])


@dataclass(frozen=True)
class Leaky:
    """Another sweep of which each unit goes only a part: s + rate (sweep(s) - s).

    With ``synchronous``, Euler steps of length ``rate`` of leaky units, ds/dt = response(drive) - s. It comes to the
    other sweep's rest, more slowly and with less risk to oscillate; a residual is ``rate`` times what it would be.

    Raises:
        InputError: the rate is not in (0, 1].
    """

    rate: float
    sweep: Sweep = synchronous

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InputError(f"rate {self.rate} of a leaky sweep must be in (0, 1].")

    def __call__(self, landscape: Landscape, state: State) -> State:
        moved = self.sweep(landscape, state)
        return {node: torch.lerp(before, moved[node], self.rate) for node, before in state.items()}


def in_turn(landscape: Landscape, state: State, groups: Sequence[Iterable[str]]) -> State:
    """Each group of nodes responds at once, to a state in which the groups before have already moved."""
    for group in groups:
        state = state | landscape.relax(state, group)
    return state
