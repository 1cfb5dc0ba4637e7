"""Train clean, program into phase-change memory, read later: test accuracy on MNIST by age.

    python benchmarks/deploy.py [--data mnist] [--epochs 2] [--seed 0] [--threads 1]

The network of benchmarks/devices.py (784-128-10, symmetric nudges of 0.3, batches of 50), with rates that fall from 0.1
to 0. Each age is the mean over five programmings, read as it is, or compensated by one factor for each matrix. Last,
the weights that were read after a year learn in situ: 200 steps of rate 0.03.
"""

from __future__ import annotations

import argparse
from statistics import mean, pstdev

import torch
from common import Row, show, write
from torch import Tensor

import eqprop as ep
from eqprop.devices import DAY, HOUR, YEAR, PhaseChange
from eqprop.draws import generator_for
from eqprop.substrates import Aged
from eqprop.tasks import load_images

AGES = {"at once": 0.0, "1 hour": HOUR, "1 day": DAY, "1 year": YEAR}
Pixels = tuple[Tensor, Tensor]


def learn(model: ep.Equilibrium, images: Pixels, order: Tensor, rates: list[float]) -> None:
    """One step for each rate, on batches of 50 in this order."""
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    for batch, rate in zip(order.split(50), rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        model.loss(images[0][batch], images[1][batch]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: ep.Equilibrium, images: Pixels) -> float:
    right = [(model(x).argmax(1) == y).double() for x, y in zip(*(part.split(500) for part in images), strict=True)]
    return 100 * float(torch.cat(right).mean())


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="ylecun/mnist", help="MNIST: a folder or a name on the hub")
    made.add_argument("--epochs", type=int, default=2)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=1)
    asked = made.parse_args()
    torch.set_num_threads(asked.threads)
    data = load_images(asked.data)
    train, test = ((part.pixels.float() / 255, part.labels) for part in (data.train, data.test))

    torch.manual_seed(asked.seed)
    layers = [ep.DenseLayer(128, ep.hard_sigmoid), ep.DenseLayer(10, ep.identity)]
    network = ep.chain((1, 28, 28), layers, ep.SquaredError)
    sweeps = ep.FixedSweeps(8)
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.3), sweeps, sweeps, form=ep.learning.forms.states)
    model = ep.Equilibrium(network, estimator, on_unsettled="ignore")
    for epoch in range(asked.epochs):
        order = torch.randperm(len(train[0]), generator=generator_for("order", asked.seed, epoch))
        learn(model, train, order, [0.1 * (1 - epoch / asked.epochs)] * -(-len(order) // 50))
    rows: list[Row] = [{"read": "clean", "test_%": f"{accuracy(model, test):.2f}", "compensated": ""}]

    def aged(age: float, seed: int, compensate: bool = False) -> ep.Equilibrium:
        return ep.Equilibrium(network.on(Aged(PhaseChange(), age, compensate, seed=seed)), estimator, "ignore")

    for name, age in AGES.items():
        found = [[accuracy(aged(age, seed, each), test) for seed in range(5)] for each in (False, True)]
        plain, compensated = (f"{mean(each):.2f} +- {pstdev(each):.2f}" for each in found)
        rows.append({"read": name, "test_%": plain, "compensated": compensated})

    old = aged(YEAR, 0)
    with torch.no_grad():
        for name, coupling in network.terms.items():
            seen = dict(old.network.substrate.mounted(name, coupling, 0).named_parameters())
            for key, parameter in coupling.named_parameters():
                parameter.copy_(seen.get(key, parameter))
    before = accuracy(model, test)
    order = torch.randperm(len(train[0]), generator=generator_for("order", asked.seed, "in situ"))[:10000]
    learn(model, train, order, [0.03] * 200)
    rows.append({"read": "1 year, learnt in situ", "test_%": f"{before:.2f}, then {accuracy(model, test):.2f}"})
    rows[-1]["compensated"] = ""
    write("deploy", rows)
    show("MNIST, EP 784-128-10, weights in phase-change memory", rows)


if __name__ == "__main__":
    main()
