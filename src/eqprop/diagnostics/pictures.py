"""The panels of the pictures of ``eqprop check``. ``axes`` are matplotlib's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eqprop.diagnostics.bias import BiasCurve, Suggestion
from eqprop.diagnostics.through_time import ThroughTime

WIDE = (8.5, 4.4)


def draw_through_time(axes: Any, panel: tuple[ThroughTime, str]) -> None:
    """The partial sums of one entry of a parameter: the one with the largest final sum."""
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


def draw_bias(axes: Any, curves: Mapping[str, BiasCurve]) -> None:
    """A curve for each family of estimators, and its fitted power law."""
    for i, (name, curve) in enumerate(curves.items()):
        label = name if np.isnan(curve.order) else f"{name}: order {curve.order:.2f}"
        axes.loglog(curve.betas, curve.errors, "o", color=f"C{i}", ms=4, label=label)
        fitted = np.array(curve.fitted)
        axes.loglog(fitted, curve.constant * fitted**curve.order, "-", color=f"C{i}", lw=1)


def draw_distance(axes: Any, found: Mapping[str, Mapping[str, float]]) -> None:
    """A bar for each tensor and network."""
    width = 0.8 / len(found)
    for i, (network, distances) in enumerate(found.items()):
        places = np.arange(len(distances)) + (i - (len(found) - 1) / 2) * width
        bars = axes.bar(places, list(distances.values()), width, label=network)
        axes.bar_label(bars, fmt="%.2g", fontsize=8)
        axes.set_xticks(range(len(distances)), list(distances), rotation=15, ha="right")
    axes.set_ylim(0, 1.25)


def draw_convergence(axes: Any, nodes: Mapping[str, Sequence[float]]) -> None:
    """A line for each node."""
    for node, residuals in nodes.items():
        values = np.array(residuals)
        axes.semilogy(range(1, len(values) + 1), np.where(values > 0, values, np.nan), ".-", label=node)


def draw_angles(axes: Any, rules: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A line for each rule and each synapse with separate feedback weights."""
    for i, (rule, synapses) in enumerate(rules.items()):
        for synapse, angles in synapses.items():
            axes.plot(angles, ".-", color=f"C{i}" if len(rules) > 1 else None, label=f"{rule}: {synapse}")
    axes.axhline(90, color="grey", lw=0.8, ls=":")
    axes.set_ylim(0, 100)


def draw_noise(axes: Any, panel: tuple[Suggestion, BiasCurve, Sequence[tuple[float, float]]]) -> None:
    """The suggested beta; measured bias and noise, the latter in pairs (beta, noise); the fitted model as lines."""
    suggestion, curve, noises = panel
    betas = np.geomspace(min(curve.betas), max(curve.betas), 100)
    bias, noise = ([f(beta) for beta in betas] for f in (suggestion.bias, suggestion.noise))
    axes.loglog(curve.betas, curve.errors, "o", color="C0", ms=4, label="bias, measured")
    axes.loglog(*zip(*noises, strict=True), "s", color="C1", ms=4, label="noise, measured")
    axes.loglog(betas, bias, "-", color="C0", lw=1, label=f"bias, fitted: beta^{suggestion.order:.2f}")
    axes.loglog(betas, noise, "-", color="C1", lw=1, label="noise, one probe: 1 / beta")
    axes.loglog(betas, np.add(bias, noise), "--", color="grey", lw=1, label="their sum")
    axes.axvline(suggestion.beta, color="C3", lw=1, label=f"suggested: beta {suggestion.beta:.2g}")
