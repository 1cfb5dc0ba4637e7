"""Oscillators that are coupled by their phases, and learn at rest: the XY energy of an oscillator Ising machine.

E = -sum_{i<j} J_ij cos(phi_i - phi_j) - sum_i h_i cos(phi_i) - sum_i S_i cos(2 phi_i) / 2, and phases move down it:
d phi / dt = -dE / d phi. An output is cos(phi). Gower 2025, arXiv 2505.02103.

The states of a network here are theta = pi/2 - phi, so that an output is sin(theta), and settling that starts at zero
starts at phi = pi/2. Where every phase is 0 or pi no force acts, not even that of a nudge, so nothing is learnt:
``collinear`` tells how many are. A large S > 0 drives phases there; take S <= 0, or a small one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from eqprop.checks import Count, NonNegative, Positive, checked
from eqprop.energy.couplings import Coupling
from eqprop.energy.losses import Target, Valued, is_labels
from eqprop.energy.network import Network
from eqprop.energy.nodes import Node, State
from eqprop.energy.shapes import sum_per_example
from eqprop.energy.terms import Clamped, Term
from eqprop.energy.units import Unit
from eqprop.errors import InputError


@dataclass(frozen=True)
class Phase(Unit):
    """A phase, theta = pi/2 - phi, without an energy of its own: a sweep moves it by ``rate`` times the force.

    Attributes:
        rate: the length of a step of gradient descent. Descent needs less than 2 over the largest curvature of the
            energy, which is at most twice the sum of the sizes of an oscillator's couplings, plus its fields.

    Raises:
        InputError: the rate is not positive.
    """

    rate: Positive = 0.05

    def potential(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)

    def force(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)


class PhaseCoupling(Coupling):
    """-sum_ij J_ij cos(phi_i - phi_j), over the oscillators i of one node and j of another.

    Args:
        pre, post: the two nodes.
        pre_shape, post_shape: of those nodes. ``strength``, J, is (units of pre, units of post).
        size: J is initially uniform in ±size/sqrt(units of pre).

    Raises:
        InputError: ``pre`` is ``post``; when bound, a node has another shape or other units.
    """

    pre, post = property(lambda self: self.nodes[0]), property(lambda self: self.nodes[1])

    def __init__(
        self, pre: str, post: str, pre_shape: tuple[int, ...], post_shape: tuple[int, ...], size: NonNegative = 0.25
    ):
        super().__init__()
        if pre == post:
            raise InputError(f"A coupling of {pre!r} with itself would count twice: take LateralPhaseCoupling.")
        self.nodes, self.size = (pre, post), size
        self.pre_shape, self.post_shape = tuple(pre_shape), tuple(post_shape)
        self.strength = uniform(size, math.prod(pre_shape), math.prod(post_shape))

    def energy(self, *states: Tensor) -> Tensor:
        pre, post = (state.flatten(1) for state in states)
        return -((pre.cos() @ self.strength) * post.cos() + (pre.sin() @ self.strength) * post.sin()).sum(1)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        i = self.nodes.index(node)
        return turned(states[i], states[1 - i], self.strength if i else self.strength.T)

    def bind(self, nodes: Mapping[str, Node]) -> None:
        check_phases(self, nodes, dict(zip(self.nodes, (self.pre_shape, self.post_shape), strict=True)))


class LateralPhaseCoupling(Coupling):
    """-sum_{i<j} J_ij cos(phi_i - phi_j), over the oscillators of one node.

    Args:
        node: its node.
        shape: of that node. ``strength``, J, is (units, units), of which the part above the diagonal counts.
        size: J is initially uniform in ±size/sqrt(units).

    Raises:
        InputError: when bound, the node has another shape or other units.
    """

    node = property(lambda self: self.nodes[0])

    def __init__(self, node: str, shape: tuple[int, ...], size: NonNegative = 0.25):
        super().__init__()
        self.nodes, self.shape, self.size = (node,), tuple(shape), size
        self.strength = uniform(size, math.prod(shape), math.prod(shape))

    def energy(self, *states: Tensor) -> Tensor:
        phases, strength = states[0].flatten(1), self.strength.triu(1)
        cos, sin = phases.cos(), phases.sin()
        return -((cos @ strength) * cos + (sin @ strength) * sin).sum(1)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        above = self.strength.triu(1)
        return turned(states[0], states[0], above + above.T)

    def bind(self, nodes: Mapping[str, Node]) -> None:
        check_phases(self, nodes, {self.nodes[0]: self.shape})


class PhaseField(Coupling):
    """-sum_i h_i cos(phi_i). h is initially uniform in ±size.

    Args:
        node: its node.
        shape: of that node; ``field``, h, is the same.
        size: see above.

    Raises:
        InputError: when bound, the node has another shape or other units.
    """

    node = property(lambda self: self.nodes[0])

    def __init__(self, node: str, shape: tuple[int, ...], size: NonNegative = 0.0):
        super().__init__()
        self.nodes, self.shape, self.size = (node,), tuple(shape), size
        self.field = nn.Parameter(torch.empty(shape).uniform_(-size, size))

    def energy(self, *states: Tensor) -> Tensor:
        return -sum_per_example(self.field * states[0].sin())

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.field * states[0].cos()

    def bind(self, nodes: Mapping[str, Node]) -> None:
        check_phases(self, nodes, {self.nodes[0]: self.shape})


class PhaseInput(Coupling):
    """-sum_j (x W)_j cos(phi_j): the data x as fields of the oscillators of ``post``.

    Args:
        pre: the clamped node.
        post: the node of oscillators.
        pre_shape, post_shape: of those nodes. ``weight``, W, is (units of pre, units of post).
        size: W is initially uniform in ±size/sqrt(units of pre).

    Raises:
        InputError: when bound, a node has another shape, or ``post`` other units, or ``pre`` units of its own.
    """

    pre, post = property(lambda self: self.nodes[0]), property(lambda self: self.nodes[1])

    def __init__(
        self, pre: str, post: str, pre_shape: tuple[int, ...], post_shape: tuple[int, ...], size: NonNegative = 0.5
    ):
        super().__init__()
        self.nodes, self.size = (pre, post), size
        self.pre_shape, self.post_shape = tuple(pre_shape), tuple(post_shape)
        self.weight = uniform(size, math.prod(pre_shape), math.prod(post_shape))

    def energy(self, *states: Tensor) -> Tensor:
        return self.given(states[0]).energy(states[1])

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        pre, post = self.nodes
        return self.given(data[pre]) if pre in data and post not in data else Clamped(self, data)

    def given(self, data: Tensor) -> GivenFields:
        """The term for this batch of data."""
        return GivenFields(self.nodes[1], (data.flatten(1) @ self.weight).view(-1, *self.post_shape))

    def bind(self, nodes: Mapping[str, Node]) -> None:
        pre, post = self.nodes
        if nodes[pre].unit is not None:
            raise InputError(f"{self.name}: {pre!r} holds no data: take a PhaseCoupling.")
        if nodes[pre].shape != self.pre_shape:
            raise InputError(f"{self.name}: {pre!r} has shape {nodes[pre].shape}, it is for {self.pre_shape}.")
        check_phases(self, nodes, {post: self.post_shape})


class GivenFields(Term):
    """-sum_i f_i cos(phi_i), with ``strength``, f, (batch, *node shape): computed once a batch."""

    def __init__(self, node: str, strength: Tensor):
        self.nodes, self.strength = (node,), strength

    def energy(self, *states: Tensor) -> Tensor:
        return -sum_per_example(self.strength * states[0].sin())

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.strength * states[0].cos()

    def select(self, examples: Tensor) -> Term:
        return GivenFields(self.nodes[0], self.strength[examples])


class SecondHarmonic(Coupling):
    """-sum_i S_i cos(2 phi_i) / 2: a signal at twice the frequency, injected into each oscillator.

    Where S_i is positive and large it holds the phase at 0 or pi, where nothing learns.

    Args:
        node: its node.
        shape: of that node; ``strength``, S, is the same.
        start: the first value of S.

    Raises:
        InputError: when bound, the node has another shape or other units.
    """

    node = property(lambda self: self.nodes[0])

    def __init__(self, node: str, shape: tuple[int, ...], start: float = 0.0):
        super().__init__()
        self.nodes, self.shape, self.start = (node,), tuple(shape), start
        self.strength = nn.Parameter(torch.full(tuple(shape), float(start)))

    def energy(self, *states: Tensor) -> Tensor:
        return 0.5 * sum_per_example(self.strength * (2 * states[0]).cos())

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.strength * (2 * states[0]).sin()

    def bind(self, nodes: Mapping[str, Node]) -> None:
        check_phases(self, nodes, {self.nodes[0]: self.shape})


class PhaseError(Valued):
    """sum_i (cos(phi_i) - y_i)^2 / 2. ``target``: labels, for which y is 1 at the label and -1 elsewhere, or values y.

    The scores of a prediction are cos(phi).

    Args:
        node: its node.
        shape: of that node.

    Raises:
        InputError: when bound, the node has another shape.
    """

    def forward(self, target: Target, *states: Tensor) -> Tensor:
        return 0.5 * sum_per_example((states[0].sin() - self._values(target, states[0])).square())

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return (self._values(target, states[0]) - states[0].sin()) * states[0].cos()

    def target_minus_state(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return self._values(target, states[0]).clamp(-1, 1).asin() - states[0]

    def scores(self, *states: Tensor) -> Tensor:
        return states[0].sin()

    def _values(self, target: Tensor, state: Tensor) -> Tensor:
        values = super()._values(target, state)
        return 2 * values - 1 if is_labels(target) else values


def collinear(state: State, tolerance: Positive = 1e-6) -> float:
    """The share of phases at 0 or pi, within which no force acts and nothing is learnt.

    Args:
        state: node -> (batch, *node shape), states theta = pi/2 - phi of nodes of oscillators.
        tolerance: a phase counts where abs(sin(phi)) is below it.

    Raises:
        InputError: the tolerance is not positive.
    """
    phases = torch.cat([value.flatten() for value in state.values()])
    return float((phases.cos().abs() < tolerance).double().mean())


@checked
def oscillator_network(
    in_shape: tuple[int, ...], hidden: Sequence[Count], outputs: Count, rate: Positive = 0.05, second: float = 0.0
) -> Network:
    """A network of nodes ``input``, ``layer1``, ...: the data as fields of the first layer, neighbours coupled.

    Each oscillator has a field and a second harmonic of its own, which learn too. The loss is ``PhaseError``.

    Args:
        in_shape: of one example.
        hidden: the oscillators of each hidden layer.
        outputs: those of the output.
        rate: of gradient descent, see ``Phase``.
        second: the first value of the second harmonics.

    Raises:
        InputError: an argument is out of range.
    """
    sizes = [*hidden, outputs]
    names = [f"layer{i}" for i in range(1, len(sizes) + 1)]
    nodes = {"input": Node(in_shape)} | {n: Node((k,), Phase(rate)) for n, k in zip(names, sizes, strict=True)}
    couplings: dict[str, Coupling] = {
        f"input_{names[0]}": PhaseInput("input", names[0], in_shape, nodes[names[0]].shape)
    }
    for pre, post in pairwise(names):
        couplings[f"{pre}_{post}"] = PhaseCoupling(pre, post, nodes[pre].shape, nodes[post].shape)
    for name in names:
        couplings[f"{name}_field"] = PhaseField(name, nodes[name].shape)
        couplings[f"{name}_second"] = SecondHarmonic(name, nodes[name].shape, second)
    return Network(nodes, couplings, PhaseError(names[-1], nodes[names[-1]].shape))


def turned(own: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    """sum_i J_ij sin(theta_i - theta_j) at each j, shaped as ``own``; ``strength``: (units of other, units of own)."""
    there, here = other.flatten(1), own.flatten(1)
    return (here.cos() * (there.sin() @ strength) - here.sin() * (there.cos() @ strength)).view_as(own)


def uniform(size: float, fan_in: int, fan_out: int) -> nn.Parameter:
    """(fan in, fan out), uniform in ±size/sqrt(fan in)."""
    bound = size / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(fan_in, fan_out).uniform_(-bound, bound))


def check_phases(coupling: Coupling, nodes: Mapping[str, Node], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises InputError where a node has another shape, or units that are no phases."""
    for name, shape in shapes.items():
        if nodes[name].shape != shape:
            raise InputError(f"{coupling.name}: {name!r} has shape {nodes[name].shape}, it is for {shape}.")
        if not isinstance(nodes[name].unit, Phase):
            raise InputError(f"{coupling.name}: the units of {name!r} are {nodes[name].unit}, no phases: take Phase.")
