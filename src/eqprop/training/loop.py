"""Training: epochs of steps, with checks, reports, and checkpoints that resume to the same bits."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from eqprop.energy import Landscape, SeparateFeedback
from eqprop.energy.nodes import length
from eqprop.errors import InputError, NotSettledError
from eqprop.learning.equilibrium import Equilibrium, Record
from eqprop.tasks import Inputs, Manifest, Outputs, Task
from eqprop.training import checkpoint
from eqprop.training.constraints import Constrain
from eqprop.training.report import Report

Row = dict[str, float]
"""One epoch's metrics."""


@dataclass
class Experiment:
    """Everything that a training needs; recipes return it.

    Attributes:
        model: the model to train.
        optimizer: over the model's parameters.
        train, test: batches of images. ``test`` is used once, at the end, unless it chooses the best epoch.
        validation: a part of the training set that chooses the best epoch; ``None`` if the test set does.
        epochs: the number of passes through ``train``.
        scheduler: stepped after each epoch, or after each batch if ``schedule_by_batch``.
        manifest: of the data set; ``None``: what ``train`` and ``test`` tell of themselves.
        inputs, outputs: how a trained model reads files, and what its scores mean; ``None``: arrays, and what the
            targets tell.
        constrain: called with the model's network after each step, to enforce constraints on parameters.
    """

    model: Equilibrium
    optimizer: Optimizer
    train: Task
    test: Task
    epochs: int
    validation: Task | None = None
    scheduler: LRScheduler | None = None
    schedule_by_batch: bool = False
    constrain: Constrain | None = None
    manifest: Manifest | None = None
    inputs: Inputs | None = None
    outputs: Outputs | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs {self.epochs}: a run has at least one.")
        self.first()  # raises if the image size does not fit

    def first(self) -> Landscape:
        """The landscape of the first batch."""
        return self.model.network.landscape(self.train.sample(self.train.size(0))[0])

    @property
    def chosen_by(self) -> Literal["validation", "test"]:
        return "test" if self.validation is None else "validation"


@dataclass
class Progress:
    """The progress of a run; every checkpoint contains it."""

    epoch: int = 0
    index: int = 0
    history: list[Row] = field(default_factory=list)
    seconds: float = 0.0  # of this epoch
    best: float = -1.0


class EpochMetrics:
    """Sums and maxima over the steps of an epoch. They are on the device, so adding to them does not wait for it."""

    SUMS = (
        *("examples", "loss", "accuracy", "free_residual", "free_sweeps"),
        *("nudged", "nudged_residual", "nudged_sweeps"),
        *("response_norm", "unstable"),
    )
    PEAKS = ("free_residual_worst", "nudged_residual_worst")
    MEANS = (
        ("examples", ("loss", "free_residual", "free_sweeps", "accuracy", "free_residual_worst")),
        ("nudged", ("nudged_residual", "nudged_sweeps", "nudged_residual_worst", "response_norm", "unstable")),
    )
    """A count of examples, and the metrics that are means over it."""

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(len(self.SUMS), dtype=torch.float64, device=device)
        self.peaks = torch.zeros(len(self.PEAKS), dtype=torch.float64, device=device)

    def add(self, loss: Tensor, y: Tensor, record: Record) -> None:
        free, nudged, scores = record.free, record.nudged, record.scores
        assert free is not None
        assert scores is not None
        correct = (scores.flatten(1).argmax(1) == y).sum()
        sums = [loss.new_full((), len(y)), loss.detach() * len(y), correct, free.residual.sum(), free.sweeps.sum()]
        peaks = [free.residual.max()]
        if nudged is not None:
            count = loss.new_full((), len(nudged.residual))
            moved = length({node: value.abs() for node, value in nudged.state.items()})
            sums += [count, nudged.residual.sum(), nudged.sweeps.sum(), moved.sum(), nudged.unstable.sum()]
            peaks.append(nudged.residual.max())
        self.sums[: len(sums)] += torch.stack([each.double() for each in sums])
        self.peaks[: len(peaks)].clamp_(min=torch.stack([each.double() for each in peaks]))

    def means(self) -> Row:
        names = (*self.SUMS, *self.PEAKS)
        found = dict(zip(names, [*self.sums.tolist(), *self.peaks.tolist()], strict=True))
        row = {}
        for count, known in self.MEANS:
            for name in known if found[count] else ():
                row[name] = found[name] if name in self.PEAKS else found[name] / found[count]
        return row


