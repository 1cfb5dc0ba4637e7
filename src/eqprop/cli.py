"""The command line: ``eqprop train | evaluate | resume | check | recipes``."""

from __future__ import annotations

import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import ArgumentParser
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from eqprop.errors import EqpropError, InputError
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.recipes import DEFAULT, RECIPES, find
from eqprop.settling.solvers import UntilConverged
from eqprop.settling.starts import FromFeedforward
from eqprop.training import checkpoint
from eqprop.training.loop import Experiment, Trainer, evaluate, load_weights
from eqprop.training.memory import keep_freed_memory
from eqprop.training.precision import chosen_device, faster_in_16_bits, message_precision
from eqprop.training.report import Files, History, Report

USAGE = """usage: eqprop COMMAND ...

  train [RECIPE] [--option value ...]   train; without a recipe, on the embedded handwritten digits
  resume RUN                            go on with an interrupted run, to the same bits
  evaluate RUN [--checkpoint last]      test accuracy of a run's best (or last) weights; --settled 1e-4: fully settled
  check [RUN or RECIPE]                 hold the gradients it learns from against the exact one: tables and pictures
  recipes                               list the recipes

RECIPE is a name, or your own as file.py:function. `eqprop train RECIPE --help` lists its options."""

INTERRUPTED = 130
PRECISIONS = ("32", "bf16")
LONG = 5000
SETTLED = f"settle until no unit changes by more than this, in up to {LONG} sweeps; default: as in training"


class Parser(ArgumentParser):
    """Errors are one line, status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(f"{' '.join(str(message).split())} (see `{self.prog} --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for what the user can mend, 130 for an interrupted run."""
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    commands = {
        "train": train,
        "resume": resume,
        "evaluate": evaluate_run,
        "check": check_gradients,
        "recipes": list_recipes,
    }
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        if command == "--version":
            print(f"eqprop {version('eqprop')}")
            return 0
        if command not in commands:
            raise InputError(f"There is no command {command!r}: use one of {', '.join(commands)}.")
        return commands[command](rest)
    except EqpropError as error:
        print(f"eqprop: {error}", file=sys.stderr)
        return 2


def session(
    out: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    processes: int = 1,
    precision: Literal["auto", "32", "bf16"] = "auto",
    threads: int = 0,
    checkpoint_seconds: float = 60.0,
    residual_limit: float = 0.5,
) -> dict[str, Any]:
    """How a recipe is run.

    Args:
        out: the folder of the run; default: runs/RECIPE-TIME.
        device: cpu or cuda. auto: cuda where there is one.
        processes: processes that share each batch.
        precision: of messages (convolutions, matrix products): 32 or bf16. auto: bf16 if this device is faster at it
            and the recipe's estimator as good; weights, states and sums always have 32 bits.
        threads: CPU threads; 0 leaves PyTorch's choice.
        checkpoint_seconds: how often to save within an epoch.
        residual_limit: the mean residual of an epoch's free phases above which the run stops as not settling.
    """
    return dict(locals())


