"""MNIST by equilibrium propagation on Ising spins and on oscillators: test accuracy, epoch by epoch.

    python benchmarks/spins_and_oscillators.py [ising] [oscillators] [--data mnist] [--epochs N] [--threads 1]

ising: MNIST/100 of Laydevant et al. 2024, doi 10.1038/s41467-024-46879-4: the first 100 training images of each class;
784-120-40 spins, four for each class, annealed (30 temperatures, the best of 10 reads); one-sided nudges of 5 from the
free state, which is annealed in reverse; rates 0.01 for weights and 0.001 for biases, summed over batches of 10;
weights and biases within ±1, the fields of the input within ±4. An example whose output spins are all right is not
learnt from. Differs from the paper: batches of 10 (1), the annealer and its temperatures, and 1,000 test images (100).

oscillators: 784-120-10 phases of Gower 2025, arXiv 2505.02103; symmetric nudges of 0.5 from the free state; rates 0.01
for couplings and 0.001 for fields and second harmonics; batches of 40; all parameters within ±1. Differs from the
paper: the first 1,000 training and 200 test images of each class; gradient descent until a step moves no phase by more
than 1e-3, 200 steps of 0.2 at most, where the paper integrates for a time of 100; and few epochs.

Results are written after each epoch, and a second call goes on where the first one ended. Nothing is tuned.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from common import RESULTS, Row, machine, show
from torch import Tensor

import eqprop as ep
from eqprop import physics
from eqprop.draws import generator_for
from eqprop.energy.terms import Field, Term
from eqprop.files import load, save
from eqprop.learning.estimators import Cost
from eqprop.tasks import load_images

Pixels = tuple[Tensor, Tensor]
"""Images in [0, 1] and their labels."""


@dataclass(frozen=True)
class Setting:
    """One network on its images.

    Attributes:
        train, test: images of each class, at most.
        batch: examples of a step.
        epochs: by default.
        rates: (of weights and couplings, of all other parameters), for the mean over a batch.
    """

    train: int
    test: int
    batch: int
    epochs: int
    rates: tuple[float, float]


SETTINGS = {
    "ising": Setting(100, 100, 10, 40, (0.1, 0.01)),  # the sum over ten examples is ten times their mean
    "oscillators": Setting(1000, 200, 40, 10, (0.01, 0.001)),
}


class BoundedInput(ep.Synapse):
    """A synapse from the data, whose fields are clipped to ±4; learning goes straight through."""

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        given = super().clamp(data)
        assert isinstance(given, Field)
        strength = given.strength
        return Field(self.post, strength + (strength.clamp(-4, 4) - strength).detach())


def model_of(kind: str, seed: int) -> ep.Equilibrium:
    """The network and its estimator."""
    torch.manual_seed(seed)
    if kind == "ising":
        network = physics.ising_network((1, 28, 28), [120], 10, copies=4)
        couplings, first = network.terms, network.terms["input_layer1"]
        assert isinstance(first, ep.Synapse)
        bounded = BoundedInput("input", "layer1", first.map)
        network = ep.Network(network.nodes, couplings | {"input_layer1": bounded}, network.loss)
        free, nudged = physics.Annealed(30, 10, seed), physics.ReverseAnnealed(30, 10, seed + 1000)
        return ep.Equilibrium(network, ep.EquilibriumPropagation(ep.one_sided(5.0), free, nudged), "ignore")
    network = physics.oscillator_network((1, 28, 28), [120], 10, rate=0.2)
    rest = ep.UntilConverged(1e-3, 200)
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.5), rest, rest)
    return ep.Equilibrium(network, estimator, "ignore")


def optimizer_of(model: ep.Equilibrium, rates: tuple[float, float]) -> torch.optim.Optimizer:
    """Plain descent, with one rate for matrices and one for the rest."""
    parts: list[list[Tensor]] = [[], []]
    for parameter in model.parameters():
        parts[parameter.ndim < 2].append(parameter)
    return torch.optim.SGD([{"params": part, "lr": rate} for part, rate in zip(parts, rates, strict=True)])


def step(model: ep.Equilibrium, x: Tensor, y: Tensor) -> Row:
    """Leaves the gradient in ``.grad``; what is worth a look, as sums over the batch."""
    network = model.network
    loss = network.loss
    assert loss is not None
    free, learn = model.estimator(network.landscape(x))
    spins = isinstance(loss, physics.SpinError)
    off = loss(y, *(free.state[node] for node in loss.nodes)) > 0
    weight = off.to(x.dtype) if spins else torch.ones(len(x))
    parameters = list(model.parameters())
    found = learn(Cost(loss, y, weight), parameters)
    for parameter, gradient in zip(parameters, found.gradients, strict=True):
        parameter.grad = gradient
    right = (network.scores({node: free.state[node] for node in loss.nodes}).argmax(1) == y).sum()
    told = {"right": int(right)}
    if spins:
        assert found.nudged is not None
        hidden = (found.nudged.state["layer1"] != free.state["layer1"]).any(1)
        return told | {"hidden moved": int((hidden & off).sum())}
    return told | {"collinear": physics.collinear(free.state) * len(x), "settled": int(free.settled.sum())}


def first(images: Pixels, count: int) -> Pixels:
    """The first ``count`` images of each class."""
    rows = torch.cat([(images[1] == label).nonzero().flatten()[:count] for label in range(10)])
    return images[0][rows], images[1][rows]


@torch.no_grad()
def accuracy(model: ep.Equilibrium, images: Pixels) -> float:
    right = [(model(x).argmax(1) == y).double() for x, y in zip(*(part.split(200) for part in images), strict=True)]
    return float(torch.cat(right).mean())


def trained(kind: str, setting: Setting, epochs: int, seed: int, train: Pixels, test: Pixels, out: Path) -> list[Row]:
    """A row for each epoch, from where ``out`` ends."""
    model = model_of(kind, seed)
    optimizer, rows = optimizer_of(model, setting.rates), list[Row]()
    name = f"{kind}-seed-{seed}"
    if (out / f"{name}.json").exists():
        tensors, state = load(out, name)
        rows = state["epochs"]
        for k, generator in enumerate(model.generators()):
            generator.set_state(tensors.pop(f"draws {k}"))
        model.load_state_dict(tensors)
    for epoch in range(len(rows), epochs):
        begin, sums = time.process_time(), dict[str, float]()
        for batch in torch.randperm(len(train[0]), generator=generator_for("order", seed, epoch)).split(setting.batch):
            for key, value in step(model, train[0][batch], train[1][batch]).items():
                sums[key] = sums.get(key, 0) + value
            optimizer.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.clamp_(-1, 1)
        shares = {f"{key} %": round(100 * value / len(train[0]), 2) for key, value in sums.items()}
        seconds = time.process_time() - begin
        tested = round(100 * accuracy(model, test), 2)
        rows.append({"epoch": epoch + 1, **shares, "test %": tested, "cpu seconds": round(seconds, 1)})
        print(kind, rows[-1], flush=True)
        draws = {f"draws {k}": generator.get_state() for k, generator in enumerate(model.generators())}
        save(out, name, {**model.state_dict(), **draws}, {"machine": machine(), "epochs": rows})
    return rows


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("kinds", nargs="*", help="ising, oscillators; default: both")
    made.add_argument("--data", default="ylecun/mnist", help="MNIST: a folder or a name on the hub")
    made.add_argument("--epochs", type=int, default=0, help="default: 40 and 10")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--out", type=Path, default=RESULTS / "spins_and_oscillators")
    asked = made.parse_args()
    torch.set_num_threads(asked.threads)
    data = load_images(asked.data)
    parts = [(part.pixels.float() / 255, part.labels) for part in (data.train, data.test)]
    asked.out.mkdir(parents=True, exist_ok=True)
    for kind in asked.kinds or SETTINGS:
        setting = SETTINGS[kind]
        train, test = first(parts[0], setting.train), first(parts[1], setting.test)
        rows = trained(kind, setting, asked.epochs or setting.epochs, asked.seed, train, test, asked.out)
        show(f"{kind}, {len(train[0])} training images, {len(test[0])} test images, seed {asked.seed}", rows[-1:])


if __name__ == "__main__":
    main()
