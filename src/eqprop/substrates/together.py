"""What faults have in common, and substrates of several."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from textwrap import shorten
from typing import Self

import torch
from torch import Tensor

from eqprop.checks import Natural, checked
from eqprop.draws import Generator, generator_for
from eqprop.energy.couplings import Coupling
from eqprop.energy.losses import Nudge, SquaredError
from eqprop.energy.nodes import Node, State
from eqprop.energy.substrate import IDEAL, Substrate
from eqprop.energy.terms import Term
from eqprop.energy.units import Identity
from eqprop.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Fault(Substrate):
    """The base of faults that are drawn at random.

    Args:
        seed: of all draws; another seed is another machine.
    """

    seed: Natural = 0

    def fixed(self, shape: Iterable[int], *names: str) -> Tensor:
        """Standard normal numbers, float64 on the CPU, that depend on the class, the seed and the names alone."""
        return fixed_normal(tuple(shape), type(self).__name__, self.seed, *names)


@dataclass(frozen=True, kw_only=True)
class Anew(Fault):
    """The base of faults that are drawn anew for each batch, and for each reading if a subclass says so."""

    batch: int = field(default=0, init=False, repr=False, compare=False)
    generator: Generator = field(default_factory=Generator, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.generator.manual_seed(self.seed)

    def as_made(self) -> Substrate:
        return IDEAL

    def once(self) -> Self:
        twin = copy.copy(self)
        object.__setattr__(twin, "batch", int(torch.randint(2**62, (), generator=self.generator)))
        return twin

    def generators(self) -> Iterable[torch.Generator]:
        return (self.generator,)

    def drawn(self, *names: str | int) -> torch.Generator:
        """A generator for this batch and these names."""
        return generator_for(type(self).__name__, self.seed, self.batch, *names)

    def noise(self, like: Tensor, *names: str | int) -> Tensor:
        """Standard normal numbers in the shape and precision of ``like``: the same for the same batch and names.

        Of a complex number both parts are standard normal.
        """
        parts = (2,) if like.is_complex() else ()
        found = torch.randn(like.shape + parts, generator=self.drawn(*names), dtype=torch.float64)
        return (torch.view_as_complex(found) if parts else found).to(like)


@lru_cache(maxsize=64)
def fixed_normal(shape: tuple[int, ...], *key: str | int) -> Tensor:
    """Standard normal numbers for this key; kept, as each batch asks for them. Nobody changes them in place."""
    return torch.randn(shape, generator=generator_for(*key), dtype=torch.float64)


@lru_cache(maxsize=64)
def fixed_uniform(shape: tuple[int, ...], *key: str | int) -> Tensor:
    """Numbers uniform in [0, 1), as ``fixed_normal``."""
    return torch.rand(shape, generator=generator_for(*key), dtype=torch.float64)


class Together(Substrate):
    """Several faults, one after the other: each takes what the one before it returns.

    Args:
        parts: the substrates, of any kind; none: the ideal one.

    Raises:
        InputError: one is no substrate.
    """

    def __init__(self, *parts: Substrate):
        if wrong := [each for each in parts if not isinstance(each, Substrate)]:
            raise InputError(f"Together: {wrong[0]!r} is no substrate: give objects, such as ReadNoise(1e-3).")
        self.parts = parts

    @property
    def per_phase(self) -> bool:  # type: ignore[override]
        """Whether one of them reads its weights anew in each phase."""
        return any(part.per_phase for part in self.parts)

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        for part in self.parts:
            coupling = part.mounted(name, coupling, reading)
        return coupling

    def unit(self, name: str, node: Node) -> Node:
        for part in self.parts:
            node = part.unit(name, node)
        return node

    def injected(self, nudge: Term) -> Term:
        for part in self.parts:
            nudge = part.injected(nudge)
        return nudge

    def aimed(self, node: str, gap: Tensor) -> Tensor:
        for part in self.parts:
            gap = part.aimed(node, gap)
        return gap

    def measured(self, state: State, reading: int) -> State:
        for part in self.parts:
            state = part.measured(state, reading)
        return state

    def as_made(self) -> Substrate:
        made = [part.as_made() for part in self.parts]
        return Together(*made) if not all(each.is_ideal for each in made) else IDEAL

    def faults(self) -> tuple[Substrate, ...]:
        """The parts, and in place of a ``Together`` its own parts; ideal ones are left out."""
        found = [part.faults() if isinstance(part, Together) else (part,) for part in self.parts]
        return tuple(each for some in found for each in some if not each.is_ideal)

    def once(self) -> Self:
        twin = copy.copy(self)
        twin.parts = tuple(part.once() for part in self.parts)
        return twin

    def generators(self) -> Iterable[torch.Generator]:
        return [generator for part in self.parts for generator in part.generators()]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Together) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return f"Together({', '.join(map(repr, self.parts))})"


@dataclass(frozen=True)
class TwoCircuits(Substrate):
    """Two copies of a machine, each with its own weights and readers; phases use them in turn.

    Effect: what differs between the two, of size p, adds p / beta, with one-sided and symmetric nudges alike.
    Remedy: one circuit for all phases, one after the other; or phases in the order A B B A, the option
        ``there_and_back`` of EquilibriumPropagation, which reads each phase from both: p, whatever beta.
    Source: an abstract reports 33 % on MNIST with two circuits of which a tenth is defective, and 92 % with one.

    Args:
        first: for the free phase, predictions and every second nudged phase.
        second: for the others.

    Raises:
        InputError: one of them changes units or nudges, which a network has once.
    """

    first: Substrate
    second: Substrate

    def __post_init__(self) -> None:
        node, nudge = Node((1,), Identity()), Nudge(SquaredError("a", (1,)), torch.zeros(1, 1), torch.ones(1))
        for each in (self.first, self.second):
            if each.unit("a", node) is not node or each.injected(nudge) is not nudge:
                raise InputError(f"TwoCircuits: {each} changes units or nudges: put it beside them by Together.")

    @property
    def per_phase(self) -> bool:  # type: ignore[override]
        """Whether the two differ."""
        return self.first != self.second or self.first.per_phase

    def of(self, reading: int) -> Substrate:
        """The circuit of this reading."""
        return self.second if reading > 0 and reading % 2 else self.first

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        return self.of(reading).mounted(name, coupling, reading)

    def measured(self, state: State, reading: int) -> State:
        return self.of(reading).measured(state, reading)

    def as_made(self) -> Substrate:
        return self.first.as_made()

    def once(self) -> Self:
        return type(self)(self.first.once(), self.second.once())

    def generators(self) -> Iterable[torch.Generator]:
        return (*self.first.generators(), *self.second.generators())


def with_parts(substrate: Substrate, change: Callable[[Substrate], Substrate]) -> Substrate:
    """The substrate with ``change`` of each single fault in the place of it, within those of several too."""
    if isinstance(substrate, Together):
        twin = copy.copy(substrate)
        twin.parts = tuple(with_parts(part, change) for part in substrate.parts)
        return twin
    if isinstance(substrate, TwoCircuits):
        return replace(
            substrate, first=with_parts(substrate.first, change), second=with_parts(substrate.second, change)
        )
    return change(substrate)


def short(substrate: Substrate) -> str:
    """The substrate, for a message."""
    return "the ideal substrate" if substrate.is_ideal else shorten(repr(substrate), 100, placeholder=" ...")


@checked
def redrawn(substrate: Substrate, number: Natural) -> Substrate:
    """Another machine of the same kind: each fault has ``seed + 1,000,000 number`` for its seed.

    Memory that ages is another time programmed, cells and units spread otherwise, noise is other noise.

    Args:
        substrate: of one fault or several.
        number: which machine; 0 has the draws of this one.

    Returns:
        The other substrate; parts that are no ``Fault`` are the same.

    Raises:
        InputError: a part has no seed, so that all machines would be the same.
    """

    def again(part: Substrate) -> Substrate:
        return replace(part, seed=part.seed + 1_000_000 * number) if isinstance(part, Fault) else part

    found = with_parts(substrate, again)
    if number and found == substrate:
        raise InputError(f"{short(substrate)} draws nothing by a seed, so all would be the same: draw once.")
    return found
