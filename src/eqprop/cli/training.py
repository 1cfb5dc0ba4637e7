"""``eqprop train`` and ``eqprop resume``."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eqprop import files
from eqprop.cli.machines import add_machine_options, machine
from eqprop.cli.parsing import named, session_of
from eqprop.cli.terminal import Terminal
from eqprop.energy.substrate import IDEAL
from eqprop.errors import InputError
from eqprop.loading import Kept, absolute, build, spec_of_inputs
from eqprop.physics import cost_report
from eqprop.recipes import Recipe, find
from eqprop.recipes.setting import refuse_unused
from eqprop.runs import folder as folders
from eqprop.runs.folder import About, Session, quoted
from eqprop.runs.launch import by_first, launched, start, started_here
from eqprop.runs.lock import locked
from eqprop.runs.parsing import Parser
from eqprop.substrates import Aged, age_weights
from eqprop.tasks import ImageInputs
from eqprop.tasks.text import few
from eqprop.training.cost import names_a_machine, tally_of_run
from eqprop.training.cuda_graphs import check_capturable
from eqprop.training.loop import (
    Experiment,
    Trainer,
    evaluate,
    load_own,
    load_weights,
    metrics_of_optimizer,
)
from eqprop.training.precision import chosen_device, faster_in_16_bits

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STAMP = "%Y%m%d-%H%M%S"
REPORT, REPORT_SHARE = 3.0, 0.01
REPORT_HELP = "seconds that report.html may take at the end, or a hundredth of the training if more; 0: no report"


FROM = "from_"
"""Begins the options of the memory in which the weights of ``--from`` were."""


def train_parser(name: str, recipe: Recipe) -> Parser:
    """The options of ``eqprop train NAME``."""
    parser = Parser(prog=f"eqprop train {name}", description=inspect.getdoc(recipe))
    parser.add_argument("--from", type=str, default="", help="start with the weights of this run or saved model")
    add_machine_options(parser, "none, the weights as they are", FROM)
    add_report_option(parser)
    parser.add_recipe(name, recipe, Session)
    return parser


def add_report_option(parser: Parser) -> None:
    """How long the report at the end of training may take."""
    parser.add_argument("--report_seconds", type=float, default=REPORT, help=REPORT_HELP)


def report_seconds(options: dict[str, Any]) -> float:
    """The option of ``add_report_option``, taken out of ``options``."""
    seconds: float = options.pop("report_seconds")
    if seconds < 0:
        raise InputError(f"--report_seconds {seconds}: give 0 or more.")
    return seconds


def train(arguments: Sequence[str]) -> int:
    """Trains a recipe in a new folder; continues its own run if a launcher has started this program again."""
    name, rest = named(arguments)
    recipe = find(name)
    parser = train_parser(name, recipe)
    options = parser.read(rest)
    seconds = report_seconds(options)
    weights, session = options.pop("from"), session_of(options)
    memory = memory_of({name: options.pop(name) for name in [*options] if name.startswith(FROM)}, weights)
    launch = launched()
    command = ["eqprop", "train", *arguments]
    if launch.restarts and (folder := _to_continue(session.out, launch.job, command)):
        return _continue(Kept(folder, ours=True), seconds)
    if session.out:
        folders.refuse_taken(Path(session.out))
    if "data" in options:
        options["data"] = absolute(options["data"])
    if options.get("write_to", "").endswith(".csv"):
        options["write_to"] = absolute(options["write_to"])
    about = About.now(name, options, session, command, launch.job)
    file, colon, _ = name.rpartition(":")
    run = build(about, recipe, Path(file) if colon else None)
    refuse_unused(parser.given, run)
    about = replace(
        about,
        options=measured(options, run),
        manifest=run.described(),
        inputs=spec_of_inputs(run),
        start=_start_from(run, weights, memory) if weights else "",
    )
    session = replace(session, threads=session.threads or torch.get_num_threads())
    if session.precision == "auto":
        fast = run.model.estimator.sixteen_bits(run.first()) and faster_in_16_bits(chosen_device(session.device))
        session = replace(session, precision="bf16" if fast else "32")
    fabric, messages = start(session.device, session.processes)
    # The settings of the first process, as the clocks and the speeds of others differ.
    about = replace(about, session=fabric.broadcast(session), machine=folders.machine(fabric.device))
    messages.sixteen_bits = about.session.precision == "bf16"
    if session.cuda_graph:  # before a folder is made
        check_capturable(run.model, fabric.device, fabric.world_size)
    stamp = time.strftime(STAMP)
    path, about = by_first(fabric, lambda: folders.make(about, stamp))
    return train_on(path, run, fabric, about, seconds, other_meaning(about), new=True)


def other_meaning(about: About) -> list[str]:
    """How classes and columns differ from those that the weights of ``--from`` were trained for, if they do."""
    if not about.start or not (Path(about.start) / folders.NAME).exists():
        return []
    then, now = folders.read(Path(about.start))[0], about.manifest
    if then.manifest is None or now is None:
        return []
    pairs = {
        "classes": ([*then.manifest.classes], [*now.classes]),
        "columns": (columns_of(then.inputs), columns_of(about.inputs)),
    }
    return [
        f"The {what} are {few(others, 6) or 'none'}, and those of --from were {few(known, 6) or 'none'}."
        for what, (known, others) in pairs.items()
        if known != others
    ]


def columns_of(inputs: Any) -> list[str]:
    """The columns of a table that are inputs, as ``run.json`` tells of them; [] of other data."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return [str(each) for each in inputs["arguments"]["columns"]]
    return []


