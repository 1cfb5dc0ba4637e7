"""Pictures of what the laboratory measures: one function for each, from its numbers to a PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eqprop.diagnostics.bias import BiasCurve
from eqprop.diagnostics.comparison import short
from eqprop.diagnostics.suggestion import Suggestion
from eqprop.diagnostics.through_time import ThroughTime
from eqprop.training.report import write_figure

BETA = "beta (no unit)"
WIDE = (8.5, 4.4)


def draw_through_time(path: Path, found: Mapping[str, ThroughTime], title: str) -> None:
    """A row for each network, a panel for each weight tensor: the partial sums of its entry that is largest at last."""

    def draw(axes: Any, panel: tuple[ThroughTime, str]) -> None:
        each, name = panel
        exact = each.exact[name]
        entry = int(exact[-1].abs().argmax())
        for label, sums, style, colour in (
            (f"+beta ({each.beta:g})", each.plus, ":", "tab:orange"),
            ("-beta", each.minus, ":", "tab:purple"),
            ("their mean", each.mean, "--", "tab:green"),
            ("backpropagation", each.exact, "-", "black"),
        ):
            values = [0.0, *sums[name].flatten(1)[:, entry].tolist()]
            axes.plot(values, style, marker=".", color=colour, label=label, lw=1 if style == "-" else 2)
        place = tuple(int(i) for i in np.unravel_index(entry, tuple(exact.shape[1:])))
        axes.set_ylabel(f"R(K) of entry {place} (loss / weight)")

    names = list(next(iter(found.values())).exact)
    names = [name for name in names if name.endswith("weight")] or names
    panels = {f"{network}: {short(name)}": (each, name) for network, each in found.items() for name in names}
    title = f"{title}: the estimate after K nudged sweeps,\nand backpropagation through the last K sweeps"
    write_figure(path, title, panels, draw, "K (sweeps)", rows=len(found), whole=True)


def draw_bias(path: Path, found: Mapping[str, Mapping[str, BiasCurve]], title: str) -> None:
    """A panel for each network, a curve for each family of estimators, and its fitted power law."""

    def draw(axes: Any, curves: Mapping[str, BiasCurve]) -> None:
        for i, (name, curve) in enumerate(curves.items()):
            label = name if np.isnan(curve.order) else f"{name}: order {curve.order:.2f}"
            axes.loglog(curve.betas, curve.errors, "o", color=f"C{i}", ms=4, label=label)
            fitted = np.array(curve.fitted)
            axes.loglog(fitted, curve.constant * fitted**curve.order, "-", color=f"C{i}", lw=1)

    y = "relative error of the gradient (no unit)"
    about = "error against the exact gradient at the same equilibrium, settled far"
    title = f"{title}: {about};\nlines: power laws fitted to the points that they cross"
    write_figure(path, title, found, draw, BETA, y, share=True, room=(1, 300), legend="upper left")


def draw_distance(path: Path, found: Mapping[str, Mapping[str, float]], title: str) -> None:
    """A bar for each tensor and network."""

    def draw(axes: Any, names: Sequence[str]) -> None:
        width = 0.8 / len(found)
        for i, (network, distances) in enumerate(found.items()):
            places = np.arange(len(names)) + (i - (len(found) - 1) / 2) * width
            bars = axes.bar(places, [distances[name] for name in names], width, label=network)
            axes.bar_label(bars, fmt="%.2g", fontsize=8)
        axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=15, ha="right")
        axes.set_ylim(0, 1.25)

    title = f"{title}: the mean of the ±beta estimates,\nits distance from backpropagation relative to theirs"
    y = "relative distance (no unit)\n1: no nearer than ±beta alone"
    names = list(next(iter(found.values())))
    write_figure(path, title, {"": names}, draw, "parameter tensor", y, legend="upper right", size=WIDE)


def draw_convergence(path: Path, found: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """A panel for each phase, a line for each node."""

    def draw(axes: Any, nodes: Mapping[str, Sequence[float]]) -> None:
        for node, residuals in nodes.items():
            values = np.array(residuals)
            axes.semilogy(range(1, len(values) + 1), np.where(values > 0, values, np.nan), ".-", label=node)

    y = "largest change of a unit in the sweep\n(units of the state)"
    write_figure(path, f"{title}: how far each node is from rest", found, draw, "sweeps", y, share=True)


def draw_angles(path: Path, found: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """A line for each rule and each synapse with feedback weights of its own."""

    def draw(axes: Any, rules: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        for i, (rule, synapses) in enumerate(rules.items()):
            for synapse, angles in synapses.items():
                axes.plot(angles, ".-", color=f"C{i}" if len(rules) > 1 else None, label=f"{rule}: {synapse}")
        axes.axhline(90, color="grey", lw=0.8, ls=":")
        axes.set_ylim(0, 100)

    y = "angle between feedforward\nand feedback weights (degrees)"
    write_figure(path, title, {"": found}, draw, "epochs", y, whole=True, size=WIDE)


Noise = tuple[Suggestion, BiasCurve, Sequence[tuple[float, float]]]
"""What was suggested; the bias as measured; pairs of beta and the noise as measured."""


def draw_noise(path: Path, found: Mapping[str, Noise], title: str) -> None:
    """A panel for each family; lines are the model fitted."""

    def draw(axes: Any, panel: Noise) -> None:
        suggestion, curve, noises = panel
        betas = np.geomspace(min(curve.betas), max(curve.betas), 100)
        bias, noise = ([f(beta) for beta in betas] for f in (suggestion.bias, suggestion.noise))
        axes.loglog(curve.betas, curve.errors, "o", color="C0", ms=4, label="bias, measured")
        axes.loglog(*zip(*noises, strict=True), "s", color="C1", ms=4, label="noise, measured")
        axes.loglog(betas, bias, "-", color="C0", lw=1, label=f"bias, two probes: beta^{suggestion.order}")
        axes.loglog(betas, noise, "-", color="C1", lw=1, label="noise, one probe: 1 / beta")
        axes.loglog(betas, np.add(bias, noise), "--", color="grey", lw=1, label="their sum")
        axes.axvline(suggestion.beta, color="C3", lw=1, label=f"suggested: beta {suggestion.beta:.2g}")

    y = "error relative to the gradient (no unit)"
    write_figure(path, title, found, draw, BETA, y, share=True, room=(1e-4, 1), legend="lower left")
