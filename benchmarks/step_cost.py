"""One training step of the CIFAR-10 network of Laborieux et al. (2021): the paper schedule, backpropagation, and the
fast estimator.

    python benchmarks/step_cost.py [--batch 32] [--repeats 3] [--check 8] [--weights RUN/best-....safetensors]

Every round times each side once; medians and ratios are of those rounds. A step is everything from a batch to the
gradients, without the optimiser. The paper schedule (autograd of the energy, float32, synchronous, 250 + 2 x 25 sweeps)
is timed for ``--paper_sweeps`` sweeps of each phase and scaled, as all its sweeps cost the same.

The quality of each estimate is its cosine, layer by layer, with the exact gradient at the equilibrium that it found:
settled further from its own free state in float64, by implicit differentiation, on ``--check`` images. For the paper
schedule all sweeps are made, on ``--paper_check`` images (0: leave it out; it takes minutes).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from common import (
    Row,
    bits,
    exact_weight_gradients,
    gradients,
    images,
    load,
    machine,
    paper_network,
    show,
    timed,
    write,
)
from torch import Tensor, nn
from torch.nn import functional as F

import eqprop as ep
from eqprop.recipes.setting import fast
from eqprop.training.memory import keep_freed_memory

T1, T2, BETA = 250, 25, 1.0
PAPER = "paper schedule, float32"
TRAINS = "undamped, with its penalty, as cifar10-ce-fast trains, bfloat16"


class PaperSchedule(ep.Estimator):
    """The paper's program: every drive by autograd of the whole energy, one phase after another."""

    def __init__(self, free: int = T1, nudged: int = T2):
        self.free, self.nudged = free, nudged

    def sweep(self, landscape: ep.energy.Landscape, state: ep.energy.State) -> ep.energy.State:
        with torch.enable_grad():
            leaves = {node: value.detach().requires_grad_() for node, value in state.items()}
            energies = [t.energy(*(leaves[n] for n in t.nodes)).sum() for t in landscape.terms.values()]
            slopes = torch.autograd.grad(sum(energies, torch.zeros(())), list(leaves.values()))
        return {
            node: landscape.nodes[node].unit.response(-slope)  # type: ignore[union-attr]
            for node, slope in zip(leaves, slopes, strict=True)
        }

    def __call__(self, landscape: ep.energy.Landscape) -> Any:
        solver = ep.EquilibriumPropagation(
            ep.symmetric(BETA),
            ep.FixedSweeps(self.free, self.sweep),
            ep.FixedSweeps(self.nudged, self.sweep),
            form=ep.learning.forms.states,
            stacked=False,
        )
        return solver(landscape)


