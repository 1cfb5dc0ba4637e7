"""Equilibrium propagation whose steps are pulses into devices: test accuracy on MNIST, device by method.

    python benchmarks/devices.py --data mnist [--seeds 3] [--epochs 1] [--threads 1] [--out FILE.json] [--only NAME ...]

One dense network, 784-128-10, hard-sigmoid hidden units and linear outputs; symmetric nudges of 0.3, 8 alternating
sweeps a phase, batches of 50, and the rate 0.1 for every method: nothing is tuned. Biases are digital. Methods with a
fast array have the same device in it, read 64 columns a step, and transfer half of a read; AGAD has no reference in
either array. The results are written after each run, and a second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import RESULTS, Row, machine, show
from torch import Tensor

import eqprop as ep
from eqprop.devices import (
    ECRAM,
    IDEALISED,
    RERAM_SB,
    Device,
    SoftBounds,
)
from eqprop.devices.writing import METHODS
from eqprop.draws import generator_for
from eqprop.files import write_text_atomic
from eqprop.tasks import load_images
from eqprop.training.constraints import Constrain

DEVICES: dict[str, Device] = {
    "idealised": IDEALISED,
    "ecram": ECRAM,
    "asymmetric": SoftBounds(
        step=2e-3, low=-1.0, high=1.0, up_down_spread=0.3, cycle_noise=0.3, additive=True, from_symmetry=True
    ),
    "reram-sb, no write noise": replace(RERAM_SB, write_noise=0.0, from_symmetry=True),
}
FIRST = ("exact", "idealised pulses", "idealised sign", "ecram pulses")
"""Runs before the others, which are all pairs in turn."""


def cells() -> list[str]:
    """All runs, by name: the device and the method."""
    pairs = [f"{device} {method}" for device in DEVICES for method in METHODS]
    return [*FIRST, *(pair for pair in pairs if pair not in FIRST)]


def optimizer_of(cell: str, network: ep.Network, seed: int, lr: float = 0.1) -> torch.optim.Optimizer:
    """The optimiser of a run."""
    if cell == "exact":
        return torch.optim.SGD(network.parameters(), lr)
    name, _, method = cell.rpartition(" ")
    device = replace(DEVICES[name], from_symmetry=False) if method == "agad" else DEVICES[name]
    return METHODS[method](network.named_parameters(), device, lr, seed=seed)


def ep_of(seed: int) -> ep.Equilibrium:
    """The model with its initial weights."""
    torch.manual_seed(seed)
    layers = [ep.DenseLayer(128, ep.hard_sigmoid), ep.DenseLayer(10, ep.identity)]
    network = ep.chain((1, 28, 28), layers, ep.SquaredError)
    sweeps = ep.FixedSweeps(8)
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.3), sweeps, sweeps, form=ep.learning.forms.states)
    return ep.Equilibrium(network, estimator, on_unsettled="ignore")


def images(data: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The training and the test set: pixels in [0, 1], and labels."""
    found = load_images(data)
    train, test = ((part.pixels.float() / 255, part.labels) for part in (found.train, found.test))
    return train, test


def train_epoch(
    model: ep.Equilibrium,
    optimizer: torch.optim.Optimizer,
    train: tuple[Tensor, Tensor],
    seed: int,
    epoch: int,
    constrain: Constrain | None = None,
    steps: int | None = None,
) -> None:
    """Steps of 50 images in the order of an epoch: all of it, or its first steps."""
    order = torch.randperm(len(train[0]), generator=generator_for("order", seed, epoch)).split(50)
    for batch in order[:steps]:
        optimizer.zero_grad()
        model.loss(train[0][batch], train[1][batch]).backward()
        optimizer.step()
        if constrain is not None:
            constrain(model.network)


@torch.no_grad()
def test_accuracy(model: ep.Equilibrium, test: tuple[Tensor, Tensor]) -> float:
    """The share of the test images whose class is right."""
    right = torch.cat([model(x).argmax(1) for x in test[0].split(5000)]) == test[1]
    return float(right.double().mean())


def trained(cell: str, seed: int, epochs: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Row:
    """One run."""
    model, begin = ep_of(seed), time.perf_counter()
    optimizer = optimizer_of(cell, model.network, seed)
    for epoch in range(epochs):
        train_epoch(model, optimizer, train, seed, epoch)
    told: Any = getattr(optimizer, "metrics", dict)()
    return {"accuracy": test_accuracy(model, test), "seconds": time.perf_counter() - begin, **told}


def summary(found: dict[str, Row]) -> list[Row]:
    """Means over seeds, and the range of accuracies."""
    rows = []
    for cell in cells():
        runs = [row for name, row in found.items() if name.rpartition(" seed ")[0] == cell]
        if runs:
            accuracies = [100 * run["accuracy"] for run in runs]
            row: Row = {"run": cell, "seeds": len(runs), "test_%": f"{mean(accuracies):.2f}"}
            row["from_to"] = f"{min(accuracies):.2f} to {max(accuracies):.2f}"
            for name in ("pulses_per_weight", "fast_pulses_per_weight", "dead_updates"):
                row[name] = f"{mean(run[name] for run in runs):.3g}" if name in runs[0] else ""
            rows.append(row)
    return rows


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="ylecun/mnist", help="MNIST: a folder or a name on the hub")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--out", type=Path, default=RESULTS / "devices.json")
    made.add_argument("--only", nargs="*", default=[], help="parts of the names of runs")
    asked = made.parse_args()
    torch.set_num_threads(asked.threads)
    train, test = images(asked.data)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(asked.out.read_text()) if asked.out.exists() else {"machine": machine(), "runs": {}}
    for seed in range(asked.seeds):
        for cell in cells():
            name = f"{cell} seed {seed}"
            if name in kept["runs"] or (asked.only and not any(part in cell for part in asked.only)):
                continue
            kept["runs"][name] = trained(cell, seed, asked.epochs, train, test)
            print(name, kept["runs"][name], flush=True)
            write_text_atomic(asked.out, json.dumps(kept, indent=1))
    show("MNIST, EP 784-128-10, steps written into devices", summary(kept["runs"]))


if __name__ == "__main__":
    main()
