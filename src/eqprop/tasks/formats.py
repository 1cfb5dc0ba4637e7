"""What a trained network takes and gives: from a user's files to its inputs, and from its scores to answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqprop.errors import InputError

Answer = tuple[str | float, ...]
"""One example's answer: a value for each of the names in ``Outputs.header``."""


class Inputs(ABC):
    """How examples are read from files for a trained network. A frozen dataclass of plain values, kept with a run."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[tuple[str, Any]]:
        """The name and the raw input of each example in a file or a folder.

        Raises:
            InputError: it is of another kind, shape or size than the training's.
        """

    @abstractmethod
    def prepare(self, raw: Sequence[Any]) -> Any:
        """The network's inputs, (len(raw), ...), of raw examples.

        Raises:
            InputError: one of them does not fit.
        """


class Outputs(ABC):
    """What a network's scores mean. A frozen dataclass of plain values, kept with a run."""

    @property
    @abstractmethod
    def header(self) -> tuple[str, ...]:
        """The names of the columns of an answer."""

    @abstractmethod
    def answers(self, scores: Tensor, probabilities: Tensor | None) -> list[Answer]:
        """The answer of each example.

        Args:
            scores: (batch, ...), as ``Network.scores``.
            probabilities: (batch, classes), if the loss has classes.
        """


@dataclass(frozen=True)
class Classes(Outputs):
    """One of several classes.

    Attributes:
        names: in the order of the labels.

    Raises:
        InputError: the scores have no probability for each class.
    """

    names: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        return "class", "probability"

    def answers(self, scores: Tensor, probabilities: Tensor | None) -> list[Answer]:
        if probabilities is None or probabilities.shape[1] != len(self.names):
            raise InputError(f"The network's outputs are no probabilities of the {len(self.names)} classes.")
        best = probabilities.max(1)
        return [
            (self.names[label], value) for label, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Values(Outputs):
    """Numbers, in the units of the data.

    Attributes:
        names: of the numbers.
        mean, std: one each: a score is (value - mean) / std.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def header(self) -> tuple[str, ...]:
        return self.names

    def answers(self, scores: Tensor, probabilities: Tensor | None) -> list[Answer]:
        mean, std = (torch.tensor(each, dtype=torch.float64) for each in (self.mean, self.std))
        return [tuple(row) for row in (scores.flatten(1).cpu().double() * std + mean).tolist()]
