"""Networks: nodes and couplings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from eqprop.checks import checked
from eqprop.energy.couplings import Coupling
from eqprop.energy.landscape import Landscape, colouring
from eqprop.energy.losses import Loss, described
from eqprop.energy.nodes import Node, State, check_elementwise
from eqprop.energy.shapes import channels_last
from eqprop.energy.spec import from_spec, to_spec
from eqprop.energy.substitution import may_compute_weights, resolve, swap
from eqprop.energy.substrate import IDEAL, Substrate
from eqprop.energy.terms import Term
from eqprop.errors import InputError

Data = Tensor | Mapping[str, Tensor]
"""The values of the clamped nodes: node -> (batch, *node shape); if there is one such node, its tensor."""


_share: ContextVar[tuple[int, int] | None] = ContextVar("share", default=None)


@contextmanager
def sharing(first: int, total: int) -> Iterator[None]:
    """Within, a batch is a part of one of ``total`` examples, from ``first`` on, that several processes share.

    Units are then dropped as one process would drop them, if all processes have the same random generator.
    """
    token = _share.set((first, total))
    try:
        yield
    finally:
        _share.reset(token)


class Network(nn.Module):
    """E(s) = sum over nodes of G(s_node) + sum over couplings. It has parameters and a graph, and stores no data.

    Args:
        nodes: name -> node.
        couplings: the terms of the energy, named by a mapping, or each by its own ``name``.
        loss: the loss that it learns, which may have parameters (a read-out). A network that is a block of a larger
            model needs none.
        output: the node whose state the network returns; default: the loss's first, else the last.
        clamped: the nodes that are held at data; default: those without a unit. There may be none: the data are then
            a tensor with one row for each example, of any width, which gives the batch size only.
        substrate: the model of the machine that computes this energy.

    Raises:
        InputError: a coupling names a node that does not exist, does not fit its nodes, occurs twice or has no valid
            name; a free node has no unit; a unit is not elementwise, but ``elementwise`` is True.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        couplings: Mapping[str, Coupling] | Iterable[Coupling],
        loss: Loss | None = None,
        output: str | None = None,
        clamped: Iterable[str] | None = None,
        substrate: Substrate = IDEAL,
    ):
        super().__init__()
        self.nodes = dict(nodes)
        without_unit = [name for name, node in self.nodes.items() if node.unit is None]
        self.clamped = tuple(without_unit if clamped is None else clamped)
        self.free = {name: node for name, node in self.nodes.items() if name not in self.clamped}
        if unknown := [name for name in self.clamped if name not in self.nodes]:
            raise InputError(f"clamped names {unknown}, which this network does not have: {list(self.nodes)}.")
        if unheld := [name for name in without_unit if name not in self.clamped]:
            raise InputError(f"{unheld} have no unit and are not clamped: give them one, or clamp them at data.")
        if not self.free:
            raise InputError(f"The network has no free node, only clamped ones {self.clamped}: add a node with a unit.")
        self.couplings = nn.ModuleDict(named(couplings))
        self.loss, self.substrate = loss, substrate
        self.output = output or (loss.nodes[0] if loss is not None else list(self.free)[-1])
        self._check()
        self.colours = colouring(self.free, self.terms.values())

    @property
    def terms(self) -> dict[str, Coupling]:
        """name -> coupling"""
        return dict(self.couplings.items())  # type: ignore[arg-type]

    @property
    def input(self) -> str:
        """The clamped node of a network that has one.

        Raises:
            InputError: it has none, or several.
        """
        if len(self.clamped) != 1:
            raise InputError(f"The network has {len(self.clamped)} clamped nodes, {self.clamped}, not one input.")
        return self.clamped[0]

    @checked
    def on(self, substrate: Substrate) -> Network:
        """The same network with the same parameters on another substrate."""
        twin = swap(self, {})
        twin.substrate = substrate
        return twin

    def spec(self) -> dict[str, Any]:
        """The network without its weights, as JSON: what ``from_spec`` builds it from.

        Raises:
            InputError: a part does not write itself down (a class does if each parameter of its ``__init__`` is an
                attribute of the same name), or weights are computed by parametrisations or hooks.
        """
        if any(map(may_compute_weights, self.modules())):
            raise InputError("Weights that are computed from others have no spec: undo that first.")
        first: dict[int, str] = {}
        named = dict(self.named_parameters(remove_duplicate=False))
        shared = {name: first.setdefault(id(each), name) for name, each in named.items()}
        return to_spec(self, "The network") | {
            "frozen": [name for name, each in named.items() if not each.requires_grad],
            "shared": {name: other for name, other in shared.items() if name != other},
        }

    @classmethod
    @checked
    def from_spec(cls, spec: Mapping[str, Any], allow: Collection[Callable[..., Any]] = ()) -> Self:
        """The network of this ``spec``, with new weights: load its ``state_dict`` next.

        >>> again = Network.from_spec(network.spec(), allow=[MyUnit])

        Args:
            spec: from ``spec``, maybe of a stranger: no code of theirs is run, and nothing is imported. Its weights may
                need any memory: under ``torch.device("meta")`` they need none.
            allow: your own classes and functions that it may name; those of this package need no permission.

        Raises:
            InputError: the spec is malformed, or names another class.
        """
        own = {name: each for name, each in spec.items() if name not in ("frozen", "shared")}
        network = from_spec(own, (*allow, cls))
        if not isinstance(network, cls):
            raise InputError(f"The spec is not what {cls.__name__}.spec() returns: a {type(network).__name__}.")
        known = dict(network.named_parameters())
        frozen, shared = spec.get("frozen"), spec.get("shared")
        if not (isinstance(frozen, list) and isinstance(shared, dict)) or not all(
            isinstance(name, str) and name in known for name in (*frozen, *shared, *shared.values())
        ):
            raise InputError("The spec names parameters, as frozen or shared, that the network does not have.")
        for name, other in shared.items():
            if known[name].shape != known[other].shape:
                raise InputError(f"The spec shares {other!r} with {name!r}, which has another shape.")
            place, _, own_name = name.rpartition(".")
            setattr(network.get_submodule(place), own_name, known[other])
        for name, parameter in network.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(name not in frozen)
        return network

    def landscape(self, data: Data, masks: State | None = None, reading: int = 0) -> Landscape:
        """The energy as a function of the free nodes alone.

        Args:
            data: (batch, *input shape) or (batch, units); for several clamped nodes a mapping from names to such
                tensors.
            masks: node -> (batch, *node shape) of 0 and 1, from ``draw_masks``; default: no unit is dropped.
            reading: the index of the reading of the weights, for a substrate.

        Raises:
            InputError: the data do not fit: names, shapes, precision, or no example.
        """
        held = self.check_data(data)
        like = next(iter(held.values())) if held else data
        assert isinstance(like, Tensor)
        substrate = self.substrate.once()
        nodes = {name: substrate.unit(name, node) for name, node in self.free.items()}
        source = partial(build, self if substrate is self.substrate else self.on(substrate), held)
        return Landscape(
            nodes=nodes,
            terms=source(None, {}, reading),
            masks=masks or {},
            like=like,
            source=source,
            colours=self.colours,
            data=held,
            substrate=substrate,
            reading=reading,
            reusable=substrate.is_ideal and not any(map(may_compute_weights, self.modules())),
        )

    def check_data(self, data: Data) -> dict[str, Tensor]:
        """The data by node. Raises InputError if they do not fit."""
        if not self.clamped:
            self._check_rows(data)
            return {}
        if isinstance(data, Tensor):
            data = {self.input: data}
        if not isinstance(data, Mapping) or set(data) != set(self.clamped):
            given = list(data) if isinstance(data, Mapping) else f"a {type(data).__name__}"
            raise InputError(f"The data must be tensors for the clamped nodes {list(self.clamped)}, not {given}.")
        for name, x in data.items():
            self._check_tensor(name, x)
        if len({len(x) for x in data.values()}) > 1:
            raise InputError(f"The data hold different numbers of examples: { {n: len(x) for n, x in data.items()} }.")
        return {name: data[name] for name in self.clamped}

    def draw_masks(self, batch: int) -> State:
        """Node with dropout -> (batch, *node shape): 0 for dropped units, else 1; from torch's generator."""
        dropped = {name: node for name, node in self.free.items() if node.dropout > 0}
        like = next(self.parameters(), torch.zeros(()))
        first, total = _share.get() or (0, batch)
        drawn = {name: torch.rand(total, *node.shape, device=like.device) for name, node in dropped.items()}
        return {
            name: channels_last((drawn[name][first : first + batch] >= node.dropout).to(like.dtype))
            for name, node in dropped.items()
        }

    def scores(self, state: State) -> Tensor:
        """The scores of a prediction: those of the loss, (batch, classes), or the output node's state."""
        if self.loss is None:
            return state[self.output]
        return self.loss.scores(*(state[node] for node in self.loss.nodes))

    def __repr__(self) -> str:
        """Nodes with shapes and units, couplings with their maps and numbers of parameters."""
        wide = max(map(len, (*self.nodes, *self.terms)))
        lines = [f"Network: {sum(p.numel() for p in self.parameters()):,} parameters; output {self.output!r}"]
        for name, node in self.nodes.items():
            dropout = f", dropout {node.dropout:g}" if node.dropout else ""
            lines.append(f"  {name:<{wide}}  {node.shape}  {'clamped' if name in self.clamped else node.unit}{dropout}")
        parts: dict[str, nn.Module] = dict(self.terms)
        for name, part in (parts | ({} if self.loss is None else {"loss": self.loss})).items():
            count = sum(p.numel() for p in part.parameters())
            over = ", ".join(part.nodes)  # type: ignore[arg-type]
            inner = ", ".join(type(each).__name__ for each in part.children())
            lines.append(f"  {name:<{wide}}  {type(part).__name__}({over})  {inner}  {count:,} parameters")
        return "\n".join(lines)

    def _check_rows(self, data: Data) -> None:
        """Raises InputError where data that only count examples do not."""
        own = next((p.dtype for p in self.parameters()), torch.get_default_dtype())
        if not isinstance(data, Tensor) or not data.ndim or not len(data) or data.dtype != own:
            raise InputError(
                f"The network has no clamped node: pass a tensor (batch, ...) of {own} for its batch size, not "
                f"{described(data)}."
            )

    def _check_tensor(self, name: str, x: Tensor) -> None:
        node = self.nodes[name]
        if not isinstance(x, Tensor):
            raise InputError(f"The data of {name!r} must be a tensor, not a {type(x).__name__}.")
        if not x.numel():
            raise InputError(f"A batch of shape {tuple(x.shape)} holds no example: leave empty batches out.")
        if tuple(x.shape[1:]) not in (node.shape, (node.units,)):
            shapes = " or ".join(
                dict.fromkeys(f"(batch, {', '.join(map(str, s))})" for s in (node.shape, (node.units,)))
            )
            raise InputError(
                f"The node {name!r} takes {shapes}, not {tuple(x.shape)}: resize the data, or build the network for it."
            )
        if not x.is_floating_point():
            raise InputError(f"The node {name!r} takes floating-point values, not {x.dtype}: scale them first.")
        own = next(self.parameters(), x)
        if x.device != own.device:
            raise InputError(
                f"The data of {name!r} are on {x.device}, the network is on {own.device}: move one of them."
            )
        if x.dtype != own.dtype and not torch.is_autocast_enabled(x.device.type):
            raise InputError(
                f"The data of {name!r} are {x.dtype}, the network is {own.dtype}: convert one of them with `.to`."
            )

    def _check(self) -> None:
        users: list[tuple[str, tuple[str, ...]]] = [(name, c.nodes) for name, c in self.terms.items()]
        if self.loss is not None:
            users.append((type(self.loss).__name__, self.loss.nodes))
        for name, nodes in [*users, ("output", (self.output,))]:
            if unknown := [node for node in nodes if node not in self.nodes]:
                raise InputError(f"{name} names {unknown}, which this network does not have: {list(self.nodes)}.")
        if self.output not in self.free:
            raise InputError(f"The output {self.output!r} is held at the data: name a free node.")
        if self.loss is not None and (held := [node for node in self.loss.nodes if node not in self.free]):
            raise InputError(f"{type(self.loss).__name__} reads {held}, held at the data: let it read a free node.")
        for name, node in self.free.items():
            check_elementwise(name, node)
        for coupling in self.terms.values():
            coupling.bind(self.nodes)
        if self.loss is not None:
            self.loss.bind(self.nodes)
        driven = {node for coupling in self.terms.values() for node in coupling.nodes}
        if idle := [node for node in self.nodes if node not in driven]:
            raise InputError(f"No coupling reaches {idle}: couple them, or leave them out.")


