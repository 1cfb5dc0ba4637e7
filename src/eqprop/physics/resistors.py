"""Resistors, leaks and amplifiers: the couplings of a circuit.

A circuit of resistors and diodes is at rest where its co-content is least: half the power that its resistors turn into
heat, plus what its diodes add, less what its current sources supply. Minus the slope of the co-content at a node is the
sum of the currents into it, so rest is Kirchhoff's current law. A current source is a ``Bias``, a voltage source a
clamped node. Kendall et al. 2020, arXiv 2006.01981; Scellier 2024, arXiv 2402.11674.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from eqprop.checks import Natural, NonNegative
from eqprop.energy.couplings import Coupling
from eqprop.energy.nodes import Node
from eqprop.energy.shapes import sum_per_example
from eqprop.energy.terms import Clamped, Term
from eqprop.errors import InputError


class Resistors(Coupling):
    """sum_ij g_ij (a v_i - u_j)^2 / 2: a resistor of conductance g_ij >= 0 between every two units of two nodes.

    With a ``voltage_gain`` a other than 1 an ideal amplifier follows each unit of ``pre``. It passes a times the unit's
    voltage on to the resistors, and 1/a times their current back to the unit (Kendall et al. 2020, arXiv 2006.01981),
    so the drive on ``pre`` is the slope of the energy divided by a^2. Behind a node that is held, the voltage sources
    are a times the data; a negative gain inverts them.

    Conductances are initially uniform in ±1/sqrt(fan in), and 0 where that is negative, as in Scellier (2024, arXiv
    2402.11674). What keeps them from falling below 0 later is ``keep_passive``.

    Args:
        pre, post: the two nodes.
        pre_shape, post_shape: of those nodes. ``conductance`` is (units of pre, units of post).
        voltage_gain: a.
        fan_in: the resistors at one unit of ``post``, in this coupling and others; 0: in this one.

    Raises:
        InputError: ``pre`` is ``post``; the gain is 0; when bound, a node has another shape.
    """

    quadratic = reciprocal = passive = True
    pre, post = property(lambda self: self.nodes[0]), property(lambda self: self.nodes[1])

    def __init__(
        self,
        pre: str,
        post: str,
        pre_shape: tuple[int, ...],
        post_shape: tuple[int, ...],
        voltage_gain: float = 1.0,
        fan_in: Natural = 0,
    ):
        super().__init__()
        if pre == post:
            raise InputError(f"Resistors from {pre!r} to itself: put them between two nodes, or take a Leak.")
        if not voltage_gain:
            raise InputError("voltage_gain 0 passes nothing on: give it another value.")
        self.nodes, self.pre_shape, self.post_shape = (pre, post), tuple(pre_shape), tuple(post_shape)
        self.voltage_gain, self.fan_in, self.symmetric = voltage_gain, fan_in, abs(voltage_gain) == 1
        size = math.prod(pre_shape), math.prod(post_shape)
        bound = 1 / math.sqrt(fan_in or size[0])
        self.conductance = nn.Parameter(torch.empty(size).uniform_(-bound, bound).clamp_(min=0))

    def energy(self, *states: Tensor) -> Tensor:
        return self._placed().energy(*states)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self._placed().potential(node, *states)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self._placed().drive(node, *states)

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self._placed().stiffness(node, *states)

    def gain(self, node: str) -> float:
        return self.voltage_gain**-2 if node == self.nodes[0] else 1.0

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        pre, post = self.nodes
        if pre in data and post not in data:
            return SuppliedResistors(self, data[pre])
        return Clamped(self, data) if post in data else self._placed()

    def bind(self, nodes: Mapping[str, Node]) -> None:
        for node, shape in zip(self.nodes, (self.pre_shape, self.post_shape), strict=True):
            if nodes[node].shape != shape:
                raise InputError(f"{self.name}: {node!r} has shape {nodes[node].shape}, its resistors are for {shape}.")

    def _placed(self) -> PlacedResistors:
        return PlacedResistors(self)


class PlacedResistors(Term):
    """``Resistors`` in one landscape, in which the sums over each unit's conductances are computed once.

    The energy is a v^2 row sums / 2 + u^2 column sums / 2 - a v g u: no tensor holds a number for every resistor and
    every example.
    """

    quadratic = reciprocal = True

    def __init__(self, resistors: Resistors):
        self.nodes, self.symmetric = resistors.nodes, resistors.symmetric
        self.resistors, self.conductance = resistors, resistors.conductance
        self.at_pre, self.at_post = self.conductance.sum(1), self.conductance.sum(0)

    def energy(self, *states: Tensor) -> Tensor:
        v, u = self._voltages(states)
        return 0.5 * (v.square() @ self.at_pre + u.square() @ self.at_post) - (v @ self.conductance * u).sum(1)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self.gain(node) * self.energy(*states)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        v, u = self._voltages(states)
        if node == self.nodes[1]:
            return (v @ self.conductance - u * self.at_post).view_as(states[1])
        return ((u @ self.conductance.T - v * self.at_pre) / self.resistors.voltage_gain).view_as(states[0])

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        i = self.nodes.index(node)
        return (self.at_pre, self.at_post)[i].view(states[i].shape[1:])

    def gain(self, node: str) -> float:
        return self.resistors.gain(node)

    def _voltages(self, states: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """At the two ends of the resistors, (batch, units)."""
        return self.resistors.voltage_gain * states[0].flatten(1), states[1].flatten(1)


class SuppliedResistors(Term):
    """``Resistors`` whose ``pre`` is held at voltage sources: their current into each unit is computed once a batch."""

    quadratic = True

    def __init__(self, resistors: Resistors, data: Tensor):
        self.nodes = resistors.nodes[1:]
        sources = resistors.voltage_gain * data.flatten(1)
        self.current, self.total = sources @ resistors.conductance, resistors.conductance.sum(0)
        self.constant = 0.5 * sources.square() @ resistors.conductance.sum(1)

    def energy(self, *states: Tensor) -> Tensor:
        u = states[0].flatten(1)
        return self.constant + 0.5 * u.square() @ self.total - (self.current * u).sum(1)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return (self.current - states[0].flatten(1) * self.total).view_as(states[0])

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self.total.view(states[0].shape[1:])

    def select(self, examples: Tensor) -> Term:
        some = object.__new__(SuppliedResistors)
        some.nodes, some.total = self.nodes, self.total
        some.current, some.constant = self.current[examples], self.constant[examples]
        return some


class Leak(Coupling):
    """sum_i g_i v_i^2 / 2: a resistor of conductance g_i >= 0 between each unit of a node and the ground.

    Args:
        node: its node.
        shape: of that node.
        initial: the conductance of each at first.

    Raises:
        InputError: when bound, the node has another shape.
    """

    quadratic = passive = True
    node = property(lambda self: self.nodes[0])

    def __init__(self, node: str, shape: tuple[int, ...], initial: NonNegative):
        super().__init__()
        self.nodes, self.shape, self.initial = (node,), tuple(shape), initial
        self.conductance = nn.Parameter(torch.full(self.shape, float(initial)))

    def energy(self, *states: Tensor) -> Tensor:
        return 0.5 * sum_per_example(self.conductance * states[0].square())

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return -self.conductance * states[0]

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self.conductance

    def bind(self, nodes: Mapping[str, Node]) -> None:
        (node,) = self.nodes
        if nodes[node].shape != self.shape:
            raise InputError(f"The leak of {node!r} is for shape {self.shape}, the node is {nodes[node].shape}.")

    @property
    def name(self) -> str:
        return f"{self.nodes[0]}_leak"


@torch.no_grad()
def keep_passive(network: nn.Module) -> None:
    """Sets every conductance below 0 of the ``network``'s resistors and leaks to 0, in place: after each step."""
    for part in network.modules():
        if isinstance(part, Resistors | Leak):
            part.conductance.clamp_(min=0)