def train(arguments: Sequence[str]) -> int:
    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments[0] if named else DEFAULT
    recipe = find(name)
    parser = Parser(prog=f"eqprop train {name}", description=inspect.getdoc(recipe))
    parser.add_function_arguments(recipe)
    parser.add_function_arguments(session)
    options = parser.parse_args(list(arguments[1:] if named else arguments)).as_dict()
    keys = inspect.signature(session).parameters
    how = {key: options.pop(key) for key in keys}
    if "LOCAL_RANK" not in os.environ:  # worker processes start from this command line too: one name for all
        os.environ["EQPROP_STAMP"] = time.strftime("%Y%m%d-%H%M%S")
    stamp = os.environ["EQPROP_STAMP"]
    folder = Path(how["out"] or f"runs/{name.rpartition(':')[2]}-{stamp}")
    if folder.exists():
        raise InputError(
            f"The folder {str(folder)!r} exists: `eqprop resume {folder}` goes on with it, --out names another."
        )
    about: dict[str, Any] = {
        "recipe": str(Path(name.rpartition(":")[0]).resolve()) + ":" + name.rpartition(":")[2] if ":" in name else name,
        "options": options,
        "session": how | {"out": str(folder)},
        "command": ["eqprop", "train", *arguments],
        "versions": {package: version(package) for package in ("eqprop", "torch", "numpy", "lightning-fabric")},
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    run = build(about)
    about["session"]["precision"] = chosen_precision(how, run)
    fabric = start(about["session"])
    if fabric.is_global_zero:
        checkpoint.make_folder(folder)
        checkpoint.write_text_atomic(folder / "run.json", json.dumps(about, indent=1))
    return fit(trainer_of(run, folder, fabric, about), about)


def resume(arguments: Sequence[str]) -> int:
    parser = Parser(prog="eqprop resume")
    parser.add_argument("run", type=str, help="the folder of the run")
    folder = Path(parser.parse_args(list(arguments)).run)
    about = read_run(folder)
    run = build(about)
    trainer = trainer_of(run, folder, start(about["session"]), about)
    if (folder / "last.json").exists():
        trainer.restore()
    return fit(trainer, about)


def evaluate_run(arguments: Sequence[str]) -> int:
    parser = Parser(prog="eqprop evaluate")
    parser.add_argument("run", type=str, help="the folder of the run")
    parser.add_argument("--checkpoint", type=str, default="best", help="best or last")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the training's")
    parser.add_argument("--settled", type=float, default=0.0, help=SETTLED)
    options = parser.parse_args(list(arguments))
    folder = Path(options.run)
    about = read_run(folder)
    run = build(about)
    if options.settled:
        # Nothing learns here, so that any estimator's network settles in this one's free phase.
        run.model.estimator = InfinitesimalNudge(FromFeedforward(UntilConverged(options.settled, LONG)))
    tensors, state = checkpoint.load(folder, options.checkpoint)
    load_weights(run.model, tensors)
    how = about["session"]
    fabric = start(how | {"processes": 1, "precision": options.precision or how["precision"]})
    row = evaluate(run.model.to(fabric.device), run.test.to(fabric.device), fabric)
    print(
        f"{options.checkpoint} weights (epoch {state['progress']['epoch']}): "
        f"test accuracy {100 * row['accuracy']:.2f} %, "
        f"loss {row['loss']:.4f}, residual {row['free_residual']:.1e} after {row['free_sweeps']:.0f} sweeps"
    )
    return 0


def check_gradients(arguments: Sequence[str]) -> int:
    from eqprop.diagnostics.check import check

    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments[0] if named else DEFAULT
    trained = name not in RECIPES and Path(name).is_dir()
    parser = Parser(prog=f"eqprop check {name}", description=(inspect.getdoc(check) or "").splitlines()[0])
    if trained:
        parser.add_argument("--checkpoint", type=str, default="best", help="best or last")
    else:
        parser.add_function_arguments(find(name))
    skipped: set[str | int] = {"run", "title", "folder", "say"}
    parser.add_function_arguments(check, skip=skipped)
    parser.add_argument("--out", type=str, default="", help="default: RUN/check, or runs/check-RECIPE-TIME")
    options = parser.parse_args(list(arguments[1:] if named else arguments)).as_dict()
    how = {key: options.pop(key) for key in inspect.signature(check).parameters if key not in skipped}
    out, which = options.pop("out"), options.pop("checkpoint", "")
    recipe = name.rpartition(":")[2]
    about: dict[str, Any] = {"recipe": name, "options": options, "session": {"threads": 0}}
    if trained:
        about = read_run(Path(name))
    run, title = build(about), f"{recipe}, initial weights"
    if trained:
        tensors, state = checkpoint.load(Path(name), which)
        load_weights(run.model, tensors)
        title = f"{about['recipe'].rpartition(':')[2]}, {which} weights (epoch {state['progress']['epoch']})"
    default = f"{name}/check" if trained else f"runs/check-{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    check(run, title, Path(out or default), Console(highlight=False).print, **how)
    return 0


def list_recipes(arguments: Sequence[str]) -> int:
    Parser(prog="eqprop recipes").parse_args(list(arguments))
    table = Table("recipe", "what it is", box=None, header_style="bold")
    for name, recipe in RECIPES.items():
        table.add_row(name, (inspect.getdoc(recipe) or "").splitlines()[0])
    Console().print(table)
    return 0


def start(how: dict[str, Any]) -> Fabric:
    keep_freed_memory()
    strategy = "ddp" if how["processes"] > 1 else "auto"
    device = chosen_device(how["device"])
    try:
        fabric = Fabric(
            accelerator=device,
            devices=how["processes"],
            strategy=strategy,
            plugins=message_precision(how["precision"], device),
        )
    except Exception as error:
        raise InputError(
            f"No device {how['device']!r} with {how['processes']} processes here: {checkpoint.first_line(error)}"
        ) from error
    fabric.launch()
    return fabric


def build(about: dict[str, Any]) -> Experiment:
    options = about["options"]
    if threads := about["session"]["threads"]:
        torch.set_num_threads(threads)
    torch.manual_seed(options.get("seed", 0))
    run = find(about["recipe"])(**options)
    if not isinstance(run, Experiment):
        raise InputError(f"The recipe {about['recipe']!r} returned {type(run).__name__}: it must return a Run.")
    return run


def chosen_precision(how: dict[str, Any], run: Experiment) -> str:
    if how["precision"] != "auto":
        return how["precision"]
    if "LOCAL_RANK" not in os.environ:  # workers take what the first process found
        fast = run.model.estimator.sixteen_bits(run.first()) and faster_in_16_bits(chosen_device(how["device"]))
        os.environ["EQPROP_PRECISION"] = "bf16" if fast else "32"
    return os.environ["EQPROP_PRECISION"]


def read_run(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(folder)!r} is not the folder of a run ({checkpoint.first_line(error)}): "
            "name one that `eqprop train` made."
        ) from error


