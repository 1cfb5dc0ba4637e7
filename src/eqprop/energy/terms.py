"""Terms: the additive parts of the energy of one landscape, as functions of the states of the nodes they name.

A coupling is a term with parameters, which a network stores. The others are built from couplings for one batch: with
some nodes clamped at data, linearised round a state, or as functions of displacements from a state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from eqprop.energy.attached import attached
from eqprop.energy.holomorphic import gradient, linearly, pushforward
from eqprop.energy.pooling import Linearization
from eqprop.energy.shapes import expand_like, sum_per_example
from eqprop.errors import InputError


class Term(ABC):
    """One additive part of the energy, over the nodes it names.

    Methods take the states of ``nodes`` in their order, each (batch, *node shape). A subclass defines ``energy``, or
    ``potential`` if its nodes descend different ones. All other methods are derived; an override must give the same
    values (``eqprop.testing.check_coupling``).
    """

    nodes: tuple[str, ...]

    bilinear: bool = False
    """Whether the drive on a node is linear in the other nodes, and independent of the node's own state."""

    quadratic: bool = False
    """Whether ``stiffness`` may differ from 0."""

    symmetric: bool = True
    """Whether all nodes descend the same potential, so that this term has an energy."""

    @property
    def reciprocal(self) -> bool:
        """Whether each node descends ``gain`` times the same potential: feedback is the transpose, up to a gain."""
        return self.symmetric

    holomorphic: bool = False
    """Whether it accepts complex states, as its holomorphic extension."""

    @abstractmethod
    def energy(self, *states: Tensor) -> Tensor:
        """The energy of each example, (batch,)."""

    def potential(self, node: str, *states: Tensor) -> Tensor:
        """(batch,): the potential that ``node`` descends. It is the energy if feedback is the transpose of feedforward.

        If the nodes of a term descend different potentials, the network is a vector field without energy.
        """
        return self.energy(*states)

    def contrast(self, *states: Tensor) -> Tensor:
        """(batch,): what a contrastive rule compares between phases; the energy, if there is one."""
        return self.energy(*states)

    def contrast_difference(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        """(batch,): contrast(states + displacements) - contrast(states).

        A bilinear term computes it without cancellation, with the pooling winners at ``states``.
        """
        moved = (s + d for s, d in zip(states, displacements, strict=True))
        return self.contrast(*moved) - self.contrast(*states)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        """Minus the gradient of the potential with respect to the state of ``node``, (batch, *node shape).

        Derived by automatic differentiation.
        """
        i = self.nodes.index(node)

        def total(state: Tensor) -> Tensor:
            return self.potential(node, *states[:i], state, *states[i + 1 :]).sum()

        return -gradient(total, states[i])

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        """Minus the derivative of the drive on a unit of ``node`` by its own state; ``None`` for 0.

        It is not negative, except that of a nudge away from its target.

        It broadcasts to (batch, *node shape), and does not depend on the state of ``node``. A ``quadratic`` term
        defines it, so that a parabolic unit moves to its exact minimum in one step.
        """
        return None

    def drive_dot(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        """(batch,): <drive, displacement>, summed over this term's nodes."""
        pairs = zip(self.nodes, displacements, strict=True)
        return torch.stack([sum_per_example(self.drive(n, *states) * d) for n, d in pairs]).sum(0)

    def drive_derivative(
        self, states: Sequence[Tensor], displacements: Sequence[Tensor], factors: Sequence[float]
    ) -> Tensor:
        """(batch,): 0, with the derivative by parameters of <drive, factor * displacement>, summed over the nodes.

        For rules that need no value. An override avoids the drives that nothing reads, and scales no state.
        """
        scaled = [d if factor == 1 else factor * d for d, factor in zip(displacements, factors, strict=True)]
        value = self.drive_dot(states, scaled)
        return value - value.detach()

    def gain(self, node: str) -> float:
        """The factor of the drive on ``node``, relative to that on the last node of this term."""
        return 1.0

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        """This term as a function of the nodes that ``data`` does not clamp: the one that a landscape uses."""
        return Clamped(self, data) if any(node in data for node in self.nodes) else self

    def select(self, examples: Tensor) -> Term:
        """This term for a batch of the given ``examples`` of this one, (n,) int64, which may repeat.

        A term that stores values for each example selects from them.
        """
        return self

    def tangent(self, *states: Tensor) -> Term:
        """This term to first order round the given states: a term over displacements, whose drives are linear.

        The part of a drive in ``stiffness`` is left out: it belongs to the driven unit.
        """
        return Tangent(self, states)

    def transposed(self) -> Term:
        """The transpose of a term whose drives are linear, as those of a ``tangent`` are; itself if it is symmetric.

        With v the states of all nodes, <drives(d), v> = <d, transposed drives(v)> for all d and v.
        """
        return self if self.symmetric else Transposed(self)


class Clamped(Term):
    """A term with some of its nodes clamped at data."""

    def __init__(self, term: Term, data: Mapping[str, Tensor]):
        self.term, self.holomorphic, self.quadratic = term, term.holomorphic, term.quadratic
        self.data = {node: data[node] for node in term.nodes if node in data}
        self.nodes = tuple(node for node in term.nodes if node not in data)
        self.symmetric = term.symmetric or len(self.nodes) < 2

    def energy(self, *states: Tensor) -> Tensor:
        return self.term.energy(*self._all(states))

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return self.term.potential(node, *self._all(states))

    def contrast(self, *states: Tensor) -> Tensor:
        return self.term.contrast(*self._all(states))

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.term.drive(node, *self._all(states))

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self.term.stiffness(node, *self._all(states))

    @property
    def reciprocal(self) -> bool:
        return self.term.reciprocal

    def gain(self, node: str) -> float:
        return self.term.gain(node)

    def select(self, examples: Tensor) -> Term:
        return Clamped(self.term, {node: value[examples] for node, value in self.data.items()})

    def _all(self, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        known = dict(zip(self.nodes, states, strict=True)) | self.data
        return tuple(known[node] for node in self.term.nodes)


class Field(Term):
    """-<strength, s>: a constant drive on ``node``. ``strength`` broadcasts to (batch, *node shape)."""

    holomorphic = True

    def __init__(self, node: str, strength: Tensor):
        self.nodes, self.strength = (node,), strength

    def energy(self, *states: Tensor) -> Tensor:
        return -sum_per_example(self.strength * states[0])

    def contrast_difference(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        return self.energy(*displacements)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.strength.expand_as(states[0])

    def drive_derivative(
        self, states: Sequence[Tensor], displacements: Sequence[Tensor], factors: Sequence[float]
    ) -> Tensor:
        (move,) = displacements
        if not self.strength.requires_grad or move.is_complex():
            return super().drive_derivative(states, displacements, factors)

        def backward(each: Tensor) -> tuple[Tensor]:
            return ((expand_like(each, move) * move).sum_to_size(self.strength.shape),)

        return factors[0] * attached(len(move), backward, self.strength)

    def select(self, examples: Tensor) -> Term:
        return self if len(self.strength) == 1 else Field(self.nodes[0], self.strength[examples])


class Tangent(Term):
    """A term's drives to first order round given states, by automatic differentiation."""

    def __init__(self, term: Term, states: tuple[Tensor, ...]):
        self.term, self.states, self.nodes = term, states, term.nodes
        self.bilinear, self.symmetric = term.bilinear, term.symmetric

    def select(self, examples: Tensor) -> Term:
        return Tangent(self.term.select(examples), tuple(state[examples] for state in self.states))

    @property
    def reciprocal(self) -> bool:
        return self.term.reciprocal

    def gain(self, node: str) -> float:
        return self.term.gain(node)

    def energy(self, *states: Tensor) -> Tensor:
        pairs = zip(self.nodes, states, strict=True)
        return -0.5 * torch.stack([sum_per_example(self.drive(node, *states) * state) for node, state in pairs]).sum(0)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        def drive(*at: Tensor) -> Tensor:
            return self.term.drive(node, *at)

        found = linearly(lambda *moves: pushforward(drive, self.states, moves), *states)
        own = self.term.stiffness(node, *self.states) if self.term.quadratic else None
        return found if own is None else found + own * states[self.nodes.index(node)]


class Transposed(Term):
    """The transpose of a term with linear drives, by automatic differentiation."""

    symmetric = False

    def __init__(self, term: Term):
        self.term, self.nodes, self.bilinear = term, term.nodes, term.bilinear

    def select(self, examples: Tensor) -> Term:
        return Transposed(self.term.select(examples))

    def energy(self, *states: Tensor) -> Tensor:
        raise InputError(f"The transpose between {self.nodes} has no energy: its drives are no gradient.")

    def drive(self, node: str, *states: Tensor) -> Tensor:
        i = self.nodes.index(node)

        def transposed(*by: Tensor) -> Tensor:
            rest = [torch.zeros_like(each) for each in by]

            def work(own: Tensor) -> Tensor:
                at = [*rest[:i], own, *rest[i + 1 :]]
                pairs = zip(self.nodes, by, strict=True)
                return torch.stack([(self.term.drive(other, *at) * each).sum() for other, each in pairs]).sum()

            return gradient(work, rest[i])

        return linearly(transposed, *states)

    def transposed(self) -> Term:
        return self.term


class LinearTerm(Term):
    """Linear drives between two nodes: up.jvp(pre) on the last, gain * down.vjp(post) on the first."""

    bilinear = True

    def __init__(self, nodes: tuple[str, ...], up: Linearization, down: Linearization, gain: float, symmetric: bool):
        self.nodes, self.up, self.down = nodes, up, down
        self.feedback_gain, self.symmetric = gain, symmetric

    def select(self, examples: Tensor) -> Term:
        up = self.up.select(examples)
        down = up if self.down is self.up else self.down.select(examples)
        return LinearTerm(self.nodes, up, down, self.feedback_gain, self.symmetric)

    def tangent(self, *states: Tensor) -> Term:
        return self

    def transposed(self) -> Term:
        return LinearTerm(self.nodes, self.down.scaled(self.feedback_gain), self.up, 1.0, self.symmetric)

    @property
    def reciprocal(self) -> bool:
        return self.up is self.down

    def gain(self, node: str) -> float:
        return self.feedback_gain if node == self.nodes[0] else 1.0

    def energy(self, *states: Tensor) -> Tensor:
        if not self.symmetric:
            raise InputError(f"The tangent between {self.nodes} has no energy: its feedback is not the transpose.")
        return self.potential(self.nodes[1], *states)

    def potential(self, node: str, *states: Tensor) -> Tensor:
        return -sum_per_example(self.drive(node, *states) * states[self.nodes.index(node)])

    def drive(self, node: str, *states: Tensor) -> Tensor:
        if node == self.nodes[1]:
            return linearly(self.up.jvp, states[0])
        gained = states[1] if self.feedback_gain == 1 else self.feedback_gain * states[1]
        return linearly(self.down.vjp, gained)


class ShiftedTerm(Term):
    """A term as a function of displacements from given states."""

    def __init__(self, term: Term, states: Sequence[Tensor]):
        self.term, self.nodes, self.states, self.quadratic = term, term.nodes, tuple(states), term.quadratic

    def select(self, examples: Tensor) -> Term:
        return ShiftedTerm(self.term.select(examples), [state[examples] for state in self.states])

    def energy(self, *states: Tensor) -> Tensor:
        return self.term.energy(*self._at(states))

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.term.drive(node, *self._at(states))

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return self.term.stiffness(node, *self._at(states))

    def _at(self, displacements: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(state + move for state, move in zip(self.states, displacements, strict=True))


def select_terms(terms: Mapping[str, Term], examples: Tensor) -> dict[str, Term]:
    """The terms for a batch of the given ``examples``, (n,) int64."""
    return {name: term.select(examples) for name, term in terms.items()}