@dataclass
class Trainer:
    """Trains a run in its own folder.

    Attributes:
        run: the experiment.
        folder: of checkpoints and reports.
        fabric: device and processes.
        report: writes each epoch's metrics to files and to the terminal.
        checkpoint_seconds: how often to save within an epoch.
        residual_limit: the run stops as not settling if the mean residual (the change in the last free sweep) of an
            epoch is above this.
    """

    run: Experiment
    folder: Path
    fabric: Fabric
    report: Report
    checkpoint_seconds: float = 60.0
    residual_limit: float = 0.5

    def __post_init__(self) -> None:
        run = self.run
        model, optimizer = self.fabric.setup(run.model, run.optimizer)
        self.model, self.optimizer = model, optimizer
        self.progress = Progress()
        self.totals = EpochMetrics(self.fabric.device)
        self.train, self.test = (batches.to(self.fabric.device) for batches in (run.train, run.test))
        self.validation = None if run.validation is None else run.validation.to(self.fabric.device)

    # -- the loop --

    def fit(self) -> bool:
        """Trains to the last epoch. False if it was interrupted: all is saved, and ``resume`` continues.

        Raises:
            NotSettledError: a value is not finite, or the network does not settle.
        """
        progress = self.progress
        with interruptible() as interrupted:
            while progress.epoch < self.run.epochs:
                if not self._epoch(interrupted):
                    self.save("last")
                    return False
                self._close_epoch()
        return True

    def _epoch(self, interrupted: Callable[[], bool]) -> bool:
        progress, fabric = self.progress, self.fabric
        steps = self.train.steps
        self.model.train()
        saved = clock = time.monotonic()
        batches = self.train.epoch(progress.epoch, progress.index, fabric.global_rank, fabric.world_size)
        for x, y in batches:
            self._step(x, y)
            progress.index += 1
            now = time.monotonic()
            progress.seconds, clock = progress.seconds + now - clock, now
            self.report.step(progress.epoch, progress.index, steps)
            if interrupted():
                return False
            if now - saved > self.checkpoint_seconds and progress.index < steps:
                self.save("last")
                saved = clock = time.monotonic()
        return True

    def _step(self, x: Tensor, y: Tensor) -> None:
        record = Record()
        loss = self.model(x, y, record=record)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self._check_finite(loss, record)
        self.optimizer.step()
        if self.run.constrain is not None:
            self.run.constrain(self.run.model.network)
        if self.run.scheduler is not None and self.run.schedule_by_batch:
            self.run.scheduler.step()
        self.totals.add(loss, y, record)

    def _check_finite(self, loss: Tensor, record: Record) -> None:
        """Checks the step before the optimiser changes a weight, so that the last checkpoint stays valid.

        Only here does this loop wait for the device in each step; a solver that stops at rest also waits.
        """
        residuals = [s.residual.max() for s in (record.free, record.nudged) if s is not None]
        gradients = {name: p.grad for name, p in self.run.model.named_parameters() if p.grad is not None}
        sizes = [gradient.abs().max() for gradient in gradients.values()]
        if bool(torch.stack([loss.detach(), *residuals, *sizes]).isfinite().all()):
            return
        settled = record.nudged if record.nudged is not None and bool(loss.isfinite()) else record.free
        assert settled is not None
        wild = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
        raise NotSettledError(
            f"epoch {self.progress.epoch + 1}, batch {self.progress.index + 1}: "
            f"the loss is {float(loss.detach()):g} and node {settled.worst_node()!r} "
            f"changed by {float(settled.residual.max()):g} in its last sweep; gradients that are not finite: "
            f"{', '.join(wild) or 'none'}. Lower the "
            f"learning rates or beta, or clip the gradient; the last valid weights are in {self.folder}."
        )

    def _close_epoch(self) -> None:
        run, progress = self.run, self.progress
        train = self.totals.means()
        chosen = self.validation if self.validation is not None else self.test
        held = evaluate(run.model, chosen, self.fabric)
        row = {"epoch": float(progress.epoch + 1), "seconds": progress.seconds}
        row["images_per_second"] = float(self.totals.sums[0]) * self.fabric.world_size / max(progress.seconds, 1e-9)
        row |= {f"train_{name}": value for name, value in train.items()}
        row |= {f"{run.chosen_by}_{name}": value for name, value in held.items()}
        row |= {f"lr_{group.get('name', i)}": group["lr"] for i, group in enumerate(run.optimizer.param_groups)}
        row |= alignment_angles(run.model)
        self._check_settled(train)
        if run.scheduler is not None and not run.schedule_by_batch:
            run.scheduler.step()
        progress.history.append(row)
        progress.epoch, progress.index, progress.seconds = progress.epoch + 1, 0, 0.0
        self.totals = EpochMetrics(self.fabric.device)
        if held["accuracy"] >= progress.best:  # of equals the later one, which has the smaller learning rate
            progress.best = held["accuracy"]
            self.save("best")
        self.save("last")
        if self.fabric.is_global_zero:
            self.report.epoch(progress.history, run.epochs)

    def _check_settled(self, train: Row) -> None:
        if train["free_residual"] <= self.residual_limit:
            return
        x = next(iter(self.train.epoch(self.progress.epoch)))[0]
        settled = self.run.model.settle(x)
        raise NotSettledError(
            f"epoch {self.progress.epoch + 1}: the network does not settle. The residual, the change in the last "
            f"free sweep, is {train['free_residual']:.2g} (mean over examples; the limit is "
            f"{self.residual_limit:g}), most of all in node {settled.worst_node()!r}. Take more free sweeps, the "
            "alternating order, units of slope 1/2 or smaller learning rates; or raise --residual_limit."
        )

    # -- checkpoints --

    def save(self, name: str) -> None:
        if not self.fabric.is_global_zero:
            return
        run, progress = self.run, self.progress
        tensors = {f"model.{key}": value for key, value in run.model.state_dict().items()}
        optimizer_tensors, optimizer_state = checkpoint.flatten_optimizer(run.optimizer)
        tensors |= optimizer_tensors | checkpoint.rng_tensors()
        tensors |= {"totals.sums": self.totals.sums, "totals.peaks": self.totals.peaks}
        for i, generator in enumerate(run.model.estimator.generators()):
            tensors[f"generator.{i}"] = generator.get_state()
        state = {
            "progress": vars(progress),
            "optimizer": optimizer_state,
            "scheduler": None if run.scheduler is None else run.scheduler.state_dict(),
        }
        checkpoint.save(self.folder, name, tensors, state)

    def restore(self) -> None:
        """Continues from the folder's last checkpoint, with the same bits as without an interruption."""
        tensors, state = checkpoint.load(self.folder, "last")
        run = self.run
        load_weights(run.model, tensors)
        checkpoint.restore_optimizer(run.optimizer, tensors, state["optimizer"])
        if run.scheduler is not None:
            run.scheduler.load_state_dict(state["scheduler"])
        for i, generator in enumerate(run.model.estimator.generators()):
            generator.set_state(tensors[f"generator.{i}"])
        self.progress = Progress(**state["progress"])
        self.totals.sums = tensors["totals.sums"].to(self.fabric.device)
        self.totals.peaks = tensors["totals.peaks"].to(self.fabric.device)
        checkpoint.restore_rng(tensors)


