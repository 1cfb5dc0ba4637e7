"""Chains of layers: multi-layer perceptrons and convolutional networks, run in both directions.

Nothing here is new to the core: a chain is nodes, synapses and biases, put together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from eqprop.energy.couplings import Bias, Coupling, SeparateFeedback, Synapse
from eqprop.energy.losses import Loss
from eqprop.energy.maps import Convolution, Dense, Map, Pair, fan_in
from eqprop.energy.network import Network
from eqprop.energy.nodes import Node
from eqprop.energy.pooling import MaxPool, Pool
from eqprop.energy.units import Unit, half_hard_sigmoid
from eqprop.errors import InputError

Shape = tuple[int, ...]


class Layer(ABC):
    """One node of a chain, and the map that drives it from the node below."""

    activation: Unit
    dropout: float

    @abstractmethod
    def map(self, in_shape: Shape) -> Map: ...


@dataclass(frozen=True)
class DenseLayer(Layer):
    units: int
    activation: Unit = half_hard_sigmoid
    dropout: float = 0.0

    def map(self, in_shape: Shape) -> Map:
        return Dense(in_shape, (self.units,))


@dataclass(frozen=True)
class ConvLayer(Layer):
    """A convolution and a pool, as ``Convolution`` takes them; the defaults are those of Laborieux et al. (2021)."""

    channels: int
    kernel: Pair = 3
    stride: Pair = 1
    padding: Pair = 1
    dilation: Pair = 1
    groups: int = 1
    pool: Pool | None = MaxPool(2)  # noqa: RUF009 - frozen
    activation: Unit = half_hard_sigmoid
    dropout: float = 0.0

    def map(self, in_shape: Shape) -> Map:
        if len(in_shape) != 3:
            raise InputError(f"A ConvLayer needs (channels, height, width) below it, not {in_shape}.")
        return Convolution(
            in_shape,
            self.channels,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.pool,
        )


def chain(
    in_shape: Shape,
    layers: Sequence[Layer],
    loss: Callable[[str, Shape], Loss] | None = None,
    separate_feedback: bool = False,
    feedback_gain: float = 1.0,
) -> Network:
    """Nodes ``input``, ``layer1``, ``layer2``, ... with a synapse and a bias between neighbours.

    Args:
        in_shape: of one example, e.g. ``(3, 32, 32)``.
        layers: from the input to the output.
        loss: made from the last node's name and shape, e.g. ``SquaredError`` or
            ``partial(ReadoutCrossEntropy, classes=10)``.
        separate_feedback: feed back through weights of their own (the vector-field model of Laborieux et al. 2021) on
        every
            synapse but the input's, which feeds nothing back.
        feedback_gain: of every synapse but the input's; see ``Synapse``.

    Raises:
        InputError: a layer does not fit the one below it.
    """
    if not layers:
        raise InputError("A chain needs at least one layer.")
    nodes = {"input": Node(tuple(in_shape))}
    couplings: list[Coupling] = []
    below = "input"
    for i, layer in enumerate(layers, start=1):
        name, shape = f"layer{i}", nodes[below].shape
        try:
            carries = layer.map(shape)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        nodes[name] = Node(carries.out_shape, layer.activation, layer.dropout)
        if separate_feedback and below != "input":
            couplings.append(SeparateFeedback(below, name, carries, layer.map(shape), feedback_gain))
        else:
            couplings.append(Synapse(below, name, carries, feedback_gain))
        weight = next(carries.parameters())
        couplings.append(Bias(name, carries.out_shape, fan_in(weight)))
        below = name
    return Network(nodes, couplings, loss(below, nodes[below].shape) if loss is not None else None)


def parameter_groups(network: Network, rates: Sequence[float]) -> list[dict[str, object]]:
    """One group of parameters a layer, with its own learning rate, for any ``torch.optim`` optimiser.

    A layer's group holds what drives its node: its weights, bias, and the feedback weights of the same synapse.
    The last rate is the read-out's, where the loss has one.

    Raises:
        InputError: there are not as many rates as layers (and read-out).
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in network.free}
    for coupling in network.terms.values():
        groups[coupling.nodes[-1]].extend(coupling.parameters())
    if network.loss is not None and (readout := list(network.loss.parameters())):
        groups["readout"] = readout
    if len(rates) != len(groups):
        raise InputError(f"{len(rates)} learning rates {tuple(rates)} for {len(groups)} layers {list(groups)}.")
    return [
        {"params": parameters, "lr": rate, "name": name}
        for (name, parameters), rate in zip(groups.items(), rates, strict=True)
    ]
