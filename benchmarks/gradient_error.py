"""The error of the gradient against the exact one, by sweeps and by seconds.

    python benchmarks/gradient_error.py [--data CIFAR10] [--weights RUN/best-....safetensors] [--images 16]

On the network of ``cifar10-small``. Exact is the implicit gradient in float64 at the equilibrium that the estimate's
own free state leads to. Two tables: what the free phase costs (its response then solved to the end), and what the
nudged phase costs (from a free state at rest), for each order of sweeps, start, solver, form and precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import matplotlib
import torch
from common import RESULTS, Row, exact_weight_gradients, gradients, images, load, machine, show, timed, write

import eqprop as ep
from eqprop.recipes.small import small_network

ORDERS = {
    "synchronous": ep.synchronous,
    "alternating": ep.alternating,
    "forward": ep.forward_order,
    "backward": ep.backward_order,
}
COUNTS = (1, 2, 4, 8, 16, 32)
Side = tuple[str, int, str, ep.Estimator]
"""(what it is, sweeps, precision, estimator)"""


def free_sides() -> Iterator[Side]:
    response = ep.ConjugateGradients(30, 1e-6)
    for count in COUNTS:
        for name, order in ORDERS.items():
            yield name, count, "float32", ep.InfinitesimalNudge(ep.FixedPoint(count, order), response, 0.0)
        for precision in ("float32", "bfloat16"):
            start = ep.FromFeedforward(ep.FixedPoint(count))
            yield "alternating from feedforward", count, precision, ep.InfinitesimalNudge(start, response, 0.0)


def nudged_sides(rest: ep.State) -> Iterator[Side]:
    free = ep.FromState(rest, ep.UntilRest(1e-4, 5000))
    for count in COUNTS:
        for precision in ("float32", "bfloat16"):
            for damping in (0.0, 0.25):
                name = "conjugate gradients" + (f", damping {damping}" if damping else "")
                solver = ep.ConjugateGradients(count, 0.0)
                yield name, count, precision, ep.InfinitesimalNudge(free, solver, damping)
            sweeps = ep.FixedPoint(count)
            yield "infinitesimal, sweeps", count, precision, ep.InfinitesimalNudge(free, sweeps, 0.0)
            for beta in (0.01, 0.5):
                for form, name in ((ep.difference, "difference"), (ep.ordinary, "ordinary")):
                    estimator = ep.EquilibriumPropagation(ep.symmetric(beta), free, sweeps, form=form)
                    yield f"symmetric {beta}, {name}", 2 * count, precision, estimator


def measure(network: ep.Network, x: torch.Tensor, y: torch.Tensor, side: Side, repeats: int) -> Row:
    name, sweeps, precision, estimator = side
    model = ep.Equilibrium(network, estimator)
    seconds = min(timed(lambda: gradients(model, precision, x, y)) for _ in range(repeats))
    found, free = gradients(model, precision, x, y)
    right = exact_weight_gradients(network, free.state, x, y)
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
        "cosine": float(torch.nn.functional.cosine_similarity(*flat, dim=0)),
    }


def tables(options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    x, y = images(options.data, options.images)
    found: dict[str, Any] = {}
    for stage in ("initial", "trained") if options.weights else ("initial",):
        network = small_network((3, 32, 32), 10).to(memory_format=torch.channels_last)
        if stage == "trained":
            load(network, options.weights)
        with torch.no_grad():
            scene = network.landscape(x)
            rest = ep.UntilRest(1e-6, 5000)(scene, scene.rest()).state
        for phase, sides in (("free", free_sides()), ("nudged", nudged_sides(rest))):
            rows = [measure(network, x, y, side, options.repeats) for side in sides]
            show(f"{phase} phase, {stage} weights", rows)
            found[f"{phase}, {stage}"] = rows
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
    made.add_argument("--weights", default="", help="a checkpoint of cifar10-small, for the tables on trained weights")
    made.add_argument("--images", type=int, default=16)
    made.add_argument("--repeats", type=int, default=2)
    return made


def main() -> None:
    found = tables(parser().parse_args())
    write("gradient_error", found | {"machine": machine()})
    draw(found)


if __name__ == "__main__":
    main()
