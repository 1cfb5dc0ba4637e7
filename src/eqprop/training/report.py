"""Reports of a run: metrics as CSV and TensorBoard, curves as PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eqprop.training.checkpoint import write_text_atomic

History = Sequence[dict[str, float]]


class Report:
    """Receives each step, and each epoch with all rows so far."""

    def step(self, epoch: int, done: int, steps: int) -> None:
        """``done`` of ``steps`` batches of the epoch (counted from 0) are finished."""

    def epoch(self, history: History, epochs: int) -> None:
        """An epoch of ``epochs`` has ended; its row is the last of ``history``."""


class Files(Report):
    """``metrics.csv``, ``curves.png`` and ``tensorboard/`` in a run's folder, rewritten or added to each epoch."""

    def __init__(self, folder: Path):
        self.folder = folder

    def epoch(self, history: History, epochs: int) -> None:
        write_csv(self.folder / "metrics.csv", history)
        write_tensorboard(self.folder / "tensorboard", history)
        write_curves(self.folder / "curves.png", history)


def write_csv(path: Path, history: History) -> None:
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text_atomic(path, text.getvalue())


def write_tensorboard(folder: Path, history: History) -> None:
    from torch.utils.tensorboard import SummaryWriter  # this import takes seconds

    last = history[-1]
    step = int(last["epoch"])
    # purge_step hides what an interrupted run wrote for epochs that are trained again.
    with SummaryWriter(str(folder), purge_step=step) as writer:
        for name, value in last.items():
            if name != "epoch":
                writer.add_scalar(name.replace("_", "/", 1), value, step)


def write_curves(path: Path, history: History) -> None:
    """Loss, accuracy and residual against the epoch, in one picture."""
    epochs = [row["epoch"] for row in history]

    def draw(axes: Any, what: str) -> None:
        for name in (n for n in history[-1] if n.endswith(f"_{what}")):
            values = [(100 if what == "accuracy" else 1) * row[name] for row in history]
            axes.plot(epochs, values, marker=".", label=name.removesuffix(f"_{what}"))
            if what == "free_residual" and max(values) > 0:  # a feedforward pass has none
                axes.set_yscale("log")

    panels = {"loss (mean over examples)": "loss", "accuracy (%)": "accuracy"}
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

    columns = len(panels) // rows
    figure = Figure(figsize=(max(size[0] * columns, 7.5), size[1] * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share)
    for axes, (name, panel) in zip(grid.flat, panels.items(), strict=True):
        axes.grid(alpha=0.3)
        axes.set(xlabel=x, ylabel=y)
        axes.set_title(name, fontsize=10)
        if whole:
            axes.xaxis.get_major_locator().set_params(integer=True)
        draw(axes, panel)
        axes.legend(loc=legend, fontsize=8)
    if share:
        bottom, top = grid[0, 0].get_ylim()
        grid[0, 0].set_ylim(bottom * room[0], top * room[1])
    figure.suptitle(title, fontsize=11)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(path)
