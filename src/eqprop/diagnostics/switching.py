"""How many windows of max pooling and clipped units a nudge switches, where the network is not differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from eqprop.energy import Clip, Convolution, Network, SeparateFeedback, State, Synapse

NEAR = 1e-6
"""A unit is clipped if it is within this share of its range from an end; rounding changes it by less."""


def switched_windows(network: Network, free: State, nudged: State) -> float | None:
    """The share of max-pooling windows with another largest input; ``None`` without max pooling above a free node.

    Args:
        free: node -> (batch, *shape).
        nudged: node -> (phases * batch, *shape), stacked phase by phase.
    """
    changed = []
    for term in network.terms.values():
        pre = term.nodes[0]
        synapses = [term.feedforward, term.feedback] if isinstance(term, SeparateFeedback) else [term]
        for synapse in synapses:
            if pre in network.clamped or not isinstance(synapse, Synapse) or not isinstance(synapse.map, Convolution):
                continue
            before, after = synapse.map.winners(free[pre]), synapse.map.winners(nudged[pre])
            if before is not None and after is not None:
                changed.append(before != by_phase(after, before))
    return share(changed, [torch.ones_like(each) for each in changed])


def clipped_units(network: Network, free: State, nudged: State) -> float | None:
    """The share, of the units that are clipped in either phase, of those that are not clipped alike in both.

    ``None`` if no node has a clip. Arguments as for ``switched_windows``.
    """
    crossed, clipped = [], []
    for name, node in network.free.items():
        if isinstance(node.unit, Clip):
            before = side(node.unit, free[name])
            after = by_phase(side(node.unit, nudged[name]), before)
            crossed.append(before != after)
            clipped.append((before != 0) | (after != 0))
    return share(crossed, clipped)


def side(clip: Clip, state: Tensor) -> Tensor:
    """-1 at the lower end of the range, 1 at the upper, 0 between."""
    near = NEAR * (clip.high - clip.low)
    return (state >= clip.high - near).int() - (state <= clip.low + near).int()


def by_phase(nudged: Tensor, free: Tensor) -> Tensor:
    """(phases, batch, ...)"""
    return nudged.unflatten(0, (-1, len(free)))


def share(some: list[Tensor], of: list[Tensor]) -> float | None:
    if not of:
        return None
    whole = sum(int(each.sum()) for each in of)
    return sum(int(each.sum()) for each in some) / whole if whole else 0.0
