"""The command line: ``eqprop train | evaluate | resume | check | recipes``."""

from __future__ import annotations

import inspect
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import ArgumentParser
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeRemainingColumn
from rich.table import Table

from eqprop.errors import EqpropError, InputError
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.recipes import DEFAULT, RECIPES, find
from eqprop.settling import FromFeedforward, UntilConverged
from eqprop.training import checkpoint
from eqprop.training.loop import Experiment, Trainer, evaluate, load_weights
from eqprop.training.memory import keep_freed_memory
from eqprop.training.precision import MessagePrecision, chosen_device, faster_in_16_bits
from eqprop.training.report import Files, History

USAGE = """usage: eqprop COMMAND ...

  train [RECIPE] [--option value ...]   train; without a recipe, on the embedded handwritten digits
  resume RUN                            continue an interrupted run, to the same bits
  evaluate RUN [--checkpoint last]      test accuracy of a run's best (or last) weights; --settled 1e-4: fully settled
  check [RUN or RECIPE]                 compare its gradients with the exact one: tables and pictures
  recipes                               list the recipes

RECIPE is a name, or your own as file.py:function. `eqprop train RECIPE --help` lists its options."""

INTERRUPTED = 130
STAMP = "%Y%m%d-%H%M%S"
LONG = 5000
SETTLED = f"settle until no unit changes by more than this, in up to {LONG} sweeps; default: as in training"


class Parser(ArgumentParser):
    """A parser whose errors are one line, with exit status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(f"{' '.join(str(message).split())} (see `{self.prog} --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit status: 0, 2 for an error of the input, 130 for an interrupted run."""
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


@dataclass(frozen=True)
class Session:
    """How a recipe is run.

    Args:
        out: the folder of the run; default: runs/RECIPE-TIME.
        device: cpu or cuda. auto: cuda if there is one.
        processes: processes that share each batch.
        precision: of messages (convolutions, matrix products): 32 or bf16. auto: bf16 if this device is faster at it
            and the recipe's estimator is as good; weights, states and sums always have 32 bits.
        threads: CPU threads; 0: as PyTorch chooses.
        checkpoint_seconds: how often to save within an epoch.
        residual_limit: the mean residual of an epoch's free phases above which the run stops as not settling.
    """

    out: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = 1
    precision: Literal["auto", "32", "bf16"] = "auto"
    threads: int = 0
    checkpoint_seconds: float = 60.0
    residual_limit: float = 0.5


@dataclass(frozen=True)
class About:
    """The content of ``run.json``: everything that a run was started with."""

    recipe: str
    options: dict[str, Any]
    session: Session
    command: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"

    @classmethod
    def read(cls, folder: Path) -> About:
        wrong = f"{str(folder)!r} is not the folder of a run ({{}}): name one that `eqprop train` made."
        with checkpoint.explained(wrong, OSError, ValueError, TypeError, KeyError):
            held = json.loads((folder / "run.json").read_text())
            return cls(**held | {"session": Session(**held["session"])})

    @property
    def name(self) -> str:
        return self.recipe.rpartition(":")[2]

    def build(self) -> Experiment:
        if self.session.threads:
            torch.set_num_threads(self.session.threads)
        torch.manual_seed(self.options.get("seed", 0))
        run = find(self.recipe)(**self.options)
        if not isinstance(run, Experiment):
            raise InputError(f"The recipe {self.recipe!r} returned {type(run).__name__}: it must return an Experiment.")
        return run


