"""Every estimator on one network, against exact gradients: the dense MNIST network of ``recipes/mnist.py``.

    python benchmarks/estimators.py [--data MNIST] [--weights RUN/last-....safetensors] [--images 50] [--seeds 3]

Two references: the exact gradient at the equilibrium that the estimator itself found, and backpropagation through the
feedforward network of the same weights, the limit of weak feedback. Medians over seeds of cosine and relative error,
over all parameters together (without fixed feedback weights). All phases settle so far that only the estimator's own
error remains. Without ``--data`` it uses the embedded digits, with the same network for 8x8 images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from common import Row, load, machine, show, write

import eqprop as ep
from eqprop.diagnostics import compare, implicit
from eqprop.recipes import mnist
from eqprop.tasks import load_images

FAR = ep.FromFeedforward(ep.UntilConverged(1e-10, 2000))
NUDGED = ep.UntilConverged(1e-12, 2000)
Shape = tuple[int, int, int]
Side = tuple[str, Callable[[Shape], ep.Network], ep.Estimator]
"""(name, network, estimator)"""


def plain(shape: Shape) -> ep.Network:
    return mnist.network(shape, 10)


def weak(shape: Shape) -> ep.Network:
    return mnist.network(shape, 10, feedback_gain=0.1)


def random(shape: Shape) -> ep.Network:
    return mnist.random_feedback(shape, 10, feedback_gain=0.1)


def phases(stencil: ep.learning.Stencil, **more: Any) -> ep.EquilibriumPropagation:
    return ep.EquilibriumPropagation(stencil, FAR, NUDGED, **more)


def sides() -> Iterator[Side]:
    for beta in (0.1, 0.4):
        yield f"one-sided EP, beta {beta}", plain, phases(ep.one_sided(beta))
        yield f"symmetric EP, beta {beta}", plain, phases(ep.symmetric(beta))
        yield f"five-point EP, beta {beta}", plain, phases(ep.learning.five_point(beta))
        for points in (4, 6):
            name = f"holomorphic EP, {points} points, beta {beta}"
            yield name, plain, phases(ep.learning.holomorphic(beta, points))
    yield (
        "oscillating nudge, 32 points, beta 0.4",
        plain,
        ep.learning.OscillatingNudge(0.4, 32, FAR, ep.FixedSweeps(1), turns=2),
    )
    yield "infinitesimal nudge", plain, ep.InfinitesimalNudge(FAR, ep.settling.ConjugateGradients(100, 1e-12), 0.0)
    continual = ep.learning.ContinualEP(ep.symmetric(0.1), FAR, ep.FixedSweeps(30), 1e-4)
    yield "continual EP, beta 0.1, rate 1e-4", plain, continual
    agnostic = ep.learning.AgnosticEP(ep.symmetric(0.1), FAR, ep.FixedSweeps(30), 1e-4)
    yield "agnostic EP, beta 0.1, epsilon 1e-4", plain, agnostic
    yield "coupled learning, beta ±0.1", plain, phases(ep.symmetric(0.1), teacher=ep.learning.clamp)
    clamped = ep.one_sided(1.0)
    for name, network in (("gain 1", plain), ("gain 0.1", weak)):
        yield f"contrastive Hebbian, {name}", network, phases(clamped, teacher=ep.learning.clamp)
        for rule, what in (
            (ep.learning.clamped_presynaptic, "clamped"),
            (ep.learning.generalised_recirculation, "free"),
        ):
            yield f"{what} presynaptic, {name}", network, phases(clamped, teacher=ep.learning.clamp, rule=rule)
    yield "contrastive Hebbian, random feedback 0.1", random, phases(clamped, teacher=ep.learning.clamp)
    yield "dual propagation, beta 0.1", plain, ep.learning.DualPropagation(0.1)
    yield "backpropagation through time, 5 of 60", plain, ep.BackpropagationThroughTime(ep.FixedSweeps(60), 5)


def tables(options: argparse.Namespace) -> dict[str, Any]:
    images = load_images(options.data or "digits").test
    pixels, y = images.pixels[: options.images], images.labels[: options.images]
    x = pixels.double() / pixels.max()
    channels, height, width = x.shape[1:]
    references: dict[str, Any] = {"exact": implicit, "backpropagation": ep.Backpropagation()}
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for seed in range(options.seeds):
        for name, build, estimator in sides():
            if options.weights and build is random:
                continue  # the checkpoint has no such feedback weights
            torch.manual_seed(seed)
            network = build((channels, height, width)).double()
            if options.weights:
                load(network, options.weights)
            compared = compare(network, x, y, {name: estimator}, references)
            whole = [row for row in compared.rows if row.parameter == "all"]
            for row in whole:
                if row.problem:
                    print(f"{name}, against {row.reference}, seed {seed}: {row.problem}")
            found.setdefault(name, []).append([(row.cosine, row.error) for row in whole])
    rows: list[Row] = []
    for name, seeds in found.items():
        (cosine, error), (to_it, error_to_it) = (
            [median(seed[which][number] for seed in seeds) for number in (0, 1)] for which in (0, 1)
        )
        rows.append(
            {
                "estimator": name,
                "cosine_with_exact": cosine,
                "error": error,
                "cosine_with_backpropagation": to_it,
                "error_to_it": error_to_it,
            }
        )
    show(f"{'trained' if options.weights else 'initial'} weights, {len(x)} images, {options.seeds} seeds", rows)
    return {"estimators": rows, "settings": {key: str(value) for key, value in vars(options).items()}}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="", help="MNIST, a folder or hub name; default: the embedded digits")
    made.add_argument("--weights", default="", help="a checkpoint of an mnist- recipe; default: initial weights")
    made.add_argument("--images", type=int, default=50)
    made.add_argument("--seeds", type=int, default=3)
    return made


if __name__ == "__main__":
    write("estimators", tables(parser().parse_args()) | {"machine": machine()})
