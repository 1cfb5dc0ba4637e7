"""The rules for separate feedback, against the exact gradient, at angles between feedforward and feedback weights.

    python benchmarks/asymmetry.py [--data MNIST] [--images 20] [--seeds 3]

The network is that of the recipe ``mnist-asymmetric`` with initial weights, in float64. Medians over seeds of cosine
and relative error, over all parameters together; all phases settle so far that only the estimator's own error remains.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import Row, machine, show, write

import eqprop as ep
from eqprop.diagnostics import compare
from eqprop.recipes import mnist
from eqprop.tasks import load_images

FAR = ep.FromFeedforward(ep.UntilConverged(1e-10, 2000))
NUDGED = ep.UntilConverged(1e-12, 2000)
ANGLES = (0, 30, 60, 90)


def symmetric(rule: ep.learning.Rule, teacher: ep.learning.Teacher) -> Callable[[float], ep.Estimator]:
    return lambda beta: ep.EquilibriumPropagation(ep.symmetric(beta), FAR, NUDGED, rule, teacher=teacher)


RULES = {
    "vector field": symmetric(ep.vector_field, ep.learning.force),
    "Kolen-Pollack": symmetric(ep.learning.kolen_pollack, ep.learning.force),
    "asymmetric EP": symmetric(ep.vector_field, ep.learning.corrected),
    "dyadic EP": lambda beta: ep.learning.DyadicEP(beta, FAR, NUDGED),
}


def tables(options: argparse.Namespace) -> dict[str, Any]:
    images = load_images(options.data).test
    pixels, y = images.pixels[: options.images], images.labels[: options.images]
    x = pixels.double() / pixels.max()
    _, channels, height, width = x.shape
    estimators = {f"{name}, beta {beta}": make(beta) for name, make in RULES.items() for beta in (0.1, 0.01)}
    rows: list[Row] = []
    for angle in ANGLES:
        found = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            network = mnist.turned_feedback((channels, height, width), 10, angle=angle, learn_feedback=True)
            found.append(compare(network.double(), x, y, estimators))
        for name in estimators:
            whole = [each.of(name) for each in found]
            for row in whole:
                if row.problem:
                    print(f"{name}, {angle} degrees: {row.problem}")
            cosine, error = median(row.cosine for row in whole), median(row.error for row in whole)
            rows.append({"angle": angle, "estimator": name, "cosine": cosine, "error": error})
    show(f"initial weights, {len(x)} images, {options.seeds} seeds", rows)
    return {"asymmetry": rows, "settings": {key: str(value) for key, value in vars(options).items()}}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="digits", help="MNIST, a folder or hub name; default: the embedded digits")
    made.add_argument("--images", type=int, default=20)
    made.add_argument("--seeds", type=int, default=3)
    return made


if __name__ == "__main__":
    write("asymmetry", tables(parser().parse_args()) | {"machine": machine()})
