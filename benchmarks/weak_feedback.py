"""Weak feedback: cost, accuracy of the gradient, and training, from gain 1 to 0.003, beside backpropagation.

    python benchmarks/weak_feedback.py --data CIFAR10 [--images 10000] [--epochs 2] [--width 1] [--gains 0.01 0.1 1]
    python benchmarks/weak_feedback.py --data CIFAR10 --run RUN    # the weights of a run, and nothing is trained

A network of six convolutions (32, 32, 64, 64, 128, 128 channels times ``--width``, 3x3, max pooling after every second,
clipped units, cross-entropy read-out) is trained at each feedback gain by ``PASSES`` directed sweeps, and as a
feedforward network by backpropagation; each from the same initial weights, with Adam and a rate that falls to 0.

On the trained weights of each gain: the cost of a step over that of backpropagation of the same weights (autograd of
the feedforward network), in one interleaved run of CPU time, and the worst layer's cosine with the exact gradient at
the step's own equilibrium (settled further in float64, implicit differentiation, ``--check`` images).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import matplotlib
import torch
from common import RESULTS, Row, machine, show, write
from step_cost import Feedforward, cosines
from torch import Tensor

import eqprop as ep
from eqprop.recipes.cifar10 import NORMALISE
from eqprop.recipes.setting import innermost, weak
from eqprop.settling import ConjugateGradients
from eqprop.tasks import load_images
from eqprop.training.memory import keep_freed_memory

CHANNELS = (32, 32, 64, 64, 128, 128)
SCALE = 2.5
"""Of the initial kernels, so that activity keeps its size through depth."""
PASSES = {
    0.003: ((2, 1), (3, 2)),
    0.01: ((2, 1), (3, 2)),
    0.03: ((2, 1), (3, 2)),
    0.1: ((3, 2), (5, 4)),
    0.3: ((4, 4), (12, 10)),
    1.0: ((6, 4), (40, 20)),
}
"""Gain -> (sweeps of the free phase, sweeps of the response), the first of which trains."""


def network(gain: float, width: float) -> ep.Network:
    torch.manual_seed(0)
    layers = [ep.ConvLayer(int(width * c), pool=ep.MaxPool(2) if i % 2 else None) for i, c in enumerate(CHANNELS)]
    made = ep.chain((3, 32, 32), layers, partial(ep.ReadoutCrossEntropy, classes=10), feedback_gain=gain)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 4:
                parameter.mul_(SCALE)
    return innermost(made)


def estimator(gain: float, free: int, response: int) -> ep.InfinitesimalNudge:
    """Directed sweeps; at gain 1 alternating ones from the feedforward pass, and conjugate gradients."""
    if gain == 1:
        return ep.InfinitesimalNudge(ep.FromFeedforward(ep.FixedSweeps(free)), ConjugateGradients(response))
    return weak(free, response)


def train(model: ep.Equilibrium, x: Tensor, y: Tensor, epochs: int, batch: int = 64) -> float:
    """Trains on ``x``, (n, 3, 32, 32) bytes; flipped at random. Returns seconds of CPU time."""
    order = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    begin = time.process_time()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(batch):
            if len(rows) == batch:
                flip = torch.rand(batch, generator=order) < 0.5
                pixels = torch.where(flip.view(-1, 1, 1, 1), x[rows].flip(-1), x[rows])
                optimizer.zero_grad()
                model.loss(NORMALISE(pixels), y[rows]).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    return time.process_time() - begin


@torch.no_grad()
def accuracy(model: ep.Equilibrium, x: Tensor, y: Tensor) -> float:
    right = sum(
        int((model(NORMALISE(a)).argmax(1) == b).sum()) for a, b in zip(x.split(200), y.split(200), strict=True)
    )
    return right / len(y)


def costs(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median, over interleaved rounds, of each side's CPU time over that of the first."""
    rounds = []
    for _ in range(repeats + 1):
        row = {}
        for name, run in sides.items():
            begin = time.process_time()
            run()
            row[name] = time.process_time() - begin
        rounds.append(row)
    first = next(iter(sides))
    return {name: median(row[name] / row[first] for row in rounds[1:]) for name in sides}


def rows_of(gain: float, net: ep.Network, x: Tensor, y: Tensor, options: argparse.Namespace) -> list[Row]:
    """A row for each number of passes, on trained weights."""
    feedforward = Feedforward(net)
    sides: dict[str, Callable[[], Any]] = {"backpropagation": lambda: feedforward(x, y).backward()}
    models = {passes: ep.Equilibrium(net, estimator(gain, *passes), "ignore") for passes in PASSES[gain]}
    for passes, model in models.items():
        sides[str(passes)] = lambda m=model: m.loss(x, y).backward()  # type: ignore[misc]
    found = costs(sides, options.repeats)
    few = x[: options.check], y[: options.check]
    with torch.no_grad():
        scene = net.landscape(few[0])
        rests = bool(ep.UntilConverged(1e-3, 300)(scene, scene.zeros()).settled.all())  # else there is no gradient
    rows: list[Row] = []
    for free, response in models:
        row: Row = {
            "gain": gain,
            "free_sweeps": free,
            "response_sweeps": response,
            "cost": found[str((free, response))],
        }
        each = cosines(net, estimator(gain, free, response), "float32", *few) if rests else [math.nan]
        rows.append(row | {"worst_cosine": min(each), "cosines": each})
    return rows


