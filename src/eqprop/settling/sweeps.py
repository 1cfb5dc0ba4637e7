"""Sweeps: one pass over the free nodes. They differ in which nodes respond at the same time.

Each takes ``landscape`` and ``state``, node -> (batch, *node shape), and returns the next state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from eqprop.checks import Natural, NonNegative
from eqprop.draws import generator_for
from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State

Sweep = Callable[[Landscape, State], State]
"""(landscape, state) -> the next state."""


def synchronous(landscape: Landscape, state: State) -> State:
    """The next state: all nodes of ``landscape`` respond to the same ``state``.

    As in Laborieux et al. (2021, doi 10.3389/fnins.2021.633674).
    """
    return in_turn(landscape, state, [landscape.nodes])


def alternating(landscape: Landscape, state: State) -> State:
    """The next state: one colour of nodes after another responds, in a chain even and odd layers.

    The couplings of ``landscape`` define the colours. Synchronous sweeps of a chain are two independent sequences of
    alternating ones, so these reach the same equilibrium from ``state`` in half the sweeps.
    """
    return in_turn(landscape, state, landscape.colours)


def forward_order(landscape: Landscape, state: State) -> State:
    """The next state: one node of ``landscape`` after another responds, from input to output, starting at ``state``."""
    return in_turn(landscape, state, [[node] for node in landscape.nodes])


def backward_order(landscape: Landscape, state: State) -> State:
    """The next state: one node of ``landscape`` after another responds, from output to input, starting at ``state``."""
    return in_turn(landscape, state, [[node] for node in reversed(list(landscape.nodes))])


@dataclass(frozen=True)
class Leaky:
    """A part of another ``sweep``: s + rate (sweep(s) - s).

    With ``synchronous`` it is an Euler step of length ``rate`` of leaky units, ds/dt = response(drive) - s. It has the
    same equilibria as ``sweep``; it is slower and oscillates less. Its residuals are ``rate`` times those of ``sweep``.

    Units of a machine differ in their time constants: with a ``spread`` the rate of each is e^(spread x) ``rate``, at
    most 1, x standard normal and fixed by the seed and the node's name. Nothing changes for states at rest.

    Attributes:
        rate: the part.
        sweep: the other sweep.
        spread: the standard deviation of the logarithm of time constants.
        seed: of their draws.

    Raises:
        InputError: the rate is not in (0, 1], or the spread is negative.
    """

    rate: Annotated[float, "> 0", "<= 1"]
    sweep: Sweep = synchronous
    spread: NonNegative = 0.0
    seed: Natural = 0

    def __call__(self, landscape: Landscape, state: State) -> State:
        moved = self.sweep(landscape, state)
        return {node: torch.lerp(before, moved[node], self._rate(node, before)) for node, before in state.items()}

    def _rate(self, node: str, like: Tensor) -> Tensor | float:
        if not self.spread:
            return self.rate
        draws = torch.randn(like.shape[1:], generator=generator_for("Leaky", self.seed, node), dtype=torch.float64)
        return (self.rate * (self.spread * draws).exp()).clamp(max=1.0).to(like)


@dataclass(frozen=True)
class OneWay:
    """Another ``sweep``, of which one is enough for all signals that matter (``Directed``)."""

    sweep: Sweep

    def __call__(self, landscape: Landscape, state: State) -> State:
        return self.sweep(landscape, state)


def in_turn(landscape: Landscape, state: State, groups: Sequence[Iterable[str]]) -> State:
    """One group of nodes after another responds, to a state in which the groups before have already moved."""
    for group in groups:
        state = state | landscape.step(state, group)
    return state
