"""Time to accuracy of a small CIFAR-10 network by equilibrium propagation, backpropagation and the paper schedule.

    python benchmarks/time_to_accuracy.py --data CIFAR10 [--recipes cifar10-small cifar10-small-backpropagation]
        [--seeds 0 1 2] [--out FOLDER] [OPTION OF THE RECIPES ...]

Each run is `eqprop train RECIPE`, one after another, all recipes for each seed; other options are passed on
(``--epochs 2 --train_images 8000``). Whole seconds are those of the command, from its start to the test accuracy of its
last epoch; training seconds exclude evaluation. ``--out`` keeps the runs. A recipe can be in a file, FILE.py:FUNCTION,
as in ``small_estimators.py``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Row, machine, show, write

MEASURED = ("training_seconds", "free_sweeps", "validation_percent", "test_percent")


def trained(recipe: str, seed: int, folder: Path, data: str, options: list[str]) -> Row:
    name = ["--data", data, "--seed", str(seed), "--out", str(folder)]
    command = [sys.executable, "-m", "eqprop.cli", "train", recipe, *name, *options]
    begin = time.perf_counter()
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    row: Row = {"recipe": recipe, "seed": seed, "whole_seconds": time.perf_counter() - begin}
    if status:  # it printed why; the other runs continue
        return row | dict.fromkeys(MEASURED, "") | {"test_percent": f"exit status {status}"}
    with (folder / "metrics.csv").open() as file:
        epochs = [{key: float(value) for key, value in line.items() if value} for line in csv.DictReader(file)]
    summary = json.loads((folder / "summary.json").read_text())
    free_sweeps = " ".join(f"{epoch['train_free_sweeps']:.1f}" for epoch in epochs)
    validation = " ".join(f"{100 * epoch['validation_accuracy']:.1f}" for epoch in epochs)
    seconds = sum(epoch["seconds"] for epoch in epochs)
    measured = (seconds, free_sweeps, validation, 100 * summary["test_accuracy_last"])
    return row | dict(zip(MEASURED, measured, strict=True))


def tables(options: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    folder = Path(options.out or tempfile.mkdtemp())
    rows = [
        trained(recipe, seed, folder / f"{recipe.rpartition(':')[2]}-{seed}", options.data, more)
        for seed in options.seeds
        for recipe in options.recipes
    ]
    show(f"time to accuracy {' '.join(more)}", rows)
    return {"runs": rows, "options": more}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="uoft-cs/cifar10", help="CIFAR-10, a folder or hub name")
    made.add_argument("--recipes", nargs="+", default=["cifar10-small", "cifar10-small-backpropagation"])
    made.add_argument("--seeds", type=int, nargs="+", default=[0])
    made.add_argument("--out", default="", help="a folder for the runs; default: a temporary one")
    return made


if __name__ == "__main__":
    write("time_to_accuracy", tables(*parser().parse_known_args()) | {"machine": machine()})
