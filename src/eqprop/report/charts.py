"""Charts as SVG: a few lines each, so that a page stays small and needs no library to be seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count

from markupsafe import Markup, escape

from eqprop.report.blocks import Chart, number

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 40
MOST = 400
"""Points of a line: more than that are thinned out."""
STYLES = 8
"""Colours with dashes of their own, which the style sheet names s0 to s7."""
PADDING = 0.04

_numbers = count(1)

Scale = Callable[[float], float]


def svg(chart: Chart) -> Markup:
    """The chart as an SVG element, with a title and a description in words.

    Args:
        chart: its numbers.
    """
    lines = [points(each.x, each.y, chart) for each in chart.lines]
    every = [point for line in lines for point in line]
    if not every:
        return Markup("<p>No value to draw.</p>")
    xs, ys = [x for x, _ in every], [y for _, y in every]
    if chart.form == "bars" and not chart.log:
        ys = [*ys, 0.0]
    if chart.diagonal:
        xs = ys = [*xs, *ys]
    low_x, high_x = limits(xs, chart.log_x)
    low_y, high_y = limits(ys, chart.log)
    across = scale(low_x, high_x, LEFT, WIDTH - RIGHT, chart.log_x)
    up = scale(low_y, high_y, HEIGHT - BOTTOM, TOP, chart.log)
    name = f"chart{next(_numbers)}"
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}t {name}d">',
        f'<title id="{name}t">{escape(chart.title)}</title>',
        f'<desc id="{name}d">{escape(described(chart))}</desc>',
    ]
    for value in ticks(low_y, high_y, chart.log):
        y = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    whole = all(x == int(x) for x, _ in every)
    for value in ticks(low_x, high_x, chart.log_x, whole and not chart.diagonal):
        x = across(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(chart.x)}</text>')
    if chart.diagonal:
        ends = [across(low_x), up(low_x), across(high_x), up(high_x)]
        parts.append('<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*ends))
    for i, line in enumerate(lines):
        parts += DRAWN[chart.form](i, len(lines), [(across(x), up(y)) for x, y in line])
    if chart.cursor:
        places = ",".join(f"{across(min(max(x, low_x), high_x)):.1f}" for x in chart.cursor)
        first = places.partition(",")[0]
        parts.append(
            f'<line class="cursor" data-places="{places}" x1="{first}" x2="{first}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        )
    return Markup("".join(map(str, [*parts, "</svg>"])))


def swatch(index: int, form: str) -> Markup:
    """The sign of a line for a legend.

    Args:
        index: of the line in its chart.
        form: of the chart.
    """
    style = f"s{index % STYLES}"
    inner = (
        f'<line class="{style} line" x1="1" x2="27" y1="5" y2="5"/>'
        if form == "line"
        else f'<circle class="{style} dot" cx="14" cy="5" r="4"/>'
    )
    return Markup(f'<svg class="swatch" viewBox="0 0 28 10" aria-hidden="true">{inner}</svg>')


def drawn_line(index: int, _: int, places: Sequence[tuple[float, float]]) -> list[str]:
    style = f"s{index % STYLES}"
    if len(places) == 1:
        return drawn_points(index, 1, places)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return [f'<polyline class="{style} line" points="{path}"/>']


def drawn_points(index: int, _: int, places: Sequence[tuple[float, float]]) -> list[str]:
    return [f'<circle class="s{index % STYLES} dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places]


def drawn_bars(index: int, several: int, places: Sequence[tuple[float, float]]) -> list[str]:
    """Steps, so that several lie over each other and stay apart."""
    if not places:
        return []
    half = (places[1][0] - places[0][0]) / 2 if len(places) > 1 else 8
    path = " ".join(f"{x - half:.1f},{y:.1f} {x + half:.1f},{y:.1f}" for x, y in places)
    return [f'<polyline class="s{index % STYLES} line" points="{path}"/>']


DRAWN = {"line": drawn_line, "points": drawn_points, "bars": drawn_bars}


def points(x: Sequence[float], y: Sequence[float], chart: Chart) -> list[tuple[float, float]]:
    """The pairs that can be drawn, at most about ``MOST``."""
    pairs = [
        (float(a), float(b))
        for a, b in zip(x, y, strict=True)
        if math.isfinite(a) and math.isfinite(b) and (b > 0 or not chart.log) and (a > 0 or not chart.log_x)
    ]
    step = -(-len(pairs) // MOST) or 1
    return [*pairs[:-1:step], pairs[-1]] if step > 1 else pairs


def limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    """A range that holds all values, with a margin."""
    low, high = min(values), max(values)
    if log:
        low, high = math.log10(low), math.log10(high)
        margin = max(PADDING * (high - low), 0.05)
        return 10 ** max(low - margin, -300), 10 ** min(high + margin, 300)
    margin = PADDING * (high - low) or 0.1 * abs(low) or 1.0
    return low - margin, high + margin


def scale(low: float, high: float, first: float, last: float, log: bool) -> Scale:
    if log:
        low, high = math.log10(low), math.log10(high)
    return lambda value: first + (last - first) * ((math.log10(value) if log else value) - low) / (high - low)


def ticks(low: float, high: float, log: bool, whole: bool = False) -> list[float]:
    """Three to seven round values in a range; of ``whole`` numbers there may be fewer."""
    if log:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        powers = range(first, last + 1, max(1, -(-(last - first + 1) // 6)))
        found = [10.0**power for power in powers]
        if len(found) > 1:
            return found
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next((step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5), 10 * step)
    step = max(step, 1.0) if whole else step
    begin = math.ceil(low / step)
    return [round(i * step, 12) or 0.0 for i in range(begin, math.floor(high / step) + 1)]


def described(chart: Chart) -> str:
    """The chart in words."""
    if chart.form == "points":
        return f"{sum(len(each.x) for each in chart.lines)} points; horizontal axis: {chart.x}."
    told = []
    for each in chart.lines:
        known = [value for value in each.y if math.isfinite(value)]
        if known:
            told.append(
                f"{each.name}: first {number(known[0])}, last {number(known[-1])}, between {number(min(known))} and "
                f"{number(max(known))}"
            )
    return f"Over {chart.x}. {'; '.join(told[:STYLES])}."
