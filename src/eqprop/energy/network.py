"""Networks: nodes and couplings; and landscapes: a network with its data held fixed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from eqprop.energy.couplings import CachedSynapse, Coupling, Field, MemoizeLast
from eqprop.energy.losses import Loss
from eqprop.energy.maps import expand_like, sum_per_example
from eqprop.energy.nodes import Node, State
from eqprop.energy.units import Unit
from eqprop.errors import InputError

UNAMPLIFIED: Mapping[str, float] = {}


class Network(nn.Module):
    """E(s) = sum over nodes of G(s_node) + sum over couplings. Parameters and graph; knows no data.

    Args:
        nodes: name -> node. Exactly one has no unit: the input, held at the data.
        couplings: the terms of the energy, named by a mapping, or each by its own ``name``.
        loss: what it is taught, with parameters of its own if it has a read-out. A network that is one block
            of a larger model needs none.
        output: the node whose state the network returns; default: the loss's first, else the last.

    Raises:
        InputError: a coupling names a node that is not there, does not fit its nodes, or is there twice.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        couplings: Mapping[str, Coupling] | Iterable[Coupling],
        loss: Loss | None = None,
        output: str | None = None,
    ):
        super().__init__()
        self.nodes = dict(nodes)
        inputs = [name for name, node in self.nodes.items() if node.unit is None]
        if len(inputs) != 1 or len(self.nodes) < 2:
            raise InputError(f"A network has one node without unit, its input, and others; found {inputs}.")
        self.input = inputs[0]
        self.free = {name: node for name, node in self.nodes.items() if name != self.input}
        self.couplings = nn.ModuleDict(self._named(couplings))
        self.loss = loss
        self.output = output or (loss.nodes[0] if loss is not None else list(self.free)[-1])
        self._check()
        self.colours = colouring(list(self.free), [c.nodes for c in self.terms.values()])

    @property
    def terms(self) -> dict[str, Coupling]:
        """name -> coupling"""
        return dict(self.couplings.items())  # type: ignore[arg-type]

    def landscape(self, x: Tensor, masks: State | None = None) -> Landscape:
        """The energy as a function of the free nodes alone.

        Args:
            x: (batch, *input shape), or any shape with as many units for each example.
            masks: node -> (batch, *node shape) of 0 and 1, from ``draw_masks``; default: every unit is there.
        """
        node = self.nodes[self.input]
        if not x.numel():
            raise InputError(f"A batch of shape {tuple(x.shape)} holds no example: leave empty batches out.")
        if x.ndim < 2 or x[0].numel() != node.units:
            raise InputError(
                f"The network takes (batch, {', '.join(map(str, node.shape))}), not {tuple(x.shape)}: resize the "
                "data, or build the network for its shape."
            )
        if not x.is_floating_point():
            raise InputError(f"The network takes floating-point values, not {x.dtype}: scale them first.")

        def terms(examples: Tensor | None) -> dict[str, Coupling]:
            # Made from x itself each time, so that under grad mode the graph reaches whatever made x.
            chosen = x if examples is None else x[examples]
            data = {self.input: channels_last(chosen.reshape(len(chosen), *node.shape))}
            return {name: term.clamp(data) for name, term in self.terms.items()}

        return Landscape(self.free, terms, self.colours, masks or {}, like=x)

    def draw_masks(self, batch: int) -> State:
        """Which units of the nodes with dropout are there, for each example; from torch's generator."""
        like = next(self.parameters())
        shapes = {name: (batch, *node.shape) for name, node in self.free.items() if node.dropout > 0}
        return {
            name: channels_last((torch.rand(shape, device=like.device) >= self.free[name].dropout).to(like.dtype))
            for name, shape in shapes.items()
        }

    def scores(self, state: State) -> Tensor:
        """What a prediction is read from: the loss's scores, (batch, classes), or the output node's state."""
        if self.loss is None:
            return state[self.output]
        return self.loss.scores(*(state[node] for node in self.loss.nodes))

    def _named(self, couplings: Mapping[str, Coupling] | Iterable[Coupling]) -> dict[str, Coupling]:
        if isinstance(couplings, Mapping):
            pairs = list(couplings.items())
        else:
            pairs = [(coupling.name, coupling) for coupling in couplings]
        named: dict[str, Coupling] = {}
        for name, coupling in pairs:
            if any(coupling is other for other in named.values()):
                raise InputError(f"The coupling {name!r} is in the network twice: its energy would count twice.")
            if name in named:
                raise InputError(f"Two couplings are named {name!r}: pass a mapping from names to couplings.")
            named[name] = coupling
        return named

    def _check(self) -> None:
        users: list[tuple[str, tuple[str, ...]]] = [(name, c.nodes) for name, c in self.terms.items()]
        if self.loss is not None:
            users.append((type(self.loss).__name__, self.loss.nodes))
        for name, named in [*users, ("output", (self.output,))]:
            if unknown := [node for node in named if node not in self.nodes]:
                raise InputError(f"{name} names {unknown}, which this network does not have: {list(self.nodes)}.")
        if self.loss is not None and self.input in self.loss.nodes:
            raise InputError(f"{type(self.loss).__name__} reads {self.input!r}, which is held at the data.")
        for coupling in self.terms.values():
            coupling.bind(self.nodes)
        if self.loss is not None:
            self.loss.bind(self.nodes)
        driven = {node for coupling in self.terms.values() for node in coupling.nodes}
        if idle := [node for node in self.nodes if node not in driven]:
            raise InputError(f"No coupling reaches {idle}: couple them, or leave them out.")


