"""Commands on what is there already: ``eqprop evaluate``, ``predict``, ``check`` and ``recipes``."""

from __future__ import annotations

import csv
import inspect
import io
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from eqprop import files
from eqprop.checks import naming_options
from eqprop.cli.machines import MACHINE_OPTIONS, add_machine_options, machine
from eqprop.cli.parsing import named
from eqprop.cli.reporting import compare_parser, report_parser
from eqprop.cli.reproducing import reproduce_parser
from eqprop.cli.terminal import plain_console
from eqprop.cli.training import STAMP, add_kept_options, amount, resume_parser, shown
from eqprop.errors import InputError
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.loading import Kept, absolute, build, load, load_epoch, load_written
from eqprop.recipes import RECIPES, Recipe, find
from eqprop.recipes.setting import refuse_unused
from eqprop.runs.folder import About, Session
from eqprop.runs.launch import start
from eqprop.runs.parsing import Parser
from eqprop.settling import FromFeedforward, UntilConverged
from eqprop.substrates import redrawn
from eqprop.tasks import ImageInputs
from eqprop.training.loop import evaluate as measure

LONG = 5000
SETTLED = f"settle until no unit changes by more than this, in up to {LONG} sweeps; default: as in training"
TRAINED = "the training's"
ANSWERS = b"example,"
"""Begins every file of answers."""


def evaluate_parser() -> Parser:
    """The options of ``eqprop evaluate``."""
    parser = Parser(prog="eqprop evaluate", description="Test metrics of a run's weights.")
    parser.add_argument("run", type=str, help="the folder of the run")
    parser.add_argument("--checkpoint", type=str, default="best", help="best or last")
    parser.add_argument("--precision", choices=("32", "64", "bf16"), help="default: the training's")
    add_machine_options(parser, TRAINED)
    parser.add_argument("--draws", type=int, default=1, help="evaluate on so many machines that differ by their seeds")
    parser.add_argument("--settled", type=float, default=0.0, help=SETTLED)
    parser.add_argument(
        "--mirrored", action="store_true", help="by the mean probabilities of each image and its mirror image"
    )
    add_kept_options(parser)
    return parser


def evaluate(arguments: Sequence[str]) -> int:
    """Prints the metrics of a run's best or last weights on its test set."""
    options = evaluate_parser().read(arguments)
    if options["settled"] < 0:
        raise InputError(f"--settled {options['settled']}: a change of units is 0 or more.")
    if options["draws"] < 1:
        raise InputError(f"--draws {options['draws']}: give 1 or more.")
    kept = Kept(Path(options["run"]), options["trust_recipe"], options["data"])
    trained, asked = kept.about.session.precision, options["precision"] or kept.about.session.precision
    if (trained == "64") != (asked == "64"):
        fits = "64" if trained == "64" else "32 or bf16"
        raise InputError(f"--precision {asked} does not fit the weights of this run: give {fits}, or leave it out.")
    run = kept.build()
    if options["mirrored"] and not isinstance(run.inputs, ImageInputs):
        raise InputError("--mirrored: the inputs of this run are no images: leave it out.")
    differs = kept.compare(run, ["test"], options["accept_new_data"])
    if options["settled"]:
        # Nothing learns here, so that the free phase of this estimator serves for all.
        run.model.estimator = InfinitesimalNudge(FromFeedforward(UntilConverged(options["settled"], LONG)))
    epoch = load_epoch(run, kept, options["checkpoint"])
    network = run.model.network
    substrate = machine(options, network.substrate)
    machines = [substrate, *(redrawn(substrate, number) for number in range(1, options["draws"]))]
    session = replace(kept.about.session, processes=1, precision=asked)
    fabric, messages = start(session.device, 1)
    messages.sixteen_bits = session.precision == "bf16"
    rows, test = [], run.test.to(fabric.device)
    for built in machines:
        run.model.network = network.on(built)
        rows.append(measure(run.model.to(fabric.device), test, fabric, run.metrics(), options["mirrored"]))
        if not math.isfinite(rows[-1]["loss"]):
            raise InputError(
                f"The test loss of the {options['checkpoint']} weights is {rows[-1]['loss']}: the network has no "
                "equilibrium here: choose another checkpoint, machine or age."
            )
    metrics = "".join(f"test {over_draws(name, [row[name] for row in rows])}, " for name in run.metrics())
    loss, residual, sweeps = (mean(row[name] for row in rows) for name in ("loss", "free_residual", "free_sweeps"))
    how = f", {len(rows)} draws of the machine" if len(rows) > 1 else ""
    how += ", with mirror images" if options["mirrored"] else ""
    console = plain_console()
    console.print(
        f"{options['checkpoint']} weights (epoch {epoch}){how}: {metrics}"
        f"loss {loss:.4f}, residual {residual:.1e} after {sweeps:.0f} sweeps",
        soft_wrap=True,
    )
    for each in differs:
        console.print(f"Accepted: {each}.", soft_wrap=True)
    return 0


def over_draws(metric: str, values: Sequence[float]) -> str:
    """A metric and its value; of several the mean, the standard deviation and the range."""
    text = shown(metric, mean(values))
    if len(values) == 1:
        return text
    deviation, low, high = (amount(metric, each) for each in (stdev(values), min(values), max(values)))
    return f"{text} (standard deviation {deviation}, from {low} to {high})"


