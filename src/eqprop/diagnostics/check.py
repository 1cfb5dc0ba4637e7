"""The command ``eqprop check``: a run's or a recipe's estimator, and the standard ones, against the exact gradient."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from eqprop.checks import Count, checked
from eqprop.devices.writing import Written
from eqprop.diagnostics import pictures
from eqprop.diagnostics.bias import Family, Suggestion, best_beta, bias_curve, noise_curve
from eqprop.diagnostics.comparison import compare, plain, short
from eqprop.diagnostics.equilibria import equilibria
from eqprop.diagnostics.gradients import double, loss_of, reciprocal_terms, undisturbed
from eqprop.diagnostics.layers import layer_sizes, table_of_sizes
from eqprop.diagnostics.machine import Bench, ExactOn, MachineErrors, machine_errors
from eqprop.diagnostics.smoothing import is_smooth, smooth
from eqprop.diagnostics.stability import Stability, stability
from eqprop.diagnostics.through_time import through_time
from eqprop.diagnostics.verdict import SEEN, machine_verdict, verdict
from eqprop.energy import Landscape, Network, State
from eqprop.energy.substrate import IDEAL
from eqprop.errors import EqpropError, InputError
from eqprop.files import make_folder, write_text_atomic
from eqprop.learning import forms
from eqprop.learning.dyadic import DyadicEP
from eqprop.learning.estimators import Cost, EquilibriumPropagation, Estimator, nudge_of, phases_apart
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.learning.references import BackpropagationThroughTime
from eqprop.learning.rules import Noisy, Rule, contrastive, kolen_pollack, vector_field
from eqprop.learning.stencils import Nudging, five_point, holomorphic, one_sided, symmetric
from eqprop.learning.teachers import NUDGE, Corrected, Teacher, corrected, force
from eqprop.physics import CostTable, cost_report
from eqprop.settling import ConjugateGradients, FixedSweeps, FromState, Solver, Sweep, UntilConverged, alternating
from eqprop.training.cost import steps_written, tally_of_mean_step
from eqprop.training.loop import Experiment
from eqprop.training.report import write_figure

Say = Callable[[Any], None]

STENCILS: dict[str, Callable[[float], Nudging]] = {
    "one-sided": one_sided,
    "symmetric": symmetric,
    "five-point": five_point,
    "holomorphic 6": partial(holomorphic, points=6),
}
"""The families that are compared and drawn, if a network allows them."""
READ_WITH_NOISE = ("one-sided", "symmetric")

DEFAULT_BETA = 0.1
BETAS = tuple(0.02 * 2**k for k in range(8))
FEW = 8
FAR = UntilConverged(1e-12, 1000)
SWEEPS = 20
BETA = "beta (no unit)"
OWN = "recipe's own"
ITS_OWN, IDEALS = "the machine's own", "the ideal network's"
"""The exact gradients that estimates on a machine are compared with."""
ASYMMETRIC = "asymmetric EP"
AS_IT_IS, SMOOTH = "the network itself", "its smooth version (sigmoids, soft pooling)"


@dataclass(frozen=True)
class Subject:
    """The network and estimator to check.

    Attributes:
        title: describes the network.
        networks: the network itself, on a machine as it was made; and its smooth version, if there is one and the
            network is not smooth.
        x, y: the batch.
        own: the estimator of the run.
        beta: of the standard estimators.
        folder: for pictures.
        say: prints a text or a table.
        machine: the network on a machine that adds an error that beta divides; ``None`` if it does not.
    """

    title: str
    networks: Mapping[str, Network]
    x: Tensor
    y: Tensor
    own: Estimator
    beta: float
    folder: Path
    say: Say
    machine: Network | None = None

    def picture(self, name: str, about: str, panels: Mapping[str, Any], draw: Callable[..., None], **how: Any) -> None:
        """Writes a picture to the folder; ``how``: options of ``write_figure``."""
        title = f"{self.title}, {len(self.x)} images{about}"
        write_figure(self.folder / f"{name}.png", title, panels, draw, **how)

    @property
    def network(self) -> Network:
        return self.networks[AS_IT_IS]

    @property
    def rule(self) -> Rule:
        """The run's own rule; else one that gives a gradient for this network."""
        if isinstance(self.own, EquilibriumPropagation):
            return self.own.rule
        return contrastive if reciprocal_terms(self.network, self.x) else vector_field

    @property
    def teacher(self) -> Teacher:
        """A force, corrected if the run's own teacher is."""
        own = self.own.teacher if isinstance(self.own, EquilibriumPropagation) else force
        return corrected if own.corrects else force

    def few(self) -> Subject:
        """The same with the first few images, for phases that settle to high accuracy."""
        return replace(self, x=self.x[:FEW], y=self.y[:FEW])

    def families(self, which: str) -> dict[str, Family]:
        """The families that one of the networks allows, settled so far that only the bias remains."""
        landscape = double(self.networks[which]).landscape(self.x.double())
        with torch.no_grad():
            free = FromState(FAR(landscape, landscape.zeros()).state, FAR)

        def family(stencil: Callable[[float], Nudging]) -> Family:
            return lambda beta: EquilibriumPropagation(stencil(beta), free, FAR, self.rule, teacher=self.teacher)

        return {name: family(make) for name, make in followed(self.networks[which], self.x).items()}


