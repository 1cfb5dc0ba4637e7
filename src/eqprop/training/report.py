"""Reports of a run: metrics as CSV and TensorBoard, curves as PNG."""

from __future__ import annotations

import contextlib
import csv
import io
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqprop.files import one_line, replacing, write_text_atomic

if TYPE_CHECKING:
    from eqprop.training.loop import Experiment

History = Sequence[dict[str, float]]

SIDES = ("train", "validation", "test")
SOLVING = ("free_residual", "free_sweeps", "nudged_residual", "nudged_sweeps", "response_norm", "unstable")
"""What an epoch's row says of its phases, beside the worst residuals."""
PATIENCE = 20
"""Curves are drawn again after this many times the seconds that the last drawing has taken."""


class Report:
    """Receives each step, each epoch with all rows so far, and each checkpoint."""

    def begin(self, history: History, epochs: int) -> None:
        """Training begins, after the epochs of ``history``."""

    def step(self, epoch: int, done: int, steps: int) -> None:
        """``done`` of ``steps`` batches of the epoch (counted from 0) are finished."""

    def epoch(self, history: History, epochs: int) -> None:
        """An epoch of ``epochs`` has ended; its row is the last of ``history``."""

    def saved(self, name: str, run: Experiment) -> None:
        """The checkpoint ``name`` has been saved."""

    def warn(self, text: str) -> None:
        """Training goes on, but not as it should: ``text`` says what to change."""

    def end(self) -> None:
        """Training ends, or is interrupted."""


class Files(Report):
    """``metrics.csv``, ``curves.png`` and ``tensorboard/`` in a run's folder.

    What cannot be written is said once, and never ends the run.

    Args:
        folder: of the run.
        say: prints a line.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder, self.say = folder, say
        self.writer: Any = None
        self.history: History = []
        self.drawn, self.cost, self.rows = 0.0, 0.0, 0
        self.told: set[str] = set()

    def begin(self, history: History, epochs: int) -> None:
        # Again, as an interrupted run may have ended between a checkpoint and its report.
        if history:
            self.history = history
            with self.surviving("metrics.csv"):
                write_csv(self.folder / "metrics.csv", history)

    def epoch(self, history: History, epochs: int) -> None:
        self.history = history
        with self.surviving("metrics.csv"):
            write_csv(self.folder / "metrics.csv", history)
        with self.surviving("tensorboard"):
            self._to_tensorboard(history[-1])
        if time.monotonic() - self.drawn > PATIENCE * self.cost:
            self.draw()

    def draw(self) -> None:
        """Draws the curves of all epochs so far."""
        begin = time.monotonic()
        with self.surviving("curves.png"):
            write_curves(self.folder / "curves.png", self.history)
        self.rows = len(self.history)
        self.drawn = time.monotonic()
        self.cost = self.drawn - begin

    def warn(self, text: str) -> None:
        self.say(text)

    def end(self) -> None:
        if len(self.history) > self.rows:
            self.draw()
        with self.surviving("tensorboard"):
            if self.writer is not None:
                self.writer.close()

    @contextlib.contextmanager
    def surviving(self, what: str) -> Iterator[None]:
        """An error in what is only a report is said once."""
        try:
            yield
        except Exception as error:  # of the disk, of matplotlib, of tensorboard
            if what not in self.told:
                self.told.add(what)
                self.say(f"{what} cannot be written ({one_line(error)}); the run goes on.")

    def _to_tensorboard(self, row: Mapping[str, float]) -> None:
        step = int(row["epoch"])
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter  # this import takes seconds

            # purge_step hides what an interrupted run wrote for epochs that are trained again.
            self.writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name.replace("_", "/", 1), value, step)
        self.writer.flush()


def write_csv(path: Path, history: History) -> None:
    """One row an epoch."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text_atomic(path, text.getvalue())


def metrics_of(row: Mapping[str, float]) -> list[str]:
    """The names of the loss's metrics in an epoch's row."""
    names = [name.removeprefix("train_") for name in row if name.startswith("train_")]
    known = {"loss", *SOLVING, "free_residual_worst", "nudged_residual_worst"}
    return [name for name in names if name not in known]


def write_curves(path: Path, history: History) -> None:
    """The loss, its first metric and the residual against the epoch, in one picture."""
    epochs = [row["epoch"] for row in history]

    def draw(axes: Any, what: str) -> None:
        for side in SIDES:
            if (name := f"{side}_{what}") in history[-1]:
                values = [(100 if what == "accuracy" else 1) * row.get(name, float("nan")) for row in history]
                axes.plot(epochs, values, marker=".", label=side)
                if what == "free_residual" and max(values) > 0:  # a feedforward pass has none
                    axes.set_yscale("log")

    panels = {"loss (mean over examples)": "loss"}
    panels |= {f"{name} (%)" if name == "accuracy" else name: name for name in metrics_of(history[-1])[:1]}
    panels["residual: change in the last sweep"] = "free_residual"
    title = f"{path.parent.name}: training and held-out examples, by epoch"
    write_figure(path, title, panels, draw, x="epoch", whole=True, size=(3.7, 3.4))


def write_figure(
    path: Path,
    title: str,
    panels: Mapping[str, Any],
    draw: Callable[[Any, Any], None],
    x: str,
    y: str = "",
    rows: int = 1,
    whole: bool = False,
    share: bool = False,
    room: tuple[float, float] = (1, 1),
    legend: str = "best",
    size: tuple[float, float] = (4.8, 4.0),
) -> None:
    """Writes a figure as PNG, replacing the file in one step.

    ``panels``: title -> panel, which ``draw(axes, panel)`` draws. ``x`` and ``y`` are the names of the axes, ``size``
    that of a panel. ``whole``: x has whole numbers. ``share``: all panels have one y axis, whose lower and upper limits
    are multiplied by ``room`` to fit a legend.
    """
    from matplotlib.figure import Figure  # no pyplot: no display, no global state
    from matplotlib.ticker import MaxNLocator

    columns = len(panels) // rows
    width = max(size[0] * columns, 7.5)
    figure = Figure(figsize=(width, size[1] * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share)
    for axes, (name, panel) in zip(grid.flat, panels.items(), strict=True):
        axes.grid(alpha=0.3)
        axes.set(xlabel=x, ylabel=y)
        axes.set_title(textwrap.fill(name, int(10 * width / columns)), fontsize=10, parse_math=False)
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        draw(axes, panel)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc=legend, fontsize=8)
    if share:
        bottom, top = grid[0, 0].get_ylim()
        grid[0, 0].set_ylim(bottom * room[0], top * room[1])
    lines = [line for part in title.splitlines() for line in textwrap.wrap(part, int(11 * width))]
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font does not have
        figure.savefig(temporary, format="png", dpi=110)
