"""All tables, in one command: prints them, and writes results/*.json and results/gradient_error.png.

    python benchmarks/run.py [--data CIFAR10] [--paper_weights FILE] [--small_weights FILE]

It takes about half an hour on two cores. `time_to_accuracy.py`, which trains, is a separate command.
"""

from __future__ import annotations

import argparse
from typing import Any

import gradient_error
import memory_and_scaling
import step_cost
import sweep_cost
from common import machine, write


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", default="", help="CIFAR-10, a folder or hub name; default: noise")
    made.add_argument("--paper_weights", default="", help="a checkpoint of cifar10-ce-fast")
    made.add_argument("--small_weights", nargs="*", default=[], help="checkpoints of cifar10-small")
    asked = made.parse_args()
    data = ["--data", asked.data] if asked.data else []

    found: dict[str, Any] = {"sweep_cost": sweep_cost.tables(sweep_cost.parser().parse_args([]))}
    steps = [*data, "--paper_check", "2"]
    found["step_cost"] = step_cost.tables(step_cost.parser().parse_args(steps))
    if asked.paper_weights:
        trained = [*steps, "--weights", asked.paper_weights]
        found["step_cost_trained"] = step_cost.tables(step_cost.parser().parse_args(trained))
    errors = [*data, *(["--weights", *asked.small_weights] if asked.small_weights else [])]
    found["gradient_error"] = gradient_error.tables(gradient_error.parser().parse_args(errors))
    found["memory_and_scaling"] = memory_and_scaling.tables(memory_and_scaling.parser().parse_args([]))
    for name, result in found.items():
        write(name, result | {"machine": machine()})
    gradient_error.draw(found["gradient_error"])


if __name__ == "__main__":
    main()