@torch.no_grad()
def evaluate(model: Equilibrium, batches: Task, fabric: Fabric) -> Row:
    """Loss, accuracy, residual and sweeps over ``batches``, at the free equilibrium, without dropout.

    Model and batches are on the fabric's device; messages have its precision.
    """
    training = model.training
    model.eval()
    totals = EpochMetrics(fabric.device)
    for x, y in batches.epoch(0):
        record = Record()
        with fabric.autocast():
            loss = model(x, y, record=record)
        totals.add(loss, y, record)
    model.train(training)
    return totals.means()


def load_weights(model: Equilibrium, tensors: dict[str, Tensor]) -> None:
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    misfit = "The checkpoint's weights do not fit this network ({}): use its own recipe."
    with checkpoint.explained(misfit, RuntimeError):
        model.load_state_dict(weights)


def alignment_angles(model: Equilibrium) -> Row:
    """The angle in degrees between feedforward and feedback weights, for each synapse that has both."""
    row = {}
    for name, coupling in model.network.terms.items():
        for _, up, down in coupling.pairs() if isinstance(coupling, SeparateFeedback) else ():
            cosine = torch.nn.functional.cosine_similarity(up.detach().flatten(), down.detach().flatten(), dim=0)
            row[f"angle_{name}"] = math.degrees(math.acos(max(-1.0, min(1.0, float(cosine)))))
    return row


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C takes effect after the present step; a second one at once."""
    asked = False

    def notice(number: int, frame: FrameType | None) -> Any:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        before = signal.signal(signal.SIGINT, notice)
    except ValueError:  # not the main thread, which alone receives signals
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
