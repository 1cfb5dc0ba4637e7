"""Starts of the free phase other than zero; and the free phase that is one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.settling.error_coordinates import error_pass, predictions
from eqprop.settling.solvers import Solution, Solver


@dataclass(frozen=True)
class FromFeedforward(Solver):
    """Another ``solver``, started from one feedforward pass through the nodes instead of from zero.

    The pass costs half a sweep and saves about one; the first sweep reuses its messages. Equilibria are not unique, so
    another start can settle at another equilibrium.
    """

    solver: Solver

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        return self.solver(landscape, feedforward(landscape, start), memory)

    def generators(self) -> Iterable[torch.Generator]:
        return self.solver.generators()


@dataclass(frozen=True, eq=False)
class FromState(Solver):
    """Another ``solver``, started from ``state`` instead of from zero, in the precision of the landscape."""

    state: State
    solver: Solver

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        return self.solver(landscape, {node: self.state[node].to(value) for node, value in start.items()}, memory)

    def generators(self) -> Iterable[torch.Generator]:
        return self.solver.generators()


@dataclass(frozen=True)
class ForwardPass(Solver):
    """The feedforward pass of a predictive-coding network: its free state, at rest without any sweep.

    Raises:
        InputError: on use, the landscape has other terms than predictions, such as a nudge; or see ``error_pass``.
    """

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        _, rest = predictions(landscape)
        if rest.terms:
            raise InputError(
                f"The forward pass is at rest under predictions alone, not with {list(rest.terms)}: use FixedSweeps or "
                "UntilConverged with error_pass."
            )
        state = error_pass(landscape, start)
        return Solution.from_states([state, state], 1, torch.inf)


def feedforward(landscape: Landscape, start: State) -> State:
    """Each node's response to the data and the nodes before it, without feedback."""
    return directed_pass(landscape, start, landscape.nodes)


def directed_pass(landscape: Landscape, start: State, nodes: Iterable[str]) -> State:
    """Each node's response, one after another in the order of ``nodes``, to the data and the nodes before it."""
    state = start
    for node, heard in upstream(landscape, nodes).items():
        state = state | heard.step(state, [node])
    return state


def check_feedforward(landscape: Landscape) -> None:
    """Raises InputError if a node has no response, so that there is no feedforward pass."""
    for node in landscape.nodes:
        if not landscape.unit(node).has_response:
            raise InputError(
                f"{landscape.unit(node)} of node {node!r} has no response, so there is no feedforward pass."
            )


def one_pass(landscape: Landscape) -> Solution:
    """The feedforward pass as a settled phase of one sweep: without feedback its state is the equilibrium."""
    state = feedforward(landscape, landscape.zeros())
    return Solution.from_states([state, state], 1, torch.inf)


def upstream(landscape: Landscape, nodes: Iterable[str]) -> dict[str, Landscape]:
    """Node, in the order of ``nodes`` -> the terms by which the data and the nodes before drive it.

    Each term belongs to the last of its nodes.
    """
    found, before = {}, set[str]()
    for node in nodes:
        before.add(node)
        heard = {n: term for n, term in landscape.terms.items() if node in term.nodes and before.issuperset(term.nodes)}
        found[node] = landscape.only(heard)
    return found
