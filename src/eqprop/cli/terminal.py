"""What a run shows on the terminal: lines for epochs, and signs of life within them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeRemainingColumn

from eqprop.settling.progress import listening
from eqprop.training.report import SIDES, Files, History, metrics_of

if TYPE_CHECKING:
    from eqprop.training.loop import Experiment

FIRST, EVERY = 10.0, 60.0
"""Seconds to the first line about an epoch under way, and between the next ones, where no bar can be drawn."""
REFRESH = 0.2


def plain_console() -> Console:
    """A console that prints texts as they are."""
    return Console(highlight=False, markup=False, emoji=False)


class Terminal(Files):
    """Writes a run's files; shows a line for each epoch, and how far the present one is.

    Args:
        folder: of the run.
        quiet: of a process that is not the first: it shows and writes nothing.
    """

    def __init__(self, folder: Path, quiet: bool = False):
        super().__init__(folder, self.say)
        self.console, self.quiet = plain_console(), quiet
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=self.console, transient=True, disable=quiet or not self.console.is_terminal)
        self.task = self.bar.add_task("epoch 1", total=None)
        self.begun = self.shown = self.stepped = self.entered = time.monotonic()
        self.epochs = self.steps = self.present = 0
        self.done = self.first = self.sweeps = self.sweeps_a_step = 0
        self.first_epoch, self.pause, self.trained = 0, FIRST, self.begun

    def say(self, text: str) -> None:
        """Prints a line."""
        if not self.quiet:
            self.console.print(text, soft_wrap=True)

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.begun

    @contextlib.contextmanager
    def watching(self, history: History, epochs: int) -> Iterator[None]:
        """Within, the run trains, after the epochs of ``history``."""
        if self.quiet:
            yield
            return
        self.begin(history, epochs)
        self.epochs, self.present, self.first_epoch = epochs, len(history), len(history)
        self.shown = self.stepped = self.entered = self.trained = time.monotonic()
        with self.bar, listening(self.sweep):
            try:
                yield
            finally:
                self.end()

    def sweep(self) -> None:
        """A solver has made one more sweep of the present step."""
        self.sweeps += 1
        self._show(time.monotonic())

    def step(self, epoch: int, done: int, steps: int) -> None:
        now = time.monotonic()
        if epoch != self.present or not self.steps:  # the first batch that this process has made of the epoch
            self.first, self.entered = done - 1, self.stepped
        self.present, self.done, self.steps = epoch, done, steps
        self.sweeps_a_step, self.sweeps = self.sweeps, 0
        self.stepped = now
        self._show(now)

    def _show(self, now: float) -> None:
        """Shows how far the epoch is, if it is time to."""
        if self.quiet or now - self.shown <= (self.pause if self.bar.disable else REFRESH):
            return
        self.shown = now
        part = min(self.sweeps / self.sweeps_a_step, 1.0) if self.sweeps_a_step else 0.0
        if not self.bar.disable:
            words = f"epoch {self.present + 1}" + (f", sweep {self.sweeps}" if self.sweeps else "")
            self.bar.update(self.task, description=words, completed=self.done + part, total=self.steps or None)
            return
        self.pause = EVERY
        if self.steps and self.done >= self.steps:
            self.say(f"epoch {self.present + 1}/{self.epochs}: evaluating")
            return
        where = f"epoch {self.present + 1}/{self.epochs}: batch {self.done + 1}"
        where += f" of {self.steps}" if self.steps else ""
        took = self.stepped - self.entered if self.done > self.first else 0.0
        if took:
            left = took / (self.done - self.first) * (self.steps - self.done - part)
            self.say(f"{where}, {took / (self.done - self.first):.2g} s a batch, {duration(left)} left in this epoch")
        else:
            self.say(f"{where}, {self.sweeps} sweeps in {now - self.stepped:.0f} s")

    def epoch(self, history: History, epochs: int) -> None:
        super().epoch(history, epochs)
        row = history[-1]
        held = next(side for side in SIDES[1:] if f"{side}_loss" in row)
        parts = [f"epoch {row['epoch']:.0f}/{epochs}", f"loss {row['train_loss']:.4f}"]
        for name in metrics_of(row)[:1]:
            for side in ("train", held):
                value = row[f"{side}_{name}"]
                words = f"{100 * value:.2f} %" if name == "accuracy" else f"{name} {value:.4g}"
                parts.append(f"{side} {words}")
        if not metrics_of(row):
            parts.append(f"{held} {row[f'{held}_loss']:.4f}")
        made = len(history) - self.first_epoch
        left = (time.monotonic() - self.trained) / made * (epochs - len(history))
        parts += [f"residual {row['train_free_residual']:.1e}", f"{row['examples_per_second']:.0f} examples/s"]
        self.say("  ".join([*parts, f"{duration(left)} left"] if left > 1 else parts))

    def saved(self, name: str, run: Experiment) -> None:
        if name == "best":
            with self.surviving("model.safetensors"):
                from eqprop.pretrained import Pretrained

                Pretrained(run.model, run.inputs, run.outputs).save_into(self.folder)

    def report(self, run: Experiment, weights: str, seconds: float) -> None:
        """Makes ``report.html``; if that fails, it is a line.

        Args:
            run: with weights to show.
            weights: which they are, in words.
            seconds: that the parts which compute may take.
        """
        with self.surviving("report.html"):
            from eqprop.report.making import after_training

            self.say(f"Report: {after_training(self.folder, run, weights, seconds)}")


def duration(seconds: float) -> str:
    """E.g. 45 s, 3:05 min, 2:10 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60, 2)
    if minutes < 60:
        return f"{int(minutes)}:{int(minutes % 1 * 60):02d} min"
    return f"{int(minutes // 60)}:{int(minutes % 60):02d} h"
