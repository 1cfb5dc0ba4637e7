"""What a reproduction of a published result consists of, as plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

TRIAL = "trial"
"""The setting of each result that only tests the program."""
FIGURE = "figure.png"
"""The file of a result's figure."""
LAST_LINE = f"![the numbers]({FIGURE})"
"""Ends the page of a result: a page without it is not ours."""
Numbers = Mapping[str, float]
"""Quantity -> value; infinity where the run diverged."""


@dataclass(frozen=True)
class Quantity:
    """What is measured of each row.

    Attributes:
        name: in files.
        label: in tables and figures.
        unit: after the number, "" for none.
        log: whether a figure shows its logarithm.
    """

    name: str
    label: str
    unit: str = ""
    log: bool = False

    def text(self, value: float) -> str:
        """The value for people."""
        if math.isinf(value):
            return "diverged"
        digits = f"{value:.2f}" if self.unit == "%" else f"{value:.3g}"
        return f"{digits} {self.unit}".strip()


@dataclass(frozen=True)
class Training:
    """A run of a recipe: an ordinary folder of a run, which gives ``test_error`` and ``train_error`` in per cent.

    They are of the last epoch; ``best_test_error`` is of the epoch that the run has chosen.

    Attributes:
        recipe: its name.
        options: of the recipe, without data and seed.
    """

    recipe: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Computation:
    """A function that computes numbers, once for each seed.

    Attributes:
        function: (data, seed, ``arguments``) -> numbers.
        arguments: of the function, by name.
    """

    function: Callable[..., Numbers]
    arguments: Mapping[str, Any] = field(default_factory=dict)


Part = Training | Computation


@dataclass(frozen=True)
class Row:
    """A row of the result's table.

    Attributes:
        part: what is run for each seed.
        series: the line of the figure on which the row lies.
        x: its place on that line; ``None`` where rows have no order.
    """

    part: Part
    series: str = ""
    x: float | None = None


@dataclass(frozen=True)
class Setting:
    """A size at which a result is run.

    Attributes:
        about: network, data and phases, in one line.
        cost: how long it takes, and where that was seen.
        deviations: from the published setting, each named.
        rows: by name.
        data: where the examples are, unless the command names another place.
        seeds: as many, from 0.
    """

    about: str
    cost: str
    deviations: Sequence[str]
    rows: Mapping[str, Row]
    data: str = "digits"
    seeds: int = 1


@dataclass(frozen=True)
class Table:
    """The numbers of a result: row -> seed -> quantity -> value."""

    numbers: Mapping[str, Mapping[int, Numbers]]

    def values(self, row: str, quantity: str) -> list[float]:
        """One for each seed. Raises KeyError for a row that has not been run."""
        return [numbers[quantity] for _, numbers in sorted(self.numbers[row].items())]

    def mean(self, row: str, quantity: str = "test_error") -> float:
        """Over seeds."""
        return fmean(self.values(row, quantity))


def table_from(numbers: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Table:
    """The table of numbers as JSON has them, without infinity."""
    return Table(
        {
            row: {
                int(seed): {name: math.inf if value is None else value for name, value in found.items()}
                for seed, found in seeds.items()
            }
            for row, seeds in numbers.items()
        }
    )


@dataclass(frozen=True)
class Claim:
    """Something that the publication says, as a condition on our numbers.

    Attributes:
        text: of it.
        holds: whether the table agrees; it raises KeyError for rows that it lacks.
    """

    text: str
    holds: Callable[[Table], bool]

    def verdict(self, table: Table) -> bool | None:
        """Whether it holds; ``None`` while rows are missing."""
        try:
            return self.holds(table)
        except KeyError:
            return None


@dataclass(frozen=True)
class Result:
    """A published result.

    Attributes:
        title: what it says, in one line.
        source: authors, year, DOI or arXiv number.
        read: from where its figures are known, or why it has none here.
        published: row -> quantity -> the published figure, as it was read in the source's own files; may be empty.
        quantities: the first one is that of the figure.
        claims: what is compared.
        settings: name -> size; the first is the one that is run unless another is asked for.
        across: the label of the figure's horizontal axis, where rows have an ``x``.
        log_x: whether that axis is logarithmic.
    """

    title: str
    source: str
    read: str
    quantities: Sequence[Quantity]
    claims: Sequence[Claim]
    settings: Mapping[str, Setting]
    published: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    across: str = ""
    log_x: bool = False

    def verdicts(self, size: str, table: Table) -> list[tuple[str, bool | None]]:
        """Each claim, and whether it holds; ``None`` while rows are missing, and at the size that shows nothing."""
        return [(each.text, None if size == TRIAL else each.verdict(table)) for each in self.claims]

    @property
    def default(self) -> str:
        """The setting that is run unless another is asked for."""
        return next(iter(self.settings))
