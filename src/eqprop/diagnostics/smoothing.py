"""The smooth version of a network, on which orders in beta can be measured."""

from __future__ import annotations

import copy
from dataclasses import replace

from eqprop.energy import Clip, Convolution, MaxPool, Network, Sigmoid, SoftPool, Unit
from eqprop.errors import InputError


def smooth(network: Network) -> Network:
    """A copy of ``network`` with sigmoids of the same largest slope instead of clips, and soft instead of max pooling.

    Nudges move units to and from the ends of a clip, and change which input of a maximum is the largest. Neither is
    smooth, so the orders of finite differences hold only for the smooth version.

    Raises:
        InputError: a clip is not to [0, 1], or windows of max pooling overlap.
    """
    made = copy.deepcopy(network)
    for convolution in max_pooled(made):
        assert convolution.pool is not None
        convolution.pool_by(SoftPool(convolution.pool.size, convolution.pool.stride))
    nodes = {name: replace(node, unit=node.unit and smoothed(node.unit)) for name, node in made.nodes.items()}
    # Binds every term anew, to maps that are no longer linear.
    return Network(nodes, made.terms, made.loss, made.output, made.clamped, made.substrate)


def is_smooth(network: Network) -> bool:
    """Whether the network has no clip and no max pooling."""
    clips = [node for node in network.free.values() if isinstance(node.unit, Clip)]
    return not clips and not max_pooled(network)


def max_pooled(network: Network) -> list[Convolution]:
    return [m for m in network.modules() if isinstance(m, Convolution) and isinstance(m.pool, MaxPool)]


def smoothed(unit: Unit) -> Unit:
    if not isinstance(unit, Clip):
        return unit
    if (unit.low, unit.high) != (0, 1):
        raise InputError(f"{unit} has no smooth counterpart here: only clips to [0, 1] have, the sigmoids.")
    return Sigmoid(4 * unit.slope, 0.5 / unit.slope)
