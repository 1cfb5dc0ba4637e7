"""Networks that are trained on the computer and programmed into phase-change memory: test accuracy on MNIST by age.

    python benchmarks/deployment.py --data mnist [--seeds 3] [--epochs 2] [--draws 5] [--threads 1] [--out FILE.json]

The network, the phases and the batches are those of ``devices.py``; the rate is 0.1 and falls in equal parts to the
last epoch. A network is trained clean, and on weights with noise of 5 % of the largest, drawn anew for each batch, with
weights clipped at 2.5 standard deviations. Each trained network is programmed several times and read at each age, as it
is and with drift compensated by one factor a layer. Then 200 steps of learning in situ, at the rate 0.03, start from
each programming at the last age, uncompensated; they move its weights exactly. The results are written after each run,
and a second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from statistics import mean, stdev

import torch
from common import RESULTS, Row, machine, show
from devices import ep_of, images, test_accuracy, train_epoch
from torch import Tensor

import eqprop as ep
from eqprop.devices import DAY, HOUR, YEAR, PhaseChange
from eqprop.files import write_text_atomic
from eqprop.substrates import Aged, WriteNoise, age_weights
from eqprop.training.constraints import Clipped

TRAINING = ("clean", "noisy")
AGES = {"at once": 0.0, "1 hour": HOUR, "1 day": DAY, "1 year": YEAR}
STEPS, STEP_RATE = 200, 0.03
IN_SITU = f"1 year, then {STEPS} steps in situ"


def trained(training: str, seed: int, epochs: int, train: tuple[Tensor, Tensor]) -> ep.Equilibrium:
    """A model after its training, on the ideal substrate."""
    model = ep_of(seed)
    ideal = model.network
    if training == "noisy":
        model.network = ideal.on(WriteNoise(0.05, seed=seed))
    for epoch in range(epochs):
        optimizer = torch.optim.SGD(model.parameters(), 0.1 * (1 - epoch / epochs))
        train_epoch(model, optimizer, train, seed, epoch, Clipped(2.5) if training == "noisy" else None)
    model.network = ideal
    return model


def deployed(
    training: str, seed: int, epochs: int, draws: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> Row:
    """One training, and a list of accuracies by age, one of each programming."""
    begin = time.perf_counter()
    model = trained(training, seed, epochs, train)
    ideal, found = model.network, {"as trained": [test_accuracy(model, test)]}
    programmings = range(draws * seed, draws * (seed + 1))
    for name, age in AGES.items():
        for compensate in (False, True):
            accuracies = found[f"{name}, compensated" if compensate else name] = []
            for number in programmings:
                model.network = ideal.on(Aged(PhaseChange(), age, compensate, seed=number))
                accuracies.append(test_accuracy(model, test))
    found[IN_SITU] = []
    for number in programmings:
        model.network = copy.deepcopy(ideal)
        age_weights(model.network, Aged(PhaseChange(), YEAR, seed=number))
        train_epoch(model, torch.optim.SGD(model.parameters(), STEP_RATE), train, number, epochs, steps=STEPS)
        found[IN_SITU].append(test_accuracy(model, test))
    return {"accuracies": found, "seconds": time.perf_counter() - begin}


def summary(found: dict[str, Row]) -> list[Row]:
    """Means over trainings and programmings, with standard deviations."""
    rows = []
    for training in TRAINING:
        runs = [row for name, row in found.items() if name.startswith(training)]
        for name in runs[0]["accuracies"] if runs else ():
            values = [100 * value for run in runs for value in run["accuracies"][name]]
            row: Row = {"training": training, "read": name, "networks": len(runs), "measured": len(values)}
            rows.append(row | {"test_%": f"{mean(values):.2f}", "sd": f"{stdev(values):.2f}" if values[1:] else ""})
    return rows


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="ylecun/mnist", help="MNIST: a folder or a name on the hub")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--epochs", type=int, default=2)
    made.add_argument("--draws", type=int, default=5, help="times that each network is programmed")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--out", type=Path, default=RESULTS / "deployment.json")
    asked = made.parse_args()
    torch.set_num_threads(asked.threads)
    train, test = images(asked.data)
    settings = {"epochs": asked.epochs, "draws": asked.draws}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    kept = {"machine": machine(), "settings": settings, "runs": {}}
    if asked.out.exists():
        kept = json.loads(asked.out.read_text())
        if kept["settings"] != settings:
            raise SystemExit(f"{asked.out} has results of {kept['settings']}, not of {settings}: name another --out.")
    for seed in range(asked.seeds):
        for training in TRAINING:
            name = f"{training} seed {seed}"
            if name not in kept["runs"]:
                kept["runs"][name] = deployed(training, seed, asked.epochs, asked.draws, train, test)
                print(name, kept["runs"][name], flush=True)
                write_text_atomic(asked.out, json.dumps(kept, indent=1))
    show("MNIST, EP 784-128-10, programmed into phase-change memory", summary(kept["runs"]))


if __name__ == "__main__":
    main()