@checked
def check(
    run: Experiment,
    title: str,
    folder: Path,
    say: Say,
    images: Count | None = None,
    nudge: Annotated[float, ">= 0", "<= 1e6"] = 0.0,
    pictures: bool = True,
    read_noise: float = 1e-3,
    reads: int = 1,
    table: CostTable | None = None,
) -> None:
    """Compare the gradient of a run or a recipe, and those of the standard estimators, with the exact one.

    For a network on a machine: with the exact gradient of that machine as it was made, and with that of the ideal
    network; then what each fault of the machine adds, which one dominates, and what to change. The other parts are on
    the machine as it was made.

    Args:
        run: its model is checked.
        title: describes the network, for titles.
        folder: for ``check.json`` and the pictures; made if it does not exist.
        say: prints a text or a table.
        images: how many of the training set, without augmentation; default: 20. The slow parts use the first eight.
        nudge: beta of the standard estimators; 0: the run's own, or 0.1 if it has none.
        pictures: whether to draw pictures, which takes most of the time.
        read_noise: standard deviation of one read of a unit's state, for the beta that is suggested; not used on a
            machine that has errors of its own that beta divides.
        reads: how many reads are averaged.
        table: the constants of the modelled cost of a training step; default: ``CostTable()``.
    """
    Noisy(contrastive, read_noise, reads)  # raises before any work
    x, y = batch_of(run, min(20, len(run.train)) if images is None else images)
    network = run.model.network
    own, made = phases_apart(run.model.estimator, network.substrate), network.on(network.substrate.as_made())
    beta = nudge or beta_of(own)
    make_folder(folder, exist_ok=True)
    estimators = {OWN: own} | standard(network, x, own, beta)
    corrects = "" if reciprocal_terms(network, x) else f"{ASYMMETRIC} {beta:g}"
    found: dict[str, Any] = {"title": title, "images": len(x), "beta": beta}
    errors: MachineErrors | None = None
    if network.substrate.is_ideal:
        comparison = compare(network, x, y, estimators)
        stable = found["stability"] = stability_of(made, own, x, y)
        found["verdict"] = verdict(comparison, OWN, "infinitesimal", corrects, stable=stable)
        tables = {"the exact gradient at its equilibrium": comparison}
    else:
        references = {ITS_OWN: ExactOn(made.substrate), IDEALS: ExactOn(IDEAL)}
        comparison = compare(network, x, y, estimators, references)
        tables = {f"{ITS_OWN} exact gradient": comparison.against(ITS_OWN)}
        tables |= {f"{IDEALS} exact gradient, all tensors together": comparison.against(IDEALS, whole=True)}
        try:
            errors = machine_errors(network, x[:FEW], y[:FEW], nudged_like(own, beta))
        except EqpropError as error:
            say(f"Left out, machine: {error}")
        adds = errors is not None and errors.whole.error > errors.whole.own
        size = f"the machine adds an error of {errors.whole.error:.2g}" if errors else ""
        why = f"disturbed by the machine: {size}. See the verdict on the machine below" if adds else ""
        stable = found["stability"] = stability_of(made, own, x, y)
        found["verdict"] = verdict(comparison.against(ITS_OWN), OWN, "infinitesimal", corrects, why, stable)
    say(found["verdict"])
    for against, each in tables.items():
        say(each.table(f"{title}: {len(x)} images, beta {beta:g}; against {against}"))
    say(comparison.phases("The phases: the change in the last sweep, and its node"))
    rests = equilibria(made, x)
    say(f"Equilibria: {rests}")
    found |= {"comparison": comparison, "equilibria": rests, "machine": errors}

    networks = {AS_IT_IS: made}
    try:
        networks |= {} if is_smooth(made) else {SMOOTH: smooth(made)}
    except InputError as error:
        say(f"No smooth version: {error}")
    noisy = network if errors is not None and errors.whole.by_beta > SEEN else None
    subject = Subject(title, networks, x, y, own, beta, folder, say, noisy)
    parts: dict[str, Callable[[Subject], Any]] = {"modelled_cost": partial(cost_of_a_step, run=run, table=table)}
    parts["layers"] = layers
    parts["suggestion"] = partial(suggestions, read_noise=read_noise, reads=reads, drawn=pictures)
    for name, part in (parts | PICTURED if pictures else parts).items():
        try:
            found[name] = part(subject)
        except EqpropError as error:
            say(f"Left out, {name}: {error}")
    best: dict[str, Suggestion] = found.get("suggestion", {})
    found["suggestion"] = {name: each.as_dict() for name, each in best.items()}
    if errors is not None:
        which = "the recipe's own estimate" if nudged_like(own, beta) is own else f"estimates of symmetric {beta:g}"
        say(errors.table(f"What the machine adds to the error of {which}, {min(FEW, len(x))} images"))
        found["machine_verdict"] = machine_verdict(errors, best, (BETAS[0], BETAS[-1]))
        say(found["machine_verdict"])
    write_text_atomic(folder / "check.json", json.dumps(plain(found), indent=1))
    say(f"{'All numbers and pictures' if pictures else 'All numbers'}: {folder}")


