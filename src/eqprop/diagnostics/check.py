"""What ``eqprop check`` does: a run's or a recipe's estimator, and the standard ones, against the exact gradient."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqprop.diagnostics.alignment import ABOUT, Angles, trained_angles
from eqprop.diagnostics.bias import BiasCurve, bias_curve
from eqprop.diagnostics.comparison import compare, plain
from eqprop.diagnostics.equilibria import equilibria
from eqprop.diagnostics.gradients import double, loss_of, undisturbed
from eqprop.diagnostics.pictures import (
    draw_angles,
    draw_bias,
    draw_convergence,
    draw_distance,
    draw_noise,
    draw_through_time,
)
from eqprop.diagnostics.smoothing import is_smooth, smooth
from eqprop.diagnostics.suggestion import Family, noise_curve, suggest_beta
from eqprop.diagnostics.through_time import through_time
from eqprop.energy.network import Landscape, Network
from eqprop.energy.nodes import State
from eqprop.errors import EqpropError, InputError
from eqprop.learning import forms
from eqprop.learning.estimators import Cost, EquilibriumPropagation, Estimator, nudge_of
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.learning.references import BackpropagationThroughTime
from eqprop.learning.rules import Noisy, Rule, contrastive, vector_field
from eqprop.learning.stencils import Nudging, five_point, holomorphic, one_sided, symmetric
from eqprop.settling.conjugate_gradients import ConjugateGradients
from eqprop.settling.solvers import FixedSweeps, Solver, UntilConverged
from eqprop.settling.starts import FromState
from eqprop.settling.sweeps import Sweep, alternating
from eqprop.training.checkpoint import make_folder, write_text_atomic
from eqprop.training.loop import Experiment

Say = Callable[[Any], None]

STENCILS: dict[str, Callable[[float], Nudging]] = {
    "one-sided": one_sided,
    "symmetric": symmetric,
    "five-point": five_point,
    "holomorphic 6": partial(holomorphic, points=6),
}
"""The families that are compared and drawn, wherever a network can follow them."""
READ_WITH_NOISE = ("one-sided", "symmetric")

DEFAULT_BETA = 0.1
BETAS = tuple(0.02 * 2**k for k in range(8))
FEW = 8
FAR = UntilConverged(1e-12, 1000)
SWEEPS = 20
AS_IT_IS, TWIN = "as it is", "smooth twin (sigmoids, soft pooling)"


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        title: what the network is.
        networks: the network as it is; and its smooth twin, if it has one and is not smooth itself.
        x, y: the batch.
        own: the estimator of the run.
        beta: of the standard estimators.
    """

    title: str
    networks: Mapping[str, Network]
    x: Tensor
    y: Tensor
    own: Estimator
    beta: float

    @property
    def network(self) -> Network:
        return self.networks[AS_IT_IS]

    @property
    def rule(self) -> Rule:
        """The run's own; else what gives a gradient for its kind of network."""
        if isinstance(self.own, EquilibriumPropagation):
            return self.own.rule
        return contrastive if symmetric_terms(self.network) else vector_field

    def few(self) -> Subject:
        """The same with the first few images, for what settles far."""
        return replace(self, x=self.x[:FEW], y=self.y[:FEW])

    def families(self, which: str) -> dict[str, Family]:
        """Those that one of the networks follows, settled far: the bias is all that is left of the error."""
        landscape = double(self.networks[which]).landscape(self.x.double())
        with torch.no_grad():
            free = FromState(FAR(landscape, landscape.zeros()).state, FAR)

        def family(stencil: Callable[[float], Nudging]) -> Family:
            return lambda beta: EquilibriumPropagation(stencil(beta), free, FAR, self.rule)

        return {name: family(make) for name, make in followed(self.networks[which], self.x).items()}


