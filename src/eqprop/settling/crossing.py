"""How many sweeps a signal needs to cross a network."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, reduce
from operator import or_

from eqprop.energy.network import Landscape
from eqprop.settling.sweeps import Leaky, Sweep, alternating, backward_order, forward_order

Groups = tuple[tuple[str, ...], ...]
"""Sets of nodes; those of one set respond at the same moment."""


def crossing(landscape: Landscape, sweep: Sweep) -> int:
    """The sweeps after which a new force on any free node has moved every free node that it is connected to.

    Before that many sweeps, small changes say nothing about rest: some node has not received the signal yet. A chain of
    n nodes needs n synchronous sweeps, and about n / 2 alternating ones. A sweep that is not one of
    ``eqprop.settling`` (``Leaky``, and functions with a ``__wrapped__``, count as the sweep that they call) is taken
    to carry a signal one edge further, as a synchronous one does.

    Returns:
        At least 1. Computed once for each graph, then looked up.
    """
    edges = tuple(term.nodes for term in landscape.terms.values() if len(term.nodes) > 1)
    return _sweeps_across(groups(landscape, sweep), edges)


def groups(landscape: Landscape, sweep: Sweep) -> Groups:
    """The sets of nodes that respond one after the other in ``sweep``."""
    while isinstance(sweep, Leaky) or hasattr(sweep, "__wrapped__"):
        sweep = sweep.sweep if isinstance(sweep, Leaky) else sweep.__wrapped__
    if sweep is alternating:
        return landscape.colours
    if sweep is forward_order:
        return tuple((node,) for node in landscape.nodes)
    if sweep is backward_order:
        return tuple((node,) for node in reversed(list(landscape.nodes)))
    return (tuple(landscape.nodes),)


@lru_cache(maxsize=1024)
def _sweeps_across(groups: Groups, edges: tuple[tuple[str, ...], ...]) -> int:
    own = {node: 1 << i for i, node in enumerate(node for group in groups for node in group)}
    neighbours = {node: {n for edge in edges if node in edge for n in edge if n in own} for node in own}
    moved_by, sweeps = dict.fromkeys(own, 0), 0  # node -> the nodes, a bit each, whose force has moved it
    while True:
        before = dict(moved_by)
        for group in groups:
            moved_by |= {node: own[node] | _union(moved_by[other] for other in neighbours[node]) for node in group}
        if moved_by == before:
            return sweeps
        sweeps += 1


def _union(sets: Iterable[int]) -> int:
    return reduce(or_, sets, 0)
