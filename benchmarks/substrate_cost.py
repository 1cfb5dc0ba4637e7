"""What the gates of a substrate cost a training step: the ideal substrate, other idle ones, and code without gates.

    cd benchmarks
    python substrate_cost.py [--rounds 200] [--other TREE/src ...]

Each round times one step of everything, in an order that turns by one. The figures are medians over the rounds: of
seconds of the processor, on one thread, and of the ratio to the network as it is built, on the ideal substrate. That
network is timed twice: the ratio of the two is what the clock and the machine make of nothing.

``--other`` names other source trees of the library, such as one whose gates were removed by hand, or an older commit.
Each is timed in a process of its own, which makes the same steps in the same rounds, beside a process of this tree.

The gates are also counted: their calls in a step, and the time of as many calls of the ideal substrate's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import eqprop as ep

Row = dict[str, Any]

BUILT, AGAIN = "as built", "as built, again"
NETWORKS: dict[str, tuple[int, ...]] = {"64-32-10, batch 20": (20, 64, 32), "784-256-10, batch 64": (64, 784, 256)}
"""Name -> batch, inputs, hidden units. The smaller the step, the more its gates weigh."""


def model_of(name: str) -> tuple[Any, Tensor, Tensor]:
    """A model with its batch: symmetric nudges, 20 free sweeps and 10 nudged ones."""
    batch, inputs, hidden = NETWORKS[name]
    torch.manual_seed(0)
    layers = [ep.DenseLayer(hidden, ep.tanh), ep.DenseLayer(10, ep.identity)]
    network = ep.chain((inputs,), layers, ep.SquaredError)
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.2), ep.FixedSweeps(20), ep.FixedSweeps(10))
    model = ep.Equilibrium(network, estimator)
    model.on_unsettled = "ignore"  # which older trees do not know
    return model, torch.rand(batch, inputs), torch.arange(batch) % 10


def timed(run: Callable[[], object]) -> float:
    """Seconds of the processor, which other programs change less than those of a clock on the wall."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def step_of(name: str, substrate: Any = None) -> Callable[[], None]:
    """One step of a model, on a substrate if there is one."""
    model, x, y = model_of(name)
    if substrate is not None:
        model.network = model.network.on(substrate)

    def step() -> None:
        model.zero_grad()
        model.loss(x, y).backward()

    return step


class Process:
    """Another process with its own source tree, which makes a step of a network for each line that names one."""

    def __init__(self, tree: str):
        command = [sys.executable, __file__, "--serve"]
        environment = os.environ | {"PYTHONPATH": tree}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, name: str) -> float:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        with self.process:
            assert self.process.stdin
            self.process.stdin.close()


def serve() -> None:
    """Answers each line with the seconds of one step of the network that it names."""
    steps = {name: step_of(name) for name in NETWORKS}
    for line in sys.stdin:
        print(timed(steps[line.strip()]), flush=True)


def interleaved(clocks: dict[str, Callable[[], float]], rounds: int) -> list[Row]:
    """The medians of rounds in which each clock has its turn, after a few to warm up."""
    names = list(clocks)
    found = []
    for k in range(-5, rounds):
        order = [names[(k + i) % len(names)] for i in range(len(names))]
        times = {name: clocks[name]() for name in order}
        found += [times] if k >= 0 else []
    first = names[0]
    return [
        {
            "step": name,
            "seconds": median(times[name] for times in found),
            f"over {first}": median(times[name] / times[first] for times in found),
        }
        for name in names
    ]


def gates(name: str) -> Row:
    """How often a step calls the gates, and what as many calls of the ideal substrate's take."""
    calls: list[tuple[str, tuple[Any, ...]]] = []

    class Watched(ep.energy.Substrate):
        """Notes each call of a gate."""

    def watching(gate: str) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any) -> Any:
            calls.append((gate, arguments))
            return getattr(ep.energy.Substrate, gate)(self, *arguments)

        return call

    for gate in ("mounted", "unit", "injected", "aimed", "measured", "once"):
        setattr(Watched, gate, watching(gate))
    step_of(name, Watched())()
    made = list(calls)
    ideal = ep.energy.Substrate()

    def call_all() -> None:
        for gate, arguments in made:
            getattr(ideal, gate)(*arguments)

    return {"calls": len(made), "their_seconds": median(timed(call_all) for _ in range(200))}


def tables(options: argparse.Namespace) -> dict[str, Any]:
    from common import show  # which older trees cannot import

    torch.set_num_threads(1)
    result: dict[str, Any] = {"settings": {key: str(value) for key, value in vars(options).items()}}
    trees = {tree: tree for tree in options.other}
    own = {name: str(Path(ep.__file__).parents[1]) for name in ("this tree", "this tree, again")}
    processes = {name: Process(tree) for name, tree in (own | trees).items()} if trees else {}
    for name in NETWORKS:
        substrates = {
            BUILT: None,
            AGAIN: None,
            "on(Substrate())": ep.energy.Substrate(),
            "on(Together())": ep.substrates.Together(),
            "on(Counter())": ep.physics.Counter(),
        }
        steps = {kind: step_of(name, substrate) for kind, substrate in substrates.items()}
        clocks: dict[str, Callable[[], float]] = {kind: partial(timed, step) for kind, step in steps.items()}
        rows = interleaved(clocks, options.rounds)
        show(f"{name}: one process", rows)
        counted = gates(name)
        counted["share_of_a_step"] = counted["their_seconds"] / rows[0]["seconds"]
        show(f"{name}: the gates of the ideal substrate", [counted])
        found: dict[str, Any] = {"substrates": rows, "gates": counted}
        if processes:
            clocks = {kind: partial(process.seconds, name) for kind, process in processes.items()}
            found["trees"] = interleaved(clocks, options.rounds)
            show(f"{name}: source trees", found["trees"])
        result[name] = found
    for process in processes.values():
        process.close()
    return result


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=200)
    made.add_argument("--other", nargs="*", default=[], help="src folders of other trees of the library")
    made.add_argument("--serve", action="store_true", help="of the processes that this one starts")
    return made


if __name__ == "__main__":
    chosen = parser().parse_args()
    if chosen.serve:
        torch.set_num_threads(1)
        serve()
    else:
        from common import machine, write

        write("substrate_cost", tables(chosen) | {"machine": machine()})