def check(
    run: Experiment,
    title: str,
    folder: Path,
    say: Say,
    images: int = 20,
    nudge: float = 0.0,
    pictures: bool = True,
    read_noise: float = 1e-3,
    reads: int = 1,
) -> None:
    """How good the gradient is that a run or a recipe learns from, and the standard estimators' on the same network.

    Args:
        run: its model is checked.
        title: what the network is, for titles.
        folder: for ``check.json`` and the pictures; made if it is not there.
        say: prints a text or a table.
        images: how many of the training set, without augmentation; what settles far takes the first eight.
        nudge: beta of the standard estimators; 0: the run's own, or 0.1 where it has none.
        pictures: draw them too, which takes most of the time.
        read_noise: standard deviation of one read of a unit's state, for the beta that is suggested.
        reads: how many reads are averaged.
    """
    Noisy(contrastive, read_noise, reads)  # what does not fit shows before any work
    x, y = batch_of(run, images)
    network, own = run.model.network, run.model.estimator
    beta = nudge or beta_of(own)
    make_folder(folder, exist_ok=True)
    comparison = compare(network, x, y, {"recipe's own": own} | standard(network, x, own, beta))
    say(comparison.table(f"{title}: {len(x)} images, beta {beta:g}; against the exact gradient, each at its own rest"))
    say(comparison.phases("How the phases went: the change in the last sweep, and where"))
    rests = equilibria(network, x)
    say(f"Equilibria: {rests}")
    found: dict[str, Any] = {"title": title, "images": len(x), "beta": beta}
    found |= {"comparison": comparison, "equilibria": rests}

    networks = {AS_IT_IS: network}
    try:
        networks |= {} if is_smooth(network) else {TWIN: smooth(network)}
    except InputError as error:
        say(f"No smooth twin: {error}")
    subject = Subject(title, networks, x, y, own, beta)
    parts: dict[str, Callable[[], Any]] = {
        "suggestion": partial(suggestions, subject.few(), read_noise, reads, say, folder if pictures else None)
    }
    if pictures:
        parts |= {
            "bias": partial(bias, subject.few(), folder),
            "through_time": partial(steps, subject.few(), folder),
            "convergence": partial(convergence, subject, folder),
            "angles": partial(alignment, subject, folder),
        }
    for name, part in parts.items():
        try:
            found[name] = part()
        except EqpropError as error:
            say(f"Left out, {name}: {error}")
    write_text_atomic(folder / "check.json", json.dumps(plain(found), indent=1))
    say(f"{'All numbers and pictures' if pictures else 'All numbers'}: {folder}")


def batch_of(run: Experiment, images: int) -> tuple[Tensor, Tensor]:
    """The first images of the first epoch, without augmentation."""
    if not 1 <= images <= len(run.train.images):
        raise InputError(f"images {images}: the training set has {len(run.train.images)}; ask for 1 or more of them.")
    return next(iter(replace(run.train, augment=(), batch_size=images).epoch(0)))


def beta_of(own: Estimator) -> float:
    """The smallest nudge of the estimator's stencil."""
    if not isinstance(own, EquilibriumPropagation):
        return DEFAULT_BETA
    with undisturbed(torch.empty(0), [own]):
        return min(abs(beta) for beta in own.nudging.draw().betas if beta)


def followed(network: Network, x: Tensor) -> dict[str, Callable[[float], Nudging]]:
    """Of the families, those that the network can follow: complex nudges want it holomorphic throughout."""
    try:
        forms.states.check_holomorphic(network.landscape(x))
        smooth_enough = loss_of(network).holomorphic
    except InputError:
        smooth_enough = False
    return {name: make for name, make in STENCILS.items() if smooth_enough or not make(DEFAULT_BETA).is_complex}


def standard(network: Network, x: Tensor, own: Estimator, beta: float) -> dict[str, Estimator]:
    """The estimators of the field, with the solvers of the run's own where it has such."""
    free = getattr(own, "free", FixedSweeps(2 * SWEEPS))
    nudged = FixedSweeps(SWEEPS)
    base = own if isinstance(own, EquilibriumPropagation) else EquilibriumPropagation(symmetric(beta), free, nudged)
    found: dict[str, Estimator] = {
        f"{name} {beta:g}": replace(base, nudging=make(beta)) for name, make in followed(network, x).items()
    }
    response: Solver = ConjugateGradients(SWEEPS, 1e-6) if symmetric_terms(network) else FixedSweeps(2 * SWEEPS)
    found["infinitesimal"] = InfinitesimalNudge(free, response, 0.0)
    unrolled = free if isinstance(free, FixedSweeps) else FixedSweeps(2 * SWEEPS)
    last = min(unrolled.n, base.nudged.n if isinstance(base.nudged, FixedSweeps) else SWEEPS)
    found[f"truncated BPTT {last}"] = BackpropagationThroughTime(unrolled, last)
    return found


def symmetric_terms(network: Network) -> bool:
    return all(term.symmetric for term in network.terms.values())


# -- the parts: each measures, draws, and returns what goes into check.json --