Build = Callable[[Tensor | None], dict[str, Coupling]]
"""(examples of the batch, (n,) int64, or ``None`` for all) -> the terms, made from the data."""


class Landscape:
    """An energy over free nodes, the data held fixed. All that a solver ever sees.

    Silenced units (``masks``) say and hear nothing: neighbours see ``mask / (1 - dropout) * s``, and the unit's
    own drive is multiplied by its mask.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        build: Build,
        colours: tuple[tuple[str, ...], ...],
        masks: State,
        like: Tensor,
        terms: dict[str, Coupling] | None = None,  # what ``build`` would make, where it is known
    ):
        self.nodes, self.colours, self.masks = nodes, colours, masks
        self._build, self._like = build, like
        self.terms = build(None) if terms is None else terms
        self._masked = {name: MemoizeLast(self._mask(name)) for name in masks}
        self._constant = self._constants()
        self._factor: Tensor | None = None

    def zeros(self) -> State:
        """Every free node at zero: where settling starts."""
        batch = len(self._like)
        return {name: channels_last(self._like.new_zeros(batch, *node.shape)) for name, node in self.nodes.items()}

    def energy(self, state: State) -> Tensor:
        """(batch,): of the nodes and of the terms, summed."""
        every = [*self.node_energies(state).values(), *self.term_energies(state).values()]
        return torch.stack(every).sum(0)

    def node_energies(self, state: State) -> dict[str, Tensor]:
        """Each node's own energy, (batch,)."""
        return {
            name: sum_per_example(node.unit.potential(state[name])) / self._kept(name)
            for name, node in self.nodes.items()
            if node.unit is not None
        }

    def term_energies(self, state: State) -> dict[str, Tensor]:
        """Each term's energy, (batch,), by the term's name, which may be that of a node."""
        seen = self.masked(state)
        return {name: term.energy(*(seen[n] for n in term.nodes)) for name, term in self.terms.items()}

    def inner(self, a: State, b: State) -> Tensor:
        """<a, b>, (batch,), over ``a``'s nodes: those with silenced units count as much more as in ``energy``.

        The derivative of the drives is symmetric in this product, and in no other where nodes' dropout differs.
        """
        return torch.stack([sum_per_example(a[name] * b[name]) / self._kept(name) for name in a]).sum(0)

    def contrast(self, state: State, amplification: Mapping[str, float] = UNAMPLIFIED) -> Tensor:
        """(batch,): what a contrastive rule compares between phases; all that the parameters enter.

        Each coupling's share is amplified as the node it drives is (see ``amplification``).
        """
        seen = self.masked(state)
        terms = [
            amplified(term, amplification) * term.contrast(*(seen[n] for n in term.nodes))
            for term in self.terms.values()
        ]
        return torch.stack(terms).sum(0)

    def contrast_difference(
        self, state: State, move: State, amplification: Mapping[str, float] = UNAMPLIFIED
    ) -> Tensor:
        """(batch,): contrast(state + move) - contrast(state); bilinear terms do it without cancellation."""
        seen, moved = self.masked(state), self.masked(move)
        terms = [
            amplified(term, amplification)
            * term.contrast_difference([seen[n] for n in term.nodes], [moved[n] for n in term.nodes])
            for term in self.terms.values()
        ]
        return torch.stack(terms).sum(0)

    def work(self, state: State, move: State, amplification: Mapping[str, float] = UNAMPLIFIED) -> Tensor:
        """(batch,): <drive at ``state``, ``move``>, over all nodes, each amplified."""
        seen, moved = self.masked(state), self.masked(move)
        moved |= {n: by * moved[n] for n, by in amplification.items() if by != 1}
        terms = [
            term.work([seen[n] for n in term.nodes], [moved[n] for n in term.nodes]) for term in self.terms.values()
        ]
        return torch.stack(terms).sum(0)

    def amplification(self, taught: Sequence[str]) -> dict[str, float]:
        """Node -> one over the product of the feedback gains on its way from the ``taught`` nodes; 1 without gains.

        A network with feedback gains rests where the energy sum_n a_n G(s_n) + sum over couplings a E has its
        stationary points, a_n the amplification of a node, a that of the node which a coupling drives. So a rule that
        weighs each coupling by it does equilibrium propagation on that energy. It is the gamma^(k - L) of contrastive
        Hebbian learning (Xie & Seung 2003), for any graph.

        Raises:
            InputError: two ways to a node have different gains, so that there is no such energy; or a gain is 0.
        """
        found, queue = dict.fromkeys(taught, 1.0), list(taught)
        while queue:
            node = queue.pop()
            for name, term in self.terms.items():
                for other in term.nodes if node in term.nodes else ():
                    if not term.gain(node) * term.gain(other):
                        raise InputError(
                            f"The coupling {name!r} has feedback gain 0, so no teacher is heard behind it: give it a "
                            "small gain, or none to learn by."
                        )
                    way = found[node] * term.gain(node) / term.gain(other)
                    if other not in found:
                        found[other] = way
                        queue.append(other)
                    elif not math.isclose(found[other], way, rel_tol=1e-9):
                        raise InputError(
                            f"The feedback gains on two ways from {' and '.join(taught)} to {other!r} multiply to "
                            f"{1 / found[other]:g} and {1 / way:g}: the network then has no energy whose contrast is a "
                            "gradient. Choose gains with the same product on every way."
                        )
        return dict.fromkeys(self.nodes, 1.0) | found

    @property
    def bilinear(self) -> bool:
        """Whether every term that depends on the state is bilinear."""
        return all(term.bilinear for term in self.terms.values() if not isinstance(term, Field))

    def masked(self, state: State) -> State:
        """The state as couplings see it: silenced units at zero, the others scaled up to make good."""
        return state | {name: seen(state[name]) for name, seen in self._masked.items()}

    def drive(self, state: State, node: str) -> Tensor:
        """What all terms together push ``node`` with, (batch, *node shape)."""
        return self._drive(self.masked(state), node)

    def relax(self, state: State, nodes: Iterable[str]) -> State:
        """The response of the given nodes to what the rest of the state drives them with.

        For terms linear in a node (synapses, biases) this is the minimum over that node. For others (lateral
        couplings, the nudged loss) it is one step of a fixed-point iteration.
        """
        seen = self.masked(state)
        new = {}
        for name in nodes:
            unit = self.nodes[name].unit
            assert unit is not None
            response = unit.response(self._drive(seen, name))
            new[name] = response if self._factor is None else self._further(unit, state[name], response)
        return new

    def over_relaxed(self, factor: Tensor) -> Landscape:
        """The same landscape, whose units ``relax`` by ``factor``, (batch,), times the way to their response.

        They stop at the end of the response's range. Where a unit's own energy is a parabola on that range (``Clip``)
        and terms are linear in each node, no factor below 2 raises the energy.
        """
        other = copy.copy(self)
        other._factor = factor
        return other

    def select(self, examples: Tensor) -> Landscape:
        """The same landscape for a batch made of these examples of the present one; (n,) int64.

        Phases stacked along the batch take each example several times; a solver may go on with those still moving.
        What the data do is not computed again, unless ``rebuilt``: then for these examples alone.
        """

        def build(some: Tensor | None) -> dict[str, Coupling]:
            return self._build(examples if some is None else examples[some])

        nodes = {name: node.select(examples) for name, node in self.nodes.items()}
        masks = {name: mask[examples] for name, mask in self.masks.items()}
        return Landscape(nodes, build, self.colours, masks, self._like[examples], select_terms(self.terms, examples))

    def plus(self, name: str, term: Coupling) -> Landscape:
        """The same landscape with one more term."""
        return self.only(self.terms | {name: term})

    def only(self, terms: dict[str, Coupling]) -> Landscape:
        """The same nodes and data with these terms alone."""
        return self.displaced(self.nodes, terms)

    def displaced(self, nodes: Mapping[str, Node], terms: dict[str, Coupling]) -> Landscape:
        """A landscape of displacements of this one's states: its batch, colours and masks, other nodes and terms."""

        def build(examples: Tensor | None) -> dict[str, Coupling]:
            return terms if examples is None else select_terms(terms, examples)

        return Landscape(nodes, build, self.colours, self.masks, self._like)

    def rebuilt(self) -> Landscape:
        """The same landscape, built from the data again: within ``enable_grad``, with parameters in its graph."""
        return Landscape(self.nodes, self._build, self.colours, self.masks, self._like)

    def remembering(self, other: Landscape) -> Landscape:
        """The same landscape, its synapses with what they last carried in ``other``, by the same parameters."""
        return self.only(self.terms | {n: t for n, t in other.terms.items() if isinstance(t, CachedSynapse)})

    def _drive(self, seen: State, node: str) -> Tensor:
        total = self._constant.get(node)
        for term in self.terms.values():
            if node in term.nodes and not isinstance(term, Field):
                push = term.drive(node, *(seen[n] for n in term.nodes))
                total = push if total is None else total + push
        if total is None:  # as in a landscape of displacements, for a node that hears the data alone
            return torch.zeros_like(seen[node])
        # Under autocast messages have fewer bits; sums and states keep the data's precision.
        total = total.expand(seen[node].shape).to(seen[node].dtype)
        return total * self.masks[node] if node in self.masks else total

    def _further(self, unit: Unit, state: Tensor, response: Tensor) -> Tensor:
        assert self._factor is not None
        return torch.lerp(state, response, expand_like(self._factor, state)).clamp_(unit.low, unit.high)

    def _constants(self) -> dict[str, Tensor]:
        """What pushes each node whatever the state: the data's share and the biases, summed once a batch."""
        constant: dict[str, Tensor] = {}
        for term in self.terms.values():
            if isinstance(term, Field):
                (node,) = term.nodes
                constant[node] = term.strength + constant[node] if node in constant else term.strength
        return constant

    def _mask(self, name: str) -> Callable[[Tensor], Tensor]:
        scale = self.masks[name] / self._kept(name)
        return lambda state: scale * state

    def _kept(self, name: str) -> float:
        """The share of the node's units that are there, on average."""
        return 1 - self.nodes[name].dropout if name in self.masks else 1.0