class Feedforward(nn.Module):
    """The feedforward network of the same weights, for backpropagation."""

    def __init__(self, network: ep.Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        terms = self.network.terms
        below = self.network.input
        for name, node in self.network.free.items():
            x = node.unit.response(terms[f"{below}_{name}"].map(x) + terms[f"{name}_bias"].bias)  # type: ignore[union-attr, operator]
            below = name
        return self.network.loss(y, x).mean()  # type: ignore[misc]


def cosines(network: ep.Network, estimator: ep.Estimator, precision: str, x: Tensor, y: Tensor) -> list[float]:
    """One for each weight tensor, from the input on."""
    found, free = gradients(ep.Equilibrium(network, estimator), precision, x, y)
    pairs = zip(found, exact_weight_gradients(network, free.state, x, y), strict=True)
    return [round(float(F.cosine_similarity(a.double().flatten(), b.flatten(), 0)), 4) for a, b in pairs]


def tables(options: argparse.Namespace) -> dict[str, Any]:
    keep_freed_memory()
    torch.manual_seed(0)
    network = paper_network()
    if options.weights:
        load(network, options.weights)
    x, y = images(options.data, options.batch)

    sides: dict[str, tuple[str, ep.Estimator]] = {}
    if not options.quick:
        finite = ep.EquilibriumPropagation(
            ep.symmetric(0.1), ep.FixedSweeps(60), ep.FixedSweeps(15), form=ep.learning.forms.states
        )
        sides["symmetric(0.1), states, 60 + 15"] = ("float32", finite)
    for tolerance in options.tolerances:
        for precision in ("float32", "bfloat16"):
            sides[f"infinitesimal, to {tolerance:g}, {precision}"] = (precision, fast(tolerance, 60, 4, 0.0))
        sides[f"the same, damped, to {tolerance:g}, bfloat16"] = ("bfloat16", fast(tolerance, 60, 4, 0.25))
    plain = fast(options.tolerances[0], 60, 4, 0.0)
    assert isinstance(plain.free, ep.FromFeedforward)
    assert isinstance(plain.free.solver, ep.UntilConverged)
    plain = replace(plain, free=ep.FromFeedforward(replace(plain.free.solver, over_relaxation=1.0)))
    sides[f"the same, not over-relaxed, to {options.tolerances[0]:g}, bfloat16"] = ("bfloat16", plain)
    sides[TRAINS] = ("bfloat16", ep.learning.RayleighPenalty(fast(options.tolerances[0], 60, 4, 0.0), 1.0))
    feedforward, short = Feedforward(network), PaperSchedule(options.paper_sweeps, options.paper_sweeps)
    scale = (T1 + 2 * T2) / (3 * options.paper_sweeps)
    records: dict[str, ep.Record] = {}

    def backpropagation(precision: str) -> None:
        with bits(precision):
            loss = feedforward(x, y)
        loss.backward()

    def step(name: str, estimator: ep.Estimator, precision: str) -> None:
        records[name] = ep.Record()
        with bits(precision):
            loss = ep.Equilibrium(network, estimator).loss(x, y, record=records[name])
        loss.backward()

    steps: dict[str, Callable[[], None]] = {PAPER: lambda: step(PAPER, short, "float32")}
    for precision in ("float32", "bfloat16"):
        steps[f"backpropagation, {precision}"] = lambda p=precision: backpropagation(p)  # type: ignore[misc]
    for name, (precision, estimator) in sides.items():
        steps[name] = lambda n=name, e=estimator, p=precision: step(n, e, p)  # type: ignore[misc]
    for run in steps.values():
        run()
    rounds = [{name: timed(run) for name, run in steps.items()} for _ in range(options.repeats)]
    for times in rounds:
        times[PAPER] *= scale
    rows: list[Row] = []
    for name in steps:
        same = "backpropagation, " + ("bfloat16" if "bfloat16" in name else "float32")
        row: Row = {"step": name, "seconds": median(r[name] for r in rounds)}
        row["paper_over_it"] = median(r[PAPER] / r[name] for r in rounds)
        row["it_over_backpropagation"] = median(r[name] / r[same] for r in rounds)
        settled = name in sides and records[name].free
        row["free_sweeps"] = float(settled.sweeps.float().mean()) if settled else ""
        row["cosines"] = ""
        if name in sides and name != TRAINS and options.check:
            row["cosines"] = cosines(network, sides[name][1], sides[name][0], x[: options.check], y[: options.check])
        elif name == PAPER and options.paper_check:
            some = slice(0, options.paper_check)
            row["cosines"] = cosines(network, PaperSchedule(), "float32", x[some], y[some])
        rows.append(row)
    show(f"a training step, batch {options.batch}, {'trained' if options.weights else 'initial'} weights", rows)
    return {"steps": rows, "settings": {key: str(value) for key, value in vars(options).items()}}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--check", type=int, default=8)
    made.add_argument("--paper_sweeps", type=int, default=5)
    made.add_argument("--paper_check", type=int, default=0)
    made.add_argument("--quick", action="store_true", help="leave out finite nudges, which take most of the time")
    made.add_argument("--tolerances", type=float, nargs="+", default=[0.2])
    made.add_argument("--data", default="", help="CIFAR-10, a folder or hub name; default: noise")
    made.add_argument("--weights", default="", help="a checkpoint's safetensors file; default: initial weights")
    return made


if __name__ == "__main__":
    write("step_cost", tables(parser().parse_args()) | {"machine": machine()})
