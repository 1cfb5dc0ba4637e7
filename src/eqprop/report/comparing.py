"""Several runs side by side: curves, the settings that differ, means over seeds and tests of their significance."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from eqprop.errors import InputError, plain
from eqprop.report.blocks import Block, Chart, Charts, Line, Page, Section, Table, Text, number
from eqprop.report.sections import STATES, as_metric
from eqprop.report.subject import Subject, look
from eqprop.report.words import short
from eqprop.runs.folder import versions
from eqprop.training.report import metrics_of

ASIDE = ("out", "checkpoint_seconds", "device", "processes", "threads")
"""Settings of a session that do not change what is learned, up to rounding."""
SEED = "seed"
MOST = 12
"""Runs of a comparison: more have no colours of their own."""
PAIRS = 15
"""Pairs of settings that are tested, at most."""


@dataclass(frozen=True)
class Group:
    """Runs of the same settings but for the seed.

    Attributes:
        name: a letter.
        settings: name -> value, of those that differ between groups.
        runs: of it.
    """

    name: str
    settings: Mapping[str, str]
    runs: Sequence[Subject]


@dataclass(frozen=True)
class Test:
    """Whether two groups differ.

    Attributes:
        kind: of the test.
        difference: of the means, the second minus the first.
        t, freedom: of Student's distribution; ``t`` is infinite if nothing varies.
        p: the probability of a difference as large, if there is none.
    """

    kind: str
    difference: float
    t: float
    freedom: float
    p: float


def page(folders: Sequence[Path]) -> Page:
    """The page that compares runs.

    Args:
        folders: of two runs or more.

    Raises:
        InputError: there are less than two, or too many, or one of them is no run or is named twice.
    """
    if len(folders) < 2:
        raise InputError("A comparison needs two runs or more: `eqprop report RUN` is about one.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("A run is named twice: name each once.")
    runs = [look(folder) for folder in folders]
    names = [short(plain(run.folder.name or str(run.folder))) for run in runs]
    if len(set(names)) < len(names):
        names = [short(plain(str(run.folder))) for run in runs]
    groups = grouped(runs)
    return Page(
        f"Comparison of {len(runs)} runs",
        short(", ".join(names)),
        [
            Section("runs", "Runs", list(overview(runs, names, groups))),
            Section("settings", "Settings that differ", list(differing(groups, runs))),
            Section("results", "Results over seeds", list(results(groups))),
            Section("curves", "Curves", list(curves(runs, names))),
        ],
        f"Made {time.strftime('%Y-%m-%d %H:%M:%S %z')} by eqprop {versions().get('eqprop', '')}.",
    )


def settings_of(run: Subject) -> dict[str, str]:
    """Everything but the seed that may change what a run learns, as text.

    The data count by their kind and size, as a drawn split gives each seed examples of its own; and not by their place.
    A mean of pixels counts if it was given: else it was measured from the examples that the seed has drawn.
    """
    about = run.about
    session = {name: value for name, value in asdict(about.session).items() if name not in ASIDE}
    found: dict[str, Any] = {"recipe": about.recipe, **about.options, **session}
    measured = [name for name in ("mean", "std") if not any(word.startswith(f"--{name}") for word in about.command)]
    for name in (SEED, "eval_batch_size", *measured):
        found.pop(name, None)
    if (manifest := about.manifest) is not None:
        found["data"] = f"{manifest.kind}, {dict(manifest.examples)}, {manifest.form}, {len(manifest.classes)} classes"
    if about.source is not None:
        found["recipe's files"] = sorted(about.source.files.items())
    found |= {"begun with weights of": about.start} if about.start else {}
    return {name: json.dumps(value, default=str, sort_keys=True).strip('"') for name, value in found.items()}


def seed_of(run: Subject) -> Any:
    return run.about.options.get(SEED)


def grouped(runs: Sequence[Subject]) -> list[Group]:
    """The runs by their settings without the seed, in their order."""
    held: dict[tuple[tuple[str, str], ...], list[Subject]] = {}
    for run in runs:
        held.setdefault(tuple(sorted(settings_of(run).items())), []).append(run)
    every = [dict(key) for key in held]
    names = {name for each in every for name in each if any(each.get(name) != other.get(name) for other in every)}
    return [
        Group(letter(i), {name: key.get(name, "-") for name in sorted(names)}, found)
        for i, (key, found) in enumerate(zip(every, held.values(), strict=True))
    ]


def letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"A{index}"


# -- sections --


def overview(runs: Sequence[Subject], names: Sequence[str], groups: Sequence[Group]) -> Iterator[Block]:
    """A row for each run."""
    group_of = {id(run): group.name for group in groups for run in group.runs}
    metrics = list(dict.fromkeys(name for run in runs for name in scored(run)))[:4]
    rows = []
    for run, name in zip(runs, names, strict=True):
        summed = [as_metric(metric, scored(run)[metric]) if metric in scored(run) else "-" for metric in metrics]
        took = sum(row.get("seconds", 0.0) for row in run.history)
        rows.append(
            (
                name,
                group_of[id(run)],
                short(plain(run.about.recipe)),
                short(seed_of(run)) if seed_of(run) is not None else "-",
                STATES[run.state][1],
                f"{run.reached}",
                number(took),
                *summed,
            )
        )
    header = ("run", "settings", "recipe", "seed", "state", "epochs", "seconds", *(f"test {m} (best)" for m in metrics))
    yield Table("Runs; those of one letter have the same settings but for the seed", header, rows)
    prints: dict[Any, set[str]] = {}
    for run in runs:
        if run.about.manifest is not None:
            prints.setdefault(str(seed_of(run)), set()).add(run.about.manifest.fingerprints.get("test", ""))
    if any(len(each) > 1 for each in prints.values()):
        yield Text("Runs of one seed were tested on different data: their results are not comparable.", "bad")
    elif len(set().union(*prints.values())) > 1:
        yield Text(
            "Each seed was tested on other examples, as when the test side is drawn from one file: results vary for "
            "that too.",
            "warning",
        )
    if open_runs := [name for run, name in zip(runs, names, strict=True) if run.state != "finished"]:
        yield Text(f"Not finished, and so in no test: {', '.join(open_runs)}.", "warning")
    for run in runs:
        for note in run.notes:
            yield Text(plain(note), "warning")


def scored(run: Subject) -> dict[str, float]:
    """The test metrics of the best weights that are finite."""
    return {
        name.removeprefix("test_").removesuffix("_best"): float(value)
        for name, value in run.summary.items()
        if name.startswith("test_") and name.endswith("_best") and isinstance(value, int | float)
        if -sys.float_info.max <= value <= sys.float_info.max  # else it has no mean
    }


def differing(groups: Sequence[Group], runs: Sequence[Subject]) -> Iterator[Block]:
    """A row for each setting, a column for each group."""
    names = list(groups[0].settings)
    if not names:
        yield Text("The runs have the same settings, but for their seeds.")
    else:
        rows = [(short(plain(name)), *(short(plain(g.settings[name])) for g in groups)) for name in names]
        header = ("setting", *(f"settings {group.name}" for group in groups))
        yield Table("Settings that are not the same in all runs", header, rows)
    packages = sorted({name for run in runs for name in run.about.versions})
    other = [
        (name, *(short(run.about.versions.get(name, "-")) for run in runs))
        for name in packages
        if len({run.about.versions.get(name) for run in runs}) > 1
    ]
    if other:
        yield Table("Versions that differ", ("package", *(short(run.folder.name) for run in runs)), other)
    if len({run.about.machine for run in runs}) > 1:
        yield Text("The runs were trained on different machines: their seconds are not comparable.", "warning")


def results(groups: Sequence[Group]) -> Iterator[Block]:
    """Means over seeds, and tests between groups."""
    done = [Group(g.name, g.settings, [run for run in g.runs if run.state == "finished"]) for g in groups]
    metrics = list(dict.fromkeys(name for g in done for run in g.runs for name in scored(run)))
    if not metrics:
        yield Text("No run is finished, so there is nothing to compare yet.")
        return
    rows = []
    for metric in metrics:
        for group in done:
            values = [scored(run)[metric] for run in group.runs if metric in scored(run)]
            if values:
                spread = as_metric(metric, stdev(values)) if len(values) > 1 else "-"
                best, worst = as_metric(metric, max(values)), as_metric(metric, min(values))
                rows.append(
                    (metric, group.name, str(len(values)), as_metric(metric, fmean(values)), spread, worst, best)
                )
    header = ("test metric", "settings", "runs", "mean", "standard deviation", "smallest", "largest")
    yield Table("Test metrics of the best weights: means over seeds", header, rows)
    pairs = list(combinations(done, 2))[:PAIRS]
    tested = [
        (metric, one, other, test)
        for metric in metrics
        for one, other in pairs
        if (test := tested_pair(one, other, metric)) is not None
    ]
    if not tested:
        if len(groups) > 1:
            yield Text("A test of significance needs two seeds or more of each setting.")
        return
    compared = list[Sequence[str]]()
    for metric in metrics:
        some = [each for each in tested if each[0] == metric]
        for (_, one, other, test), adjusted in zip(some, holm([each[3].p for each in some]), strict=True):
            compared.append(
                (
                    metric,
                    f"{one.name} to {other.name}",
                    test.kind,
                    as_metric(metric, test.difference),
                    number(test.t),
                    number(test.freedom),
                    number(test.p),
                    number(adjusted),
                )
            )
    yield Table(
        "Do settings differ by more than their seeds?",
        ("test metric", "settings", "test", "difference", "t", "degrees of freedom", "p", "p (Holm)"),
        compared,
    )
    yield Text(
        "Paired: both settings have the same seeds, and each seed is compared with itself. Welch: other seeds, and "
        "each setting has a variance of its own. Both assume differences of a normal distribution; of two or "
        "three seeds they are weak. The last column allows for several comparisons of one metric (Holm's method)."
    )
    if len(list(combinations(done, 2))) > PAIRS:
        yield Text(f"Only the first {PAIRS} pairs of settings are tested: name fewer runs for the others.", "warning")


def curves(runs: Sequence[Subject], names: Sequence[str]) -> Iterator[Block]:
    """Each metric over epochs and over seconds."""
    if len(runs) > MOST:
        yield Text(f"Only the first {MOST} runs are drawn: name fewer for the others.", "warning")
    shown = [(run, name) for run, name in zip(runs, names, strict=True) if run.history][:MOST]
    if not shown:
        yield Text("No run has finished an epoch, so there are no curves yet.")
        return
    metrics = list(dict.fromkeys(name for run, _ in shown for name in ("loss", *metrics_of(run.history[-1])[:2])))[:4]
    for metric in metrics:
        charts = []
        for x in ("epochs", "seconds of training"):
            lines = []
            for run, name in shown:
                side = next((s for s in ("validation", "test") if f"{s}_{metric}" in run.history[-1]), "train")
                factor = 100.0 if metric.endswith("accuracy") else 1.0
                y = [factor * row.get(f"{side}_{metric}", math.nan) for row in run.history]
                at = [row["epoch"] for row in run.history]
                if x != "epochs":
                    at = list(accumulate(row.get("seconds", math.nan) for row in run.history))
                lines.append(Line(f"{name} ({side})", at, y))
            title = metric.replace("_", " ") + (" (%)" if metric.endswith("accuracy") else "")
            charts.append(Chart(f"{title[0].upper()}{title[1:]} over {x}", x, lines))
        yield Charts(charts)


# -- statistics --


def tested_pair(one: Group, other: Group, metric: str) -> Test | None:
    """Paired by seed if both groups have the same seeds, once each; else by Welch; ``None`` if runs are too few."""
    held = [{seed_of(run): scored(run)[metric] for run in g.runs if metric in scored(run)} for g in (one, other)]
    counts = [sum(metric in scored(run) for run in g.runs) for g in (one, other)]
    if min(counts) < 2:
        return None
    if held[0].keys() == held[1].keys() and [len(each) for each in held] == counts:
        return paired([held[0][seed] for seed in held[0]], [held[1][seed] for seed in held[0]])
    first, second = ([scored(run)[metric] for run in g.runs if metric in scored(run)] for g in (one, other))
    return welch(first, second)


def paired(first: Sequence[float], second: Sequence[float]) -> Test:
    """Student's test on the differences of pairs.

    Args:
        first, second: two values or more, of the same seeds in the same order.
    """
    moved = [b - a for a, b in zip(first, second, strict=True)]
    error = stdev(moved) / math.sqrt(len(moved))
    return judged("paired", fmean(moved), error, len(moved) - 1)


def welch(first: Sequence[float], second: Sequence[float]) -> Test:
    """Welch's test, of groups with variances of their own (Welch 1947, doi 10.1093/biomet/34.1-2.28).

    Args:
        first, second: two values or more each.
    """
    parts = [stdev(each) ** 2 / len(each) for each in (first, second)]
    below = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (first, second), strict=True))
    freedom = sum(parts) ** 2 / below if below else float(len(first) + len(second) - 2)
    return judged("Welch", fmean(second) - fmean(first), math.sqrt(sum(parts)), freedom)


def judged(kind: str, difference: float, error: float, freedom: float) -> Test:
    t = difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
    return Test(kind, difference, t, freedom, two_sided(t, freedom))


def two_sided(t: float, freedom: float) -> float:
    """The probability that Student's t is at least as far from 0 as this one.

    With t = sqrt(freedom) tan(angle) its density is that of cos(angle)^(freedom - 1), which Gauss's formula integrates.

    Args:
        t: of a test.
        freedom: its degrees of freedom, at least 1.
    """
    if math.isinf(t):
        return 0.0
    angle = math.atan(abs(t) / math.sqrt(freedom))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    places = angle * (nodes + 1) / 2
    inside = float(weights @ np.cos(places) ** (freedom - 1)) * angle / 2
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return min(1.0, max(0.0, 1 - inside / whole))


def holm(p: Sequence[float]) -> list[float]:
    """Probabilities that allow for several tests (Holm 1979).

    Args:
        p: of each test.
    """
    order, found, largest = sorted(range(len(p)), key=p.__getitem__), list(p), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        found[i] = largest
    return found