def build(
    network: Network, data: Mapping[str, Tensor], some: Tensor | None, values: Mapping[int, Tensor], reading: int
) -> dict[str, Term]:
    """The terms of the network for some of the examples, with ``values`` instead of its parameters."""
    present = resolve(swap(network, values) if values else network)
    # From the data each time, so that under grad mode the graph includes what computed them.
    chosen = {name: x if some is None else x[some] for name, x in data.items()}
    shaped = {n: channels_last(x.reshape(len(x), *network.nodes[n].shape)) for n, x in chosen.items()}
    return {n: present.substrate.mounted(n, c, reading).clamp(shaped) for n, c in present.terms.items()}


def named(couplings: Mapping[str, Coupling] | Iterable[Coupling]) -> dict[str, Coupling]:
    """The couplings by name. Raises InputError if a name is not valid, or a coupling occurs twice."""
    pairs = list(couplings.items()) if isinstance(couplings, Mapping) else [(c.name, c) for c in couplings]
    found: dict[str, Coupling] = {}
    for name, coupling in pairs:
        if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise InputError(f"A coupling cannot be named {name!r}: take a name without dots that no ModuleDict uses.")
        if any(coupling is other for other in found.values()):
            raise InputError(f"The coupling {name!r} is in the network twice: its energy would count twice.")
        if name in found:
            raise InputError(f"Two couplings are named {name!r}: pass a mapping from names to couplings.")
        found[name] = coupling
    return found
