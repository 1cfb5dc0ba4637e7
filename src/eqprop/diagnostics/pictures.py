"""Pictures of what the laboratory measures: one function for each, from its numbers to a PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eqprop.diagnostics.bias import BiasCurve
from eqprop.diagnostics.comparison import short
from eqprop.diagnostics.suggestion import Suggestion
from eqprop.diagnostics.through_time import ThroughTime
from eqprop.training.report import write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UP, DOWN, MEAN, EXACT = "tab:orange", "tab:purple", "tab:green", "black"


def draw_through_time(path: Path, found: Mapping[str, ThroughTime], title: str) -> None:
    """A row for each network, a panel for each weight tensor: the partial sums of its entry that is largest at last."""
    tensors = [list(each.exact) for each in found.values()]
    tensors = [[name for name in names if name.endswith("weight")] or names for names in tensors]
    figure, panels = grid(len(found), max(map(len, tensors)))
    for row, (network, each), names in zip(panels, found.items(), tensors, strict=True):
        for axes, name in zip(row, names, strict=False):
            entry = int(each.exact[name][-1].abs().argmax())
            lines = {
                f"+beta ({each.beta:g})": (each.plus, ":", UP),
                "-beta": (each.minus, ":", DOWN),
                "their mean": (each.mean, "--", MEAN),
                "backpropagation": (each.exact, "-", EXACT),
            }
            for label, (sums, style, colour) in lines.items():
                values = [0.0, *sums[name].flatten(1)[:, entry].tolist()]
                axes.plot(values, style, marker=".", color=colour, label=label, lw=1 if style == "-" else 2)
            place = tuple(int(i) for i in np.unravel_index(entry, tuple(each.exact[name].shape[1:])))
            axes.set(xlabel="K (sweeps)", ylabel=f"R(K) of entry {place} (loss / weight)")
            axes.set_title(f"{network}: {short(name)}", fontsize=10)
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in row[len(names) :]:
            axes.set_visible(False)
    panels[0][0].legend(fontsize=8)
    finish(path, figure, f"{title}: the estimate after K nudged sweeps,\nand backpropagation through the last K sweeps")


def draw_bias(path: Path, found: Mapping[str, Mapping[str, BiasCurve]], title: str) -> None:
    """A panel for each network, a curve for each family of estimators, and its fitted power law."""
    figure, ((*row,),) = grid(1, len(found), share=True)
    for axes, (network, curves) in zip(row, found.items(), strict=True):
        for i, (name, curve) in enumerate(curves.items()):
            label = name if np.isnan(curve.order) else f"{name}: order {curve.order:.2f}"
            axes.loglog(curve.betas, curve.errors, "o", color=f"C{i}", ms=4, label=label)
            fitted = np.array(curve.fitted)
            axes.loglog(fitted, curve.constant * fitted**curve.order, "-", color=f"C{i}", lw=1)
        axes.set(xlabel="beta (no unit)")
        axes.set_title(network, fontsize=10)
        axes.legend(loc="upper left", fontsize=8)
    row[0].set(ylabel="relative error of the gradient (no unit)")
    row[0].set_ylim(top=300 * row[0].get_ylim()[1])  # room for the legend
    about = (
        "error against the exact gradient at the same equilibrium, settled far;\nlines: power laws fitted to the points"
    )
    finish(path, figure, f"{title}: {about} that they cross")


def draw_distance(path: Path, found: Mapping[str, Mapping[str, float]], title: str) -> None:
    """A bar for each tensor and network."""
    figure, (((axes,),)) = grid(1, 1, size=(8.5, 4.4))
    names = list(next(iter(found.values())))
    width = 0.8 / len(found)
    for i, (network, distances) in enumerate(found.items()):
        places = np.arange(len(names)) + (i - (len(found) - 1) / 2) * width
        bars = axes.bar(places, [distances[name] for name in names], width, label=network)
        axes.bar_label(bars, fmt="%.2g", fontsize=8)
    axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=15, ha="right")
    axes.set(
        ylim=(0, 1.25), xlabel="parameter tensor", ylabel="relative distance (no unit)\n1: no nearer than ±beta alone"
    )
    axes.legend(loc="upper right", fontsize=8)
    finish(
        path, figure, f"{title}: the mean of the ±beta estimates,\nits distance from backpropagation relative to theirs"
    )


def draw_convergence(path: Path, found: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """A panel for each phase, a line for each node."""
    figure, ((*row,),) = grid(1, len(found), share=True)
    for axes, (phase, nodes) in zip(row, found.items(), strict=True):
        for node, residuals in nodes.items():
            values = np.array(residuals)
            axes.semilogy(range(1, len(values) + 1), np.where(values > 0, values, np.nan), ".-", label=node)
        axes.set(xlabel="sweeps")
        axes.set_title(phase, fontsize=10)
        axes.legend(fontsize=8)
    row[0].set_ylabel("largest change of a unit in the sweep\n(units of the state)")
    finish(path, figure, f"{title}: how far each node is from rest")


def draw_angles(path: Path, found: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """A line for each rule and each synapse with feedback weights of its own."""
    figure, (((axes,),)) = grid(1, 1, size=(8.5, 4.4))
    for i, (rule, synapses) in enumerate(found.items()):
        for synapse, angles in synapses.items():
            axes.plot(angles, ".-", color=f"C{i}" if len(found) > 1 else None, label=f"{rule}: {synapse}")
    axes.axhline(90, color="grey", lw=0.8, ls=":")
    axes.set(xlabel="epochs", ylabel="angle between feedforward\nand feedback weights (degrees)", ylim=(0, 100))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)
    finish(path, figure, title)


def draw_noise(
    path: Path, found: Mapping[str, tuple[Suggestion, BiasCurve, Sequence[tuple[float, float]]]], title: str
) -> None:
    """A panel for each family: its suggestion, and (beta, noise) and bias as measured; lines are the model fitted."""
    figure, ((*row,),) = grid(1, len(found), share=True)
    for axes, (family, (suggestion, curve, noises)) in zip(row, found.items(), strict=True):
        betas = np.geomspace(min(curve.betas), max(curve.betas), 100)
        bias, noise = ([f(beta) for beta in betas] for f in (suggestion.bias, suggestion.noise))
        axes.loglog(curve.betas, curve.errors, "o", color="C0", ms=4, label="bias, measured")
        axes.loglog(*zip(*noises, strict=True), "s", color="C1", ms=4, label="noise, measured")
        axes.loglog(betas, bias, "-", color="C0", lw=1, label=f"bias, two probes: beta^{suggestion.order}")
        axes.loglog(betas, noise, "-", color="C1", lw=1, label="noise, one probe: 1 / beta")
        axes.loglog(betas, np.add(bias, noise), "--", color="grey", lw=1, label="their sum")
        axes.axvline(suggestion.beta, color="C3", lw=1, label=f"suggested: beta {suggestion.beta:.2g}")
        axes.set(xlabel="beta (no unit)")
        axes.set_title(family, fontsize=10)
        axes.legend(loc="lower left", fontsize=8)
    row[0].set(ylabel="error relative to the gradient (no unit)")
    row[0].set_ylim(bottom=row[0].get_ylim()[0] / 1e4)  # room for the legend
    finish(path, figure, title)


def grid(rows: int, columns: int, share: bool = False, size: tuple[float, float] = (4.8, 4.0)) -> tuple[Figure, Any]:
    """A figure of ``rows`` x ``columns`` panels, as an array of that shape."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    figure = Figure(figsize=(max(size[0] * columns, 7.5), size[1] * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=share)
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    return figure, panels


def finish(path: Path, figure: Figure, title: str) -> None:
    figure.suptitle(title, fontsize=11)
    write_figure(path, figure)