def measured(options: dict[str, Any], run: Experiment) -> dict[str, Any]:
    """The options with what was measured from the training images, which other data must not change."""
    if isinstance(run.inputs, ImageInputs) and {"mean", "std"} <= options.keys():
        return options | {"mean": list(run.inputs.mean), "std": list(run.inputs.std)}
    return options


def resume(arguments: Sequence[str]) -> int:
    """Continues a run."""
    parser = resume_parser()
    options = parser.read(arguments)
    seconds = report_seconds(options)
    kept = Kept(Path(options["run"]), options["trust_recipe"], options["data"])
    if options["epochs"] is not None:
        if options["epochs"] < 1:
            raise InputError(f"--epochs {options['epochs']}: a run has at least one.")
        kept = _longer(kept, options["epochs"])
    return _continue(kept, seconds, options["accept_new_data"])


def resume_parser() -> Parser:
    """The options of ``eqprop resume``."""
    parser = Parser(prog="eqprop resume", description="Continue an interrupted run, or train a run longer.")
    parser.add_argument("run", type=str, help="the folder of the run")
    parser.add_argument("--epochs", type=int | None, help="train to this epoch; the schedule is then the longer run's")
    add_report_option(parser)
    add_kept_options(parser)
    return parser


def add_kept_options(parser: Parser) -> None:
    """The options of every command on a run that was trained before."""
    parser.add_argument("--data", type=str, default="", help="where the data are now; default: where they were")
    parser.add_argument("--accept_new_data", action="store_true", help="go on although the data have changed")
    parser.add_argument("--trust_recipe", action="store_true", help="run the recipe's code of a run not made here")


def _longer(kept: Kept, epochs: int) -> Kept:
    if "epochs" not in kept.about.options:
        raise InputError(f"The recipe {kept.about.recipe!r} has no option 'epochs': it cannot be trained longer.")
    if epochs < kept.about.options["epochs"]:
        raise InputError(
            f"--epochs {epochs} is less than the run's {kept.about.options['epochs']}: give as many or more."
        )
    kept.about = replace(kept.about, options={**kept.about.options, "epochs": epochs})
    return kept


def _to_continue(out: str, job: str, command: list[str]) -> Path | None:
    """The run that the same launch has begun before with the same command."""
    places = [Path(out)] if out else sorted(Path("runs").glob("*"), reverse=True)
    for folder in places:
        with contextlib.suppress(InputError):
            about, _ = folders.read(folder)
            if about.job == job and about.command == command:
                return folder
    return None


