"""Predictive coding by equilibrium propagation: cost of a step over backpropagation's, and accuracy of the gradient.

    python benchmarks/predictive_coding.py [--data CIFAR10] [--width 0.25] [--batch 64] [--epochs 0] [--sweeps]
    python benchmarks/predictive_coding.py --random

Networks of five and of ten layers: VGG5's five convolutions and a dense layer, as in the recipes, and nine convolutions
and a dense layer (VGG10), channels times ``--width``, cross-entropy, centred nudges at the recipes' beta. The sides of
each, in one interleaved run of CPU time: backpropagation of the same layers (autograd of a feedforward network), one
pass in error coordinates, and with ``--sweeps`` more passes and alternating sweeps of states. The cosine is with
backpropagation, in the worst layer (weights alone), float32, on ``--check`` images, on initial weights and after
``--epochs`` of training on ``--images`` training images by one pass.

With ``--random`` instead: dense random networks of rectified units (width 64, no biases, 16 examples, float64, five
seeds), the worst layer's cosine after numbers of sweeps and passes, median (worst seed); seconds. And against beta.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from common import Row, images, machine, show, write
from torch import Tensor, nn
from torch.nn import functional as F
from weak_feedback import accuracy, costs

import eqprop as ep
from eqprop.energy import Activated, relu
from eqprop.recipes.predictive_coding import PredictiveCoding, Vgg5CrossEntropy, Vgg10, vgg
from eqprop.recipes.setting import innermost, wider
from eqprop.settling import ForwardPass, error_pass
from eqprop.tasks import Normalise, load_images
from eqprop.training.memory import keep_freed_memory

NETWORKS: dict[str, tuple[type[PredictiveCoding], list[ep.ConvLayer]]] = {
    "VGG5": (Vgg5CrossEntropy, vgg(128, 256, "P", 512, "P", 512, "P", 512, "P")),
    "VGG10": (Vgg10, vgg(128, 128, "P", 256, 256, "P", 512, 512, "P", 512, 512, 512, "P")),
}


def network(name: str, width: float) -> ep.Network:
    torch.manual_seed(0)
    options, layers = NETWORKS[name]
    return innermost(
        options(lr=0.01).network(
            (3, 32, 32), 10, lambda given: [wider(each, width) for each in given], layers=layers, loss=ep.CrossEntropy
        )
    )


def worst_cosine(net: ep.Network, estimator: ep.Estimator, x: Tensor, y: Tensor) -> float:
    """With backpropagation, over the weight tensors of all layers."""
    weights = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    found, right = (
        torch.autograd.grad(ep.Equilibrium(net, each, "ignore").loss(x, y), weights)
        for each in (estimator, ep.Backpropagation())
    )
    pairs = zip(found, right, strict=True)
    return min(float(F.cosine_similarity(a.double().flatten(), b.double().flatten(), 0)) for a, b in pairs)


def rows_of(name: str, net: ep.Network, x: Tensor, y: Tensor, options: argparse.Namespace) -> list[Row]:
    beta, depth = NETWORKS[name][0](lr=0.01).beta, len(net.free)
    feedforward = nn.Sequential(*(each for each in net.modules() if isinstance(each, Activated)))
    nudging = ep.symmetric(beta)
    solvers = {"errors, 1 pass": ep.FixedSweeps(1, error_pass)}
    if options.sweeps:
        solvers["errors, 4 passes"] = ep.FixedSweeps(4, error_pass)
        solvers |= {f"states, {count} sweeps": ep.FixedSweeps(count) for count in (depth // 2, depth)}
    estimators = {key: ep.EquilibriumPropagation(nudging, ForwardPass(), each) for key, each in solvers.items()}
    sides: dict[str, Callable[[], Any]] = {"backpropagation": lambda: F.cross_entropy(feedforward(x), y).backward()}
    models = {key: ep.Equilibrium(net, each, "ignore") for key, each in estimators.items()}
    sides |= {key: lambda m=model: m.loss(x, y).backward() for key, model in models.items()}  # type: ignore[misc]
    found = costs(sides, options.repeats)
    few = x[: options.check], y[: options.check]
    return [
        {
            "network": name,
            "layers": depth,
            "beta": beta,
            "nudged": key,
            "cost": found[key],
            "worst_cosine": worst_cosine(net, each, *few),
            "at_a_tenth_of_beta": worst_cosine(net, replace(each, nudging=ep.symmetric(beta / 10)), *few),
        }
        for key, each in estimators.items()
    ]


def train(name: str, net: ep.Network, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of CPU time and test accuracy, after ``--epochs`` by one pass."""
    data = load_images(options.data)
    some, recipe = data.train.take(options.images, 0), NETWORKS[name][0](lr=0.01, epochs=options.epochs)
    normalise = Normalise.measured(data.train)
    model = ep.Equilibrium(net, recipe.estimator, "ignore")
    optimizer, schedule = recipe.optimise(net, options.epochs)
    order, begin = torch.Generator().manual_seed(0), time.process_time()
    for _ in range(options.epochs):
        for rows in torch.randperm(len(some.pixels), generator=order).split(64):
            optimizer.zero_grad()
            model.loss(normalise(some.pixels[rows]), some.labels[rows]).backward()
            optimizer.step()
        schedule.step()
    return time.process_time() - begin, accuracy(model, data.test.pixels[:2000], data.test.labels[:2000])


