"""What a run trains or is tested on: batches of inputs and targets, which depend on the epoch and the index only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch

from eqprop.errors import InputError

Pair = tuple[Any, Any]
"""(inputs, target): inputs are a tensor (batch, ...), or a mapping from clamped nodes to such; the target is what the
network's loss takes."""


class Task(ABC):
    """A set of examples in batches.

    Batch ``index`` of epoch ``number`` is always the same, however often it is asked for and by whatever process: so a
    run resumes in the middle of an epoch to the same bits, and several processes train as one.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """The number of batches of an epoch, however many processes share them."""

    @abstractmethod
    def size(self, index: int) -> int:
        """The number of examples of batch ``index``, of all processes together."""

    @abstractmethod
    def epoch(self, number: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Pair]:
        """The batches of epoch ``number`` from index ``start`` on: of each the share of process ``rank`` of ``world``.

        The share is ``share_of(size(index), rank, world)``; a process whose share is empty gets the batch's first
        example, which the training loop counts with weight 0. Each batch has new tensors.

        Raises:
            InputError: there is no such batch or process.
        """

    @abstractmethod
    def sample(self, count: int) -> Pair:
        """The first ``count`` examples of epoch 0, or all if there are fewer, without augmentation."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Task:
        """The same, which yields tensors on ``device``."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the content, which another copy of the same data shares."""


def share_of(size: int, rank: int, world: int) -> slice:
    """The part of a batch of ``size`` examples that process ``rank`` of ``world`` computes; they differ by 1."""
    return slice(rank * size // world, (rank + 1) * size // world)


def check_position(start: int, steps: int, rank: int, world: int) -> None:
    """Raises InputError unless ``epoch`` can begin there."""
    if not 0 <= rank < world:
        raise InputError(f"rank {rank} is not one of {world} processes: give 0 to {world - 1}.")
    if not 0 <= start <= steps:
        raise InputError(
            f"batch {start} is not in an epoch of {steps} batches: the data has become smaller, or the batches larger."
        )
