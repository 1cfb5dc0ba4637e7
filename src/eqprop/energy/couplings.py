"""Couplings: the additive terms of the energy, over the nodes they name.

A layer, a skip edge, lateral inhibition, a device and the nudged loss are all couplings. A new one is a
subclass that states its ``energy``; its forces, its learning and its checks follow.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from eqprop.energy.holomorphic import gradient, linearly
from eqprop.energy.maps import Map, ModuleMap, sum_per_example
from eqprop.energy.nodes import Node
from eqprop.energy.pooling import Linearization
from eqprop.errors import InputError

T = TypeVar("T")


class Coupling(nn.Module, ABC):
    """One additive term of the energy, over the nodes it names.

    Methods take the states of ``nodes`` in their order, each (batch, *node shape).
    """

    nodes: tuple[str, ...]

    @abstractmethod
    def energy(self, *states: Tensor) -> Tensor:
        """(batch,)"""

    def potential(self, node: str, *states: Tensor) -> Tensor:
        """(batch,): what ``node`` descends. The energy, unless feedback is not the transpose of feedforward.

        Where the nodes of a term descend different potentials, the network is a vector field without energy.
        """
        return self.energy(*states)

    def contrast(self, *states: Tensor) -> Tensor:
        """(batch,): what a contrastive rule compares between phases. The energy, where there is one."""
        return self.energy(*states)

    def contrast_difference(self, states: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
        """(batch,): contrast(states + moves) - contrast(states).

        A bilinear term does it without cancellation, pooling's winners held at ``states``.
        """
        return self.contrast(*(s + m for s, m in zip(states, moves, strict=True))) - self.contrast(*states)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        """What this term pushes ``node`` with: minus the gradient of its potential, (batch, *node shape).

        Derived by automatic differentiation; an override may be cheaper, never different
        (``eqprop.testing.check_coupling``).
        """
        i = self.nodes.index(node)

        def total(state: Tensor) -> Tensor:
            return self.potential(node, *states[:i], state, *states[i + 1 :]).sum()

        return -gradient(total, states[i])

    def work(self, states: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
        """(batch,): <drive, move>, summed over this term's nodes. An override may be cheaper, never different."""
        pushed = [
            sum_per_example(self.drive(node, *states) * move) for node, move in zip(self.nodes, moves, strict=True)
        ]
        return torch.stack(pushed).sum(0)

    def gain(self, node: str) -> float:
        """What the drive on ``node`` is multiplied by, against that on the node which this term drives, its last."""
        return 1.0

    def clamp(self, data: Mapping[str, Tensor]) -> Coupling:
        """This term as one landscape sees it: a function of the nodes that ``data`` does not hold."""
        return Clamped(self, data) if any(node in data for node in self.nodes) else self

    def select(self, examples: Tensor) -> Coupling:
        """This term for a batch made of these examples of the present one; (n,) int64, some maybe more than once.

        A term that holds something for each example takes it along.
        """
        return self

    def tangent(self, *states: Tensor) -> Coupling:
        """This term round the given states, to first order: a term over displacements, whose drives are linear."""
        return Tangent(self, states)

    bilinear: bool = False
    """Whether the drive on a node is linear in the other nodes, and the same whatever the node's own state."""

    symmetric: bool = True
    """Whether all nodes descend the same potential, so that this term is one of an energy."""

    holomorphic: bool = False
    """Whether it takes complex states, as the holomorphic extension of what it is."""

    def bind(self, nodes: Mapping[str, Node]) -> None:
        """Called once by the network, with its nodes: the place to check shapes.

        Raises:
            InputError: this term does not fit the nodes it names.
        """

    @property
    def name(self) -> str:
        """The key under which a network keeps this term, unless it is given another."""
        return "_".join(self.nodes)


class Tangent(Coupling):
    """A term's drives to first order round given states, by automatic differentiation."""

    def __init__(self, coupling: Coupling, states: tuple[Tensor, ...]):
        super().__init__()
        self.coupling, self.states, self.nodes = coupling, states, coupling.nodes
        self.bilinear, self.symmetric = coupling.bilinear, coupling.symmetric

    def select(self, examples: Tensor) -> Coupling:
        return Tangent(self.coupling.select(examples), tuple(state[examples] for state in self.states))

    def energy(self, *states: Tensor) -> Tensor:
        pushed = [
            sum_per_example(self.drive(node, *states) * state) for node, state in zip(self.nodes, states, strict=True)
        ]
        return -0.5 * torch.stack(pushed).sum(0)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        def drive(*at: Tensor) -> Tensor:
            return self.coupling.drive(node, *at)

        return linearly(lambda *moves: torch.func.jvp(drive, self.states, moves)[1], *states)


