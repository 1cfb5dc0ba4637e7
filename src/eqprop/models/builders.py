"""Chains and graphs of layers: perceptrons, convolutional and residual networks, run in both directions.

Nothing here is new to the core: a graph is nodes, synapses and biases, put together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from eqprop.checks import Count, checked
from eqprop.energy.couplings import Bias, Coupling, SeparateFeedback, Synapse
from eqprop.energy.losses import Loss
from eqprop.energy.maps import Activated, Convolution, Dense, Map, ModuleMap, Padding, Pair, Skip, fan_in
from eqprop.energy.network import Network
from eqprop.energy.nodes import Node
from eqprop.energy.pooling import MaxPool, Pool
from eqprop.energy.prediction import Prediction
from eqprop.energy.units import Unit, Wire, half_hard_sigmoid
from eqprop.errors import InputError

Shape = tuple[int, ...]
T = TypeVar("T")


class Layer(ABC):
    """One node of a chain, and the map that drives it from the node below."""

    activation: Unit
    dropout: float

    @abstractmethod
    def map(self, in_shape: Shape) -> Map:
        """The map from a node of ``in_shape``, of one example, to this layer's node.

        Raises:
            InputError: the layer does not fit ``in_shape``.
        """


@dataclass(frozen=True)
class DenseLayer(Layer):
    """Units that are connected with every unit of the node below, as ``Dense`` connects them.

    Args:
        units: how many.
        activation: the node's unit.
        dropout: the share of the units that are silent in training; see ``Node``.
    """

    units: Count
    activation: Unit = half_hard_sigmoid
    dropout: float = 0.0

    def map(self, in_shape: Shape) -> Map:
        return Dense(in_shape, (self.units,))


@dataclass(frozen=True)
class ConvLayer(Layer):
    """A convolution and a pool; the defaults are those of Laborieux et al. 2021, doi 10.3389/fnins.2021.633674.

    Args:
        channels: of the output.
        kernel, stride, padding, dilation, groups, pool: see ``Convolution``.
        activation, dropout: see ``DenseLayer``.
    """

    channels: Count
    kernel: Pair = 3
    stride: Pair = 1
    padding: Padding = 1
    dilation: Pair = 1
    groups: Count = 1
    pool: Pool | None = MaxPool(2)  # noqa: RUF009 - frozen
    activation: Unit = half_hard_sigmoid
    dropout: float = 0.0

    def map(self, in_shape: Shape) -> Map:
        geometry = (self.kernel, self.stride, self.padding, self.dilation, self.groups)
        return Convolution(in_shape, self.channels, *geometry, self.pool)


What = Layer | nn.Module | Callable[[Shape, Shape], nn.Module] | None
Edge = tuple[str, str] | tuple[str, str, What]


@checked
def graph(
    nodes: Mapping[str, Node | Shape | None],
    edges: Iterable[Edge],
    loss: Loss | Callable[[str, Shape], Loss] | None = None,
    feedback_gain: float = 1.0,
    separate_feedback: bool = False,
) -> Network:
    """A network of any shape: a synapse ``pre_post`` for each edge, and a bias ``node_bias`` for each free node.

    Args:
        nodes: name -> node, in the order of a feedforward pass; the last is the output, unless the loss names another.
            A shape alone is a node that is clamped at data; ``None`` one that its first edge, a layer, makes.
        edges: (pre, post, what). ``what`` is the map: a ``Map``, an ``nn.Module``, a layer (its map; the node says the
            unit), or a function (in_shape, out_shape) -> map, such as ``Dense``. A bare (pre, post) is a skip
            connection, which copies: its nodes have one shape. A second edge between two nodes is ``pre_post_2``.
        loss: what is taught, or what makes it from the output's name and shape, e.g. ``SquaredError`` or
            ``partial(ReadoutCrossEntropy, classes=10)``.
        feedback_gain: of every synapse between neighbours; see ``Synapse``. One that skips nodes has a power of it, the
            product of the gains on the way that it skips: else the network had no energy.
        separate_feedback: feed back through weights of their own (the vector-field model of Laborieux et al. 2021,
            doi 10.3389/fnins.2021.633674) on every edge with weights between free nodes.

    Raises:
        InputError: an edge does not fit its nodes, or names one that is not there.
    """
    known = {name: n if isinstance(n, Node) else Node(n) for name, n in nodes.items() if n is not None}
    couplings: dict[str, Coupling] = {}

    def add(coupling: Coupling) -> None:
        names = (coupling.name, *(f"{coupling.name}_{n}" for n in range(2, len(couplings) + 3)))
        couplings[next(name for name in names if name not in couplings)] = coupling

    for pre, post, *_ in edges:
        if pre not in nodes or post not in nodes:
            raise InputError(
                f"Edge {pre!r} -> {post!r} is not between two of the nodes {list(nodes)}: add the missing."
            )
    level = levels(nodes, edges)
    for name in nodes:
        weights: list[nn.Parameter] = []
        for pre, post, *what in edges:
            if post == name:
                try:
                    gain = feedback_gain ** (level[post] - level[pre] if level[post] >= level[pre] else 1)
                    add(coupling := connect(known, pre, post, *what, gain=gain, separate=separate_feedback))
                except InputError as error:
                    raise InputError(f"Edge {pre!r} -> {post!r}: {error}") from None
                weights.extend(coupling.parameters())
        if name not in known or not any(name in edge[:2] for edge in edges):
            raise InputError(f"No edge reaches node {name!r}: add one, or leave the node out.")
        if known[name].unit is not None:
            add(Bias(name, known[name].shape, fan_in(weights[0]) if weights else 1))
    free = [name for name in nodes if known[name].unit is not None]
    if loss is not None and not isinstance(loss, Loss):
        loss = made(Loss, loss, free[-1], known[free[-1]].shape) if free else None
    return Network({name: known[name] for name in nodes}, couplings, loss)


def levels(nodes: Iterable[str], edges: Iterable[Edge]) -> dict[str, int]:
    """The number of edges of the longest way to each node, by edges that follow the order of ``nodes``."""
    found: dict[str, int] = {}
    for name in nodes:
        found[name] = max((found[pre] + 1 for pre, post, *_ in edges if post == name and pre in found), default=0)
    return found


def connect(nodes: dict[str, Node], pre: str, post: str, what: What = None, *, gain: float, separate: bool) -> Coupling:
    """The coupling of one edge; adds ``post`` to the nodes where a layer makes it."""
    if pre not in nodes or not (post in nodes or isinstance(what, Layer)):
        missing = post if pre in nodes else pre
        raise InputError(f"nothing says yet what {missing!r} is: give it a Node, or put a layer that makes it first.")
    below = nodes[pre]

    def build() -> Map:
        if isinstance(what, Layer):
            return what.map(below.shape)
        if what is None:
            return Skip(below.shape)
        module = what if isinstance(what, nn.Module) else made(nn.Module, what, below.shape, nodes[post].shape)
        return module if isinstance(module, Map) else ModuleMap(module, below.shape)

    up = build()
    if post not in nodes and isinstance(what, Layer):
        nodes[post] = Node(up.out_shape, what.activation, what.dropout)
    if (up.in_shape, up.out_shape) != (below.shape, nodes[post].shape):
        way = "give the edge a map, such as Dense" if what is None else "change the map or the nodes"
        ends = f"{below.shape} -> {nodes[post].shape}"
        raise InputError(f"its map is {up.in_shape} -> {up.out_shape}, its nodes {ends}: {way}.")
    if not separate or below.unit is None or nodes[post].unit is None or not list(up.parameters()):
        return Synapse(pre, post, up, gain)
    if isinstance(what, nn.Module):
        raise InputError("separate feedback needs a second map: give a layer, or a function that makes maps.")
    return SeparateFeedback(pre, post, up, build(), gain)


def made(kind: Any, make: Callable[..., T], *arguments: object) -> T:
    """``make(*arguments)``. Raises InputError where it fails, or makes something that is no ``kind``."""
    try:
        found = make(*arguments)
    except Exception as error:
        raise InputError(f"{make!r} makes no {kind.__name__} from {arguments}: {error}") from error
    if not isinstance(found, kind):
        raise InputError(f"{make!r} makes no {kind.__name__} from {arguments}: a {type(found).__name__}.")
    return found


@checked
def chain(
    in_shape: Shape,
    layers: Sequence[Layer],
    loss: Loss | Callable[[str, Shape], Loss] | None = None,
    separate_feedback: bool = False,
    feedback_gain: float = 1.0,
) -> Network:
    """A network of nodes ``input``, ``layer1``, ``layer2``, ...: a synapse between neighbours, a bias for each layer.

    Args:
        in_shape: of one example, e.g. ``(3, 32, 32)``.
        layers: from the input to the output.
        loss, separate_feedback, feedback_gain: see ``graph``.

    Raises:
        InputError: a layer does not fit the one below it.
    """
    names = chain_names(layers)
    edges = list(zip(names[:-1], names[1:], layers, strict=True))
    return graph({"input": in_shape, **dict.fromkeys(names[1:])}, edges, loss, feedback_gain, separate_feedback)


def chain_names(layers: Sequence[Layer]) -> list[str]:
    """The nodes of a chain. Raises InputError if there is no layer."""
    if not layers:
        raise InputError("A chain needs at least one layer.")
    return ["input", *(f"layer{i}" for i in range(1, len(layers) + 1))]


@checked
def predictive_chain(
    in_shape: Shape, layers: Sequence[Layer], loss: Loss | Callable[[str, Shape], Loss] | None = None
) -> Network:
    """A predictive-coding network of nodes ``input``, ``layer1``, ``layer2``, ...: each predicts the next.

    A layer is the function of a feedforward network, activation(map(pre) + b), within a ``Prediction``; its free state
    is the pass through all of them. The last layer's activation is that of the scores, e.g. ``identity``. Free phase:
    ``ForwardPass``; nudged phases: sweeps of ``error_pass``, or of states.

    Args:
        in_shape: of one example, e.g. ``(3, 32, 32)``.
        layers: from the input to the output; without dropout.
        loss: as of ``graph``; ``SquaredError`` or ``CrossEntropy``.

    Raises:
        InputError: a layer does not fit the one below it, or has dropout.
    """
    names = chain_names(layers)
    nodes, couplings = {"input": Node(in_shape)}, []
    for pre, post, layer in zip(names[:-1], names[1:], layers, strict=True):
        try:
            module = Activated(layer.map(nodes[pre].shape), layer.activation)
        except InputError as error:
            raise InputError(f"Layer {post!r}: {error}") from None
        nodes[post] = Node(module.out_shape, Wire(), layer.dropout)
        couplings.append(Prediction(pre, post, module))
    if loss is not None and not isinstance(loss, Loss):
        loss = made(Loss, loss, names[-1], nodes[names[-1]].shape)
    return Network(nodes, couplings, loss)


@checked
def parameter_groups(network: Network, rates: Sequence[float]) -> list[dict[str, object]]:
    """One group of parameters a layer, with its own learning rate, for any ``torch.optim`` optimiser.

    A layer's group holds what drives its node: its weights, bias, and the feedback weights of the same synapse.

    Args:
        network: of ``chain`` or ``graph``.
        rates: one for each free node, from the input to the output, then the read-out's where the loss has one.

    Returns:
        Groups with the keys ``params``, ``lr`` and ``name``.

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
