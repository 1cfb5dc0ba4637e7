"""Digits at every depth, by one option: accuracy, time, and the size of the contrast in the first layer.

    python benchmarks/depth.py [--depths 1 2 3 4 5 6 7 8 9 10 11 12] [--seeds 0]

Trains the recipe ``digits-deep`` (weak feedback, gain 0.03: two sweeps forwards, one back) as the command line does,
all runs in one process on one thread, and reports the test accuracy after the last epoch. The displacement of the first
layer for each unit of the nudge, and the same times its amplification, are those of 20 images and initial weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import Row, machine, show, write

from eqprop.cli import main
from eqprop.diagnostics import layer_sizes
from eqprop.recipes.small import digits_deep


def trained(depth: int, seed: int, folder: Path) -> Row:
    begin, cpu = time.perf_counter(), time.process_time()
    options = ["--depth", str(depth), "--seed", str(seed), "--threads", "1", "--out", str(folder)]
    if main(["train", "digits-deep", *options]):
        raise SystemExit(f"depth {depth}, seed {seed} failed; see above.")
    row: Row = {"depth": depth, "seed": seed, "seconds": time.perf_counter() - begin}
    row["cpu_seconds"] = time.process_time() - cpu
    row["test_percent"] = 100 * json.loads((folder / "summary.json").read_text())["test_accuracy_last"]
    torch.manual_seed(seed)
    run = digits_deep(depth=depth, seed=seed)
    first = layer_sizes(run.model.network, *run.train.sample(20))[0]
    return row | {"displacement_of_layer_1": first.displacement, "times_amplification": first.contrast}


def tables(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    rows = [trained(depth, seed, folder / f"{depth}-{seed}") for seed in options.seeds for depth in options.depths]
    show("digits by depth", rows)
    for kind in ("seconds", "cpu_seconds"):
        print(f"{kind} of each seed: {sum(row[kind] for row in rows) / len(options.seeds):.0f}")
    return {"runs": rows}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--depths", type=int, nargs="+", default=list(range(1, 13)))
    made.add_argument("--seeds", type=int, nargs="+", default=[0])
    return made


if __name__ == "__main__":
    write("depth", tables(parser().parse_args()) | {"machine": machine()})
