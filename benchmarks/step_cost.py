"""One training step of the seed paper's CIFAR-10 network: the seed's way, backpropagation, and this library's ways.

    python benchmarks/step_cost.py [--batch 32] [--repeats 3] [--check 8] [--weights RUN/best-....safetensors]

Every round times each side once, in turn; medians and ratios are of those rounds. A step is everything from a batch to
the gradients, without the optimiser. The seed's way (autograd of the energy, float32, synchronous, 250 + 2 x 25 sweeps)
is timed on ``--seed_sweeps`` sweeps of each phase and scaled up, since all its sweeps cost the same.

The quality of each estimate is its cosine, layer by layer, with the exact gradient at the equilibrium that it found:
settled on from its own free state in float64, by implicit differentiation, on ``--check`` images.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import eqprop as ep
from eqprop.recipes.cifar10 import NORMALISE
from eqprop.training.data import load_images

T1, T2, BETA = 250, 25, 1.0


def build() -> ep.Network:
    layers = [ep.ConvLayer(128), ep.ConvLayer(256), ep.ConvLayer(512), ep.ConvLayer(512, padding=0)]
    return ep.chain((3, 32, 32), layers, partial(ep.ReadoutCrossEntropy, classes=10))


class Seed(ep.Estimator):
    """The seed's way: every drive by autograd of the whole energy, one phase after another."""

    def __init__(self, free: int = T1, nudged: int = T2):
        self.free, self.nudged = free, nudged

    def sweep(self, landscape: ep.Landscape, state: ep.State) -> ep.State:
        with torch.enable_grad():
            leaves = {node: value.detach().requires_grad_() for node, value in state.items()}
            energy = sum(t.energy(*(leaves[n] for n in t.nodes)).sum() for t in landscape.terms.values())
            slopes = torch.autograd.grad(energy, list(leaves.values()))
        return {
            node: landscape.nodes[node].activation.response(-slope)  # type: ignore[union-attr]
            for node, slope in zip(leaves, slopes, strict=True)
        }

    def __call__(self, landscape: ep.Landscape) -> Any:
        solver = ep.EquilibriumPropagation(
            ep.symmetric(BETA),
            ep.FixedPoint(self.free, self.sweep),
            ep.FixedPoint(self.nudged, self.sweep),
            form=ep.ordinary,
            stacked=False,
        )
        return solver(landscape)


class Feedforward(nn.Module):
    """The same weights without feedback: what backpropagation trains."""

    def __init__(self, network: ep.Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        terms = self.network.terms
        below = self.network.input
        for name, node in self.network.free.items():
            x = node.activation.response(terms[f"{below}_{name}"].map(x) + terms[f"{name}_bias"].bias)  # type: ignore[union-attr, operator]
            below = name
        return self.network.loss(y, x).mean()  # type: ignore[misc]


class From(ep.Solver):
    """Goes on from a state that another solver found."""

    def __init__(self, state: ep.State):
        self.state = state

    def __call__(self, landscape: ep.Landscape, start: ep.State) -> ep.Settled:
        return ep.UntilRest(1e-12, 3000)(landscape, {n: v.double() for n, v in self.state.items()})


def cosines(network: ep.Network, estimator: ep.Estimator, x: Tensor, y: Tensor) -> dict[str, float]:
    record, model = ep.Record(), ep.Equilibrium(network, estimator)
    weights = {name: p for name, p in network.named_parameters() if name.endswith("weight")}
    found = torch.autograd.grad(model.loss(x, y, record=record), list(weights.values()))
    assert record.free is not None
    twin = copy.deepcopy(network).double()
    exact = ep.Equilibrium(twin, ep.ImplicitDifferentiation(From(record.free.state), tolerance=1e-8))
    right = torch.autograd.grad(exact.loss(x.double(), y), [p for n, p in twin.named_parameters() if n in weights])
    return {
        name.split(".")[-3 if "map" in name else -2]: round(
            float(F.cosine_similarity(a.double().flatten(), b.flatten(), 0)), 4
        )
        for name, a, b in zip(weights, found, right, strict=True)
    }


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", type=int, default=8)
    parser.add_argument("--seed_sweeps", type=int, default=5)
    parser.add_argument("--data", default="", help="CIFAR-10, a folder or hub name; default: random images")
    parser.add_argument("--weights", default="", help="a checkpoint's safetensors file; default: initial weights")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step_cost.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    network = build().to(memory_format=torch.channels_last)
    if options.weights:
        saved = {k.removeprefix("model.network."): v for k, v in load_file(options.weights).items() if "model." in k}
        network.load_state_dict(saved)
    if options.data:
        images = load_images(options.data, "test").take(options.batch)
        x, y = NORMALISE(images.pixels), images.labels
    else:
        x, y = torch.randn(options.batch, 3, 32, 32), torch.arange(options.batch) % 10

    low = ep.Reduced
    cg, rest = ep.ConjugateGradients(6, 1e-3), ep.UntilRest(1e-3, 60)
    sides: dict[str, ep.Estimator] = {
        "symmetric, ordinary, 60 + 15, float32": ep.EquilibriumPropagation(
            ep.symmetric(0.1), ep.FixedPoint(60), ep.FixedPoint(15), form=ep.ordinary
        ),
        "infinitesimal, float32": ep.InfinitesimalNudge(rest, cg, 0.0),
        "infinitesimal, bfloat16": ep.InfinitesimalNudge(low(rest), low(cg), 0.0),
        "infinitesimal, bfloat16, damped": ep.InfinitesimalNudge(low(rest), low(cg)),
    }
    short = Seed(options.seed_sweeps, options.seed_sweeps)
    scale = (T1 + 2 * T2) / (3 * options.seed_sweeps)
    feedforward = Feedforward(network)
    steps: dict[str, Callable[[], object]] = {
        "seed schedule (scaled)": lambda: ep.Equilibrium(network, short).loss(x, y).backward(),
        "backpropagation, float32": lambda: feedforward(x, y).backward(),
    }

    def half() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = feedforward(x, y)
        loss.backward()

    steps["backpropagation, bfloat16"] = half
    for name, estimator in sides.items():
        steps[name] = lambda e=estimator: ep.Equilibrium(network, e).loss(x, y).backward()  # type: ignore[misc]
    for run in steps.values():
        run()
    rounds = [{name: timed(run) for name, run in steps.items()} for _ in range(options.repeats)]
    for times in rounds:
        times["seed schedule (scaled)"] *= scale
    table = []
    for name in steps:
        row: dict[str, Any] = {"step": name, "seconds": median(r[name] for r in rounds)}
        row["seed_over_it"] = median(r["seed schedule (scaled)"] / r[name] for r in rounds)
        half_bits = "backpropagation, " + ("bfloat16" if "bfloat16" in name else "float32")
        row["it_over_backpropagation"] = median(r[name] / r[half_bits] for r in rounds)
        if name in sides and options.check:
            row["cosines"] = cosines(network, sides[name], x[: options.check], y[: options.check])
        table.append(row)
        print(json.dumps(row))
    result = {
        "steps": table,
        "settings": {k: str(v) for k, v in vars(options).items()},
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
