"""Deep resistive networks: layers of resistors with diodes between them, which learn as they are.

Kendall et al. 2020, arXiv 2006.01981; Scellier 2024, arXiv 2402.11674.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from eqprop.checks import Count, checked
from eqprop.energy.couplings import Bias, Coupling
from eqprop.energy.losses import Loss, SquaredError
from eqprop.energy.network import Network
from eqprop.energy.nodes import Node
from eqprop.energy.units import Unit, Wire
from eqprop.errors import InputError
from eqprop.physics.diodes import IdealDiodes
from eqprop.physics.resistors import Resistors


@checked
def deep_resistive_network(
    in_shape: tuple[int, ...],
    hidden: Sequence[Count],
    outputs: Count,
    input_gain: float,
    voltage_gain: float = 1.0,
    unit: Unit | None = None,
    loss: Callable[[str, tuple[int, ...]], Loss] = SquaredError,
) -> Network:
    """A network of nodes ``input``, ``layer1``, ..., with resistors between neighbours and a current source for each.

    The voltage sources of an input x are ``input_gain`` x and its negative, as conductances have one sign: the
    couplings ``input_layer1`` and ``inverted_input_layer1``. Current sources are 0 at first. After each step of
    learning, ``keep_passive`` sets conductances below 0 to 0.

    Args:
        in_shape: of one example.
        hidden: the units of each hidden layer.
        outputs: the units of the output, which has no diodes.
        input_gain: volts for each unit of the data.
        voltage_gain: of the amplifiers after each hidden layer; 1: none. See ``Resistors``.
        unit: of the hidden layers; default: ``IdealDiodes``, half of them excitatory.
        loss: what makes the loss from the output's name and shape.

    Raises:
        InputError: there is no hidden layer; or a gain is 0.
    """
    if not hidden:
        raise InputError("A deep resistive network needs a hidden layer: give the number of its units.")
    sizes = [*hidden, outputs]
    names = [f"layer{i}" for i in range(1, len(sizes) + 1)]
    units = [unit or IdealDiodes()] * len(hidden) + [Wire()]
    nodes = {"input": Node(in_shape)}
    nodes |= {name: Node((size,), each) for name, size, each in zip(names, sizes, units, strict=True)}
    sources, first = 2 * math.prod(in_shape), names[0]
    couplings: dict[str, Coupling] = {
        f"{sign}input_{first}": Resistors("input", first, in_shape, nodes[first].shape, gain, sources)
        for sign, gain in (("", input_gain), ("inverted_", -input_gain))
    }
    for pre, post in pairwise(names):
        couplings[f"{pre}_{post}"] = Resistors(pre, post, nodes[pre].shape, nodes[post].shape, voltage_gain)
    for name in names:
        couplings[f"{name}_bias"] = bias = Bias(name, nodes[name].shape)
        with torch.no_grad():
            bias.bias.zero_()
    return Network(nodes, couplings, loss(names[-1], nodes[names[-1]].shape))
