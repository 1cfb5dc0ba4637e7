"""One example that settles: the states, sweep by sweep, of its free and of a nudged phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from eqprop.diagnostics.check import DEFAULT_BETA, SWEEPS
from eqprop.diagnostics.gradients import loss_of
from eqprop.energy import Landscape, Network, State, Target
from eqprop.energy.network import Data
from eqprop.errors import InputError
from eqprop.learning import forms
from eqprop.learning.estimators import Cost, Estimator, PhaseEstimator, nudge_of
from eqprop.learning.references import Backpropagation
from eqprop.learning.teachers import force
from eqprop.report.blocks import Chart, Layer, Line, Picture, Settling, number
from eqprop.report.pictures import arrangement, films
from eqprop.settling import FixedSweeps, FromState, Solver, Sweep, alternating
from eqprop.tasks import Outputs

MOST = 32
"""States of a phase that are shown."""
PIXELS = 2_000_000
"""Of all pictures of the layers together."""
LARGEST, SMALLEST = 4624, 16
"""Pixels of one picture of a layer."""


class Recorder:
    """A sweep that keeps some of the states after it, evenly spread, the first and the last among them.

    Args:
        sweep: that it calls.
        start: the state before the first.
    """

    def __init__(self, sweep: Sweep, start: State):
        self.sweep = self.__wrapped__ = sweep  # ``crossing`` counts it as the sweep that it calls
        self.kept: list[tuple[int, State]] = [(0, start)]
        self.last, self.count, self.stride = start, 0, 1
        self.residuals: dict[str, list[float]] = {node: [] for node in start}

    def __call__(self, landscape: Landscape, state: State) -> State:
        after = self.sweep(landscape, state)
        self.count, self.last = self.count + 1, after
        for node, value in after.items():
            self.residuals[node].append(float((value - state[node]).abs().max()))
        if self.count % self.stride == 0:
            self.kept.append((self.count, after))
            if len(self.kept) > 2 * MOST:
                self.kept, self.stride = self.kept[::2], 2 * self.stride
        return after

    def phase(self) -> Phase:
        """What was kept, with the last state."""
        kept = self.kept if self.kept[-1][0] == self.count else [*self.kept, (self.count, self.last)]
        if len(kept) > MOST:
            kept = [kept[round(i * (len(kept) - 1) / (MOST - 1))] for i in range(MOST)]
        return Phase([sweep for sweep, _ in kept], [state for _, state in kept], self.residuals)


@dataclass(frozen=True)
class Phase:
    """The states of a phase.

    Attributes:
        sweeps: after how many sweeps each state is.
        states: node -> (1, *shape).
        residuals: node -> its largest change in each sweep, also of those that are not shown.
    """

    sweeps: Sequence[int]
    states: Sequence[State]
    residuals: dict[str, list[float]]


def recorded(solver: Any, start: State) -> tuple[Solver, Recorder]:
    """The same solver, recorded; or alternating sweeps in place of a solver that does not sweep."""
    if isinstance(getattr(solver, "solver", None), Solver):
        inner, recorder = recorded(solver.solver, start)
        return replace(solver, solver=inner), recorder
    if not callable(getattr(solver, "sweep", None)):
        solver = FixedSweeps(2 * SWEEPS, alternating)
    recorder = Recorder(solver.sweep, start)
    return replace(solver, sweep=recorder), recorder


def beta_shown(estimator: Estimator) -> float:
    """The largest real nudge towards the target that the estimator uses, or one that is usual."""
    if isinstance(estimator, PhaseEstimator) and hasattr(estimator, "nudging"):
        betas = [beta for beta in estimator.nudging.draw().betas if not isinstance(beta, complex) and beta]
        return max(betas, default=DEFAULT_BETA)
    return DEFAULT_BETA


@torch.no_grad()
def settle(network: Network, estimator: Estimator, x: Data, y: Target) -> tuple[Phase, Phase, list[Landscape], str]:
    """Both phases of one example, as the estimator settles them.

    Args:
        network: with a loss, in evaluation mode.
        estimator: of the run.
        x, y: a batch of one.

    Returns:
        The free phase, a nudged phase, the landscape of each, and what the nudged phase is, in words.

    Raises:
        InputError: nothing settles in this estimator.
    """
    if isinstance(estimator, Backpropagation) or not isinstance(getattr(estimator, "free", None), Solver):
        raise InputError(
            f"This picture is of a free and a nudged phase, which {type(estimator).__name__} does not have."
        )
    landscape = network.landscape(x)
    zeros = landscape.zeros()
    solver, recorder = recorded(estimator.free, zeros)  # type: ignore[attr-defined]
    free = solver(landscape, zeros)
    first = recorder.phase()
    beta = beta_shown(estimator)
    cost = Cost(loss_of(network), y, landscape.like.new_ones(len(landscape.like)))
    teacher, own = force, isinstance(estimator, PhaseEstimator)
    if isinstance(estimator, PhaseEstimator):
        teacher = estimator.teacher  # type: ignore[assignment]
    again = landscape.rebuilt(reading=1) if landscape.substrate.per_phase else landscape
    nudged = teacher(forms.states, again, free.state, nudge_of(cost, [beta])[0])
    way = estimator.nudged if isinstance(estimator, PhaseEstimator) else FixedSweeps(SWEEPS, recorder.sweep)
    solver, recorder = recorded(way, free.state)
    FromState(free.state, solver)(nudged, zeros)
    words = f"Nudged phase: beta {beta:g}, from the free equilibrium."
    if not own:
        words += f" {type(estimator).__name__} itself needs no such phase; it is shown as a picture of the response."
    return first, recorder.phase(), [landscape, nudged], words


@torch.no_grad()
def shown(
    network: Network, estimator: Estimator, x: Data, y: Target, outputs: Outputs | None, example: Picture | None
) -> tuple[Settling, str]:
    """One example that settles, as pictures, and a sentence on its nudged phase.

    Args:
        network, estimator, x, y: see ``settle``.
        outputs: what scores mean.
        example: the picture of the input.

    Raises:
        InputError: see ``settle``.
    """
    free, nudged, landscapes, words = settle(network, estimator, x, y)
    before, after = len(free.states), len(nudged.states)
    answers = [answer(network, landscapes[0], state, outputs) for state in (*free.states, *nudged.states[1:])]
    total = [free.sweeps[-1], nudged.sweeps[-1]]
    says = [f"free phase, after {s} of {total[0]} sweeps" for s in free.sweeps]
    says += [f"nudged phase, after {s} of {total[1]} sweeps" for s in nudged.sweeps[1:]]
    positions = [f"{text}: {answer}" if answer else text for text, answer in zip(says, answers, strict=True)]
    frames = before + 2 * after
    pixels = max(SMALLEST, min(LARGEST, PIXELS // (frames * len(landscapes[0].nodes))))
    layers = [layer(name, network, free.states, nudged.states, pixels) for name in landscapes[0].nodes]
    places = [*free.sweeps, *(total[0] + s for s in nudged.sweeps[1:])]
    charts = [*energies(landscapes, free, nudged, places), residuals(free, nudged, places, total[0])]
    ends = [0] * (before - 1)
    return Settling(
        example,
        positions,
        [*range(before), *[before - 1] * (after - 1)],
        [*ends, *range(after)],
        layers,
        charts,
    ), words


def answer(network: Network, landscape: Landscape, state: State, outputs: Outputs | None) -> str:
    """What the network would answer in this state; "" if that has no words."""
    scores = network.scores(landscape.masked(state))
    if outputs is None or network.loss is None or not bool(scores.isfinite().all()):
        return ""
    try:
        found = outputs.answers(scores.cpu(), network.loss.probabilities(scores.cpu()))[0]
    except (InputError, RuntimeError, IndexError):
        return ""
    parts = [str(each)[:40] if isinstance(each, str) else number(each) for each in found[:4]]
    if outputs.header == ("class", "probability"):
        return f"the answer is {parts[0]} (probability {parts[1]})"
    names = [str(name)[:40] for name in outputs.header[:4]]
    return ", ".join(f"{name} {part}" for name, part in zip(names, parts, strict=True))


def layer(name: str, network: Network, free: Sequence[State], nudged: Sequence[State], pixels: int) -> Layer:
    before, after = (torch.cat([state[name].real for state in states]).cpu() for states in (free, nudged))
    alts = [f"layer {name}, {phase} phase" for phase in ("free", "nudged")]
    states = films(torch.cat([before, after]), [len(before), len(after)], pixels, alts, signed=False)
    (moved,) = films(after - before[-1:], [len(after)], pixels, [f"layer {name}, nudged minus free"], signed=True)
    return Layer(name, arrangement(network.nodes[name].shape, pixels), states[0], states[1], moved)


def energies(landscapes: Sequence[Landscape], free: Phase, nudged: Phase, places: Sequence[int]) -> list[Chart]:
    """The energy in each state; nothing for a network without one."""
    try:
        known = [float(landscapes[0].energy(state).real) for state in (*free.states, *nudged.states[1:])]
        descended = [float(landscapes[1].energy(state).real) for state in nudged.states]
    except (InputError, NotImplementedError):
        return []
    x, first = "sweeps of the free, then of the nudged phase", len(free.states)
    lines = [
        Line("free phase", places[:first], above(known[:first])),
        Line("nudged phase, with the nudge's part", places[first - 1 :], above(descended)),
    ]
    title = "Energy that each phase descends, above the lowest of the phase"
    return [
        Chart("Energy of the network, without the nudge", x, [Line("energy", places, known)], cursor=places),
        Chart(title, x, lines, log=True, cursor=places),
    ]


def above(values: Sequence[float]) -> list[float]:
    """The values above the smallest that is finite."""
    low = min((value for value in values if value - value == 0), default=0.0)
    return [value - low for value in values]


def residuals(free: Phase, nudged: Phase, places: Sequence[int], total: int) -> Chart:
    """How much each layer still changes, in all sweeps."""
    lines = []
    for node, values in free.residuals.items():
        both = [*values, *nudged.residuals.get(node, [])]
        lines.append(Line(node, list(range(1, len(both) + 1)), both))
    title = f"Largest change of a unit in a sweep; from sweep {total + 1} on of the nudged phase"
    return Chart(title, "sweeps of the free, then of the nudged phase", lines, log=True, cursor=places)
