"""Batches of any set of examples, in an order that depends on the seed and the epoch only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from eqprop.draws import generator_for
from eqprop.errors import InputError
from eqprop.tasks.task import Pair, Task, check_position, share_of

Augmentation = Callable[[Any, torch.Generator], Any]
"""(inputs of a batch, generator) -> changed inputs of the same shape."""


class Draw(NamedTuple):
    """Which examples to read, and when: the key of what is random about them.

    Attributes:
        rows: int64, on the CPU.
        seed, epoch: of the run, and of the moment.
    """

    rows: Tensor
    seed: int
    epoch: int


class Examples(ABC):
    """A finite set of examples: the raw inputs and the target of each."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples."""

    @abstractmethod
    def read(self, draws: Iterable[Draw]) -> Iterator[Pair]:
        """The examples of each draw, in this order: inputs (len(rows), ...) and their target."""

    @abstractmethod
    def subset(self, rows: Tensor) -> Self:
        """The examples ``rows``, int64."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the content, which another copy of the same data shares."""

    def to(self, device: torch.device | str) -> Examples:
        """The same in the memory of ``device``, where it lies in memory; else itself: batches are moved."""
        return self

    def take(self, count: int, seed: int) -> Self:
        """``count`` examples, drawn from ``seed``, in their own order.

        Raises:
            InputError: there are not that many.
        """
        if not 1 <= count <= len(self):
            raise InputError(f"Cannot take {count} of {len(self)} examples: ask for 1 to {len(self)}.")
        return self.subset(torch.randperm(len(self), generator=generator_for("take", seed))[:count].sort().values)

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Two random parts, drawn from ``seed``; the first has the share ``fraction`` of the examples.

        Both keep the order of the whole.

        Raises:
            InputError: either would be empty.
        """
        count = round(fraction * len(self)) if fraction - fraction == 0 else 0
        if not 0 < count < len(self):
            raise InputError(
                f"A share of {fraction} of {len(self)} examples leaves one side empty: choose one between 0 and 1."
            )
        order = torch.randperm(len(self), generator=generator_for("split", seed))
        return self.subset(order[:count].sort().values), self.subset(order[count:].sort().values)


@dataclass(frozen=True)
class Batches(Task):
    """Examples in batches; each batch depends only on the seed, the epoch and its index.

    Attributes:
        examples: the examples.
        batch_size: of all processes together.
        normalise: from the raw inputs of a batch to the network's; ``None``: as they are.
        augment: applied one after another to the normalised inputs of a whole batch.
        seed: of the order and of the augmentation.
        shuffle: whether each epoch has a new order; else always that of ``examples``.
        keep_last: whether an epoch includes a last, smaller batch.
        device: of the batches; ``None``: where the examples are.

    Raises:
        InputError: there is no batch.
    """

    examples: Examples
    batch_size: int
    normalise: Callable[[Any], Any] | None = None
    augment: tuple[Augmentation, ...] = ()
    seed: int = 0
    shuffle: bool = True
    keep_last: bool = True
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch size {self.batch_size} is not a number of examples: give 1 or more.")
        if not self.steps:
            raise InputError(
                f"batch size {self.batch_size} leaves no batch of {len(self.examples)} examples: make it smaller, or "
                "keep the last batch."
            )

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def steps(self) -> int:
        whole, rest = divmod(len(self.examples), self.batch_size)
        return whole + (self.keep_last and rest > 0)

    def size(self, index: int) -> int:
        return min(self.batch_size, len(self.examples) - index * self.batch_size)

    def to(self, device: torch.device | str) -> Batches:
        return replace(self, examples=self.examples.to(device), device=device)

    def fingerprint(self) -> str:
        return self.examples.fingerprint()

    def epoch(self, number: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Pair]:
        check_position(start, self.steps, rank, world)
        return self._produce(number, range(start, self.steps), rank, world)

    def _produce(self, number: int, indices: range, rank: int, world: int) -> Iterator[Pair]:
        order = self._order(number)
        # Augmented before it is shared, so that the draws do not depend on the number of processes.
        read, share = (whole, part) if self.augment else (part, whole)
        draws = (
            Draw(order[index * self.batch_size :][read(self.size(index), rank, world)], self.seed, number)
            for index in indices
        )
        for index, (x, y) in zip(indices, self.examples.read(draws), strict=True):
            if self.device is not None:
                x, y = moved(x, self.device), moved(y, self.device)
            x = x if self.normalise is None else self.normalise(x)
            generator = generator_for("augment", self.seed, number, index)
            for change in self.augment:
                x = change(x, generator)
            rows = share(self.size(index), rank, world)
            yield rows_of(x, rows), rows_of(y, rows)

    def sample(self, count: int) -> Pair:
        draw = Draw(self._order(0)[:count], self.seed, 0)
        x, y = next(iter(self.examples.read([draw])))
        if self.device is not None:
            x, y = moved(x, self.device), moved(y, self.device)
        return x if self.normalise is None else self.normalise(x), y

    def _order(self, number: int) -> Tensor:
        count = len(self.examples)
        if not self.shuffle:
            return torch.arange(count)
        return torch.randperm(count, generator=generator_for("order", self.seed, number))


def whole(size: int, rank: int, world: int) -> slice:
    return slice(size)


def part(size: int, rank: int, world: int) -> slice:
    """The share of a process; of an empty share the first example, for the loop to count with weight 0."""
    share = share_of(size, rank, world)
    return share if share.start < share.stop else slice(1)


def rows_of(value: Any, rows: slice | Tensor) -> Any:
    """These rows of each tensor in ``value``."""
    return tree_map(lambda each: each[rows] if isinstance(each, Tensor) else each, value)


def moved(value: Any, device: torch.device | str) -> Any:
    """Each tensor in ``value`` on ``device``."""
    return tree_map(lambda each: each.to(device) if isinstance(each, Tensor) else each, value)