def _continue(kept: Kept, seconds: float, accept: bool = False) -> int:
    """Trains a kept run to its end."""
    about, run = kept.about, kept.build()
    notes = kept.compare(run, ["train", "test", "validation"], accept)
    if changed := folders.recipe_changed(about):
        notes.append(changed)
    if other := folders.differences(about):
        notes.append(f"Other versions than the run's, so the bits may differ: {', '.join(other)}.")
    session = about.session
    fabric, messages = start(session.device, session.processes)
    if about.machine and about.machine != (here := folders.machine(fabric.device)):
        notes.append(f"Another machine than the run's, so the bits may differ: {here} (was {about.machine}).")
    if session.cuda_graph and fabric.device.type != "cuda":
        notes.append("There is no GPU here, so steps are not captured, and solvers stop at rest.")
        about = replace(about, session=replace(session, cuda_graph=False))
    messages.sixteen_bits = session.precision == "bf16"
    return train_on(kept.folder, run, fabric, replace(about, manifest=run.described()), seconds, notes)


def memory_of(options: dict[str, Any], weights: str) -> Aged | None:
    """The memory from which the initial weights are read, and its age; ``None``: they are taken as they are.

    Raises:
        InputError: there are no such weights, or the substrate is not memory that ages alone.
    """
    if not any(options.values()):
        return None
    if not weights:
        raise InputError(f"--{next(filter(options.get, options))} is of weights that --from names: give it a run.")
    memory = machine(options, IDEAL, FROM)
    if not isinstance(memory, Aged):
        raise InputError(
            f"--from_substrate {options['from_substrate'] or 'ideal'}: weights can be read from memory that ages, as "
            "pcm, and from nothing else: --substrate has the other faults."
        )
    return memory


def _start_from(run: Experiment, place: str, memory: Aged | None) -> str:
    """Loads the weights of a run's best checkpoint, or of a saved model, into the experiment's network.

    They are programmed into ``memory``, if there is some, and read from it.
    """
    folder = Path(place)
    if (folder / folders.NAME).exists():
        about, _ = folders.read(folder)
        tensors, _ = load_own(folder, "best" if (folder / "best.json").exists() else "last", about.id)
    else:
        from eqprop.pretrained import read_weights

        tensors = {f"model.{name}": value for name, value in read_weights(folder).items()}
    load_weights(run.model, tensors)
    if memory is not None:
        age_weights(run.model.network, memory)
    return str(folder.absolute())


def train_on(
    folder: Path,
    run: Experiment,
    fabric: Fabric,
    about: About,
    seconds: float,
    notes: Sequence[str] = (),
    new: bool = False,
) -> int:
    """Trains, from the last checkpoint if there is one.

    ``seconds``: that the report may take; 0: none. ``new``: with the weights that the experiment has.
    """
    session, first = about.session, fabric.is_global_zero
    terminal = Terminal(folder, quiet=not first)
    try:
        with contextlib.ExitStack() as stack:
            by_first(fabric, lambda: _own(stack, folder))
            trainer = Trainer(
                run,
                folder,
                fabric,
                terminal,
                about.id,
                session.checkpoint_seconds,
                session.residual_limit,
                session.cuda_graph,
            )
            # metrics.csv is written after the first checkpoint: without it, this would begin again.
            began = by_first(
                fabric, lambda: any(os.path.lexists(folder / name) for name in ("last.json", "metrics.csv"))
            )
            if began:
                trainer.restore()
            elif about.start and new:
                trainer.save("last")  # as nothing else in the folder has these weights
            elif about.start:
                raise InputError(
                    f"The run {str(folder)!r} ended before it kept the weights of {about.start!r} that it began with: "
                    "train again, with another --out."
                )
            by_first(fabric, lambda: _keep(folder, about))
            parameters = sum(p.numel() for p in run.model.parameters())
            terminal.say(
                f"{about.recipe}: {len(run.train):,} examples, {parameters:,} parameters, {run.epochs} epochs on "
                f"{fabric.device} ({session.precision}); the run is in {folder}"
            )
            if about.manifest is not None:
                terminal.say(f"data: {about.manifest.line()}")
            if run.validation is not None and len(run.validation) < FEW:
                terminal.say(f"Only {len(run.validation)} examples choose the best epoch: --validation takes more.")
            for note in notes:
                terminal.say(note)
            with _failing(folder, first), terminal.watching(trainer.progress.history, run.epochs):
                number = trainer.fit()
            if number:
                terminal.say(f"Interrupted and saved. Continue with: eqprop resume {quoted(folder)}")
                return 0 if started_here() else 128 + number  # Fabric kills the others when one ends with an error
            best = conclude(trainer, terminal, folder)
    except Diverged as failed:
        if first and seconds:
            terminal.report(run, f"the weights when it failed, after {trainer.progress.epoch} epochs", seconds)
        raise failed.error from failed.error.__cause__
    if first and seconds:
        trained = sum(row["seconds"] for row in trainer.progress.history)
        terminal.report(run, f"the best weights, of epoch {best}", max(seconds, REPORT_SHARE * trained))
    return 0