def select_terms(terms: Mapping[str, Coupling], examples: Tensor) -> dict[str, Coupling]:
    return {name: term.select(examples) for name, term in terms.items()}


def amplified(term: Coupling, amplification: Mapping[str, float]) -> float:
    """What a coupling weighs: the amplification of the node it drives."""
    return next((amplification.get(node, 1.0) * term.gain(node) for node in reversed(term.nodes)), 1.0)


def colouring(nodes: list[str], edges: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Sets of nodes that no term couples to each other: two for a chain and every other bipartite graph.

    Breadth first, each node takes the first colour that none of its neighbours has.
    """
    neighbours: dict[str, set[str]] = {node: set() for node in nodes}
    for edge in edges:
        for a, b in combinations([node for node in edge if node in neighbours], 2):
            neighbours[a].add(b)
            neighbours[b].add(a)
    colour: dict[str, int] = {}
    for root in nodes:
        queue = [root]
        while queue:
            node = queue.pop(0)
            if node in colour:
                continue
            taken = {colour[other] for other in neighbours[node] if other in colour}
            colour[node] = next(c for c in range(len(nodes)) if c not in taken)
            queue.extend(sorted(neighbours[node], key=nodes.index))
    return tuple(
        tuple(node for node in nodes if colour[node] == c) for c in range(max(colour.values(), default=-1) + 1)
    )


def channels_last(tensor: Tensor) -> Tensor:
    """Images with their channels innermost, the layout in which pooling and convolution are fastest."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
