"""The number of sweeps that a signal needs to cross a network."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, reduce
from operator import or_

from eqprop.energy.landscape import Landscape
from eqprop.settling.error_coordinates import error_pass
from eqprop.settling.sweeps import Leaky, OneWay, Sweep, alternating, backward_order, forward_order

Groups = tuple[tuple[str, ...], ...]
"""Sets of nodes; the nodes of one set respond at the same time."""


def crossing(landscape: Landscape, sweep: Sweep) -> int:
    """The number of sweeps after which a new force on any free node has moved all free nodes connected to it.

    With fewer sweeps small changes do not show rest, as some node has not received the signal yet. A chain of n nodes
    needs n synchronous sweeps, or about n / 2 alternating ones.

    Args:
        landscape: defines the graph.
        sweep: a sweep of ``eqprop.settling``. ``Leaky``, and functions with a ``__wrapped__``, count as the sweep that
            they call; any other sweep counts as synchronous, one edge a sweep. Those of ``Directed`` count as 1.

    Returns:
        At least 1. The result is cached for each graph.
    """
    if isinstance(sweep, OneWay):
        return 1
    edges = tuple(term.nodes for term in landscape.terms.values() if len(term.nodes) > 1)
    return _sweeps_across(groups(landscape, sweep), edges)


def groups(landscape: Landscape, sweep: Sweep) -> Groups:
    """The sets of nodes that respond one after another in ``sweep``."""
    while isinstance(sweep, Leaky) or hasattr(sweep, "__wrapped__"):
        sweep = sweep.sweep if isinstance(sweep, Leaky) else sweep.__wrapped__
    if sweep is alternating:
        return landscape.colours
    if sweep is forward_order:
        return tuple((node,) for node in landscape.nodes)
    if sweep is error_pass:
        return (*((node,) for node in reversed(list(landscape.nodes))), *((node,) for node in landscape.nodes))
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
