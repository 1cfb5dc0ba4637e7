"""The sections of a run's page, from what the run has."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from eqprop.errors import EqpropError, one_line, plain
from eqprop.report import answers, quality, settling
from eqprop.report.blocks import (
    Block,
    Chart,
    Charts,
    Code,
    Gallery,
    Line,
    Page,
    Pairs,
    Section,
    Table,
    Text,
    number,
)
from eqprop.report.pictures import films, grid
from eqprop.report.subject import Clock, Subject, Trained
from eqprop.report.words import of_estimator, of_network, short
from eqprop.runs.folder import quoted, versions
from eqprop.tasks.batches import moved
from eqprop.training.report import metrics_of

SIDES = ("train", "validation", "test")
SHARE = 0.5
"""Of the time that is left, for the answers to the test set."""
ROWS = 200
"""Rows of a table."""
FILTERS = 64
WHO = ("train_", "validation_", "test_", "lr_", "angle_")
STATES = {
    "finished": ("good", "Finished"),
    "training": ("plain", "Training now"),
    "failed": ("bad", "Failed"),
    "interrupted": ("warning", "Not finished"),
}
HARDWARE = {
    "pulses_per_weight": "pulses that were sent to a weight, mean over the weights in devices",
    "fast_pulses_per_weight": "the same, of the fast devices that hold gradients",
    "dead_updates": "share of updates below half a pulse, which a driver that rounds would not write",
}
"""Metrics of optimisers that write into devices."""


def page(subject: Subject, clock: Clock) -> Page:
    """The page of a run.

    Args:
        subject: the run.
        clock: how long the parts that compute may take.
    """
    about, trained = subject.about, subject.trained
    sections = [
        Section("summary", "Summary", list(summary(subject))),
        Section("network", "Network and estimator", list(network(subject))),
        Section("curves", "Curves", list(curves(subject.history))),
    ]
    if trained is not None:
        with torch.random.fork_rng([]):
            sections += computed(trained, clock)
    sections += [
        Section("hardware", "Machine and devices", list(hardware(subject))),
        Section("data", "Data", list(data(subject))),
        Section("settings", "Settings", list(settings(subject))),
        Section("reproduce", "How to reproduce", list(reproduce(subject))),
    ]
    line = "" if about.manifest is None else about.manifest.line()
    return Page(
        f"{short(about.name)}: report of a run",
        short(f"{subject.folder.name}{' - ' if line else ''}{line}"),
        sections,
        f"Made {time.strftime('%Y-%m-%d %H:%M:%S %z')} by eqprop {versions().get('eqprop', '')}.",
    )


def computed(trained: Trained, clock: Clock) -> Iterator[Section]:
    """What needs the model. A part that fails says why, and the others follow."""
    wild = [name for name, value in trained.model.named_parameters() if not bool(value.isfinite().all())]
    if wild:
        text = f"Left out, as {short(wild[0])} is not finite in {trained.weights}. If the run has saved valid weights, "
        yield Section("answers", "Answers and mistakes", [Text(f"{text}`eqprop report RUN` shows them.", "warning")])
        return
    found: list[answers.Gathered] = []

    def answered() -> Iterator[Block]:
        if trained.test is not None:
            found.append(answers.gather(trained, clock.share(SHARE)))
            yield from answers.blocks(trained, found[0])

    def settled() -> Iterator[Block]:
        if found:
            yield from answers.residuals(found[0])

    # The one example is computed first, as it takes least.
    one = part("settling", "One example settles", lambda: one_example(trained, clock))
    yield part("answers", "Answers and mistakes", answered)
    yield part("filters", "First layer", lambda: filters(trained))
    yield one
    yield part("residuals", "How far the test examples settle", settled)
    yield part("gradient", "Quality of the gradient", lambda: gradient(trained, clock))


def part(name: str, title: str, make: Callable[[], Iterator[Block]]) -> Section:
    """A section, or why there is none."""
    blocks = list[Block]()
    try:
        for each in make():
            blocks.append(each)
    except EqpropError as error:
        blocks.append(Text(f"Left out: {one_line(error)}", "warning"))
    except Exception as error:  # of a user's network or data; the other parts follow
        blocks.append(Text(f"Left out, as it failed: {type(error).__name__}: {one_line(error)}", "warning"))
    return Section(name, title, blocks)


def gradient(trained: Trained, clock: Clock) -> Iterator[Block]:
    if trained.train is not None:
        yield from quality.blocks(trained, clock)


# -- parts that need files alone --


def summary(subject: Subject) -> Iterator[Block]:
    """Whether the run is finished, what it reached, and what to do."""
    tone, word = STATES[subject.state]
    of = f" of {subject.epochs}" if subject.epochs else ""
    text = f"{word}: {subject.reached}{of} epoch{'s' * (subject.reached != 1 or bool(of))} done."
    again = f"`eqprop resume {quoted(subject.folder)}`"
    if subject.state == "failed":
        yield Text(f"{text} What ended it: {subject.failed}", tone)
        yield Text(
            "What to change: what the line above says. Weights that were valid before the failure are kept; "
            f"{again} goes on from them, and fails again at the same place unless its cause is gone. Settings of "
            "training (learning rates, beta, sweeps) are changed in a new run; "
            f"`eqprop train RECIPE --from {quoted(subject.folder)}` begins it with these weights."
        )
    elif subject.state == "interrupted":
        yield Text(f"{text} {again} continues it, to the same bits.", tone)
    else:
        yield Text(text, tone)
    if len(subject.history) > 1 and not subject.history[-1].get("train_loss", 0.0) < subject.history[0].get(
        "train_loss", 1.0
    ):
        yield Text(
            "The training loss is not lower than after the first epoch: the run does not learn. Lower the learning "
            "rates, look at the quality of the gradient below, and at how far the phases settle.",
            "warning",
        )
    for note in subject.notes:
        yield Text(plain(note), "warning")
    yield Pairs(headline(subject))


def headline(subject: Subject) -> list[tuple[str, str]]:
    found, summed, history = list[tuple[str, str]](), subject.summary, subject.history
    about = subject.about
    if about.manifest is not None:
        found.append(("trained on", short(f"{about.manifest.kind} {about.manifest.place}".strip())))
    if subject.trained is not None:
        parameters = sum(each.numel() for each in subject.trained.model.parameters())
        found.append(("parameters", f"{parameters:,}"))
    if subject.state == "finished":
        for name in summed:
            if name.startswith("test_") and name.endswith("_best"):
                metric = name.removeprefix("test_").removesuffix("_best")
                last = summed.get(f"test_{metric}_last", float("nan"))
                found.append(
                    (
                        f"test {metric.replace('_', ' ')}",
                        f"{as_metric(metric, summed[name])}; after the last epoch {as_metric(metric, last)}",
                    )
                )
        chosen = summed.get("best_chosen_by", "")
        found.append(("best epoch", short(f"{summed.get('best_epoch', '')}, by {chosen}")))
    elif history:
        row = history[-1]
        for name in ("loss", *metrics_of(row)[:2]):
            values = [f"{side} {as_metric(name, row[f'{side}_{name}'])}" for side in SIDES if f"{side}_{name}" in row]
            found.append((f"{name.replace('_', ' ')}, last epoch", ", ".join(values)))
    if history:
        found.append(("seconds of training", number(sum(row.get("seconds", 0.0) for row in history))))
    found.append(("begun", short(about.made)))
    if about.start:
        found.append(("begun with weights of", short(about.start)))
    return found


def as_metric(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return short(value)
    return f"{100 * value:.2f} %" if name.endswith("accuracy") else number(value)


def network(subject: Subject) -> Iterator[Block]:
    """Layers, parameters, and the estimator in words."""
    trained = subject.trained
    if trained is None:
        return
    yield from of_network(trained.model.network)
    loss = trained.model.network.loss
    if loss is not None:
        yield Text(f"It learns from {type(loss).__name__} of {', '.join(loss.nodes)}.")
    says, pairs = of_estimator(trained.model.estimator)
    yield Text(says)
    yield Pairs(pairs)


def curves(history: Sequence[Mapping[str, float]]) -> Iterator[Block]:
    """Everything over epochs that there is more than one kind of."""
    if not history:
        yield Text("No epoch is finished, so there are no curves yet.")
        return
    epochs = [row["epoch"] for row in history]

    def lines(what: str, factor: float = 1.0) -> list[Line]:
        return [
            Line(side, epochs, [factor * row.get(f"{side}_{what}", float("nan")) for row in history])
            for side in SIDES
            if any(f"{side}_{what}" in row for row in history)
        ]

    charts = [Chart("Loss, mean over the examples", "epochs", lines("loss"))]
    for name in metrics_of(history[-1])[:3]:
        share = name.endswith("accuracy")
        title = name.replace("_", " ")
        title = f"{title[0].upper()}{title[1:]}{' (%)' if share else ''}"
        charts.append(Chart(title, "epochs", lines(name, 100.0 if share else 1.0)))
    residual = [
        Line(f"{side} {phase}", epochs, [row.get(f"{side}_{phase}_residual", float("nan")) for row in history])
        for side in SIDES
        for phase in ("free", "nudged")
        if any(f"{side}_{phase}_residual" in row for row in history)
    ]
    charts.append(Chart("Residual: change in the last sweep", "epochs", residual, log=True))
    named = [name for name in history[-1] if name.startswith("angle_")]
    if named:
        angles = [
            Line(name.removeprefix("angle_"), epochs, [row.get(name, float("nan")) for row in history])
            for name in named
        ]
        charts.append(Chart("Angle between feedforward and feedback weights (degrees)", "epochs", angles))
    yield Charts([chart for chart in charts if chart.lines])
    columns = list(dict.fromkeys(name for row in history for name in row))[:40]
    step = -(-len(history) // ROWS)
    some = [*history[:-1:step], history[-1]]
    rows = [[number(row[name]) if name in row else "" for name in columns] for row in some]
    every = "all epochs" if step == 1 else f"every {step}th epoch"
    yield Table(f"The same in numbers, {every}", [short(each) for each in columns], rows, folded=True)


def hardware(subject: Subject) -> Iterator[Block]:
    """The model of the machine, and what was written into devices; nothing for an ideal machine."""
    options = subject.about.options
    machine, write = options.get("substrate", "ideal"), options.get("write", "none")
    known = (*WHO, "epoch", "seconds", "examples_per_second")
    written = [name for name in (subject.history[-1] if subject.history else {}) if not name.startswith(known)]
    if machine == "ideal" and write == "none" and not written:
        return
    pairs = [("model of the machine", short(machine))]
    if subject.trained is not None:
        pairs.append(("its parts", short(repr(subject.trained.model.network.substrate))))
    if write != "none":
        pairs += [
            ("weights are written by", short(write)),
            ("into devices", short(options.get("write_to", ""))),
            ("weights are, times what devices hold", short(options.get("write_scale", ""))),
        ]
    yield Pairs(pairs)
    if written:
        epochs = [row["epoch"] for row in subject.history]
        yield Charts(
            [
                Chart(
                    short(name.replace("_", " ")),
                    "epochs",
                    [Line(short(name), epochs, [row.get(name, float("nan")) for row in subject.history])],
                )
                for name in written[:6]
            ]
        )
        rows = [(short(name), number(subject.history[-1][name]), HARDWARE.get(name, "")) for name in written]
        yield Table("What was written, after the last epoch", ("metric", "value", "meaning"), rows)
    yield Text("The machine is a model in a program: nothing here was measured on a device.")


def data(subject: Subject) -> Iterator[Block]:
    """The inventory of the data."""
    manifest = subject.about.manifest
    if manifest is None:
        yield Text("The run has no inventory of its data.")
        return
    pairs = [("kind", manifest.kind), ("place", manifest.place), ("an example", manifest.form)]
    pairs += [("files", f"{manifest.files:,}")] * bool(manifest.files)
    yield Pairs([(name, short(plain(value))) for name, value in pairs if value])
    rows = [
        (short(side), f"{count:,}", short(manifest.fingerprints.get(side, "")))
        for side, count in manifest.examples.items()
    ]
    yield Table("Sides", ("side", "examples", "fingerprint (SHA-256)"), rows)
    if manifest.classes:
        names = [(str(i), short(plain(name))) for i, name in enumerate(manifest.classes[:ROWS])]
        more = f", the first {ROWS} of {len(manifest.classes)}" if len(manifest.classes) > ROWS else ""
        yield Table(f"Classes{more}", ("label", "name"), names, folded=True)
    if manifest.skipped:
        skipped = [(short(plain(name)), short(plain(why))) for name, why in list(manifest.skipped.items())[:ROWS]]
        yield Table("Files that were not used", ("file", "why"), skipped, folded=True)
    for note in manifest.notes[:20]:
        yield Text(short(plain(note)), "warning")


def settings(subject: Subject) -> Iterator[Block]:
    """Everything that the run was started with."""
    rows = [(short(name), short(plain(value))) for name, value in subject.about.options.items()]
    yield Table("Options of the recipe", ("option", "value"), rows)
    session = [(name, short(plain(value))) for name, value in asdict(subject.about.session).items()]
    yield Table("How it is run", ("setting", "value"), session)


def reproduce(subject: Subject) -> Iterator[Block]:
    """The exact commands, versions and the machine."""
    about = subject.about
    install = [f"{name}=={version}" for name, version in about.versions.items()]
    lines = [f"pip install {shlex.join(plain(each) for each in install)}"] * bool(install)
    lines += [f"cd {quoted(plain(about.directory))}"] * bool(about.directory)
    lines += [shlex.join(plain(each) for each in about.command)] * bool(about.command)
    folder = quoted(plain(subject.folder))
    yield Text("The same run from the start; on the same machine and versions to the same bits:")
    yield Code(lines)
    yield Text("With this folder:")
    yield Code([f"eqprop {word} {folder}" for word in ("resume", "evaluate", "check", "report")])
    commit = (
        f"{about.commit.removesuffix('+')}{', with changes' * about.commit.endswith('+')}" if about.commit else "none"
    )
    yield Pairs(
        [
            ("recipe", short(plain(about.recipe))),
            ("seed", short(about.options.get("seed", "none"))),
            ("machine of the run", short(about.machine)),
            ("machine of this page", f"{platform.machine()}, Python {platform.python_version()}"),
            ("commit", short(commit)),
            *((f"version of {short(name)}", short(version)) for name, version in about.versions.items()),
        ]
    )
    if about.source is not None:
        yield Table(
            "The recipe's own files, which the run keeps",
            ("file", "SHA-256"),
            [(short(plain(name)), short(code)) for name, code in list(about.source.files.items())[:ROWS]],
            folded=True,
        )


# -- parts of the model --


def filters(trained: Trained) -> Iterator[Block]:
    """The weights from the input to the first layer, as pictures."""
    found = first_weights(trained)
    if found is None:
        return
    name, weight = found
    pictures = weight[:FILTERS]
    some = f"the first {len(pictures)} of {len(weight)}" if len(pictures) < len(weight) else f"all {len(weight)}"
    caption = f"Weights {name}: {some} units or maps; blue below 0, white 0, red above"
    levels = grid(pictures[None].double())
    made = films(levels, [1], levels[0].numel(), [f"weights of the first layer, {some}"], signed=True)
    yield Gallery(caption, made)


def first_weights(trained: Trained) -> tuple[str, Tensor] | None:
    """The first weights that the input drives, as pictures (units, height, width); ``None`` if there are no such."""
    network = trained.model.network
    for name, term in network.terms.items():
        if not set(term.nodes) & set(network.clamped):
            continue
        held = next(node for node in term.nodes if node in network.clamped)
        shape = network.nodes[held].shape
        for own, parameter in term.named_parameters():
            weight = parameter.detach().float().cpu()
            label = short(f"{name}.{own}")
            if weight.ndim == 4:  # maps of the input side by side would be many: their mean, and one of grey
                return label, weight.mean(1)
            if weight.ndim == 2 and weight.shape[1] == network.nodes[held].units:
                if len(shape) == 3 and min(shape[1:]) > 1:
                    return label, weight.view(len(weight), *shape).mean(1)
                if len(shape) == 2:
                    return label, weight.view(len(weight), *shape)
                if weight.shape[1] <= 256:
                    return f"{label} (a row of inputs each)", weight[:, None, :]
    return None


def one_example(trained: Trained, clock: Clock) -> Iterator[Block]:
    """The first test example, or the first training example, as it settles."""
    side, task = ("test", trained.test) if trained.test is not None else ("training", trained.train)
    if task is None:
        return
    network = trained.model.network
    device = next(network.parameters()).device
    x, y = task.to(device).sample(1)
    picture = answers.input_picture(trained, moved(x, "cpu"), f"the first {side} example")
    with clock.limiting():
        block, words = settling.shown(network, trained.model.estimator, x, y, trained.outputs, picture)
    yield Text(
        f"The first {side} example. Move the slider: the free phase settles from its start, then the nudged phase goes "
        "on from the free equilibrium. The difference of both is what each weight learns from. Each layer has colours "
        f"of its own scale. {words}"
    )
    yield block