class Clamped(Coupling):
    """A term some of whose nodes are held at data."""

    def __init__(self, coupling: Coupling, data: Mapping[str, Tensor]):
        super().__init__()
        self.coupling, self.holomorphic = coupling, coupling.holomorphic
        self.data = {node: data[node] for node in coupling.nodes if node in data}
        self.nodes = tuple(node for node in coupling.nodes if node not in data)

    def energy(self, *states: Tensor) -> Tensor:
        return self.coupling.energy(*self._all(states))

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self.coupling.potential(node, *self._all(states))

    def contrast(self, *states: Tensor) -> Tensor:
        return self.coupling.contrast(*self._all(states))

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.coupling.drive(node, *self._all(states))

    def gain(self, node: str) -> float:
        return self.coupling.gain(node)

    def select(self, examples: Tensor) -> Coupling:
        return Clamped(self.coupling, {node: value[examples] for node, value in self.data.items()})

    def _all(self, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        known = dict(zip(self.nodes, states, strict=True)) | self.data
        return tuple(known[node] for node in self.coupling.nodes)


class Field(Coupling):
    """-<strength, s>: a constant push. ``strength`` broadcasts against (batch, *node shape)."""

    holomorphic = True

    def __init__(self, node: str, strength: Tensor):
        super().__init__()
        self.nodes, self.strength = (node,), strength

    def energy(self, *states: Tensor) -> Tensor:
        return -sum_per_example(self.strength * states[0])

    def contrast_difference(self, states: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
        return self.energy(*moves)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.strength.expand_as(states[0])

    def select(self, examples: Tensor) -> Coupling:
        return self if len(self.strength) == 1 else Field(self.nodes[0], self.strength[examples])


class Bias(Coupling):
    """-<b, s>, one b a channel of a (channels, height, width) node, else one a unit.

    Initially uniform in ±1/sqrt(fan in), where ``fan_in`` is that of the weights which drive the node.
    """

    holomorphic = True

    def __init__(self, node: str, shape: tuple[int, ...], fan_in: int = 1):
        super().__init__()
        self.nodes, self.shape = (node,), tuple(shape)
        size = (shape[0], *(1 for _ in shape[1:])) if len(shape) == 3 else shape
        bound = 1 / math.sqrt(fan_in)
        self.bias = nn.Parameter(torch.empty(size).uniform_(-bound, bound))

    def energy(self, *states: Tensor) -> Tensor:
        return -sum_per_example(self.bias * states[0])

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.bias.expand_as(states[0])

    def clamp(self, data: Mapping[str, Tensor]) -> Coupling:
        return Field(self.nodes[0], self.bias.unsqueeze(0))

    def bind(self, nodes: Mapping[str, Node]) -> None:
        (node,) = self.nodes
        if nodes[node].shape != self.shape:
            raise InputError(f"The bias of {node!r} is for shape {self.shape}, the node is {nodes[node].shape}.")

    @property
    def name(self) -> str:
        return f"{self.nodes[0]}_bias"


class Synapse(Coupling):
    """-<map(pre), post>: ``map`` carries activity forward, its transpose carries it back.

    Args:
        pre, post: the two nodes.
        map: a ``Map``, or any ``nn.Module`` linear in its input (bias allowed), whose transpose is derived.
        feedback_gain: what the drive on ``pre`` is multiplied by. 1 is the symmetric network of equilibrium
            propagation; contrastive Hebbian learning takes it small (Xie & Seung 2003). Any value but 1
            leaves a vector field: ``pre`` and ``post`` then descend different potentials.
    """

    map: Map

    def __init__(self, pre: str, post: str, map: nn.Module, feedback_gain: float = 1.0):
        super().__init__()
        if pre == post:
            raise InputError(f"A synapse from {pre!r} to itself would be counted twice: write a coupling of one node.")
        self.nodes, self.map, self.feedback_gain = (pre, post), map, feedback_gain  # type: ignore[assignment]
        self.symmetric = feedback_gain == 1

    def energy(self, *states: Tensor) -> Tensor:
        pre, post = states
        return -sum_per_example(self.map(pre) * post)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self.gain(node) * self.energy(*states)

    def gain(self, node: str) -> float:
        return self.feedback_gain if node == self.nodes[0] else 1.0

    def contrast_difference(self, states: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
        if not self.bilinear:
            return super().contrast_difference(states, moves)
        (pre, post), (pre_move, post_move) = states, moves
        carried = self.map.linearize(pre)
        return -sum_per_example(carried.value * post_move + linearly(carried.jvp, pre_move) * (post + post_move))

    def work(self, states: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
        if not self.bilinear:
            return super().work(states, moves)
        (pre, post), (pre_move, post_move) = states, moves
        value, pushed = self.map.jvp(pre, pre_move)
        return sum_per_example(value * post_move) + sum_per_example(self._gained(pushed) * post)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        pre, post = states
        if node == self.nodes[1]:
            return self.map(pre)
        return self._gained(self.map.transpose(pre, post))

    def tangent(self, *states: Tensor) -> Coupling:
        if not self.bilinear:
            return super().tangent(*states)
        return self._tangent(self.map.linearize(states[0]))

    def clamp(self, data: Mapping[str, Tensor]) -> Coupling:
        pre, post = self.nodes
        if pre in data and post not in data:
            return Field(post, self.map(data[pre]))  # all that the input does, computed once a batch
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
                    f"The synapse {self.name} carries {self.map.in_shape} to {self.map.out_shape}, but node "
                    f"{node!r} has shape {nodes[node].shape}."
                )
        self.bilinear, self.holomorphic = self.map.linear, self.map.holomorphic

    def _tangent(self, carried: Linearization) -> Coupling:
        return SynapseTangent(self.nodes, carried, carried, self.feedback_gain, self.symmetric)

    def _gained(self, feedback: Tensor) -> Tensor:
        return feedback if self.feedback_gain == 1 else self.feedback_gain * feedback


class SynapseTangent(Coupling):
    """A bilinear synapse's drives for displacements: up.jvp(pre), gain * down.vjp(post); winners held."""

    bilinear = True

    def __init__(self, nodes: tuple[str, ...], up: Linearization, down: Linearization, gain: float, symmetric: bool):
        super().__init__()
        self.nodes, self.up, self.down = nodes, up, down
        self.feedback_gain, self.symmetric = gain, symmetric

    def select(self, examples: Tensor) -> Coupling:
        up, down = self.up.select(examples), self.down.select(examples)
        return SynapseTangent(self.nodes, up, down, self.feedback_gain, self.symmetric)

    def energy(self, *states: Tensor) -> Tensor:
        if not self.symmetric:
            raise InputError(f"The tangent of {self.name} has no energy: its feedback is not the transpose.")
        return self.potential(self.nodes[1], *states)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return -sum_per_example(self.drive(node, *states) * states[self.nodes.index(node)])

    def drive(self, node: str, *states: Tensor) -> Tensor:
        if node == self.nodes[1]:
            return linearly(self.up.jvp, states[0])
        pulled = linearly(self.down.vjp, states[1])
        return pulled if self.feedback_gain == 1 else self.feedback_gain * pulled


class CachedSynapse(Coupling):
    """A synapse within one landscape, which remembers what it last carried.

    One sweep asks a synapse for its drive on either node. Both start from the same map of ``pre`` (pooling's
    winners are chosen there), so it is computed once for each new ``pre``, whatever the order of the sweep.
    """

    def __init__(self, synapse: Synapse):
        super().__init__()
        self.synapse, self.nodes = synapse, synapse.nodes
        self.bilinear, self.symmetric, self.holomorphic = synapse.bilinear, synapse.symmetric, synapse.holomorphic
        self._linearized: MemoizeLast[tuple[Linearization, MemoizeLast[Tensor]]] = MemoizeLast(self._linearize)

    def energy(self, *states: Tensor) -> Tensor:
        return self.synapse.energy(*states)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self.synapse.potential(node, *states)

    def gain(self, node: str) -> float:
        return self.synapse.gain(node)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        carried, pull = self._linearized(states[0])
        return carried.value if node == self.nodes[1] else self.synapse._gained(pull(states[1]))

    def contrast_difference(self, states: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
        return self.synapse.contrast_difference(states, moves)

    def work(self, states: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
        if not self.bilinear or any(each.is_complex() or each.requires_grad for each in (*states, *moves)):
            return self.synapse.work(states, moves)
        (pre, post), (pre_move, post_move) = states, moves
        with torch.no_grad():
            carried, pull = self._linearized(pre)
        if carried.bilinear_derivative is None:
            return self.synapse.work(states, moves)
        with torch.no_grad():  # its drives, which are mostly remembered
            known = sum_per_example(carried.value * post_move) + sum_per_example(
                self.synapse._gained(pull(post)) * pre_move
            )
        return carried.bilinear_derivative(known, [(pre, post_move), (pre_move, self.synapse._gained(post))])

    def tangent(self, *states: Tensor) -> Coupling:
        if not self.bilinear:
            return super().tangent(*states)
        return self.synapse._tangent(self._linearized(states[0])[0])

    def select(self, examples: Tensor) -> Coupling:
        return CachedSynapse(self.synapse)

    def _linearize(self, pre: Tensor) -> tuple[Linearization, MemoizeLast[Tensor]]:
        carried = self.synapse.map.linearize(pre)
        return carried, MemoizeLast(carried.vjp)


class SeparateFeedback(Coupling):
    """Feedforward by one map, feedback by the transpose of another: no weight transport, and no energy.

    ``post`` descends -<forward(pre), post>, ``pre`` descends -<feedback(pre), post>; pooling's winners on the
    way down are chosen by the feedback map (the vector-field model of Laborieux et al. 2021). Each half is a synapse
    of its own. Feedback weights that do not learn (``feedback.requires_grad_(False)``) make random-feedback
    contrastive Hebbian learning (Detorakis et al. 2019).

    ``feedback_gain``: what the drive on ``pre`` is multiplied by.
    """

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
            "feedforward weights. Ask for potential(node, ...), what one node descends."
        )

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self._half(node).potential(node, *states)

    def gain(self, node: str) -> float:
        return self._half(node).gain(node)

    def contrast(self, *states: Tensor) -> Tensor:
        return self.feedforward.energy(*states) + self.feedback.energy(*states)

    def contrast_difference(self, states: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
        return self.feedforward.contrast_difference(states, moves) + self.feedback.contrast_difference(states, moves)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self._half(node).drive(node, *states)

    def tangent(self, *states: Tensor) -> Coupling:
        if not self.bilinear:
            return super().tangent(*states)
        up, down = self.feedforward.map.linearize(states[0]), self.feedback.map.linearize(states[0])
        return SynapseTangent(self.nodes, up, down, self.feedback.feedback_gain, symmetric=False)

    def clamp(self, data: Mapping[str, Tensor]) -> Coupling:
        if any(node in data for node in self.nodes):
            raise InputError(f"The coupling {self.name} feeds back to a node that is held at data: use a Synapse.")
        return self

    def bind(self, nodes: Mapping[str, Node]) -> None:
        self.feedforward.bind(nodes)
        self.feedback.bind(nodes)
        self.bilinear = self.feedforward.bilinear and self.feedback.bilinear
        self.holomorphic = self.feedforward.holomorphic and self.feedback.holomorphic

    def pairs(self) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
        """(name, feedforward parameter, feedback parameter) for every parameter that both maps have."""
        up = dict(self.feedforward.map.named_parameters())
        return [(name, up[name], down) for name, down in self.feedback.map.named_parameters() if name in up]

    def _half(self, node: str) -> Synapse:
        return self.feedforward if node == self.nodes[1] else self.feedback


class MemoizeLast(Generic[T]):
    """A function of one tensor that keeps its latest result, for as long as that very tensor is asked about."""

    def __init__(self, function: Callable[[Tensor], T]):
        self.function = function
        self._key: tuple[Any, ...] = ()
        self._result: T | None = None

    def __call__(self, tensor: Tensor) -> T:
        # The version counter catches a tensor changed in place, which `is` alone would take for the same.
        version = None if tensor.is_inference() else tensor._version
        autocast = torch.is_autocast_enabled(tensor.device.type)
        key = (tensor, version, torch.is_grad_enabled(), autocast)
        if version is None or self._result is None or self._key[0] is not tensor or self._key[1:] != key[1:]:
            self._result, self._key = self.function(tensor), key
        return self._result