def stability_of(network: Network, own: Estimator, x: Tensor, y: Tensor) -> Stability | None:
    """The stability of the run's equilibria; ``None`` where it cannot be measured."""
    try:
        return stability(network, own, x, y)
    except EqpropError:
        return None


def batch_of(run: Experiment, images: int) -> tuple[Tensor, Tensor]:
    """The first images of the first epoch, without augmentation."""
    if images > len(run.train):
        raise InputError(f"images {images}: the training set has {len(run.train)}; ask for as many or fewer.")
    x, y = run.train.sample(images)
    return x, y


def beta_of(own: Estimator) -> float:
    """The smallest nudge of the estimator's stencil."""
    if not isinstance(own, EquilibriumPropagation):
        return DEFAULT_BETA
    with undisturbed(torch.empty(0), [own]):
        return min(abs(beta) for beta in own.nudging.draw().betas if beta)


def followed(network: Network, x: Tensor) -> dict[str, Callable[[float], Nudging]]:
    """The families that the network allows: complex nudges need a holomorphic network and loss."""
    try:
        forms.states.check_holomorphic(network.landscape(x))
        smooth_enough = loss_of(network).holomorphic
    except InputError:
        smooth_enough = False
    return {name: make for name, make in STENCILS.items() if smooth_enough or not make(DEFAULT_BETA).is_complex}


def standard(network: Network, x: Tensor, own: Estimator, beta: float) -> dict[str, Estimator]:
    """The standard estimators, with the solvers of the run if it has them."""
    base = nudged_like(own, beta)
    free = base.free
    found: dict[str, Estimator] = {
        f"{name} {beta:g}": phases_apart(replace(base, nudging=make(beta)), network.substrate)
        for name, make in followed(network, x).items()
    }
    transposes = reciprocal_terms(network, x)
    if not transposes:
        found |= {name: phases_apart(each, network.substrate) for name, each in without_energy(base, beta).items()}
    response: Solver = ConjugateGradients(SWEEPS, 1e-6) if transposes else FixedSweeps(2 * SWEEPS)
    found["infinitesimal"] = InfinitesimalNudge(free, response, 0.0, base.teacher.corrects)
    unrolled = free if isinstance(free, FixedSweeps) else FixedSweeps(2 * SWEEPS)
    last = min(unrolled.n, base.nudged.n if isinstance(base.nudged, FixedSweeps) else SWEEPS)
    found[f"truncated BPTT {last}"] = BackpropagationThroughTime(unrolled, last)
    return found


def nudged_like(own: Estimator, beta: float) -> EquilibriumPropagation:
    """The run's own estimator; or if it has no finite nudges, symmetric ones with its free phase."""
    if isinstance(own, EquilibriumPropagation):
        return own
    return EquilibriumPropagation(symmetric(beta), getattr(own, "free", FixedSweeps(2 * SWEEPS)), FixedSweeps(SWEEPS))