def named(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The recipe or run in the first argument, or the default one; and the options."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], list(arguments[1:])
    return DEFAULT, list(arguments)


def train(arguments: Sequence[str]) -> int:
    name, rest = named(arguments)
    recipe = find(name)
    parser = Parser(prog=f"eqprop train {name}", description=inspect.getdoc(recipe))
    parser.add_function_arguments(recipe)
    parser.add_class_arguments(Session)
    options = parser.parse_args(rest).as_dict()
    session = Session(**{each.name: options.pop(each.name) for each in fields(Session)})
    file, colon, function = name.rpartition(":")
    folder = Path(session.out or f"runs/{function}-{time.strftime(STAMP)}")
    if folder.exists():
        raise InputError(
            f"The folder {str(folder)!r} exists: `eqprop resume {folder}` continues it, --out names another."
        )
    about = About(
        recipe=f"{Path(file).resolve()}:{function}" if colon else name,
        options=options,
        session=replace(session, out=str(folder)),
        command=["eqprop", "train", *arguments],
        versions={package: version(package) for package in ("eqprop", "torch", "numpy", "lightning-fabric")},
    )
    run = about.build()
    if session.precision == "auto":
        fast = run.model.estimator.sixteen_bits(run.first()) and faster_in_16_bits(chosen_device(session.device))
        about = replace(about, session=replace(about.session, precision="bf16" if fast else "32"))
    fabric, about = start(about)
    if fabric.is_global_zero:
        checkpoint.make_folder(Path(about.session.out))
        checkpoint.write_text_atomic(Path(about.session.out) / "run.json", json.dumps(asdict(about), indent=1))
    return train_on(Path(about.session.out), run, fabric, about)


def resume(arguments: Sequence[str]) -> int:
    parser = Parser(prog="eqprop resume")
    parser.add_argument("run", type=str, help="the folder of the run")
    folder = Path(parser.parse_args(list(arguments)).run)
    about = About.read(folder)
    run = about.build()
    return train_on(folder, run, *start(about))


def evaluate_run(arguments: Sequence[str]) -> int:
    parser = Parser(prog="eqprop evaluate")
    parser.add_argument("run", type=str, help="the folder of the run")
    parser.add_argument("--checkpoint", type=str, default="best", help="best or last")
    parser.add_argument("--precision", choices=("32", "bf16"), help="default: the training's")
    parser.add_argument("--settled", type=float, default=0.0, help=SETTLED)
    options = parser.parse_args(list(arguments))
    about = About.read(Path(options.run))
    run = about.build()
    if options.settled:
        # Nothing learns here, so that the free phase of this estimator serves for all.
        run.model.estimator = InfinitesimalNudge(FromFeedforward(UntilConverged(options.settled, LONG)))
    epoch = load_epoch(run, Path(options.run), options.checkpoint)
    precision = options.precision or about.session.precision
    fabric, _ = start(replace(about, session=replace(about.session, processes=1, precision=precision)))
    row = evaluate(run.model.to(fabric.device), run.test.to(fabric.device), fabric)
    print(
        f"{options.checkpoint} weights (epoch {epoch}): "
        f"test accuracy {100 * row['accuracy']:.2f} %, "
        f"loss {row['loss']:.4f}, residual {row['free_residual']:.1e} after {row['free_sweeps']:.0f} sweeps"
    )
    return 0


def check_gradients(arguments: Sequence[str]) -> int:
    from eqprop.diagnostics.check import check

    name, rest = named(arguments)
    trained = name not in RECIPES and Path(name).is_dir()
    parser = Parser(prog=f"eqprop check {name}", description=(inspect.getdoc(check) or "").splitlines()[0])
    if trained:
        parser.add_argument("--checkpoint", type=str, default="best", help="best or last")
    else:
        parser.add_function_arguments(find(name))
    skipped: set[str | int] = {"run", "title", "folder", "say"}
    parser.add_function_arguments(check, skip=skipped)
    parser.add_argument("--out", type=str, default="", help="default: RUN/check, or runs/check-RECIPE-TIME")
    options = parser.parse_args(rest).as_dict()
    how = {key: options.pop(key) for key in inspect.signature(check).parameters if key not in skipped}
    out, which = options.pop("out"), options.pop("checkpoint", "")
    about = About.read(Path(name)) if trained else About(name, options, Session())
    run = about.build()
    if trained:
        weights, folder = f"{which} weights (epoch {load_epoch(run, Path(name), which)})", f"{name}/check"
    else:
        weights, folder = "initial weights", f"runs/check-{about.name}-{time.strftime(STAMP)}"
    check(run, f"{about.name}, {weights}", Path(out or folder), Console(highlight=False).print, **how)
    return 0


def list_recipes(arguments: Sequence[str]) -> int:
    Parser(prog="eqprop recipes").parse_args(list(arguments))
    table = Table("recipe", "what it is", box=None, header_style="bold")
    for name, recipe in RECIPES.items():
        table.add_row(name, (inspect.getdoc(recipe) or "").splitlines()[0])
    Console().print(table)
    return 0


def start(about: About) -> tuple[Fabric, About]:
    """The processes of a run, and the settings of the first one, as the clocks and speeds of others differ."""
    keep_freed_memory()
    session = about.session
    device = chosen_device(session.device)
    messages = MessagePrecision(device)
    missing = f"No device {session.device!r} with {session.processes} processes here: {{}}"
    with checkpoint.explained(missing, Exception):
        fabric = Fabric(
            accelerator=device,
            devices=session.processes,
            strategy="ddp" if session.processes > 1 else "auto",
            plugins=messages,
        )
    fabric.launch()
    about = fabric.broadcast(about)
    messages.sixteen_bits = about.session.precision == "bf16"
    return fabric, about


def load_epoch(run: Experiment, folder: Path, name: str) -> int:
    """Loads the weights of a checkpoint into the model. Returns the number of epochs after which they were saved."""
    tensors, state = checkpoint.load(folder, name)
    load_weights(run.model, tensors)
    return state["progress"]["epoch"]


def train_on(folder: Path, run: Experiment, fabric: Fabric, about: About) -> int:
    """Trains, from the last checkpoint if there is one."""
    session, terminal = about.session, Terminal(folder)
    trainer = Trainer(run, folder, fabric, terminal, session.checkpoint_seconds, session.residual_limit)
    if (folder / "last.json").exists():
        trainer.restore()
    parameters = sum(p.numel() for p in run.model.parameters())
    terminal.say(
        f"[bold]{about.recipe}[/]: {len(run.train):,} images, {parameters:,} parameters, "
        f"{run.epochs} epochs on {fabric.device} ({session.precision}); the run is in {folder}"
    )
    with terminal.bar:
        finished = trainer.fit()
    if not fabric.is_global_zero:
        return 0
    if not finished:
        terminal.say(f"Interrupted and saved. Continue with: eqprop resume {folder}")
        return INTERRUPTED
    last = evaluate(run.model, trainer.test, fabric)
    best_epoch = load_epoch(run, folder, "best")
    best = last if best_epoch == trainer.progress.epoch else evaluate(run.model, trainer.test, fabric)
    summary = {
        "test_accuracy_last": last["accuracy"],
        "test_accuracy_best": best["accuracy"],
        "best_epoch": best_epoch,
        "best_chosen_by": run.chosen_by,
        "seconds": sum(row["seconds"] for row in trainer.progress.history),
    }
    checkpoint.write_text_atomic(folder / "summary.json", json.dumps(summary, indent=1))
    terminal.say(
        f"test accuracy [bold]{100 * last['accuracy']:.2f} %[/] after the last epoch, "
        f"{100 * best['accuracy']:.2f} % at "
        f"epoch {best_epoch} (best by {run.chosen_by}); {summary['seconds']:.0f} s of training. "
        f"Curves: {folder / 'curves.png'}"
    )
    return 0


class Terminal(Files):
    """Writes the files, and shows a progress bar and one line for each epoch."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.console = Console(highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=self.console, transient=True)
        self.task = self.bar.add_task("epoch 1", total=None)

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def step(self, epoch: int, done: int, steps: int) -> None:
        self.bar.update(self.task, description=f"epoch {epoch + 1}", completed=done, total=steps)

    def epoch(self, history: History, epochs: int) -> None:
        super().epoch(history, epochs)
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