def tables_of_run(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of a run's weights; as values, where they are computed from others."""
    model = ep.load(options.run)
    net = innermost(model.model.network)
    gain = min(float(getattr(term, "feedback_gain", 1)) for term in net.terms.values())
    data = load_images(options.data)
    x = model.inputs.prepare(list(data.test.pixels[: options.batch].numpy()))  # type: ignore[union-attr]
    x = x.contiguous(memory_format=torch.channels_last)
    rows = rows_of(gain, net, x, data.test.labels[: options.batch], options)
    show(f"weak feedback: the weights of {options.run}", rows)
    return {"rows": rows}


def tables(options: argparse.Namespace) -> dict[str, Any]:
    data = load_images(options.data)
    some = data.train.take(options.images, 0)
    x, y = NORMALISE(data.test.pixels[: options.batch]), data.test.labels[: options.batch]
    test = data.test.pixels[: options.test], data.test.labels[: options.test]

    rows: list[Row] = []
    plain = ep.Equilibrium(network(0.03, options.width), ep.Backpropagation(), "ignore")
    seconds = train(plain, some.pixels, some.labels, options.epochs)
    base = {
        "gain": 0.0,
        "cost": 1.0,
        "worst_cosine": "",
        "training_seconds": seconds,
        "accuracy": accuracy(plain, *test),
    }
    for gain in options.gains:
        net = network(gain, options.width)
        model = ep.Equilibrium(net, estimator(gain, *PASSES[gain][0]), "ignore")
        seconds = train(model, some.pixels, some.labels, options.epochs)
        right = accuracy(model, *test)
        for row in rows_of(gain, net, x, y, options):
            trained = (row["free_sweeps"], row["response_sweeps"]) == PASSES[gain][0]
            row |= {"training_seconds": seconds if trained else "", "accuracy": right if trained else ""}
            rows.append(row)
            print(row, flush=True)
    show(f"weak feedback: {options.images} images, {options.epochs} epochs, width {options.width}", rows)
    return {"backpropagation": base, "rows": rows}


def draw(found: dict[str, Any]) -> None:
    """Cost, cosine and accuracy against the gain, for the passes that trained."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in found["rows"] if row["accuracy"] != ""]
    gains = [row["gain"] for row in rows]
    figure, panels = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    names = {
        "cost": ("cost of a step / backpropagation (no unit)", 1.0),
        "worst_cosine": ("cosine with the exact gradient,\nworst layer (no unit)", 1.0),
        "accuracy": ("test accuracy (share of images)", found["backpropagation"]["accuracy"]),
    }
    for axes, (name, (label, base)) in zip(panels, names.items(), strict=True):
        axes.plot(gains, [row[name] for row in rows], "o-", label="equilibrium propagation")
        axes.axhline(base, color="grey", linestyle="--", label="backpropagation" if name != "worst_cosine" else "exact")
        axes.set(xscale="log", xlabel="feedback gain (no unit)", ylabel=label)
        axes.set_xticks(gains, [f"{gain:g}" for gain in gains])
        axes.minorticks_off()
    panels[0].set(yscale="log")
    panels[0].legend()
    figure.savefig(RESULTS / "weak_feedback.png", dpi=150)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True, help="CIFAR-10, a folder or hub name")
    made.add_argument("--run", help="a run of a chain of convolutions, as cifar10-deep; nothing is trained")
    made.add_argument("--images", type=int, default=10_000, help="training images")
    made.add_argument("--test", type=int, default=2_000, help="test images")
    made.add_argument("--epochs", type=int, default=2)
    made.add_argument("--width", type=float, default=1.0)
    made.add_argument("--gains", type=float, nargs="+", default=list(PASSES))
    made.add_argument("--batch", type=int, default=128, help="of the timed steps")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--check", type=int, default=16)
    return made


if __name__ == "__main__":
    keep_freed_memory()
    asked = parser().parse_args()
    found = tables_of_run(asked) if asked.run else tables(asked)
    found |= {"settings": {key: str(value) for key, value in vars(asked).items()}, "machine": machine()}
    write("weak_feedback_of_run" if asked.run else "weak_feedback", found)
    if not asked.run:
        draw(found)
