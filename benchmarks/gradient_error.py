"""The error of the gradient against the exact one, by sweeps and by seconds.

    python benchmarks/gradient_error.py [--data CIFAR10] [--seeds 3] [--weights RUN/last-....safetensors ...]

On the network of ``cifar10-small``. Exact is the implicit gradient in float64 at the equilibrium that the estimate's
own free state leads to. Two tables: one for the free phase (with the response solved completely), one for the nudged
phase (from a free state at rest), for each order of sweeps, start, solver, form and precision. Medians over seeds of
the initial weights, or over the given checkpoints; each seed has its own images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import matplotlib
import torch
from common import RESULTS, Row, exact_weight_gradients, gradients, images, load, machine, show, timed, write

import eqprop as ep
from eqprop.recipes.setting import innermost
from eqprop.recipes.small import small_network

ORDERS = {
    "synchronous": ep.synchronous,
    "alternating": ep.alternating,
    "forward": ep.settling.forward_order,
    "backward": ep.settling.backward_order,
}
FORMS = {ep.learning.forms.displacements: "displacements", ep.learning.forms.states: "states"}
COUNTS = (2, 4, 8, 16)
Side = tuple[str, int, str, ep.Estimator]
"""(name, sweeps, precision, estimator)"""


def free_sides() -> Iterator[Side]:
    response = ep.settling.ConjugateGradients(30, 1e-6)
    for count in COUNTS:
        for name, order in ORDERS.items():
            yield name, count, "float32", ep.InfinitesimalNudge(ep.FixedSweeps(count, order), response, 0.0)
        for precision in ("float32", "bfloat16"):
            start = ep.FromFeedforward(ep.FixedSweeps(count))
            yield "alternating from feedforward", count, precision, ep.InfinitesimalNudge(start, response, 0.0)
            never = ep.UntilConverged(1e-30, count, norm=ep.settling.relative_norm, over_relaxation=1.5)
            yield (
                "the same, over-relaxed",
                count,
                precision,
                ep.InfinitesimalNudge(ep.FromFeedforward(never), response, 0.0),
            )


def nudged_sides(rest: ep.energy.State) -> Iterator[Side]:
    free = ep.settling.FromState(rest, ep.UntilConverged(1e-4, 5000))
    for count in COUNTS:
        for precision in ("float32", "bfloat16"):
            for damping in (0.0, 0.25):
                name = "conjugate gradients" + (f", damping {damping}" if damping else "")
                solver = ep.settling.ConjugateGradients(count, 0.0)
                yield name, count, precision, ep.InfinitesimalNudge(free, solver, damping)
            sweeps = ep.FixedSweeps(count)
            yield "infinitesimal, sweeps", count, precision, ep.InfinitesimalNudge(free, sweeps, 0.0)
            for form, name in FORMS.items():
                estimator = ep.EquilibriumPropagation(ep.one_sided(0.001), free, sweeps, form=form)
                yield f"one-sided 0.001, {name}", count, precision, estimator
            for beta in (0.01, 0.5):
                for form, name in FORMS.items():
                    estimator = ep.EquilibriumPropagation(ep.symmetric(beta), free, sweeps, form=form)
                    yield f"symmetric {beta}, {name}", 2 * count, precision, estimator


Exact = Callable[[ep.energy.State], tuple[torch.Tensor, ...]]
"""A free state -> the reference gradient."""


def measure(network: ep.Network, x: torch.Tensor, y: torch.Tensor, side: Side, exact: Exact, repeats: int) -> Row:
    name, sweeps, precision, estimator = side
    model = ep.Equilibrium(network, estimator)
    seconds = min(timed(lambda: gradients(model, precision, x, y)) for _ in range(repeats))
    found, free = gradients(model, precision, x, y)
    right = exact(free.state)
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, right, strict=True)]
    flat = [torch.cat([g.double().flatten() for g in each]) for each in (found, right)]
    return {
        "what": name,
        "precision": precision,
        "sweeps": sweeps,
        "seconds": seconds,
        "residual": float(free.residual.max()),
        "error_first_layer": errors[0],
        "error_worst_layer": max(errors),
        "cosine": float(torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0)),
    }


def phases(network: ep.Network, x: torch.Tensor, y: torch.Tensor, repeats: int) -> Iterator[tuple[str, list[Row]]]:
    with torch.no_grad():
        scene = network.landscape(x)
        rest = ep.UntilConverged(1e-6, 5000)(scene, scene.zeros()).state
    at_rest = exact_weight_gradients(network, rest, x, y)

    def own(state: ep.energy.State) -> tuple[torch.Tensor, ...]:
        return exact_weight_gradients(network, state, x, y)

    yield "free", [measure(network, x, y, side, own, repeats) for side in free_sides()]
    yield "nudged", [measure(network, x, y, side, lambda _: at_rest, repeats) for side in nudged_sides(rest)]


def medians(runs: list[list[Row]]) -> list[Row]:
    """The rows of several runs merged: medians of numbers, and the largest error."""
    merged = []
    for rows in zip(*runs, strict=True):
        row: Row = {k: median(r[k] for r in rows) if isinstance(v, float) else v for k, v in rows[0].items()}
        merged.append(row | {"largest_error": max(r["error_worst_layer"] for r in rows)})
    return merged


def tables(options: argparse.Namespace) -> dict[str, Any]:
    pool = images(options.data, options.images * max(options.seeds, len(options.weights)))
    found: dict[str, Any] = {}
    for stage, sources in (("initial", [""] * options.seeds), ("trained", options.weights)):
        runs: dict[str, list[list[Row]]] = {}
        for seed, source in enumerate(sources):
            torch.manual_seed(seed)
            network = innermost(small_network((3, 32, 32), 10))
            if source:
                load(network, source)
            x, y = (tensor[seed * options.images :][: options.images] for tensor in pool)
            for phase, rows in phases(network, x, y, options.repeats):
                runs.setdefault(phase, []).append(rows)
        for phase, repeated in runs.items():
            found[f"{phase}, {stage}"] = medians(repeated)
            show(f"{phase} phase, {stage} weights, {len(repeated)} seeds", found[f"{phase}, {stage}"])
    return found


def draw(found: dict[str, Any]) -> None:
    """The error in the worst layer against sweeps: a panel for each phase and stage."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(5.2 * len(found), 4.6), sharey=True, squeeze=False)
    for panel, (title, rows) in zip(panels[0], found.items(), strict=True):
        for what, precision in sorted({(row["what"], row["precision"]) for row in rows}):
            line = [
                (r["sweeps"], r["error_worst_layer"]) for r in rows if (r["what"], r["precision"]) == (what, precision)
            ]
            style = "-" if precision == "float32" else "--"
            panel.plot(*zip(*line, strict=True), style, marker=".", label=f"{what}, {precision}")
        panel.set(
            xscale="log", yscale="log", xlabel=f"sweeps of the {title.split(',')[0]} phase", title=f"{title} weights"
        )
        panel.legend(fontsize=6)
    panels[0][0].set_ylabel("relative error of the gradient, worst layer")
    figure.tight_layout()
    figure.savefig(RESULTS / "gradient_error.png", dpi=110)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="", help="CIFAR-10, a folder or hub name; default: noise")
    made.add_argument("--weights", nargs="*", default=[], help="checkpoints of cifar10-small, for trained weights")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--images", type=int, default=8)
    made.add_argument("--repeats", type=int, default=1)
    return made


def main() -> None:
    found = tables(parser().parse_args())
    write("gradient_error", found | {"machine": machine()})
    draw(found)


if __name__ == "__main__":
    main()
