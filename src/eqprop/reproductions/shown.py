"""Reproductions for people: the figure, the page in their folder, and the list of all of them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from eqprop.errors import needing_extra
from eqprop.reproductions.result import LAST_LINE, TRIAL, Quantity, Result, Setting, Table, table_from

VERDICTS = {True: "holds", False: "does not hold here", None: "not known"}
NOTHING = "–"
"""In a table, where there is no figure."""


def lines_of(result: Result, table: Table) -> list[list[str]]:
    """The table of a result as text: for each row the published and our figures of each quantity, and the seeds.

    The first line is the header. A column of published figures that would be empty is left out.
    """
    published = {each.name for each in result.quantities if any(each.name in row for row in result.published.values())}
    head = ["row"]
    for each in result.quantities:
        head += [f"{each.label}, published", "here"] if each.name in published else [each.label]
    lines = [[*head, "seeds"]]
    for row in [*table.numbers, *(name for name in result.published if name not in table.numbers)]:
        line, seeds = [row], len(table.numbers.get(row, {}))
        for each in result.quantities:
            line += [result.published.get(row, {}).get(each.name, NOTHING)] * (each.name in published)
            line.append(spread(each, table.values(row, each.name)) if seeds else NOTHING)
        lines.append([*line, str(seeds)])
    return lines


def spread(quantity: Quantity, values: Sequence[float]) -> str:
    """The mean over seeds, and the range of several."""
    if len(values) == 1 or math.isinf(max(values)):
        return quantity.text(max(values))
    low, high = (quantity.text(each).removesuffix(quantity.unit).strip() for each in (min(values), max(values)))
    return f"{quantity.text(fmean(values))} ({low} to {high})"


def markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    """The table in Markdown."""
    head, *rest = lines
    return [f"| {' | '.join(line)} |" for line in (head, ["---", *["---:"] * (len(head) - 1)], *rest)]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The table for a terminal."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(f"{each:<{width}}" for each, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def verdicts(result: Result, size: str, table: Table) -> list[str]:
    """Each claim, with what became of it at a setting."""
    return [f"{text}: {VERDICTS[holds]}" for text, holds in result.verdicts(size, table)]


def told(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def made_by(entry: Mapping[str, Any]) -> str:
    """Where, when and by what the numbers of an entry were made."""
    runs = "1 run" if entry["runs"] == 1 else f"{entry['runs']} runs"
    of_runs = f"commit {', '.join(each[:12] for each in entry['commits'])}; " if entry["commits"] else ""
    return (
        f"{runs}, {told(entry['seconds'])} in all, on {'; '.join(entry['machines'])}; {of_runs}manifest "
        f"{entry['manifest'][:12]} of {entry['made'][:10]}, written by commit {entry['commit'][:12] or 'unknown'}"
    )


def page(name: str, result: Result, size: str, entry: Mapping[str, Any], data: str = "") -> str:
    """The page in the folder of a reproduction, in Markdown; ``data``: where a command said that they are."""
    told_of = [f"# {result.title}", "", f"{result.source}. {result.read}", ""]
    told_of += [f"The data were read from `{data}`.", ""] if data else []
    return "\n".join([*told_of, *section(name, result, size, [entry]), "", LAST_LINE, ""])


def section(name: str, result: Result, size: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is known of a result at a setting, in Markdown; ``entries``: of each manifest, by ``work.entry_of``."""
    setting = result.settings[size]
    table = joined(setting, entries)
    return [
        f"Setting `{size}`: {setting.about}",
        "",
        *markdown(lines_of(result, table)),
        "",
        *(f"- {each}." for each in verdicts(result, size, table)),
        "",
        "Different from the publication:",
        "",
        *(f"- {each}" for each in setting.deviations),
        "",
        f"Measured by {called(name, result, size)}, " + "; and ".join(sources(entries)) + ".",
    ]


def joined(setting: Setting, entries: Sequence[Mapping[str, Any]]) -> Table:
    """The numbers of all manifests, in the order of the setting's rows."""
    numbers = {
        row: {seed: each for e in entries for seed, each in e["numbers"].get(row, {}).items()} for row in setting.rows
    }
    return table_from({row: found for row, found in numbers.items() if found})