def random_network(depth: int, gain: float, seed: int, bits: torch.dtype) -> tuple[ep.Network, Tensor, Tensor]:
    """A network with normal weights of deviation gain / sqrt(fan in), 16 random examples and their labels."""
    torch.manual_seed(seed)
    layers = [ep.DenseLayer(64, relu)] * (depth - 1) + [ep.DenseLayer(10, ep.identity)]
    net = ep.models.predictive_chain((64,), layers, ep.CrossEntropy).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, gain / 8) if parameter.ndim > 1 else parameter.zero_()
    return net.to(bits), torch.randn(16, 64, dtype=torch.float64).to(bits), torch.randint(10, (16,))


def random_rows() -> list[Row]:
    rows: list[Row] = []
    for depth, gain, beta in ((5, 1.0, 0.02), (10, 1.0, 0.001), (10, 1.4, 0.001), (10, 1.4, 0.02), (8, 1.6, 0.02)):
        row: Row = {"layers": depth, "gain": gain, "beta": beta}
        for name, solver in (
            ("4 sweeps", ep.FixedSweeps(4)),
            ("as many sweeps as layers", ep.FixedSweeps(depth)),
            ("twice as many", ep.FixedSweeps(2 * depth)),
            ("1 pass", ep.FixedSweeps(1, error_pass)),
            ("4 passes", ep.FixedSweeps(4, error_pass)),
        ):
            estimator = ep.EquilibriumPropagation(ep.symmetric(beta), ForwardPass(), solver)
            networks = [random_network(depth, gain, seed, torch.float64) for seed in range(5)]
            found = sorted(worst_cosine(net, estimator, x, y) for net, x, y in networks)
            row[name] = f"{found[2]:.3f} ({found[0]:.3f})"
        rows.append(row)
    return rows


def beta_rows() -> list[Row]:
    """1 - the worst cosine of one pass against beta, in two precisions: 10 layers, gain 1.4, seed 0."""
    rows: list[Row] = []
    for beta in (0.1, 0.02, 1e-3, 1e-4, 1e-6):
        one = ep.EquilibriumPropagation(ep.symmetric(beta), ForwardPass(), ep.FixedSweeps(1, error_pass))
        kinds = {"float64": torch.float64, "float32": torch.float32}
        row: Row = {"beta": beta}
        for name, bits in kinds.items():
            net, x, y = random_network(10, 1.4, 0, bits)
            row[name] = 1 - worst_cosine(net, one, x, y)
        rows.append(row)
    return rows


def main(options: argparse.Namespace) -> dict[str, Any]:
    keep_freed_memory()
    if options.random:
        tables = {"random": random_rows(), "beta": beta_rows()}
        for name, table in tables.items():
            show(name, table)
        return tables | {"machine": machine()}
    x, y = images(options.data, options.batch)
    rows: list[Row] = []
    for name in options.networks:
        net = network(name, options.width)
        rows += [{"weights": "initial"} | row for row in rows_of(name, net, x, y, options)]
        if options.epochs:
            seconds, right = train(name, net, options)
            print(f"{name}: {options.epochs} epochs of {options.images} images, {seconds:.0f} s, {right:.3f} right")
            rows += [{"weights": "trained"} | row for row in rows_of(name, net, x, y, options)]
    show(f"predictive coding, width {options.width}, {options.batch} images", rows)
    return {"rows": rows, "settings": {key: str(value) for key, value in vars(options).items()}, "machine": machine()}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="", help="CIFAR-10, a folder or hub name; none: noise, and no training")
    made.add_argument("--random", action="store_true", help="random dense networks, without timing")
    made.add_argument("--sweeps", action="store_true", help="sweeps of states too, which take most of the time")
    made.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    made.add_argument("--width", type=float, default=0.25)
    made.add_argument("--batch", type=int, default=64, help="of the timed steps")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--check", type=int, default=16)
    made.add_argument("--epochs", type=int, default=0)
    made.add_argument("--images", type=int, default=10_000, help="training images")
    return made


if __name__ == "__main__":
    options = parser().parse_args()
    write("predictive_coding_random" if options.random else "predictive_coding", main(options))
