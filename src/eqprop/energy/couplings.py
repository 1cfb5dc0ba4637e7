"""Couplings: the terms of a network's energy, with their parameters.

Layers, skip edges, lateral inhibition and devices are couplings. A new one is a subclass that defines its ``energy``;
its forces, learning and checks are derived.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from eqprop.checks import Count
from eqprop.energy.holomorphic import linearly
from eqprop.energy.maps import Convolution, Dense, Map, ModuleMap, is_linear, linearization
from eqprop.energy.nodes import Node
from eqprop.energy.pooling import BilinearDerivative, Linearization
from eqprop.energy.shapes import sum_per_example
from eqprop.energy.terms import Clamped, Field, LinearTerm, Term
from eqprop.errors import InputError

T = TypeVar("T")


class Coupling(nn.Module, Term):
    """A term of a network's energy, with parameters. See ``Term`` for what a subclass defines."""

    passive: bool = False
    """Whether its parameters are conductances: no machine reads them below 0."""
    downwards: tuple[Coupling, ...] = ()
    """On a substrate: what drives the first node in the place of this coupling."""

    def bind(self, nodes: Mapping[str, Node]) -> None:
        """Called by the network when it is built, with its nodes, to check shapes.

        Raises:
            InputError: this term does not fit the nodes it names.
        """

    @property
    def name(self) -> str:
        """The name of this term in a network that does not give it another."""
        return "_".join(self.nodes)


def is_weight(name: str, parameter: Tensor) -> bool:
    """Whether a parameter holds weights between units: neither a vector, nor a bias or a gain of each channel.

    Biases and gains of convolutions have as many dimensions as states and kernels, so that their name tells;
    ``original0`` is the gain of PyTorch's weight normalisation.

    Args:
        name: its name, as ``named_parameters`` of a network or of a part of it gives it.
        parameter: its values.
    """
    return parameter.ndim > 1 and name.rpartition(".")[2] not in ("bias", "gain", "original0")


class Bias(Coupling):
    """-<b, s>, with one b for each channel of a (channels, height, width) node, else for each unit.

    Initially uniform in ±1/sqrt(fan in).

    Args:
        node: its node.
        shape: of that node.
        fan_in: of the weights that drive the node.
    """

    holomorphic = True
    node = property(lambda self: self.nodes[0])

    def __init__(self, node: str, shape: tuple[int, ...], fan_in: Count = 1):
        super().__init__()
        self.nodes, self.shape, self.fan_in = (node,), tuple(shape), fan_in
        size = (shape[0], *(1 for _ in shape[1:])) if len(shape) == 3 else shape
        bound = 1 / math.sqrt(fan_in)
        self.bias = nn.Parameter(torch.empty(size).uniform_(-bound, bound))

    def energy(self, *states: Tensor) -> Tensor:
        return -sum_per_example(self.bias * states[0])

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.bias.expand_as(states[0])

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        return Clamped(self, data) if self.nodes[0] in data else Field(self.nodes[0], self.bias.unsqueeze(0))

    def bind(self, nodes: Mapping[str, Node]) -> None:
        (node,) = self.nodes
        if nodes[node].shape != self.shape:
            raise InputError(f"The bias of {node!r} is for shape {self.shape}, the node is {nodes[node].shape}.")

    @property
    def name(self) -> str:
        return f"{self.nodes[0]}_bias"


