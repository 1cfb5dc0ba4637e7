"""Where the free phase starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.settling.solvers import Solution, Solver


@dataclass(frozen=True)
class FromFeedforward(Solver):
    """Another solver, started from one pass through the nodes in their order instead of from rest.

    The pass costs half a sweep and saves about one; its messages are those that the first sweep needs. Equilibria are
    not unique, so another start may come to rest elsewhere.
    """

    solver: Solver

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        return self.solver(landscape, feedforward(landscape, start), memory)


@dataclass(frozen=True, eq=False)
class FromState(Solver):
    """Another solver, started from ``state`` instead of from rest, in the precision of the landscape it is given."""

    state: State
    solver: Solver

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        return self.solver(landscape, {node: self.state[node].to(value) for node, value in start.items()}, memory)


def feedforward(landscape: Landscape, start: State) -> State:
    """Each node's response to the data and the nodes before it, as if no feedback were there."""
    state = start
    for node, heard in upstream(landscape).items():
        state = state | heard.relax(state, [node])
    return state


def one_pass(landscape: Landscape) -> Solution:
    """The feedforward pass as a free phase of one sweep. Without feedback its state is the equilibrium: settled."""
    state = feedforward(landscape, landscape.zeros())
    return Solution.from_states([state, state], 1, torch.inf)


def upstream(landscape: Landscape) -> dict[str, Landscape]:
    """For each node, in their order, the terms through which it hears the data and the nodes before it.

    Each term belongs to the last of its nodes.
    """
    found, before = {}, set[str]()
    for node in landscape.nodes:
        before.add(node)
        heard = {n: term for n, term in landscape.terms.items() if node in term.nodes and before.issuperset(term.nodes)}
        found[node] = landscape.only(heard)
    return found
