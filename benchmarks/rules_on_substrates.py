"""Every learning rule of the library on every fault of a machine: test accuracy on the embedded digits.

    python benchmarks/rules_on_substrates.py [--seeds 3] [--workers 2] [--out FILE.json] [--rules NAME ...]
        [--faults NAME ...]

A run is one rule on one machine with one seed, which draws the initial weights, the batches and the machine. It trains
and is tested on that machine. All rules have the same network, 64-32-10 with tanh and linear units, the squared error,
5 epochs of 22 batches of 64 images, and Adam at 0.01 with a cosine to 0; nothing is tuned for a rule. Contrastive
Hebbian learning, recirculation and the predictive rule have a feedback gain of 0.1, as they are made for weak feedback.
Phases settle by 10 sweeps from a feedforward pass, and nudged ones by 6 more.

Results are written after each run, and a second call goes on where the first one ended. When all runs are there, it
writes the tables of docs/rules_on_substrates.md and its picture. On two cores it takes less than an hour.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import RESULTS, Row, machine
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

import eqprop as ep
from eqprop import learning, substrates as s
from eqprop.devices import HOUR, PhaseChange
from eqprop.draws import generator_for
from eqprop.energy import SeparateFeedback, Substrate
from eqprop.files import write_text_atomic
from eqprop.physics import RegularSpikes
from eqprop.runs.folder import commit_of
from eqprop.tasks import load_images

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "rules_on_substrates.md"
PICTURE = PAGE.with_suffix(".png")
BEGIN, END = "<!-- begin of the generated tables -->", "<!-- end of the generated tables -->"

EPOCHS, BATCH, RATE, HIDDEN = 5, 64, 0.01, 32
FREE, NUDGED = ep.FromFeedforward(ep.FixedSweeps(10)), ep.FixedSweeps(6)
WEAK = 0.1


@dataclass(frozen=True)
class Way:
    """A learning rule, and the network that it is for.

    Attributes:
        make: its estimator.
        gain: the feedback gain.
        random: whether feedback runs through separate, fixed random weights.
    """

    make: Callable[[], ep.Estimator]
    gain: float = 1.0
    random: bool = False

    def network(self) -> ep.Network:
        layers = [ep.DenseLayer(HIDDEN, ep.tanh), ep.DenseLayer(10, ep.identity)]
        network = ep.chain((64,), layers, ep.SquaredError, self.random, self.gain)
        for coupling in network.terms.values():
            if isinstance(coupling, SeparateFeedback):
                coupling.feedback.requires_grad_(False)
        return network


def nudged(stencil: Callable[[], learning.Nudging], **more: Any) -> Callable[[], ep.Estimator]:
    return lambda: ep.EquilibriumPropagation(stencil(), FREE, NUDGED, **more)


ONE, BOTH, FULL = partial(ep.one_sided, 0.2), partial(ep.symmetric, 0.2), partial(ep.one_sided, 1.0)
MOMENTS = tuple(range(1, 7))
FORCES: dict[str, Way] = {
    "EP, one-sided, beta 0.2": Way(nudged(ONE)),
    "EP, random sign, beta 0.2": Way(nudged(partial(learning.RandomSign, 0.2))),
    "EP, symmetric, beta 0.2": Way(nudged(BOTH)),
    "EP, symmetric, A B B A, beta 0.2": Way(nudged(BOTH, there_and_back=True)),
    "EP, symmetric, beta 0.5": Way(nudged(partial(ep.symmetric, 0.5))),
    "EP, five-point, beta 0.2": Way(nudged(partial(learning.five_point, 0.2))),
    "EP, holomorphic, 4 points, beta 0.4": Way(nudged(partial(learning.holomorphic, 0.4, 4))),
    "oscillating nudge, 4 points, beta 0.4": Way(lambda: learning.OscillatingNudge(0.4, 4, FREE, NUDGED, transient=0)),
    "lock-in, 8 points, beta 0.4": Way(lambda: learning.LockIn(0.4, 8, FREE, ep.FixedSweeps(3), transient=0)),
}
OTHERS: dict[str, Way] = {
    "vector field, symmetric, beta 0.2": Way(nudged(BOTH, rule=ep.vector_field)),
    "coupled learning, ±0.2": Way(nudged(BOTH, teacher=learning.clamp)),
    "contrastive Hebbian": Way(nudged(FULL, teacher=learning.clamp), WEAK),
    "contrastive Hebbian, random feedback": Way(nudged(FULL, teacher=learning.clamp), WEAK, random=True),
    "recirculation": Way(nudged(FULL, teacher=learning.clamp, rule=learning.generalised_recirculation), WEAK),
    "predictive, 32 of 64 learnt": Way(
        lambda: learning.PredictiveLearning(ep.FixedSweeps(10), NUDGED, 3, 32, learning.LeastSquares(MOMENTS)), WEAK
    ),
    "continual EP, symmetric, beta 0.2": Way(lambda: learning.ContinualEP(BOTH(), FREE, NUDGED, 1e-3)),
    "agnostic EP, symmetric, beta 0.2": Way(lambda: learning.AgnosticEP(BOTH(), FREE, NUDGED, 1e-3)),
    "dual propagation, beta 0.1": Way(lambda: learning.DualPropagation(0.1)),
}
EXACT: dict[str, Way] = {
    "infinitesimal nudge": Way(lambda: ep.InfinitesimalNudge(FREE, ep.FixedSweeps(10))),
    "implicit differentiation": Way(lambda: ep.ImplicitDifferentiation(FREE, 1e-5, 1000)),
    "backpropagation through time": Way(lambda: ep.BackpropagationThroughTime(ep.FixedSweeps(10), 10)),
    "backpropagation": Way(lambda: ep.Backpropagation()),
}
GROUPS: dict[str, dict[str, Way]] = {
    "Equilibrium propagation": FORCES,
    "Other local rules": OTHERS,
    "Simulated gradients, exact on the machine as it is": EXACT,
}
RULES: dict[str, Way] = FORCES | OTHERS | EXACT

Machine = Callable[[int], Substrate]
"""seed -> a machine; another seed is another machine, if its fault is drawn."""


def circuits(fault: Machine) -> Machine:
    return lambda seed: s.TwoCircuits(fault(2 * seed), fault(2 * seed + 1))


SAME: dict[str, Machine] = {
    "weights spread by 20 %": lambda seed: s.WeightSpread(0.2, seed=seed),
    "10 % of the weights stuck": lambda seed: s.StuckWeights(0.1, seed=seed),
    "16 levels of weights in ±1": lambda seed: s.WeightRange(1.0, 16, seed=seed),
    "wires of 1.75e-6": lambda seed: s.Wires(1.75e-6),
    "phase-change memory, 1 h old": lambda seed: s.Aged(PhaseChange(), HOUR, seed=seed),
    "writing, noise 1.75 %": lambda seed: s.WriteNoise(0.0175, seed=seed),
    "gains of messages, 10 %, 10 % apart": lambda seed: s.MessageGains(0.1, 0.1, seed=seed),
    "feedback apart by 10 %": lambda seed: s.FeedbackSpread(0.1, seed=seed),
    "units spread, slope 10 %, offset 0.1": lambda seed: s.UnitSpread(0.1, 0.1, seed=seed),
    "reader, gain 1 %, offset 0.01": lambda seed: s.ReadSpread(0.01, 0.01, seed=seed),
    "nudges 10 % stronger towards the target": lambda seed: s.UnequalNudges(0.1),
    "gains of nudges, 10 %": lambda seed: s.NudgeGain(0.1, seed=seed),
    "offsets of nudges, 0.01": lambda seed: s.NudgeOffset(0.01, seed=seed),
    "nudges of 8 bits in ±1": lambda seed: s.NudgeLevels(2 / 255),
}
"""The same in all phases of a step."""
APART: dict[str, Machine] = {
    "8 bits in ±1 in each sweep": lambda seed: s.LoopConverter(2 / 255, seed=seed),
    "readings of 8 bits in ±1": lambda seed: s.ReadConverter(2 / 255, -1.0, 1.0, seed=seed),
    "the same, rounded at random": lambda seed: s.ReadConverter(2 / 255, -1.0, 1.0, random=True, seed=seed),
    "readings of 4 bits in ±1": lambda seed: s.ReadConverter(2 / 15, -1.0, 1.0, seed=seed),
    "counts of spikes in 256 steps": lambda seed: RegularSpikes(256, -1.0, 1.0),
    "noise of readings, 0.001": lambda seed: s.ReadNoise(1e-3, seed=seed),
    "noise of readings, 0.01": lambda seed: s.ReadNoise(1e-2, seed=seed),
    "noise of units, 0.04": lambda seed: s.UnitNoise(0.04, seed=seed),
    "readings droop by 1 %": lambda seed: s.Droop(0.01),
    "noise of weights, 1.75 %": lambda seed: s.WeightNoise(0.0175, seed=seed),
    "two circuits, weights spread by 1 %": circuits(lambda seed: s.WeightSpread(0.01, seed=seed)),
    "two circuits, 10 % stuck": circuits(lambda seed: s.StuckWeights(0.1, seed=seed)),
}
"""Different in each phase."""


def together(*names: Mapping[str, Machine]) -> Machine:
    return lambda seed: s.Together(*(make(seed) for some in names for make in some.values()))


MACHINES: dict[str, Machine] = {
    "ideal": lambda seed: Substrate(),
    **SAME,
    **APART,
    "all that are the same in all phases": together(SAME),
    "all": together(SAME, APART),
}


@dataclass(frozen=True)
class Run:
    """One rule on one machine with one seed."""

    rule: str
    machine: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.rule} | {self.machine} | {self.seed}"

    def model(self) -> ep.Equilibrium:
        way, substrate = RULES[self.rule], MACHINES[self.machine](self.seed)
        torch.manual_seed(self.seed)
        network, estimator = way.network(), way.make()
        if not substrate.is_ideal:
            network = network.on(substrate)
        if substrate.per_phase and isinstance(estimator, ep.EquilibriumPropagation):
            estimator = replace(estimator, stacked=False)
        return ep.Equilibrium(network, estimator, on_unsettled="ignore")


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images in [0, 1] and their labels, and the test set's."""
    images = load_images("digits")
    top = images.train.pixels.max()
    train, test = ((part.pixels.flatten(1) / top, part.labels) for part in (images.train, images.test))
    return *train, *test