def whole_page(results: Mapping[str, Result], measured: Mapping[str, Mapping[str, Sequence[Any]]]) -> str:
    """All results with the figures of this package, in Markdown."""
    lines: list[str] = []
    for name, result in results.items():
        lines += [f"## {name}", "", f"**{result.title}.** {result.source}. {result.read}", ""]
        for size, entries in measured.get(name, {}).items():
            lines += [*section(name, result, size, entries), ""]
        waiting = [size for size in result.settings if size not in {TRIAL, *measured.get(name, {})}]
        lines += [f"- Not run yet: {command(name, result, size)}" for size in waiting]
        lines += [""] * bool(waiting)
    return "\n".join(lines).strip()


def called(name: str, result: Result, size: str) -> str:
    """The command that runs a setting."""
    option = "" if size == result.default else f" --setting {size}"
    return f"`eqprop reproduce {name}{option}`"


def sources(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each manifest its seeds, how they were made, and where there are several of them its rows."""
    rows = [f"{'; '.join(entry['numbers'])}, " if len(entries) > 1 else "" for entry in entries]
    return [f"{row}{seeds_of(entry)}: {made_by(entry)}" for row, entry in zip(rows, entries, strict=True)]


def seeds_of(entry: Mapping[str, Any]) -> str:
    """The seeds of which there are numbers."""
    found = sorted({int(seed) for row in entry["numbers"].values() for seed in row})
    return f"{'seed' if len(found) == 1 else 'seeds'} {', '.join(map(str, found))}"


def command(name: str, result: Result, size: str) -> str:
    """How a setting is run, and what it costs."""
    return f"{called(name, result, size)} ({result.settings[size].cost})"


def listing(results: Mapping[str, Result], measured: Mapping[str, Mapping[str, Sequence[Any]]]) -> list[str]:
    """All results with the figures of this package, as lines for a terminal."""
    lines: list[str] = []
    for name, result in results.items():
        lines += [f"{name}: {result.title}", f"  {result.source}. {result.read}"]
        for size, setting in result.settings.items():
            if size == TRIAL:
                continue
            lines.append(f"  {command(name, result, size).replace('`', '')}: {setting.about}")
            if entries := measured.get(name, {}).get(size):
                table = joined(setting, entries)
                lines += [f"    {line}" for line in aligned(lines_of(result, table))]
                lines += [f"    {line}" for line in verdicts(result, size, table)]
                lines += [f"    {each}" for each in sources(entries)]
            lines += [f"    differs: {each}" for each in setting.deviations]
        lines.append("")
    return lines


def draw(result: Result, setting: Setting, table: Table) -> bytes:
    """The figure of a result, PNG: lines over ``x`` where rows have one, else a point for each run."""
    with needing_extra("A figure"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    quantity, figure = result.quantities[0], Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    label = f"{quantity.label} ({quantity.unit})" if quantity.unit else quantity.label
    rows = [row for row in setting.rows if row in table.numbers]
    log = quantity.log and any(0 < each < math.inf for row in rows for each in table.values(row, quantity.name))
    if any(setting.rows[row].x is not None for row in rows):
        series: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            known = setting.rows[row]
            if known.x is not None:
                values = [value for value in table.values(row, quantity.name) if math.isfinite(value)]
                series.setdefault(known.series, []).extend((known.x, value) for value in values)
        for name, points in series.items():
            across = sorted({x for x, _ in points})
            means = [fmean(y for at, y in points if at == x) for x in across]
            (line,) = axes.plot(across, means, label=name or None)
            axes.plot(*zip(*points, strict=True), "o", color=line.get_color(), markersize=3)
        axes.set(
            xlabel=result.across, ylabel=label, **({"xscale": "log"} if result.log_x and any(series.values()) else {})
        )
        axes.set_yscale("log" if log else "linear")
        if any(series):
            axes.legend(fontsize=8)
    else:
        for place, row in enumerate(rows):
            values = [value for value in table.values(row, quantity.name) if math.isfinite(value)]
            axes.plot(values, [place] * len(values), "o")
        axes.set_yticks(range(len(rows)), rows)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.set_xscale("log" if log else "linear")
    axes.set_title(result.title, fontsize=9, wrap=True)
    axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    return picture.getvalue()
