"""Initial weights that keep activity in range through any number of layers."""

from __future__ import annotations

import torch
from torch import Tensor

from eqprop.checks import Positive, checked
from eqprop.energy.couplings import Bias
from eqprop.energy.network import Data, Network
from eqprop.errors import InputError
from eqprop.settling.starts import upstream


@checked
@torch.no_grad()
def scale_weights(network: Network, x: Data, size: Positive = 1.0) -> None:
    """Scale each node's weights, in place, so that its drive in a feedforward pass has a given standard deviation.

    With weights of one size for all units and pools the activity of deep layers falls or saturates, and no error gets
    through them. Node after node, the weights of all couplings that drive a node are multiplied by one factor, as in
    layer-sequential unit-variance initialisation (Mishkin & Matas 2015, arXiv 1511.06422). Biases stay as they are;
    where they, or copies of other nodes, are part of a drive, its size is only near the one asked for. Larger weights
    also settle more slowly: with feedback as strong as the drives, take a smaller size.

    Args:
        network: its units must have responses.
        x: a batch of data, of some hundred examples, as it will be trained with.
        size: the standard deviation of the drives over a node's units and the batch, in units of the drive.

    Raises:
        InputError: a node has the same drive in all units, so that no factor of its weights helps, or its weights are
            computed from others in a way that does not pass a factor on, as by ``spectral_norm``.
    """
    state: dict[str, Tensor] = {}
    for node in network.free:
        landscape = network.landscape(x)
        state = landscape.zeros() | state
        spread = float(upstream(landscape, landscape.nodes)[node].drive(state, node).std())
        if not spread > 0:
            raise InputError(f"The drive of node {node!r} is the same in all units: check its weights and the data.")
        for coupling in network.terms.values():
            for parameter in coupling.parameters() if coupling.nodes[-1] == node else ():
                if parameter.ndim > 1 and not isinstance(coupling, Bias):
                    parameter.mul_(size / spread)
        landscape = network.landscape(x)
        scaled = upstream(landscape, landscape.nodes)[node]
        if spread != size and float(scaled.drive(state, node).std()) == spread:
            raise InputError(f"The weights of node {node!r} are computed from others, and a factor of those is lost.")
        state |= scaled.step(state, [node])