def outcome(run: Run) -> Row:
    """What became of a run: its accuracy, or why it has none; and the processor's seconds."""
    begin, row = time.process_time(), Row(accuracy=None, outcome="trained", reason="")
    try:
        row["accuracy"] = trained(run.model(), run.seed)
        if row["accuracy"] is None:
            row["outcome"] = "diverged"
    except (ep.InputError, ep.NotSettledError) as error:
        row |= {"outcome": "refused" if isinstance(error, ep.InputError) else "unstable", "reason": str(error)}
    return row | {"seed": run.seed, "seconds": round(time.process_time() - begin, 2)}


def trained(model: ep.Equilibrium, seed: int) -> float | None:
    """The test accuracy of a model after training it; ``None`` if a parameter is not finite any more."""
    x, y, test, labels = digits()
    learnt = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(learnt, RATE)
    scheduler = CosineAnnealingLR(optimizer, EPOCHS * (len(x) // BATCH))
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator_for("order", seed, epoch))
        for rows in order[: len(x) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            model.loss(x[rows], y[rows]).backward()
            optimizer.step()
            scheduler.step()
        if not all(bool(each.isfinite().all()) for each in learnt):
            return None
    with torch.no_grad():
        return float((model(test).argmax(1) == labels).double().mean())


# -- the page --

Found = Mapping[str, Row]


def rows_of(found: Found, rule: str, machine: str) -> list[Row]:
    return [row for name, row in found.items() if name.rpartition(" | ")[0] == f"{rule} | {machine}"]


def accuracies(rows: Sequence[Row]) -> list[float]:
    return [100 * row["accuracy"] for row in rows if row["accuracy"] is not None]


def told(rows: Sequence[Row]) -> str:
    """A cell of a table: the mean and half of the range, in percent; and what became of the other runs."""
    right, parts = accuracies(rows), []
    if right:
        parts.append(f"{mean(right):.1f} ± {(max(right) - min(right)) / 2:.1f}")
    others = Counter(row["outcome"] for row in rows if row["accuracy"] is None)
    return ", ".join([*parts, *(f"{count} {name}" if right else name for name, count in others.items())])


def tables(found: Found) -> Iterator[str]:
    for title, ways in GROUPS.items():
        yield f"### {title}\n"
        yield f"| test accuracy, % | {' | '.join(ways)} |\n|---|{'---|' * len(ways)}"
        for name in MACHINES:
            cells = [told(rows_of(found, rule, name)) for rule in ways]
            yield f"| {name} | {' | '.join(cells)} |"
        yield ""


def strengths() -> Iterator[str]:
    yield "### The machines, of seed 0\n\n| machine | substrate |\n|---|---|"
    yield from (f"| {name} | `{make(0)}` |" for name, make in (SAME | APART).items())


def reasons(found: Found) -> Iterator[str]:
    """Why runs have no accuracy: a line for each reason, without what names the machine."""
    yield "### Refusals\n\n| rules | machines | reason |\n|---|---|---|"
    where: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for rule in RULES:
        for name in MACHINES:
            for row in rows_of(found, rule, name):
                if row["accuracy"] is None:
                    machine = without_settings(repr(MACHINES[name](row["seed"])))
                    reason = without_settings(row["reason"]).replace(f"{machine} reads", "The substrate reads")
                    reason = reason.replace(f"{machine}:", "The substrate:")
                    rules, machines = where.setdefault(reason or row["outcome"], ({}, {}))
                    rules[rule] = machines[name] = None
    for reason, both in where.items():
        yield f"| {' | '.join('; '.join(each) for each in both)} | {reason} |"
    yield ""


def without_settings(text: str) -> str:
    """``text`` with ``Rounded(of=Tanh(), size=0.1)`` as ``Rounded``."""
    while (shorter := re.sub(r"(?<=\w)\([^()]*\)", "", text)) != text:
        text = shorter
    return text


def page(kept: Mapping[str, Any], command: str) -> str:
    found = kept["runs"]
    hours = sum(row["seconds"] for row in found.values()) / 3600
    seeds = sorted({row["seed"] for row in found.values()})
    about = (
        f"`{command}`: {len(found)} runs, {hours:.2f} hours of one core in all; {kept['machine']['machine']}, one "
        f"thread a run, torch {kept['machine']['torch']}; commit {', '.join(kept['commits'])}; seeds "
        f"{', '.join(map(str, seeds))}. Mean and half of the range of the seeds."
    )
    return "\n".join([about, "", *tables(found), *reasons(found), *strengths()]).strip()


def draw(kept: Mapping[str, Any]) -> None:
    """The whole matrix: a row for each machine, a column for each rule."""
    from matplotlib.figure import Figure

    found = kept["runs"]
    values = [
        [mean(right) if (right := accuracies(rows_of(found, rule, name))) else float("nan") for rule in RULES]
        for name in MACHINES
    ]
    figure = Figure(figsize=(0.52 * len(RULES) + 4.2, 0.3 * len(MACHINES) + 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    image = axes.imshow(values, cmap="RdYlGn", vmin=10, vmax=95, aspect="auto")
    for i, name in enumerate(MACHINES):
        for j, rule in enumerate(RULES):
            rows = rows_of(found, rule, name)
            text = f"{values[i][j]:.0f}" if accuracies(rows) else rows[0]["outcome"][:3] + "."
            colour = "black" if not 25 < abs(values[i][j] - 50) < 50 else "white"  # on the dark ends of the map
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(RULES)), list(RULES), rotation=55, ha="left", rotation_mode="anchor", fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(MACHINES)), list(MACHINES), fontsize=8)
    for places, line in (
        ([1, 1 + len(SAME), 1 + len(SAME) + len(APART)], axes.axhline),
        ([sum(map(len, list(GROUPS.values())[:k])) for k in range(1, len(GROUPS))], axes.axvline),
    ):
        for place in places:
            line(place - 0.5, color="black", lw=1)
    figure.colorbar(image, ax=axes, label="test accuracy on digits, %", shrink=0.5, pad=0.01)
    figure.suptitle(
        f"Test accuracy on digits, %, mean of {len({row['seed'] for row in found.values()})} seeds. Between the lines: "
        "what is the same in all phases, and what is not. Grey: refused",
        fontsize=9,
    )
    figure.savefig(PICTURE, dpi=100)


def settings() -> Row:
    return {"epochs": EPOCHS, "batch": BATCH, "rate": RATE, "hidden": HIDDEN}


def one_thread() -> None:
    torch.set_num_threads(1)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    made.add_argument("--out", type=Path, default=RESULTS / "rules_on_substrates.json")
    made.add_argument("--rules", nargs="*", default=[], help="parts of the names of rules")
    made.add_argument("--faults", nargs="*", default=[], help="parts of the names of machines")
    asked = made.parse_args()
    one_thread()
    fresh: Row = {"machine": machine(), "settings": settings(), "commits": [], "runs": {}}
    kept = json.loads(asked.out.read_text()) if asked.out.exists() else fresh
    if kept["settings"] != settings():
        made.error(f"{asked.out} has runs of other settings, {kept['settings']}: give another --out.")
    every = [Run(rule, name, seed) for seed in range(asked.seeds) for name in MACHINES for rule in RULES]
    chosen = [
        run
        for run in every
        if all(
            not parts or any(part in name for part in parts)
            for parts, name in ((asked.rules, run.rule), (asked.faults, run.machine))
        )
    ]
    todo = [run for run in chosen if run.name not in kept["runs"]]
    if todo and (commit := commit_of(ROOT)) not in kept["commits"]:
        kept["commits"].append(commit)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.workers, spawn, one_thread) as pool:
        begun = {pool.submit(outcome, run): run for run in todo}
        for number, future in enumerate(as_completed(begun), 1):
            name, row = begun[future].name, future.result()
            kept["runs"][name] = row
            write_text_atomic(asked.out, json.dumps(kept, indent=1))
            print(f"{number}/{len(todo)}", name, row, flush=True)
    if missing := [run for run in every if run.name not in kept["runs"]]:
        print(f"{len(missing)} of {len(every)} runs are missing, so the page is as it was.")
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    text = page(kept, "python benchmarks/rules_on_substrates.py")
    write_text_atomic(PAGE, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")
    draw(kept)


if __name__ == "__main__":
    main()