def predict_parser() -> Parser:
    """The options of ``eqprop predict``."""
    parser = Parser(prog="eqprop predict", description="CSV with an answer for each example.")
    parser.add_argument("run", type=str, help="the folder of the run")
    parser.add_argument("paths", type=str, nargs="*", default=[], help="files or folders; default: the run's test set")
    parser.add_argument("--checkpoint", type=str, default="best", help="best or last")
    parser.add_argument("--out", type=str, default="", help="the CSV file; default: the terminal")
    add_machine_options(parser, TRAINED)
    add_kept_options(parser)
    return parser


def predict(arguments: Sequence[str]) -> int:
    """Writes CSV with an answer for each example of the given files, or of the run's test set."""
    from eqprop.pretrained import predict_files, predict_task

    options = predict_parser().read(arguments)
    folder, paths = Path(options["run"]), [Path(path) for path in options["paths"] or []]
    for name in ("data", "accept_new_data") if paths else ():
        if options[name]:
            value = f" {options[name]}" * (name == "data")
            raise InputError(f"--{name}{value} is of the run's test set, and files are named: leave it out.")
    for path in paths:
        if not path.exists():
            raise InputError(f"There is no file or folder {str(path)!r} to predict: check the path.")
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}: name the folder of a run, such as runs/digits-...")
    unwritten = f"Cannot write {options['out']!r} ({{}}): --out names another file."
    if options["out"]:
        with files.explained(unwritten, OSError, ValueError):
            files.refuse_others(Path(options["out"]), ANSWERS)
    rows: list[tuple[Any, ...]] = []
    model = load(folder, options["checkpoint"], trust_recipe=options["trust_recipe"])
    model.model.network = model.model.network.on(machine(options, model.model.network.substrate))
    if paths:
        predict_files(model, paths, rows.append)
    else:
        kept = Kept(folder, options["trust_recipe"], options["data"])
        run = kept.build()
        kept.compare(run, ["test"], options["accept_new_data"])
        predict_task(model, run.test, rows.append)
    header = ("example", *model.header)
    if options["out"]:
        with files.explained(unwritten, OSError, ValueError):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([header, *rows])
            files.write_text_atomic(Path(options["out"]), text.getvalue())
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows])
    return 0


def check_parser(recipe: Recipe | None = None, name: str = "") -> Parser:
    """The options of ``eqprop check``: of a run, or of a recipe."""
    from eqprop.diagnostics.check import check

    parser = Parser(prog=f"eqprop check {name}".strip(), description=(inspect.getdoc(check) or "").splitlines()[0])
    parser.add_function_arguments(check, skip=SKIPPED)
    parser.add_argument("--out", type=str, default="", help="default: RUN/check, or runs/check-RECIPE-TIME")
    if recipe is None:
        parser.add_argument("--checkpoint", type=str, default="best", help="best or last")
        add_kept_options(parser)
    else:
        parser.add_recipe(name, recipe)
    if not any(parser.has(name) for name in MACHINE_OPTIONS):  # of the recipe's own
        add_machine_options(parser, TRAINED)
    return parser


SKIPPED: set[str | int] = {"run", "title", "folder", "say", "table"}
"""Parameters of ``check`` that are no options."""


def check(arguments: Sequence[str]) -> int:
    """Compares the gradients of a run or a recipe with the exact ones."""
    from eqprop.diagnostics.check import check as compare

    name, rest = named(arguments)
    trained = name not in RECIPES and Path(name).is_dir()
    if not trained and os.sep in name and not name.partition(":")[0].endswith(".py"):
        raise InputError(f"There is no folder {name!r}: name the folder of a run, or a recipe.")
    recipe = None if trained else find(name)
    parser = check_parser(recipe, name)
    options = parser.read(rest)
    chosen = {key: options.pop(key) for key in MACHINE_OPTIONS} if parser.has("compensate") else {}
    how = {key: options.pop(key) for key in inspect.signature(compare).parameters if key not in SKIPPED}
    out = options.pop("out")
    if recipe is None:
        kept = Kept(Path(name), options["trust_recipe"], options["data"])
        about, run = kept.about, kept.build()
        kept.compare(run, ["train"], options["accept_new_data"])
        epoch = load_epoch(run, kept, options["checkpoint"])
        load_written(run, kept, options["checkpoint"])
        weights, folder = f"{options['checkpoint']} weights (epoch {epoch})", f"{name}/check"
    else:
        file, colon, _ = name.rpartition(":")
        options |= {"data": absolute(options["data"])} if "data" in options else {}
        about = About(recipe=name, options=options, session=Session())
        run = build(about, recipe, Path(file) if colon else None)
        refuse_unused(parser.given, run)
        weights, folder = "initial weights", f"runs/check-{about.name}-{time.strftime(STAMP)}"
    if chosen:
        run.model.network = run.model.network.on(machine(chosen, run.model.network.substrate))
    with naming_options(how):
        compare(run, f"{about.name}, {weights}", Path(out or folder), plain_console().print, **how)
    return 0


def recipes(arguments: Sequence[str]) -> int:
    """Lists the recipes."""
    recipes_parser().read(arguments)
    table = Table("recipe", "what it is", box=None, header_style="bold")
    for name, recipe in RECIPES.items():
        table.add_row(name, (inspect.getdoc(recipe) or "").splitlines()[0])
    plain_console().print(table)
    return 0


def recipes_parser() -> Parser:
    """The options of ``eqprop recipes``: none."""
    return Parser(prog="eqprop recipes", description="List the recipes.")


PARSERS: dict[str, Callable[[], Parser]] = {
    "resume": resume_parser,
    "evaluate": evaluate_parser,
    "predict": predict_parser,
    "check": check_parser,
    "report": report_parser,
    "compare": compare_parser,
    "reproduce": reproduce_parser,
    "recipes": recipes_parser,
}