def trainer_of(run: Experiment, folder: Path, fabric: Fabric, about: dict[str, Any]) -> Trainer:
    how = about["session"]
    return Trainer(run, folder, fabric, Terminal(folder), how["checkpoint_seconds"], how["residual_limit"])


def fit(trainer: Trainer, about: dict[str, Any]) -> int:
    run, folder, terminal = trainer.run, trainer.folder, trainer.report
    assert isinstance(terminal, Terminal)
    parameters = sum(p.numel() for p in run.model.parameters())
    terminal.say(
        f"[bold]{about['recipe']}[/]: {len(run.train.images):,} images, {parameters:,} parameters, "
        f"{run.epochs} epochs on {trainer.fabric.device} ({about['session']['precision']}); the run is in {folder}"
    )
    with terminal:
        finished = trainer.fit()
    if not trainer.fabric.is_global_zero:
        return 0
    if not finished:
        terminal.say(f"Interrupted and saved. Go on with: eqprop resume {folder}")
        return INTERRUPTED
    tensors, state = checkpoint.load(folder, "best")
    last = evaluate(run.model, trainer.test, trainer.fabric)
    load_weights(run.model, tensors)
    same = state["progress"]["epoch"] == trainer.progress.epoch
    best = last if same else evaluate(run.model, trainer.test, trainer.fabric)
    summary = {
        "test_accuracy_last": last["accuracy"],
        "test_accuracy_best": best["accuracy"],
        "best_epoch": state["progress"]["epoch"],
        "best_chosen_by": run.chosen_by,
        "seconds": sum(row["seconds"] for row in trainer.progress.history),
    }
    checkpoint.write_text_atomic(folder / "summary.json", json.dumps(summary, indent=1))
    terminal.say(
        f"test accuracy [bold]{100 * last['accuracy']:.2f} %[/] after the last epoch, "
        f"{100 * best['accuracy']:.2f} % at "
        f"epoch {summary['best_epoch']} (best by {run.chosen_by}); {summary['seconds']:.0f} s of training. "
        f"Curves: {folder / 'curves.png'}"
    )
    return 0


class Terminal(Report):
    """A progress bar and a line an epoch, besides the files."""

    def __init__(self, folder: Path):
        self.files, self.console = Files(folder), Console(highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=self.console, transient=True)
        self.task = self.bar.add_task("epoch 1", total=None)

    def __enter__(self) -> Terminal:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def step(self, epoch: int, done: int, steps: int) -> None:
        self.bar.update(self.task, description=f"epoch {epoch + 1}", completed=done, total=steps)

    def epoch(self, history: History, epochs: int) -> None:
        self.files.epoch(history, epochs)
        row = history[-1]
        held = next(name.removesuffix("_accuracy") for name in ("validation_accuracy", "test_accuracy") if name in row)
        self.say(
            f"epoch {row['epoch']:.0f}/{epochs}  loss {row['train_loss']:.4f}  "
            f"train {100 * row['train_accuracy']:.2f} %  "
            f"{held} {100 * row[f'{held}_accuracy']:.2f} %  residual {row['train_free_residual']:.1e}  "
            f"{row['images_per_second']:.0f} images/s"
        )


if __name__ == "__main__":
    sys.exit(main())