class Synapse(Coupling):
    """-<map(pre), post>: ``map`` drives ``post``, its transpose drives ``pre``.

    Args:
        pre, post: the two nodes.
        map: a ``Map``, or any ``nn.Module`` whose output depends on its input only; its transpose is derived. If it is
            linear in its input (a bias is allowed), every estimator and form applies; else only those that do not need
            a bilinear coupling.
        feedback_gain: the factor of the drive on ``pre``. 1 is the symmetric network of equilibrium propagation;
            contrastive Hebbian learning has a small gain (Xie & Seung 2003, doi 10.1162/089976603762552988). With any
            gain but 1 ``pre`` and ``post`` descend different potentials, so there is no energy.

    Raises:
        InputError: ``pre`` is ``post``; when bound, the map does not fit the nodes, or its ``linear`` is wrong.
    """

    reciprocal = True
    map: Map
    pre, post = property(lambda self: self.nodes[0]), property(lambda self: self.nodes[1])

    def __init__(self, pre: str, post: str, map: nn.Module, feedback_gain: float = 1.0):
        super().__init__()
        if pre == post:
            raise InputError(f"A synapse from {pre!r} to itself would count twice: write a coupling of one node.")
        self.nodes, self.map, self.feedback_gain = (pre, post), map, feedback_gain  # type: ignore[assignment]
        self.symmetric = feedback_gain == 1

    def energy(self, *states: Tensor) -> Tensor:
        pre, post = states
        hooked = bool(self.map._forward_pre_hooks)  # which may set the weights
        return -sum_per_example((linearization(self.map, pre).value if hooked else self.map.forward(pre)) * post)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self.gain(node) * self.energy(*states)

    def gain(self, node: str) -> float:
        return self.feedback_gain if node == self.nodes[0] else 1.0

    def contrast_difference(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        if not self.bilinear:
            return super().contrast_difference(states, displacements)
        (pre, post), (pre_move, post_move) = states, displacements
        at = linearization(self.map, pre)
        return -sum_per_example(at.value * post_move + linearly(at.jvp, pre_move) * (post + post_move))

    def drive_dot(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        if not self.bilinear:
            return super().drive_dot(states, displacements)
        (pre, post), (pre_move, post_move) = states, displacements
        at = linearization(self.map, pre)
        fed_back = linearly(at.jvp, pre_move) * self._gained(post)
        return sum_per_example(at.value * post_move) + sum_per_example(fed_back)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        pre, post = states
        if node == self.nodes[1]:
            return linearization(self.map, pre).value
        if self.map._forward_pre_hooks:  # which may set the weights
            return linearization(self.map, pre).vjp(self._gained(post))
        return self.map.transpose(pre, self._gained(post))

    def tangent(self, *states: Tensor) -> Term:
        if not self.bilinear:
            return super().tangent(*states)
        return self._tangent(linearization(self.map, states[0]))

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        pre, post = self.nodes
        if pre in data and post not in data:
            return Field(post, linearization(self.map, data[pre]).value)  # computed once a batch
        if pre in data or post in data:
            return Clamped(self, data)
        return CachedSynapse(self)

    def bind(self, nodes: Mapping[str, Node]) -> None:
        pre, post = self.nodes
        if not isinstance(self.map, Map):
            self.map = ModuleMap(self.map, nodes[pre].shape)
        for node, shape in ((pre, self.map.in_shape), (post, self.map.out_shape)):
            if nodes[node].shape != shape:
                raise InputError(
                    f"The synapse {self.name} maps {self.map.in_shape} to {self.map.out_shape}, but node "
                    f"{node!r} has shape {nodes[node].shape}."
                )
        if self.map.linear and type(self.map) not in (Dense, Convolution, ModuleMap) and not is_linear(self.map):
            raise InputError(f"{self.map} has `linear = True`, but is not linear: state `linear = False` in its class.")
        self.bilinear, self.holomorphic = self.map.linear, self.map.holomorphic

    def _tangent(self, at: Linearization) -> Term:
        return LinearTerm(self.nodes, at, at, self.feedback_gain, self.symmetric)

    def _gained(self, post: Tensor) -> Tensor:
        """What feeds back, times the gain: before the transposed map, as ``post`` is often the smaller node."""
        return post if self.feedback_gain == 1 else self.feedback_gain * post


class CachedSynapse(Term):
    """A synapse in one landscape; it caches the latest linearisation of its map.

    A sweep needs the synapse's drive on both nodes. Both use the same linearisation at ``pre`` (with the same pooling
    winners), which is computed once for each new ``pre``, in any order of the sweep.
    """

    def __init__(self, synapse: Synapse):
        self.synapse, self.nodes = synapse, synapse.nodes
        self.bilinear, self.symmetric, self.holomorphic = synapse.bilinear, synapse.symmetric, synapse.holomorphic
        self._linearized = MemoizeLast(partial(memoized_linearization, synapse))

    @property
    def reciprocal(self) -> bool:
        return self.synapse.reciprocal

    def energy(self, *states: Tensor) -> Tensor:
        return self.synapse.energy(*states)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self.synapse.potential(node, *states)

    def gain(self, node: str) -> float:
        return self.synapse.gain(node)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        at, fed_back = self._linearized(states[0])
        return at.value if node == self.nodes[1] else fed_back(states[1])

    def contrast_difference(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        return self.synapse.contrast_difference(states, displacements)

    def drive_dot(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        if self._derivative(states, displacements) is None:
            return self.synapse.drive_dot(states, displacements)
        pairs = zip(self.nodes, displacements, strict=True)
        with torch.no_grad():  # its drives, most of them cached
            known = torch.stack([sum_per_example(self.drive(node, *states) * move) for node, move in pairs]).sum(0)
        return known + self.drive_derivative(states, displacements, (1.0, 1.0))

    def drive_derivative(
        self, states: Sequence[Tensor], displacements: Sequence[Tensor], factors: Sequence[float]
    ) -> Tensor:
        if (derivative := self._derivative(states, displacements)) is None:
            return super().drive_derivative(states, displacements, factors)
        (pre, post), (pre_move, post_move) = states, displacements
        down, up = factors
        return up * derivative(pre, post_move) + down * self.synapse.feedback_gain * derivative(pre_move, post)

    def _derivative(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> BilinearDerivative | None:
        """That of the cached linearisation; ``None`` where it does not apply."""
        if not self.bilinear or any(each.is_complex() or each.requires_grad for each in (*states, *displacements)):
            return None
        if self.synapse.map._forward_pre_hooks:  # which may compute the weights from others
            return None
        with torch.no_grad():
            return self._linearized(states[0])[0].bilinear_derivative

    def tangent(self, *states: Tensor) -> Term:
        if not self.bilinear:
            return super().tangent(*states)
        return self.synapse._tangent(self._linearized(states[0])[0])

    def select(self, examples: Tensor) -> Term:
        return CachedSynapse(self.synapse)


class SeparateFeedback(Coupling):
    """Feedforward by one map, feedback by the transpose of another: without weight transport and without energy.

    ``post`` descends -<forward(pre), post>, and ``pre`` descends -<feedback(pre), post>. The feedback map chooses the
    pooling winners of the feedback (the vector-field model of Laborieux et al. 2021, doi 10.3389/fnins.2021.633674).
    Fixed feedback weights (``feedback.requires_grad_(False)``) give random-feedback contrastive Hebbian learning
    (Detorakis et al. 2019, arXiv 1806.07406).

    Args:
        pre, post: the two nodes.
        forward_map, feedback_map: as the ``map`` of a ``Synapse``; attributes ``feedforward`` and ``feedback``.
        feedback_gain: the factor of the drive on ``pre``.

    Raises:
        InputError: as a ``Synapse``; or its energy, which it does not have, is asked for.
    """

    pre, post = property(lambda self: self.nodes[0]), property(lambda self: self.nodes[1])
    forward_map = property(lambda self: self.feedforward.map)
    feedback_map = property(lambda self: self.feedback.map)
    feedback_gain = property(lambda self: self.feedback.feedback_gain)

    def __init__(
        self, pre: str, post: str, forward_map: nn.Module, feedback_map: nn.Module, feedback_gain: float = 1.0
    ):
        super().__init__()
        self.feedforward = Synapse(pre, post, forward_map)
        self.feedback = Synapse(pre, post, feedback_map, feedback_gain)
        self.nodes, self.symmetric = (pre, post), False

    def energy(self, *states: Tensor) -> Tensor:
        raise InputError(
            f"The coupling {self.name} has no energy: its feedback weights are not the transpose of its "
            "feedforward weights. Use potential(node, ...), which that node descends."
        )

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self._half(node).potential(node, *states)

    def gain(self, node: str) -> float:
        return self._half(node).gain(node)

    def contrast(self, *states: Tensor) -> Tensor:
        return self.feedforward.energy(*states) + self.feedback.energy(*states)

    def contrast_difference(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        halves = (self.feedforward, self.feedback)
        return torch.stack([half.contrast_difference(states, displacements) for half in halves]).sum(0)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self._half(node).drive(node, *states)

    def tangent(self, *states: Tensor) -> Term:
        if not self.bilinear:
            return super().tangent(*states)
        up, down = (linearization(half.map, states[0]) for half in (self.feedforward, self.feedback))
        return LinearTerm(self.nodes, up, down, self.feedback.feedback_gain, symmetric=False)

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        if any(node in data for node in self.nodes):
            raise InputError(f"The coupling {self.name} feeds back to a node that is held at data: use a Synapse.")
        return self

    def bind(self, nodes: Mapping[str, Node]) -> None:
        self.feedforward.bind(nodes)
        self.feedback.bind(nodes)
        self.bilinear = self.feedforward.bilinear and self.feedback.bilinear
        self.holomorphic = self.feedforward.holomorphic and self.feedback.holomorphic

    def pairs(self) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
        """All (name, feedforward parameter, feedback parameter) of names that both maps have."""
        up = dict(self.feedforward.map.named_parameters())
        return [(name, up[name], down) for name, down in self.feedback.map.named_parameters() if name in up]

    def _half(self, node: str) -> Synapse:
        return self.feedforward if node == self.nodes[1] else self.feedback


class MemoizeLast(Generic[T]):
    """A function of one tensor that caches its latest result, and returns it while the argument is the same tensor."""

    def __init__(self, function: Callable[[Tensor], T]):
        self.function = function
        self._key: tuple[Any, ...] = ()
        self._result: T | None = None

    def __call__(self, tensor: Tensor) -> T:
        # The version counter detects a tensor that was changed in place, which `is` does not.
        version = None if tensor.is_inference() else tensor._version
        autocast = torch.is_autocast_enabled(tensor.device.type)
        key = (tensor, version, torch.is_grad_enabled(), autocast)
        if version is None or self._result is None or self._key[0] is not tensor or self._key[1:] != key[1:]:
            self._result, self._key = self.function(tensor), key
        return self._result


def memoized_linearization(synapse: Synapse, pre: Tensor) -> tuple[Linearization, MemoizeLast[Tensor]]:
    """The linearisation of a synapse's map at ``pre``, and the drive that feeds back, which caches its latest value."""
    at = linearization(synapse.map, pre)
    return at, MemoizeLast(lambda post: at.vjp(synapse._gained(post)))
