"""What a run has to show: its files, its trained model, and its data if they are still there and may be read."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from eqprop import files
from eqprop.errors import EqpropError, InputError, one_line
from eqprop.learning import Equilibrium
from eqprop.loading import Kept, load, load_epoch
from eqprop.runs.folder import About, failure, quoted, read
from eqprop.runs.lock import holder
from eqprop.settling.progress import listening
from eqprop.tasks import Inputs, Outputs, Task
from eqprop.training.loop import Experiment

State = Literal["finished", "training", "failed", "interrupted"]
LARGEST = 2**26
"""Bytes of a file of metrics that is read."""
LATE = "it takes longer than this report may; `eqprop report RUN --seconds 600` gives it more time"
ROWS = 10**5
"""Rows of metrics that are read."""


class TimeOver(EqpropError):
    """A part of a report would take longer than it may."""


class Clock:
    """How much of the time that a report may take is left.

    Args:
        seconds: that it may take.
    """

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def share(self, part: float) -> Clock:
        """A clock of a part of the time that is left."""
        return Clock(part * max(self.left(), 0.0))

    @contextlib.contextmanager
    def limiting(self) -> Iterator[None]:
        """Within, a solver stops after the sweep in which the time is over. Raises TimeOver then."""

        def check() -> None:
            if self.left() < 0:
                raise TimeOver(LATE)

        check()
        with listening(check):
            yield


@dataclass(frozen=True)
class Trained:
    """A model with what it reads and what its scores mean.

    Attributes:
        model: in evaluation mode.
        inputs, outputs: see ``Pretrained``.
        weights: which they are, in words.
        train, test: its data; ``None`` if they are not at hand.
        optimizer: its metrics are those of devices; ``None`` if there is none.
    """

    model: Equilibrium
    inputs: Inputs | None
    outputs: Outputs | None
    weights: str
    train: Task | None = None
    test: Task | None = None


@dataclass(frozen=True)
class Subject:
    """A run to report of.

    Attributes:
        folder: of the run.
        about: the content of ``run.json``.
        state: of the run.
        epochs: that it is to have; 0 if that is not known.
        reached: epochs that it has finished.
        failed: what ended it; "" if nothing did.
        history: a row for each epoch.
        summary: test metrics of a finished run.
        trained: its model, if there is one.
        notes: what is missing, and why.
    """

    folder: Path
    about: About
    state: State
    epochs: int
    reached: int
    failed: str = ""
    history: Sequence[Mapping[str, float]] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    trained: Trained | None = None
    notes: Sequence[str] = ()


def look(folder: Path) -> Subject:
    """A run by its small files alone: nothing of it is executed, and nothing outside of it is read.

    Args:
        folder: of the run.

    Raises:
        InputError: it is no run, or ``run.json`` is damaged.
    """
    about, _ = read(folder)
    notes = list[str]()
    history = list[dict[str, float]]()
    if (folder / "metrics.csv").exists():
        try:
            history = read_history(folder / "metrics.csv")
        except InputError as error:
            notes.append(str(error))
    summary = dict[str, Any]()
    if (folder / "summary.json").exists():
        try:
            summary = read_summary(folder / "summary.json")
        except InputError as error:
            notes.append(str(error))
    epochs, reached = about.options.get("epochs", 0), len(history)
    epochs = epochs if isinstance(epochs, int) else 0
    with contextlib.suppress(EqpropError, KeyError, TypeError, ValueError):
        saved = files.load_state(folder, "last")
        reached, epochs = int(saved["progress"]["epoch"]), max(epochs, int(saved["epochs"]))
    failed = failure(folder)
    state: State = "interrupted"
    if holder(folder):
        state = "training"
    elif failed:
        state = "failed"
    elif summary and reached >= epochs:
        state = "finished"
    return Subject(folder, about, state, epochs, reached, failed, history, summary, None, tuple(notes))


def whole(folder: Path, data: str = "", accept: bool = False, trust_recipe: bool = False) -> tuple[Subject, Opened]:
    """A run with its model and its data, as far as they are there and may be read.

    Args:
        folder: of the run.
        data: where its data are now; "": where they were.
        accept: whether other data than the training's will do.
        trust_recipe: whether the code of a run that was not made here may run.

    Raises:
        InputError: it is no run; or the data that were named cannot be used.
    """
    opened = Opened(folder, data, accept, trust_recipe)
    return opened.subject(), opened


class Opened:
    """A run whose experiment is built once, to be looked at again and again while it trains.

    Args:
        folder, data, accept, trust_recipe: see ``whole``.

    Raises:
        InputError: see ``whole``.
    """

    def __init__(self, folder: Path, data: str = "", accept: bool = False, trust_recipe: bool = False):
        self.folder, self.trust_recipe = folder, trust_recipe
        self.kept: Kept | None = None
        self.run: Experiment | None = None
        self.notes: list[str] = []
        read(folder)
        try:
            self.kept = Kept(folder, trust_recipe, data)
            self.run = self.kept.build()
            self.notes += [f"The data are accepted although {each}." for each in self._differences(accept)]
        except Exception as error:  # of the data, or of a user's recipe
            self.run = None
            if data or trust_recipe or accept:
                raise
            reason = one_line(error) if isinstance(error, EqpropError) else f"{type(error).__name__}: {one_line(error)}"
            self.notes.append(f"What needs the data is left out: {reason}")

    def _differences(self, accept: bool) -> list[str]:
        assert self.kept is not None
        assert self.run is not None
        return self.kept.compare(self.run, ["train", "test"], accept)

    def subject(self) -> Subject:
        """The run as it is now."""
        found = look(self.folder)
        notes = [*found.notes, *self.notes]
        trained: Trained | None = None
        if self.run is not None and self.kept is not None:
            trained, more = from_experiment(self.run, self.kept)
        else:
            trained, more = from_files(self.folder, self.trust_recipe)
        return replace(found, trained=trained, notes=(*notes, *more))


def from_experiment(run: Experiment, kept: Kept) -> tuple[Trained, list[str]]:
    """The model of an experiment with the best weights that the run has saved, and what there is to note."""
    notes = list[str]()
    weights = "initial weights"
    for name in ("best", "last"):
        if (kept.folder / f"{name}.json").exists():
            try:
                weights = f"the {name} weights, of epoch {load_epoch(run, kept, name)}"
                break
            except InputError as error:
                notes.append(str(error))
    else:
        notes.append("The run has saved no weights: what follows is of the initial ones.")
    return of_experiment(run, weights), notes


def of_experiment(run: Experiment, weights: str) -> Trained:
    """The model and the data of an experiment as they are."""
    return Trained(run.model.eval(), run.inputs, run.outputs, weights, run.train, run.test)


def from_files(folder: Path, trust_recipe: bool) -> tuple[Trained | None, list[str]]:
    """The model that a run's ``config.json`` describes, without data."""
    try:
        model = load(folder, trust_recipe=trust_recipe)
    except InputError as error:
        return None, [f"There is no model to show: {error}"]
    return Trained(model.model, model.inputs, model.outputs, "the best weights"), []


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of ``metrics.csv``. Raises InputError if it is damaged."""
    damaged = f"{path} is damaged ({{}}): `eqprop resume {quoted(path.parent)}` writes it anew."
    with files.explained(damaged, OSError, ValueError, csv.Error, wrap=True):
        content = read_small(path)
        rows = list[dict[str, float]]()
        for row in csv.DictReader(content.decode().splitlines()):
            if len(rows) == ROWS:
                raise ValueError(f"it has more than {ROWS} rows")
            rows.append({str(name)[:100]: float(value) for name, value in row.items() if value and name is not None})
        if not all(math.isfinite(row.get("epoch", math.nan)) for row in rows):
            raise ValueError("a row has no epoch")
        return rows


def read_summary(path: Path) -> dict[str, Any]:
    """The content of ``summary.json``. Raises InputError if it is damaged."""
    damaged = f"{path} is damaged ({{}}): `eqprop evaluate {quoted(path.parent)}` measures again."
    with files.explained(damaged, OSError, ValueError, RecursionError, wrap=True):
        found = json.loads(read_small(path))
        if not isinstance(found, dict):
            raise ValueError("it is no object")
        return {str(name)[:100]: value for name, value in found.items() if isinstance(value, str | int | float)}


def read_small(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    return files.read_regular(path)