class Diverged(Exception):
    """Training has failed; the folder says why.

    Args:
        error: of the training.
    """

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def _failing(folder: Path, first: bool) -> Iterator[None]:
    """Within, an error of the training is kept in the folder, for reports."""
    if first:
        folders.forget_failure(folder)
    try:
        yield
    except Exception as error:
        if first:
            folders.fail(folder, error)
        raise Diverged(error) from error


FEW = 10


def _own(stack: contextlib.ExitStack, folder: Path) -> None:
    """Takes the folder for this process until the end, and removes what a killed one left half-written."""
    stack.enter_context(locked(folder))
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def _keep(folder: Path, about: About) -> None:
    """Writes what is new in ``run.json``."""
    if files.read_regular(folder / folders.NAME) != about.text().encode():
        folders.write(folder, about)  # trained longer, or on data that were accepted or have moved


def conclude(trainer: Trainer, terminal: Terminal, folder: Path) -> int:
    """Tests the last and the best weights, which it leaves loaded, and writes ``summary.json``. Returns their epoch."""
    run, fabric, metric = trainer.run, trainer.fabric, trainer.metric
    last = evaluate(run.model, trainer.test, fabric, run.metrics())
    tensors, state = load_own(folder, "best", trainer.run_id)
    best_epoch = state["progress"]["epoch"]
    best = last
    if best_epoch != trainer.progress.epoch:
        load_weights(run.model, tensors)
        best = evaluate(run.model, trainer.test, fabric, run.metrics())
    if not fabric.is_global_zero:
        return int(best_epoch)
    names = [*run.metrics(), "loss"]
    summary: dict[str, Any] = {f"test_{name}_last": last[name] for name in names}
    summary |= {f"test_{name}_best": best[name] for name in names}
    summary |= {
        "best_epoch": best_epoch,
        "best_chosen_by": f"{run.chosen_by} {metric}",
        "seconds": sum(row["seconds"] for row in trainer.progress.history),
    }
    summary |= metrics_of_optimizer(run.optimizer) | cost_on_machine(trainer)
    text = json.dumps(summary, indent=1)
    with files.explained(f"Cannot write {folder / 'summary.json'} ({{}}): make room.", OSError):
        files.write_text_atomic(folder / "summary.json", text)
    explained = f", R2 {best['r2']:.4g}" if "r2" in best else ""
    terminal.say(
        f"test {shown(metric, last[metric])} after the last epoch, {shown(metric, best[metric])}{explained} at epoch "
        f"{best_epoch} (best by {run.chosen_by}); {summary['seconds']:.0f} s of training; this session "
        f"took {terminal.seconds():.0f} s. "
        f"Curves: {folder / 'curves.png'}"
    )
    if cost := summary.get("modelled_cost"):
        terminal.say(f"All training steps on the machine: {cost}")
    return int(best_epoch)


def cost_on_machine(trainer: Trainer) -> dict[str, Any]:
    """What the run's training would cost on its machine, modelled, or why that is not known; nothing without one."""
    run = trainer.run
    if not names_a_machine(run):
        return {}
    try:
        return cost_report(tally_of_run(run, trainer.progress.history, trainer.fabric.world_size))
    except Exception as error:  # of a model that cannot be copied, say: a run has its summary all the same
        return {"modelled_cost": f"not modelled: {files.one_line(error)}"}


def shown(metric: str, value: float) -> str:
    """A metric and its value, for people."""
    return f"{metric} {amount(metric, value)}"


def amount(metric: str, value: float) -> str:
    """The value of a metric, for people."""
    return f"{100 * value:.2f} %" if metric.endswith("accuracy") else f"{value:.4g}"
