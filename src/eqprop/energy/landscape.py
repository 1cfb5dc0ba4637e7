"""Landscapes: the energy of a network with its data clamped, in the form that solvers need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations

import torch
from torch import Tensor

from eqprop.energy.couplings import CachedSynapse, MemoizeLast
from eqprop.energy.nodes import Node, State
from eqprop.energy.prediction import PlacedPrediction
from eqprop.energy.shapes import sum_per_example, zeros_like_images
from eqprop.energy.substrate import IDEAL, Substrate
from eqprop.energy.terms import Field, Term, select_terms
from eqprop.energy.units import Unit
from eqprop.errors import InputError

Colours = tuple[tuple[str, ...], ...]
"""Sets of nodes that no term couples to each other."""
Source = Callable[[Tensor | None, Mapping[int, Tensor], int], dict[str, Term]]
"""(examples of the batch, (n,) int64, ``None`` for all; ``id`` of a tensor -> its replacement; reading) -> terms."""


@dataclass(frozen=True, eq=False)
class Landscape:
    """An energy over free nodes, with the data clamped. It is a value: its methods return new landscapes.

    Dropped units (``masks``) neither send nor receive: terms read ``mask / (1 - dropout) * s``, and the unit's own
    drive is multiplied by its mask.

    Attributes:
        nodes: the free nodes, by name.
        terms: the additive parts of the energy over them, by name.
        masks: node -> (batch, *node shape) of 0 and 1.
        like: (batch, ...), with the precision and the device of the states.
        source: builds the terms again.
        colours: sets of nodes that no term couples to each other.
        data: the clamped nodes' values.
        substrate: the machine model, as ``Network`` takes it.
        reading: which reading of the weights its terms hold, on a substrate.
        rate: how far ``step`` moves, as a fraction of the way to a unit's response: a number, or (batch,).
        reusable: whether cached linearisations of a landscape of the same network can be used in this one.
    """

    nodes: Mapping[str, Node]
    terms: dict[str, Term]
    masks: State
    like: Tensor
    source: Source
    colours: Colours
    data: Mapping[str, Tensor]
    substrate: Substrate = IDEAL
    reading: int = 0
    rate: Tensor | float = 1.0
    reusable: bool = True

    # -- what a solver needs --

    def zeros(self) -> State:
        """Every free node at zero: the start of settling."""
        batch = len(self.like)
        return {name: zeros_like_images(self.like, (batch, *node.shape)) for name, node in self.nodes.items()}

    def energy(self, state: State) -> Tensor:
        """(batch,): the sum of all nodes' and terms' energies.

        Raises:
            InputError: a unit or a term has no energy.
        """
        return torch.stack([*self.node_energies(state).values(), *self.term_energies(state).values()]).sum(0)

    def node_energies(self, state: State) -> dict[str, Tensor]:
        """Each node's own energy, (batch,)."""
        return {n: sum_per_example(self.unit(n).potential(state[n])) / self._retained(n) for n in self.nodes}

    def term_energies(self, state: State) -> dict[str, Tensor]:
        """Each term's energy, (batch,), by the term's name, which may be that of a node."""
        masked = self.masked(state)
        return {name: term.energy(*(masked[n] for n in term.nodes)) for name, term in self.terms.items()}

    def drive(self, state: State, node: str) -> Tensor:
        """Minus the gradient of all terms with respect to the state of ``node``, (batch, *node shape)."""
        return self._drive(self.masked(state), node)

    def stiffness(self, state: State, node: str) -> Tensor | None:
        """Minus the derivative of the drive on a unit of ``node`` by its own state, broadcastable; ``None`` for 0.

        Where negative parts, of nudges away from their targets, outweigh the others, it is the sum of the others.
        """
        return self._stiffness(self.masked(state), node)

    def force(self, state: State, node: str) -> Tensor:
        """The drive plus the unit's own force, (batch, *node shape); 0 at rest."""
        return self.drive(state, node) + self.unit(node).force(state[node])

    def step(self, state: State, nodes: Iterable[str]) -> State:
        """The next states of ``nodes``: their responses to their drives in ``state``.

        This is the minimum over a node if its terms are linear in it (synapses, biases), or if its unit is parabolic
        and its terms state their stiffness. Else (lateral couplings, a unit without a closed-form response) it is one
        step of an iteration.
        """
        masked = self.masked(state)
        return {name: self._step(name, state[name], masked) for name in nodes}

    def masked(self, state: State) -> State:
        """The state that terms read: dropped units at zero, the others divided by (1 - dropout)."""
        return state | {name: mask(state[name]) for name, mask in self._masks.items()}

    def inner(self, a: State, b: State, weights: Mapping[str, float] | None = None) -> Tensor:
        """sum_n w_n <a_n, b_n>, (batch,), over ``a``'s nodes, each divided by (1 - dropout) as in ``energy``.

        With the ``weights`` of ``gains.self_adjoint_weights`` (default: 1, without gains) the derivative of the drives
        is symmetric in this product; if gains or dropout differ between nodes, in no other.
        """
        scaled = a if weights is None else weighted(a, weights)  # first: a product could be too small for the precision
        return torch.stack([sum_per_example(scaled[name] * b[name]) / self._retained(name) for name in a]).sum(0)

    def unit(self, node: str) -> Unit:
        """The unit of a free node."""
        unit = self.nodes[node].unit
        assert unit is not None
        return unit

    @property
    def bilinear(self) -> bool:
        """Whether every term that depends on the state is bilinear."""
        return all(term.bilinear for term in self.terms.values() if not isinstance(term, Field))

    # -- other landscapes derived from this one --

    def over_relaxed(self, factor: Tensor) -> Landscape:
        """The same landscape, whose ``step`` moves ``factor``, (batch,), times the way to the response.

        Units stop at the end of their range. If a unit's own energy is a parabola on that range (``Clip``) and terms
        are linear in each node, no factor below 2 raises the energy.
        """
        return replace(self, rate=factor)

    def select(self, examples: Tensor) -> Landscape:
        """The same landscape for a batch of the given ``examples`` of this one, (n,) int64.

        Phases stacked along the batch repeat each example; a solver can continue with those still moving. The drive of
        the data is not computed again, except by ``rebuilt``: then for these examples only.
        """

        def source(some: Tensor | None, values: Mapping[int, Tensor], reading: int) -> dict[str, Term]:
            return self.source(examples if some is None else examples[some], values, reading)

        return replace(
            self,
            nodes={name: node.select(examples) for name, node in self.nodes.items()},
            masks={name: mask[examples] for name, mask in self.masks.items()},
            terms=select_terms(self.terms, examples),
            like=self.like[examples],
            source=source,
        )

    def with_term(self, name: str, term: Term) -> Landscape:
        """The same landscape with one more term, now and when it is rebuilt.

        Raises:
            InputError: a term has this name already, or the new one names nodes that do not exist.
        """
        if name in self.terms:
            raise InputError(f"The landscape has a term {name!r} already: give the new one another name.")
        if unknown := [node for node in term.nodes if node not in self.nodes]:
            raise InputError(f"The term {name!r} names {unknown}: the free nodes are {list(self.nodes)}.")

        def source(some: Tensor | None, values: Mapping[int, Tensor], reading: int) -> dict[str, Term]:
            return self.source(some, values, reading) | {name: term if some is None else term.select(some)}

        terms = self.terms | {name: term}
        apart = all(len(set(colour).intersection(term.nodes)) < 2 for colour in self.colours)
        colours = self.colours if apart else colouring(self.nodes, terms.values())
        return replace(self, terms=terms, source=source, colours=colours)

    def only(self, terms: Mapping[str, Term]) -> Landscape:
        """The same nodes and data with these ``terms`` only."""
        return self.displaced(self.nodes, terms)

    def displaced(self, nodes: Mapping[str, Node], terms: Mapping[str, Term]) -> Landscape:
        """A landscape of displacements: other nodes and terms, with the batch, colours and masks of this one."""

        def source(some: Tensor | None, values: Mapping[int, Tensor], reading: int) -> dict[str, Term]:
            return dict(terms) if some is None else select_terms(terms, some)

        return replace(self, nodes=nodes, terms=dict(terms), source=source)

    def rebuilt(self, values: Mapping[int, Tensor] | None = None, reading: int | None = None) -> Landscape:
        """The same landscape, built again from the data: within ``enable_grad``, with parameters in its graph.

        Args:
            values: ``id`` of a parameter -> its replacement.
            reading: which reading of the weights, on a substrate; default: the same.
        """
        reading = self.reading if reading is None else reading
        return replace(self, terms=self.source(None, values or {}, reading), reading=reading)

    def remembering(self, other: Landscape) -> Landscape:
        """The same landscape with what the terms of ``other`` cached, a landscape of the same parameters."""
        cached = {n: term for n, term in other.terms.items() if isinstance(term, CachedSynapse | PlacedPrediction)}
        return replace(self, terms=self.terms | cached) if self.reusable else self

    # -- the parts --

    def _step(self, name: str, state: Tensor, masked: State) -> Tensor:
        unit, drive = self.unit(name), self._drive(masked, name)
        stiffness = self._stiffness(masked, name) if unit.parabolic else None
        if stiffness is None:
            return unit.step(state, drive, self.rate)
        response = unit.response(drive + stiffness * state, stiffness)  # type: ignore[call-arg]
        return unit.towards(state, response, self.rate)

    def _stiffness(self, masked: State, name: str) -> Tensor | None:
        parts = [term.stiffness(name, *(masked[n] for n in term.nodes)) for term in self._quadratic.get(name, ())]
        found = [part for part in parts if part is not None]
        if not found:
            return None
        total = sum(found[1:], found[0])
        # A nudge away from its target has a negative one, which counts as long as the others outweigh it: else the
        # terms have no minimum, and a unit goes by its drive alone.
        outweighed = sum((part.clamp_min(0) for part in found[1:]), found[0].clamp_min(0))
        total = torch.where(total > 0, total, outweighed)
        return total * self.masks[name] / self._retained(name) if name in self.masks else total

    def _drive(self, masked: State, node: str) -> Tensor:
        total = self._constant.get(node)
        for term in self.terms.values():
            if node in term.nodes and not isinstance(term, Field):
                drive = term.drive(node, *(masked[n] for n in term.nodes))
                total = drive if total is None else total + drive
        if total is None:  # in a landscape of displacements, a node that only the data drive
            return torch.zeros_like(masked[node])
        # Under autocast messages have fewer bits; sums and states have the data's precision.
        total = total.expand(masked[node].shape).to(masked[node].dtype)
        return total * self.masks[node] if node in self.masks else total

    @cached_property
    def _constant(self) -> dict[str, Tensor]:
        """The constant part of each node's drive: that of data and biases, summed once for a batch."""
        constant: dict[str, Tensor] = {}
        for term in self.terms.values():
            if isinstance(term, Field):
                (node,) = term.nodes
                constant[node] = term.strength + constant[node] if node in constant else term.strength
        return constant

    @cached_property
    def _quadratic(self) -> dict[str, list[Term]]:
        """Node -> the terms that may have a stiffness in it."""
        found: dict[str, list[Term]] = {}
        for term in self.terms.values():
            for node in term.nodes if term.quadratic else ():
                found.setdefault(node, []).append(term)
        return found

    @cached_property
    def _masks(self) -> dict[str, MemoizeLast[Tensor]]:
        return {n: MemoizeLast(partial(torch.mul, mask / self._retained(n))) for n, mask in self.masks.items()}

    def _retained(self, name: str) -> float:
        """The fraction of the node's units that are not dropped, on average."""
        return 1 - self.nodes[name].dropout if name in self.masks else 1.0


def weighted(state: State, weights: Mapping[str, float]) -> State:
    """Each node's state times its weight."""
    return {name: value if weights[name] == 1 else weights[name] * value for name, value in state.items()}


def colouring(nodes: Iterable[str], terms: Iterable[Term]) -> Colours:
    """Sets of nodes that no term couples to each other: two for a chain and every other bipartite graph.

    Breadth first, each node gets the first colour that none of its neighbours has.
    """
    order = list(nodes)
    neighbours: dict[str, set[str]] = {node: set() for node in order}
    for term in terms:
        for a, b in combinations([node for node in term.nodes if node in neighbours], 2):
            neighbours[a].add(b)
            neighbours[b].add(a)
    colour: dict[str, int] = {}
    for root in order:
        queue = [root]
        while queue:
            node = queue.pop(0)
            if node in colour:
                continue
            used = {colour[other] for other in neighbours[node] if other in colour}
            colour[node] = next(c for c in range(len(order)) if c not in used)
            queue.extend(sorted(neighbours[node], key=order.index))
    count = max(colour.values(), default=-1) + 1
    return tuple(tuple(node for node in order if colour[node] == c) for c in range(count))
