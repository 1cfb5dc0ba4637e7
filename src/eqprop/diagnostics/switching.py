"""What a nudge should not do to a network that is to be differentiated: change which winners and corners hold."""

from __future__ import annotations

import torch
from torch import Tensor

from eqprop.energy import Clip, Convolution, Network, SeparateFeedback, State, Synapse

NEAR = 1e-6
"""A unit counts as clipped within this share of its range from either end: rounding moves it by less."""


def switched_winners(network: Network, free: State, nudged: State) -> float | None:
    """The share of max pooling's windows whose winner differs; ``None`` without max pooling above a free node.

    Args:
        free: node -> (batch, *shape).
        nudged: node -> (phases * batch, *shape), stacked phase by phase.
    """
    pairs = []
    for term in network.terms.values():
        pre = term.nodes[0]
        synapses = [term.feedforward, term.feedback] if isinstance(term, SeparateFeedback) else [term]
        for synapse in synapses:
            if pre == network.input or not isinstance(synapse, Synapse) or not isinstance(synapse.map, Convolution):
                continue
            before, after = synapse.map.winners(free[pre]), synapse.map.winners(nudged[pre])
            if before is not None and after is not None:
                pairs.append((repeated(before, after), after))
    return share([before != after for before, after in pairs], [torch.ones_like(a, dtype=torch.bool) for _, a in pairs])


def crossed_corners(network: Network, free: State, nudged: State) -> float | None:
    """Of the units of clipping nodes that are clipped in either phase, the share that is not so in both.

    ``None`` where no node clips. Arguments as for ``switched_winners``.
    """
    crossed, clipped = [], []
    for name, node in network.free.items():
        if isinstance(node.unit, Clip):
            after = side(node.unit, nudged[name])
            before = repeated(side(node.unit, free[name]), after)
            crossed.append(before != after)
            clipped.append((before != 0) | (after != 0))
    return share(crossed, clipped)


def side(clip: Clip, state: Tensor) -> Tensor:
    """-1 at the lower end of the range, 1 at the upper, 0 between."""
    near = NEAR * (clip.high - clip.low)
    return (state >= clip.high - near).int() - (state <= clip.low + near).int()


def repeated(free: Tensor, nudged: Tensor) -> Tensor:
    """The free phase once for each nudged one."""
    return free.repeat(len(nudged) // len(free), *(1 for _ in free.shape[1:]))


def share(some: list[Tensor], of: list[Tensor]) -> float | None:
    if not of:
        return None
    whole = sum(int(each.sum()) for each in of)
    return sum(int(each.sum()) for each in some) / whole if whole else 0.0