def without_energy(base: EquilibriumPropagation, beta: float) -> dict[str, Estimator]:
    """The rules for feedback that is not the transpose, with the solvers of ``base``; symmetric nudges."""
    plain = base.teacher.teacher if isinstance(base.teacher, Corrected) else base.teacher
    rules: dict[str, tuple[Rule, Teacher]] = {
        "vector field": (vector_field, plain),
        "Kolen-Pollack": (kolen_pollack, plain),
        ASYMMETRIC: (vector_field, Corrected(plain)),
    }
    nudged = replace(base, nudging=symmetric(beta))
    found: dict[str, Estimator] = {
        f"{name} {beta:g}": replace(nudged, rule=rule, teacher=teacher) for name, (rule, teacher) in rules.items()
    }
    return found | {f"dyadic EP {beta:g}": DyadicEP(beta, base.free, base.nudged, base.form)}


# -- the parts: each measures, draws, and returns its part of check.json --


def cost_of_a_step(subject: Subject, run: Experiment, table: CostTable | None) -> Any:
    """What a training step of the run would cost on a machine, by a table of constants."""
    found, made, pulses = cost_report(tally_of_mean_step(run), table), steps_written(run), ""
    if isinstance(run.optimizer, Written):
        pulses = f" (the mean of {made:,} steps)" if made else " (none is known: check a trained run)"
    subject.say(f"A training step of {run.train.size(0)} examples on a machine: {found['modelled_cost']}{pulses}")
    return found


def layers(subject: Subject) -> Any:
    """The size of the contrast in each layer: it may fall or grow from layer to layer."""
    sizes = layer_sizes(subject.network, subject.x, subject.y)
    subject.say(table_of_sizes(sizes, f"What a small nudge does to each layer: {len(subject.x)} images"))
    return sizes


def suggestions(subject: Subject, read_noise: float, reads: int, drawn: bool) -> dict[str, Suggestion]:
    """The best beta under read noise or the machine's own, by the bias that is measured on the network as it is."""
    subject = subject.few()
    network, x, y = subject.network, subject.x, subject.y
    families = {name: family for name, family in subject.families(AS_IT_IS).items() if name in READ_WITH_NOISE}
    curves = {name: bias_curve(network, x, y, family, BETAS) for name, family in families.items()}
    found, measured = {}, {}
    many = f"{reads} read{'s' * (reads > 1)}"
    what = f"Read noise {read_noise:g}, {many}" if subject.machine is None else "This machine"
    for name, family in families.items():
        if subject.machine is None:
            noises = noise_curve(network, x, y, family, BETAS[::3], read_noise, reads, draws=4)
            constant = math.prod(noises[0])
        else:
            noises, constant = noise_of_machine(subject.machine, subject, STENCILS[name])
        try:
            found[name] = each = best_beta(curves[name], constant)
        except InputError as error:
            subject.say(f"No best beta for {name}: {error}")
            continue
        subject.say(
            f"{what}, {len(x)} images: {name} is best at beta {each.beta:.2g}, with an "
            f"error of up to {each.error:.2g} of the gradient; its bias grows as beta^{each.order:.2f} (measured at "
            f"beta {BETAS[0]:g} to {BETAS[-1]:g})."
        )
        measured[name] = each, curves[name], noises
    if drawn and measured:
        noise = "what the machine adds" if subject.machine else f"standard deviation of a read {read_noise:g}, {many}"
        about = f": bias of the estimate, and its noise ({noise})"
        label = "error relative to the gradient (no unit)"
        options = {"share": True, "room": (1e-4, 1), "legend": "lower left"}
        subject.picture("noise", about, measured, pictures.draw_noise, x=BETA, y=label, **options)
    return found


def noise_of_machine(
    network: Network, subject: Subject, stencil: Callable[[float], Nudging]
) -> tuple[list[tuple[float, float]], float]:
    """Pairs (beta, error that the machine adds), and the constant of its part that falls as 1 / beta."""
    estimator = replace(nudged_like(subject.own, subject.beta), nudging=stencil(subject.beta))
    added = Bench(network, subject.x, subject.y, estimator).added("", network.substrate)
    betas = subject.beta / 2, subject.beta
    pairs = [(beta, math.hypot(added.by_beta * subject.beta / beta, added.fixed)) for beta in betas]
    return pairs, added.by_beta * subject.beta


