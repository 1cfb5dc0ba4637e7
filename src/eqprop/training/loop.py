"""Training: epochs of steps, with checks, reports, and checkpoints that resume to the same bits."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from eqprop import files
from eqprop.checks import NonNegative, described, test_of
from eqprop.energy import Landscape, SeparateFeedback
from eqprop.energy.network import sharing
from eqprop.errors import InputError, NotSettledError
from eqprop.learning.equilibrium import Equilibrium, Record
from eqprop.tasks import (
    ArrayInputs,
    Batches,
    Classes,
    ImageInputs,
    Images,
    Inputs,
    Manifest,
    Normalise,
    Outputs,
    Task,
    Values,
)
from eqprop.tasks.batches import rows_of
from eqprop.tasks.datasets import as_task
from eqprop.tasks.task import Pair, share_of
from eqprop.training import checkpoint
from eqprop.training.constraints import Constrain
from eqprop.training.cuda_graphs import Graphed, ahead, check_capturable
from eqprop.training.metrics import Counts, EpochMetrics, Row
from eqprop.training.report import Report
from eqprop.training.stopping import Stop, after_this_batch
from eqprop.training.vitals import Vitals

if TYPE_CHECKING:
    from lightning_fabric import Fabric

UNCHECKED = 50
"""Captured steps that are checked together."""


@dataclass
class Experiment:
    """Everything that a training needs; recipes return it.

    Attributes:
        model: the model to train.
        optimizer: over the model's parameters.
        train, test: what to train and to test on, a ``Task`` or what ``as_task`` makes one of, such as a DataLoader.
            ``test`` is used once, at the end, unless it chooses the best epoch.
        epochs: the number of passes through ``train``.
        validation: a part of the training set that chooses the best epoch; ``None`` if the test set does.
        scheduler: stepped after each epoch, or after each batch if ``schedule_by_batch``.
        schedule_by_batch: see ``scheduler``.
        constrain: called with the model's network after each step, to enforce constraints on parameters.
        gradient_clip: a gradient, of all parameters together, whose norm is larger is scaled down to it; 0: none is.
        manifest: of the data set; ``None``: what ``train`` and ``test`` tell of themselves.
        inputs, outputs: how a trained model reads files, and what its scores mean; ``None``: what ``train`` tells of
            itself: images or arrays; numbered classes, or values.
        monitor: the metric that chooses the best epoch; "": the loss's first metric, or the loss.
        unused: options of the recipe that have no effect with the others -> why; a command that names one is refused.

    Raises:
        InputError: one of them is of another kind, or they do not fit together.
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
    monitor: str = ""
    gradient_clip: NonNegative = 0.0
    unused: Mapping[str, str] = field(default_factory=dict)
    looked_at: Pair = field(init=False, repr=False)  # two examples of ``train``

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Experiment, include_extras=True).items():
            value = getattr(self, name, None)
            if name not in ("train", "test", "validation", "looked_at") and not test_of(kind)(value):
                raise InputError(f"Experiment: {name} must be {described(value, kind)}.")
        if self.epochs < 1:
            raise InputError(f"epochs {self.epochs}: a run has at least one.")
        if self.model.network.loss is None:
            raise InputError("The network has no loss: build it with one to train it.")
        self.train, self.test = as_task(self.train, "train"), as_task(self.test, "test")
        if self.validation is not None:
            self.validation = as_task(self.validation, "validation")
        owned = {id(parameter) for parameter in self.model.parameters()}
        for group in self.optimizer.param_groups:
            if any(id(parameter) not in owned for parameter in group["params"]):
                raise InputError("The optimizer has parameters of another model: build it over this model's.")
        self.first()  # raises if the shape of the inputs does not fit
        self.looked_at = self.train.sample(2)
        for _, y in (self.looked_at, self.test.sample(1)):
            self.model.network.loss.check(rows_of(y, slice(1)), 1)
        self.inputs = self.inputs or self._inputs()
        self.outputs = self.outputs or self._outputs()
        if self.monitor and self.monitor not in ("loss", *self.metrics()):
            raise InputError(f"monitor {self.monitor!r} is none of this loss's metrics: {['loss', *self.metrics()]}.")

    def first(self) -> Landscape:
        """The landscape of the first batch."""
        return self.model.network.landscape(self.train.sample(self.train.size(0))[0])

    def _inputs(self) -> Inputs | None:
        """How files are read as ``train``'s inputs: as images, as arrays, or ``None`` if it has several."""
        task, (x, _) = self.train, self.looked_at
        if isinstance(task, Batches) and isinstance(task.examples, Images) and isinstance(task.normalise, Normalise):
            channels, height, width = task.examples.pixels.shape[1:]
            return ImageInputs(channels, height, width, task.normalise.mean, task.normalise.std)
        return ArrayInputs(tuple(x.shape[1:])) if isinstance(x, Tensor) else None

    def _outputs(self) -> Outputs:
        x, y = self.looked_at
        network = self.model.network
        landscape = network.landscape(x)
        scores = network.scores(landscape.masked(landscape.zeros()))
        count = scores.flatten(1).shape[1]
        if isinstance(y, Tensor) and y.dtype == torch.int64 and y.ndim == 1:
            return Classes(tuple(map(str, range(count))))
        return Values(tuple(f"value_{i}" for i in range(count)), (0.0,) * count, (1.0,) * count)

    def metrics(self) -> dict[str, Any]:
        """New metrics for this experiment's targets."""
        return metrics_for(self.model, self.looked_at[1])

    @property
    def chosen_by(self) -> Literal["validation", "test"]:
        """The side that chooses the best epoch."""
        return "test" if self.validation is None else "validation"

    def described(self) -> Manifest:
        """The inventory of the data."""
        if self.manifest is None:  # kept, as it reads all examples
            sides = {"train": self.train, "test": self.test}
            sides |= {} if self.validation is None else {"validation": self.validation}
            form = " to ".join(map(shape_of, self.looked_at))
            counts = {side: len(task) for side, task in sides.items()}
            prints = {side: task.fingerprint() for side, task in sides.items()}
            self.manifest = Manifest(type(self.train).__name__, counts, prints, form=form)
        return self.manifest


