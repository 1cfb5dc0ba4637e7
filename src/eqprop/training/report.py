"""What a run leaves behind: metrics as CSV and TensorBoard, curves as PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from eqprop.training.checkpoint import write_text_atomic

History = Sequence[dict[str, float]]


class Report:
    """Told about each step, and about each epoch with all rows so far."""

    def step(self, epoch: int, done: int, steps: int) -> None:
        """``done`` of ``steps`` batches of the epoch (counted from 0) are behind us."""

    def epoch(self, history: History, epochs: int) -> None:
        """The last of ``epochs`` rows, so far, is that of the epoch that has ended."""


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
    from torch.utils.tensorboard import SummaryWriter  # imports for seconds: only where a run is written

    last = history[-1]
    step = int(last["epoch"])
    # purge_step hides what an interrupted run wrote for epochs that are trained again.
    with SummaryWriter(str(folder), purge_step=step) as writer:
        for name, value in last.items():
            if name != "epoch":
                writer.add_scalar(name.replace("_", "/", 1), value, step)


def write_curves(path: Path, history: History) -> None:
    """Loss, accuracy and residual against the epoch, in one picture."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, what, unit in zip(
        figure.subplots(1, 3),
        ("loss", "accuracy", "free_residual"),
        ("loss (mean over examples)", "accuracy (%)", "residual: change in the last sweep"),
        strict=True,
    ):
        for name in (n for n in history[-1] if n.endswith(f"_{what}")):
            scale = 100 if what == "accuracy" else 1
            axes.plot(epochs, [scale * row[name] for row in history], marker=".", label=name.removesuffix(f"_{what}"))
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    if any(value > 0 for row in history for name, value in row.items() if name.endswith("_free_residual")):
        axes.set_yscale("log")  # a feedforward pass has none
    figure.suptitle(f"{path.parent.name}: training and held-out examples, by epoch")
    write_figure(path, figure)


def write_figure(path: Path, figure: Figure) -> None:
    """As PNG, in one step: a reader sees the old picture or the new one, whole."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(path)