def bias(subject: Subject) -> Any:
    subject = subject.few()
    found = {
        which: {
            name: bias_curve(network, subject.x, subject.y, family, BETAS)
            for name, family in subject.families(which).items()
        }
        for which, network in subject.networks.items()
    }
    about = ": error against the exact gradient at the same equilibrium;\nlines: power laws fitted to the"
    label = "relative error of the gradient (no unit)"
    options = {"share": True, "room": (1, 300), "legend": "upper left"}
    subject.picture("bias", f"{about} points that they cross", found, pictures.draw_bias, x=BETA, y=label, **options)
    return found


def against_backpropagation(subject: Subject) -> Any:
    subject = subject.few()
    found = {
        which: through_time(
            network, subject.x, subject.y, subject.beta, SWEEPS, rule=subject.rule, teacher=subject.teacher
        )
        for which, network in subject.networks.items()
    }
    names = list(next(iter(found.values())).exact)
    shown = [name for name in names if name.endswith("weight")] or names
    panels = {f"{which}: {short(name)}": (each, name) for which, each in found.items() for name in shown}
    about = ": the estimate after K nudged sweeps,\nand backpropagation through the last K sweeps"
    subject.picture(
        "through_time", about, panels, pictures.draw_through_time, x="K (sweeps)", rows=len(found), whole=True
    )
    distances = {which: each.relative_distance() for which, each in found.items()}
    bars = {which: {short(name): value for name, value in each.items()} for which, each in distances.items()}
    about = f", beta ±{subject.beta:g}, {SWEEPS} sweeps: the mean of the ±beta estimates,\nits distance from "
    about += "backpropagation relative to theirs"
    label = "relative distance (no unit)\n1: no nearer than ±beta alone"
    options = {"y": label, "legend": "upper right", "size": pictures.WIDE}
    subject.picture("distance", about, {"": bars}, pictures.draw_distance, x="parameter tensor", **options)
    return {
        which: {"residual": each.residual, "relative_distance": distances[which], "steps": each.errors()}
        for which, each in found.items()
    }


def convergence(subject: Subject) -> Any:
    """The residuals of both phases in float64, in the order of the run's own free sweeps."""
    network, x, y = double(subject.network), subject.x.double(), subject.y
    sweep: Sweep = getattr(getattr(subject.own, "free", None), "sweep", alternating)
    with torch.no_grad():
        landscape = network.landscape(x)
        rest = FAR(landscape, landscape.zeros()).state
        cost = Cost(loss_of(network), y, x.new_ones(len(x)))
        nudged = landscape.with_term(NUDGE, nudge_of(cost, [subject.beta])[0])
        found = {
            "free phase, from zero": residuals(landscape, landscape.zeros(), sweep),
            f"nudged phase, beta {subject.beta:g}, from the free equilibrium": residuals(nudged, rest, sweep),
        }
    order = getattr(sweep, "__name__", "own").replace("_", " ")
    about = f", {order} sweeps, float64: how far each node is from rest"
    label = "largest change of a unit in the sweep\n(units of the state)"
    subject.picture("convergence", about, found, pictures.draw_convergence, x="sweeps", y=label, share=True)
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


def alignment(subject: Subject) -> Any:
    """The angles between feedforward and feedback weights that the run has logged, if it has such weights."""
    found = logged_angles(subject.folder.parent / "metrics.csv")
    if found:
        label = "angle between feedforward\nand feedback weights (degrees)"
        title = f"{subject.title}: do feedback weights align with feedforward ones?"
        options: dict[str, Any] = {"y": label, "whole": True, "size": pictures.WIDE}
        panels = {"": {"as trained": found}}
        write_figure(subject.folder / "angles.png", title, panels, pictures.draw_angles, x="epochs", **options)
    return found


PICTURED: dict[str, Callable[[Subject], Any]] = {
    "bias": bias,
    "through_time": against_backpropagation,
    "convergence": convergence,
    "angles": alignment,
}


def logged_angles(path: Path) -> dict[str, list[float]]:
    """Synapse -> degrees after each epoch, of a run's ``metrics.csv``."""
    if not path.is_file():
        return {}
    rows = list(csv.DictReader(path.read_text().splitlines()))
    names = [name for name in rows[0] if name.startswith("angle_")] if rows else []
    return {name.removeprefix("angle_"): [float(row[name]) for row in rows] for name in names}