def metrics_for(model: Equilibrium, target: Any) -> dict[str, Any]:
    """New metrics of the model's loss, for targets like this one."""
    assert model.network.loss is not None
    return model.network.loss.metrics(target)


def shape_of(value: Any) -> str:
    """The shape and the type of one example, for messages."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape[1:])} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shape_of(each)}" for name, each in value.items())
    return type(value).__name__


@dataclass
class Progress:
    """The progress of a run; every checkpoint contains it."""

    epoch: int = 0
    index: int = 0
    history: list[Row] = field(default_factory=list)
    seconds: float = 0.0  # of this epoch
    best: float | None = None
    rates: list[float] = field(default_factory=list)  # of the last step
    first_loss: float | None = None  # of the first batch

    @classmethod
    def restored(cls, saved: Any, epochs: int, steps: float = math.inf) -> Progress:
        """From a checkpoint of a run of so many epochs and batches an epoch. Raises ValueError if it is damaged."""
        found = cls(**{each.name: saved[each.name] for each in fields(cls) if each.name != "first_loss"})
        found.first_loss = saved.get("first_loss")  # which earlier versions did not have
        values = [*found.rates, *(value for row in found.history for value in row.values()), found.seconds]
        values += [each for each in (found.best, found.first_loss) if each is not None]
        whole = type(found.epoch) is type(found.index) is int and len(found.history) == found.epoch
        numbers = all(type(value) in (int, float) for value in values)
        if not whole or not numbers or not 0 <= found.epoch <= epochs or not 0 <= found.index <= steps:
            raise ValueError(f"it says that epoch {found.epoch!r}, batch {found.index!r} is reached")
        return found


@dataclass
class Trainer:
    """Trains a run in its own folder.

    Attributes:
        run: the experiment.
        folder: of checkpoints and reports.
        fabric: device and processes.
        report: writes each epoch's metrics to files and to the terminal.
        run_id: of the run, in each checkpoint.
        checkpoint_seconds: how often to save within an epoch.
        residual_limit: the run stops as not settling if the mean residual (the change in the last free sweep) of an
            epoch is above this.
        cuda_graph: capture the forward and the backward of a step as a CUDA graph, which is then replayed.

    Raises:
        InputError: ``cuda_graph``, and the step cannot be captured.
    """

    run: Experiment
    folder: Path
    fabric: Fabric
    report: Report
    run_id: str = ""
    checkpoint_seconds: float = 60.0
    residual_limit: float = 0.5
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        run = self.run
        if self.cuda_graph:
            check_capturable(run.model, self.fabric.device, self.fabric.world_size)
        model, optimizer = self.fabric.setup(run.model, run.optimizer)
        self.model, self.optimizer = model, optimizer
        self.progress = Progress()
        self.train, self.test = run.train.to(self.fabric.device), run.test.to(self.fabric.device)
        self.validation = None if run.validation is None else run.validation.to(self.fabric.device)
        metrics = run.metrics()
        self.metric = run.monitor or next(iter(metrics), "loss")
        self.sign = 1.0 if self.metric != "loss" and metrics[self.metric].higher_is_better else -1.0
        self.totals = self._totals()
        self.unchecked: list[tuple[int, int, Vitals]] = []  # the epoch, the batch
        self.gradient = Graphed(self._gradient, run.model) if self.cuda_graph else self._gradient

    def _totals(self) -> EpochMetrics:
        return EpochMetrics(self.run.metrics(), self.fabric.device)

    # -- the loop --

    def fit(self) -> int:
        """Trains to the last epoch, or to a signal that asks to stop: all is then saved, and ``resume`` continues.

        Returns:
            The number of the signal, or 0.

        Raises:
            NotSettledError: a value is not finite, or the network does not settle.
        """
        with after_this_batch(self.fabric.is_global_zero) as stop:
            while self.progress.epoch < self.run.epochs:
                if number := self._epoch(stop):
                    self.save("last")
                    return number
                self._close_epoch()
        return 0

    def _epoch(self, stop: Stop) -> int:
        """Trains to the end of the epoch; the number of a signal if it was stopped."""
        progress, fabric = self.progress, self.fabric
        steps = self.train.steps
        self.model.train()
        saved = clock = time.monotonic()
        batches = self.train.epoch(progress.epoch, progress.index, fabric.global_rank, fabric.world_size)
        for x, y in ahead(batches, fabric.device):
            self._step(x, y)
            progress.index += 1
            if progress.index == steps:
                self._check_steps()  # so that the seconds are those of all steps
            now = time.monotonic()
            progress.seconds, clock = progress.seconds + now - clock, now
            self.report.step(progress.epoch, progress.index, steps)
            due = now - saved > self.checkpoint_seconds and progress.index < steps
            number, due_now = self._agreed(stop.number, int(due))
            if number or due_now:
                self._check_steps()
                progress.seconds += time.monotonic() - clock
            if number:
                return number
            if due_now:
                self.save("last")
                saved = clock = time.monotonic()
        return 0

    def _agreed(self, *numbers: int) -> list[int]:
        """The largest of each number among the processes, which must decide alike."""
        if self.fabric.world_size == 1:
            return list(numbers)
        largest = self.fabric.all_reduce(torch.tensor(numbers, device=self.fabric.device), reduce_op="max")
        return largest.tolist()  # type: ignore[union-attr]

    def _step(self, x: Any, y: Any) -> None:
        run, progress = self.run, self.progress
        loss, counts, vitals = self.gradient(x, y)
        self._check_finite(vitals)
        if run.gradient_clip:
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.gradient_clip)
        if progress.epoch == progress.index == 0:
            progress.first_loss = float(loss)
        progress.rates = [group["lr"] for group in run.optimizer.param_groups]
        self.optimizer.step()
        if run.constrain is not None:
            run.constrain(run.model.network)
        if run.scheduler is not None and run.schedule_by_batch:
            run.scheduler.step()
        if counts is not None:
            self.totals.add(counts, y)

    def _gradient(self, x: Any, y: Any) -> tuple[Tensor, Counts | None, Vitals]:
        """Sets the gradients; returns the loss, and what is counted and checked of the step."""
        record, fabric, run = Record(), self.fabric, self.run
        total = self.train.size(self.progress.index)
        share = share_of(total, fabric.global_rank, fabric.world_size)
        mine = share.stop - share.start
        with sharing(share.start if mine else 0, total):
            loss = self.model(x, y, record=record)
        run.model.zero_grad()
        # The mean over processes of these is the mean over the batch, whatever their shares.
        fabric.backward(loss if fabric.world_size == 1 else loss * (fabric.world_size * mine / total))
        vitals = Vitals.of(loss, record, run.model.named_parameters())
        if self.cuda_graph:
            vitals.hold(run.model.parameters())
        return loss.detach(), Counts.of(loss, record) if mine else None, vitals

    def _check_finite(self, vitals: Vitals) -> None:
        """Checks a step before the optimiser changes a weight; of captured steps many at once, as a check waits.

        Until then the gradients of a captured step that is not finite are zero, so that no weight is lost.
        """
        if self.cuda_graph:
            vitals = vitals._replace(values=vitals.values.clone())  # which the next step overwrites
        self.unchecked.append((self.progress.epoch, self.progress.index, vitals))
        if not self.cuda_graph or len(self.unchecked) == UNCHECKED:
            self._check_steps()

    def _check_steps(self) -> None:
        """Checks the steps since the last check, which waits for them.

        Raises:
            NotSettledError: of the first that is not finite.
        """
        steps, self.unchecked = self.unchecked, []
        if not steps:
            return
        finite = torch.stack([vitals.values.isfinite().all() for *_, vitals in steps]).tolist()
        (wrong,) = self._agreed(len(steps) - finite.index(False) if False in finite else 0)  # counted from the last
        if not wrong:
            return
        epoch, index, vitals = steps[-wrong]
        raise NotSettledError(
            f"epoch {epoch + 1}, batch {index + 1}: {vitals.told()}. Lower the learning rates or beta, or clip the "
            f"gradient; the last valid weights are in {self.folder}."
        )

    def _check_growth(self, loss: float) -> None:
        """Says once if the loss is far above that of the first batch: such a run goes on without learning."""
        first, history = self.progress.first_loss, self.progress.history
        if first is None:  # a run of an earlier version
            return
        limit = first + 9 * abs(first)
        if loss > limit and not (history and history[-1]["train_loss"] > limit):
            self.report.warn(
                f"The loss grows: it was {first:.3g} in the first batch, and is {loss:.3g} in epoch "
                f"{self.progress.epoch + 1}. Lower the learning rate or beta, or clip the gradient (gradient_clip 1)."
            )

    def _close_epoch(self) -> None:
        run, progress = self.run, self.progress
        self.totals.gather(self.fabric)
        self.totals.spread(self.fabric)
        train = self.totals.means()
        chosen = self.validation if self.validation is not None else self.test
        held = evaluate(run.model, chosen, self.fabric, run.metrics())
        row = {"epoch": float(progress.epoch + 1), "seconds": progress.seconds}
        row["examples_per_second"] = self.totals.examples / max(progress.seconds, 1e-9)
        row |= {f"train_{name}": value for name, value in train.items()}
        row |= {f"{run.chosen_by}_{name}": value for name, value in held.items()}
        groups = zip(run.optimizer.param_groups, progress.rates, strict=False)
        row |= {f"lr_{group.get('name', i)}": rate for i, (group, rate) in enumerate(groups)}
        row |= alignment_angles(run.model) | metrics_of_optimizer(run.optimizer)
        self._check_settled(train)
        self._check_growth(train["loss"])
        if run.scheduler is not None and not run.schedule_by_batch:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a run that stopped after its epoch's last batch has no step here
                run.scheduler.step()
        progress.history.append(row)
        progress.epoch, progress.index, progress.seconds = progress.epoch + 1, 0, 0.0
        self.totals = self._totals()
        value = self.sign * held[self.metric]
        if progress.best is None or value >= progress.best:  # of equals the later one, of the smaller learning rate
            progress.best = value if math.isfinite(value) else progress.best
            self.save("best")
        self.save("last")
        if self.fabric.is_global_zero:
            self.report.epoch(progress.history, run.epochs)

    def _check_settled(self, train: Row) -> None:
        if train["free_residual"] <= self.residual_limit:
            return
        settled = self.run.model.settle(self.train.sample(self.train.size(0))[0])
        raise NotSettledError(
            f"epoch {self.progress.epoch + 1}: the network does not settle. The residual, the change in the last "
            f"free sweep, is {train['free_residual']:.2g} (mean over examples; the limit is "
            f"{self.residual_limit:g}), most of all in node {settled.worst_node()!r}. Take more free sweeps, the "
            "alternating order, units of slope 1/2 or smaller learning rates; or raise --residual_limit."
        )

    # -- checkpoints --

    def save(self, name: str) -> None:
        """Saves a checkpoint. All processes call this together; the first one writes."""
        self._check_steps()
        self.totals.gather(self.fabric)
        if not self.fabric.is_global_zero:
            return
        run, progress = self.run, self.progress
        tensors = {f"model.{key}": value for key, value in run.model.state_dict().items()}
        optimizer_tensors, optimizer_state = checkpoint.flatten_optimizer(run.optimizer)
        tensors |= optimizer_tensors | checkpoint.rng_tensors(self.fabric.device) | self.totals.tensors()
        for i, generator in enumerate(run.model.generators()):
            tensors[f"generator.{i}"] = generator.get_state()
        state = {
            "run": self.run_id,
            "epochs": run.epochs,
            "progress": vars(progress),
            "optimizer": optimizer_state,
            "scheduler": None if run.scheduler is None else checkpoint.flatten(run.scheduler.state_dict(), tensors),
        }
        files.save(self.folder, name, tensors, state)
        self.report.saved(name, run)

    def restore(self) -> None:
        """Continues from the folder's last checkpoint, with the same bits as without an interruption.

        If the run now has more epochs, the schedule is that of the longer run, from here on.

        Raises:
            InputError: the checkpoint is damaged, another run's, or does not fit.
        """
        tensors, state = load_own(self.folder, "last", self.run_id)
        run = self.run
        load_weights(run.model, tensors)
        damaged = f"The checkpoint last.json in {self.folder} does not fit this run ({{}}): use its own recipe."
        new = [dict(group) for group in run.optimizer.param_groups]
        with files.explained(damaged, KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            self.progress = Progress.restored(state["progress"], run.epochs, self.train.steps)
            checkpoint.restore_optimizer(run.optimizer, tensors, state["optimizer"])
            if type(state["epochs"]) is not int or not self.progress.epoch <= state["epochs"] <= run.epochs:
                raise ValueError(f"it is of a run of {state['epochs']!r} epochs")
            if run.scheduler is not None and state["epochs"] == run.epochs:
                checkpoint.restore_scheduler(run.scheduler, tensors, state["scheduler"])
            elif run.scheduler is not None:
                self._fast_forward(new)
            for i, generator in enumerate(run.model.generators()):
                generator.set_state(tensors[f"generator.{i}"])
            if self.fabric.is_global_zero:
                self.totals.restore(tensors)
        checkpoint.restore_rng(tensors, self.fabric.device)

    def _fast_forward(self, new: list[dict[str, Any]]) -> None:
        """Brings the scheduler to where the run is; ``new``: the optimiser's groups before the first step."""
        scheduler, progress = self.run.scheduler, self.progress
        assert scheduler is not None
        for group, before in zip(self.run.optimizer.param_groups, new, strict=True):
            group |= {name: value for name, value in before.items() if name != "params"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no step of the optimiser comes between these
            made = progress.epoch * self.train.steps + progress.index
            for _ in range(made if self.run.schedule_by_batch else progress.epoch):
                scheduler.step()


@torch.no_grad()
def evaluate(
    model: Equilibrium, task: Task, fabric: Fabric, metrics: dict[str, Any] | None = None, mirrored: bool = False
) -> Row:
    """Loss, metrics, residual and sweeps over a task, at the free equilibrium, without dropout.

    Model and task are on the fabric's device; messages have its precision; processes share each batch.

    Args:
        metrics: new ones, as of ``Experiment.metrics``; default: those for the task's own targets.
        mirrored: scores are the logarithms of the mean probabilities of an image and of its mirror image. The loss,
            the residual and the sweeps stay those of the image.

    Raises:
        InputError: ``mirrored``, and the loss has no probabilities of classes.
    """
    training = model.training
    model.eval()
    if metrics is None:
        metrics = metrics_for(model, task.sample(2)[1])
    totals = EpochMetrics(metrics, fabric.device)
    rank, world = fabric.global_rank, fabric.world_size
    for index, (x, y) in enumerate(task.epoch(0, 0, rank, world)):
        share = share_of(task.size(index), rank, world)
        record = Record()
        with fabric.autocast():
            loss = model(x, y, record=record)
            if mirrored:
                record.scores = mean_scores(model, record, x.flip(-1))
        if share.start < share.stop:
            totals.add(Counts.of(loss, record), y)
    model.train(training)
    totals.gather(fabric)
    totals.spread(fabric)
    return totals.means()


def mean_scores(model: Equilibrium, record: Record, other: Tensor) -> Tensor:
    """The logarithms of the mean probabilities of what was recorded and of ``other`` inputs.

    Raises:
        InputError: the loss has no probabilities of classes.
    """
    loss = model.network.loss
    assert loss is not None
    assert record.scores is not None
    each = [loss.probabilities(scores) for scores in (record.scores, model(other))]
    if each[0] is None:
        raise InputError(f"{type(loss).__name__} has no probabilities of classes: evaluate without mirror images.")
    return torch.stack(each).mean(0).log()  # type: ignore[arg-type]


def load_own(folder: Path, name: str, run_id: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of a run's own checkpoint. Raises InputError if it is damaged, or another run's."""
    tensors, state = files.load(folder, name)
    if state.get("run") != run_id:
        raise InputError(f"A checkpoint in {folder} belongs to another run: restore the run's own.")
    return tensors, state


def load_weights(model: Equilibrium, tensors: dict[str, Tensor]) -> None:
    """Loads a checkpoint's weights. Raises InputError if they do not fit; it names all that differ."""
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own.keys() - weights.keys()]
    wrong += [f"{name} is unknown" for name in weights.keys() - own.keys()]
    for name in own.keys() & weights.keys():
        if own[name].shape != weights[name].shape:
            wrong.append(f"{name} is {tuple(weights[name].shape)}, the network's {tuple(own[name].shape)}")
        elif own[name].is_floating_point() != weights[name].is_floating_point():
            wrong.append(f"{name} is {weights[name].dtype}, the network's {own[name].dtype}")
        elif not bool(weights[name].isfinite().all()):
            wrong.append(f"{name} is not finite")
    if wrong:
        raise InputError(
            f"The checkpoint's weights do not fit this network ({'; '.join(sorted(wrong)[:6])}): use its own recipe, "
            "options and data."
        )
    model.load_state_dict(weights)


def metrics_of_optimizer(optimizer: Optimizer) -> Row:
    """What an optimiser tells of itself by its method ``metrics``, such as pulses written; nothing if it has none."""
    told: Row = getattr(optimizer, "metrics", dict)()
    return told


def alignment_angles(model: Equilibrium) -> Row:
    """The angle in degrees between feedforward and feedback weights, for each synapse that has both."""
    row = {}
    for name, coupling in model.network.terms.items():
        for _, up, down in coupling.pairs() if isinstance(coupling, SeparateFeedback) else ():
            cosine = torch.nn.functional.cosine_similarity(up.detach().flatten(), down.detach().flatten(), dim=0)
            row[f"angle_{name}"] = math.degrees(math.acos(max(-1.0, min(1.0, float(cosine)))))
    return row
