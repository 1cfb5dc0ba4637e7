"""What a page consists of, as plain values: blocks of text, tables, charts and pictures, in sections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Size = tuple[int, int]
"""(width, height), in pixels."""


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: of it.
        tone: "plain", "good", "warning" or "bad"; it chooses the frame.
    """

    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Pairs:
    """Names with their values.

    Attributes:
        pairs: (name, value).
    """

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows.
        header: of the columns.
        rows: as many cells as the header has.
        folded: whether it is shown on demand only.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether it holds numbers, which stand at the right."""
        return [
            bool(self.rows) and all(is_number(row[i]) for row in self.rows if row[i]) for i in range(len(self.header))
        ]


@dataclass(frozen=True)
class Code:
    """Lines to copy.

    Attributes:
        lines: of commands.
    """

    lines: Sequence[str]


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: for the legend.
        x, y: of its points; those that are not finite are left out.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """A chart of lines, points or bars.

    Attributes:
        title: what it shows, with units.
        x: the name of its horizontal axis.
        lines: at least one.
        log: whether its vertical axis is logarithmic; values of 0 or less are then left out.
        log_x: likewise of its horizontal axis.
        form: "line", "points" or "bars".
        diagonal: whether to draw the line of equal values.
        cursor: the horizontal place that each position of a slider marks; () for none.
    """

    title: str
    x: str
    lines: Sequence[Line]
    log: bool = False
    log_x: bool = False
    form: str = "line"
    diagonal: bool = False
    cursor: Sequence[float] = ()


@dataclass(frozen=True)
class Charts:
    """Charts side by side.

    Attributes:
        charts: of them.
    """

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows.

    Attributes:
        png: its bytes.
        size: of the file.
        alt: what it shows, for who does not see it.
        caption: below it; "" for none.
        frames: how many pictures lie below each other in the file.
    """

    png: bytes
    size: Size
    alt: str
    caption: str = ""
    frames: int = 1


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side.

    Attributes:
        caption: what they show.
        pictures: of them.
    """

    caption: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Matrix:
    """How often each class was taken for each.

    Attributes:
        caption: what it shows.
        names: of the classes.
        counts: of the true class (row) that was taken for another (column).
    """

    caption: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]

    def level(self, row: int, column: int) -> int:
        """The share of the row in this cell, from 0 for none to 5 for all."""
        total = sum(self.counts[row])
        return math.ceil(5 * self.counts[row][column] / total) if total else 0


@dataclass(frozen=True)
class Layer:
    """The pictures of one layer in an example that settles.

    Attributes:
        name: of the layer.
        shape: of its units, and how they are drawn.
        free, nudged, difference: pictures with a frame for each sweep that is shown.
    """

    name: str
    shape: str
    free: Picture
    nudged: Picture
    difference: Picture


@dataclass(frozen=True)
class Settling:
    """One example that settles, with a slider over the sweeps of its free and then of its nudged phase.

    Attributes:
        example: the picture of the input, if it is one.
        positions: what the slider says at each of its positions.
        free, nudged: the frame of each phase at each position.
        layers: from the first to the last.
        charts: with a cursor at each position.
    """

    example: Picture | None
    positions: Sequence[str]
    free: Sequence[int]
    nudged: Sequence[int]
    layers: Sequence[Layer]
    charts: Sequence[Chart]


Block = Text | Pairs | Table | Code | Charts | Gallery | Matrix | Settling


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        name: for links to it: letters only.
        title: of it.
        blocks: in their order.
    """

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: of it.
        subtitle: below the title.
        sections: in their order; those without blocks are left out.
        made: when, and by which version.
    """

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=tuple)
    made: str = ""


def is_number(text: str) -> bool:
    """Whether a cell's text begins as a number does."""
    return text.lstrip("-±+<~ ")[:1].isdigit() or text in ("-", "nan", "inf")


def number(value: float) -> str:
    """A number for people: four digits.

    Args:
        value: any.
    """
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.4g}"