def suggestions(subject: Subject, read_noise: float, reads: int, say: Say, folder: Path | None = None) -> Any:
    """The best beta under read noise, on the smoothest network there is."""
    which, network = list(subject.networks.items())[-1]
    x, y = subject.x, subject.y
    families = {name: family for name, family in subject.families(which).items() if name in READ_WITH_NOISE}
    found = {name: suggest_beta(network, x, y, read_noise, reads, family) for name, family in families.items()}
    many = f"{reads} read{'s' * (reads > 1)}"
    for name, each in found.items():
        say(
            f"Read noise {read_noise:g}, {many}, {len(x)} images, {which}: {name} is best at beta {each.beta:.2g}, "
            f"with an error of up to {each.error:.2g} of the gradient."
        )
    if folder is not None:
        measured = {}
        for name, family in families.items():
            betas = [found[name].beta * 2.0**k for k in range(-6, 2)]
            noises = noise_curve(network, x, y, family, betas[::2], read_noise, reads, draws=4)
            measured[name] = found[name], bias_curve(network, x, y, family, betas), noises
        about = f"standard deviation of a read {read_noise:g}, {many}, batch of {len(x)} images"
        title = f"{subject.title}, {which}: bias of the estimate, and its noise\n({about})"
        draw_noise(folder / "noise.png", measured, title)
    return {name: suggestion.as_dict() for name, suggestion in found.items()}


def bias(subject: Subject, folder: Path) -> Any:
    found: dict[str, dict[str, BiasCurve]] = {
        which: {
            name: bias_curve(network, subject.x, subject.y, family, BETAS)
            for name, family in subject.families(which).items()
        }
        for which, network in subject.networks.items()
    }
    draw_bias(folder / "bias.png", found, f"{subject.title}, {len(subject.x)} images")
    return found


def steps(subject: Subject, folder: Path) -> Any:
    found = {
        which: through_time(network, subject.x, subject.y, subject.beta, SWEEPS, rule=subject.rule)
        for which, network in subject.networks.items()
    }
    distances = {which: each.relative_distance() for which, each in found.items()}
    title = f"{subject.title}, {len(subject.x)} images"
    draw_through_time(folder / "through_time.png", found, title)
    draw_distance(folder / "distance.png", distances, f"{title}, beta ±{subject.beta:g}, {SWEEPS} sweeps")
    return {
        which: {"residual": each.residual, "relative_distance": distances[which], "steps": each.errors()}
        for which, each in found.items()
    }


def convergence(subject: Subject, folder: Path) -> Any:
    """In float64, in the order of the run's own free sweeps."""
    network, x, y = double(subject.network), subject.x.double(), subject.y
    sweep: Sweep = getattr(getattr(subject.own, "free", None), "sweep", alternating)
    with torch.no_grad():
        landscape = network.landscape(x)
        rest = FAR(landscape, landscape.zeros()).state
        cost = Cost(loss_of(network), y, x.new_ones(len(x)))
        nudged = landscape.plus("nudge", nudge_of(cost, [subject.beta])[0])
        found = {
            "free phase, from rest at 0": residuals(landscape, landscape.zeros(), sweep),
            f"nudged phase, beta {subject.beta:g}, from the free equilibrium": residuals(nudged, rest, sweep),
        }
    order = getattr(sweep, "__name__", "own").replace("_", " ")
    draw_convergence(folder / "convergence.png", found, f"{subject.title}, {len(x)} images, {order} sweeps, float64")
    return found


def residuals(landscape: Landscape, state: State, sweep: Sweep) -> dict[str, list[float]]:
    """Node -> the largest change of any of its units in any example, sweep by sweep."""
    once, found = FixedSweeps(1, sweep), {node: list[float]() for node in landscape.nodes}
    for _ in range(2 * SWEEPS):
        settled = once(landscape, state)
        state = settled.state
        for node, change in settled.residuals.items():
            found[node].append(float(change.max()))
    return found


def alignment(subject: Subject, folder: Path) -> Any:
    """The angles that the run has logged; else those of a short training that shows what the two rules do."""
    logged = logged_angles(folder.parent / "metrics.csv")
    found = {"as trained": logged} if logged else trained_angles()
    about = f"{subject.title}" if logged else ABOUT
    draw_angles(folder / "angles.png", found, f"Do feedback weights align with feedforward ones?\n{about}")
    return found


def logged_angles(path: Path) -> Angles:
    if not path.is_file():
        return {}
    rows = list(csv.DictReader(path.read_text().splitlines()))
    names = [name for name in rows[0] if name.startswith("angle_")] if rows else []
    return {name.removeprefix("angle_"): [float(row[name]) for row in rows] for name in names}
