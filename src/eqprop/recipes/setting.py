"""The common options of recipes, and the steps from a data set to an experiment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, dataclass_transform

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from eqprop.checks import Count, Natural, NonNegative, Positive, checked
from eqprop.devices import METHODS, find_device
from eqprop.energy.network import Network
from eqprop.errors import InputError
from eqprop.learning import Backpropagation, Equilibrium, Estimator, InfinitesimalNudge
from eqprop.learning.estimators import phases_apart
from eqprop.models.builders import ConvLayer, DenseLayer, Layer
from eqprop.settling import (
    ConjugateGradients,
    Directed,
    FixedSweeps,
    FromFeedforward,
    UntilConverged,
    backward_order,
    forward_order,
    relative_norm,
)
from eqprop.substrates import find_substrate
from eqprop.tasks import Augmentation, Batches, Classes, Examples, ImageInputs, Inputs, Manifest, Normalise, Outputs
from eqprop.tasks.sources import load_images
from eqprop.training.constraints import Clipped, Constrain, all_of
from eqprop.training.loop import Experiment

Sized = Callable[[Sequence[Layer]], list[Layer]]
"""Changes the width and the depth of a network's hidden layers, as the options say."""
Build = Callable[[tuple[int, int, int], int, Sized], Network]
"""(shape of an image, classes, sized) -> a network."""

Share = Annotated[float, ">= 0", "<= 0.5"]

PLAIN = ((0.0,), (1.0,))
"""The mean and the standard deviation that leave pixels in [0, 1]."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Options:
    """Subclasses are frozen dataclasses with keyword-only fields, held to their annotations."""

    def __init_subclass__(cls) -> None:
        checked(dataclass(frozen=True, kw_only=True)(cls))

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        """The options that have no effect with the others and this estimator -> why."""
        return {}


class TaskRecipe(Options, ABC):
    """The common options of all runs.

    Args:
        data: where the examples are; see docs/data.md.
        batch_size: examples a step.
        eval_batch_size: examples at once in validation and test, whose results do not depend on it.
        epochs: passes through the training set.
        validation: the share of the training set that is held out to choose the best epoch, at most a half.
        choose_by_test: choose the best epoch by the test set, and hold out no example.
        seed: of the initial weights, the order, the augmentation, and the examples held out.
        substrate: the model of the machine: a name, as in ``eqprop.substrates.SUBSTRATES``, or module.name of your own.
        gradient_clip: scale gradients, of all parameters together, down to this norm; 0: never.
        weight_clip: after each step, clip weights at so many root mean squares of their tensor; 0: never.
    """

    data: str
    batch_size: Count = 64
    eval_batch_size: Count = 200
    epochs: Count
    validation: Share = 0.1
    choose_by_test: bool = False
    seed: Natural = 0
    substrate: str = "ideal"
    gradient_clip: NonNegative = 0.0
    weight_clip: NonNegative = 0.0

    keep_last: ClassVar[bool] = True
    schedule_by_batch: ClassVar[bool] = False

    @property
    def augment(self) -> tuple[Augmentation, ...]:
        """What is done to the images of a batch, one after another."""
        return ()

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        found = dict(super().unused(estimator))
        if self.choose_by_test and self.validation:
            found["validation"] = "the test set chooses the best epoch; --choose_by_test false changes this"
        elif not (self.choose_by_test or self.validation):
            found["choose_by_test"] = "no example is held out, so the test set chooses; --validation 0.1 changes this"
        return found

    @abstractmethod
    def optimise(self, network: Network, periods: int) -> tuple[Optimizer, LRScheduler | None]:
        """The network's optimiser, and a scheduler that steps ``periods`` times in the whole run."""

    def experiment(
        self,
        train: Examples,
        test: Examples,
        build: Callable[[], Network],
        estimator: Estimator,
        *,
        manifest: Manifest,
        inputs: Inputs,
        outputs: Outputs,
        normalise: Callable[[Any], Any] | None = None,
        constrain: Constrain | None = None,
    ) -> Experiment:
        """The run of these options."""
        held: Batches | None = None
        if self.validation > 0 and not self.choose_by_test:
            part, train = train.split(self.validation, self.seed)
            held = Batches(part, self.eval_batch_size, normalise, shuffle=False)
        network, substrate = build(), find_substrate(self.substrate)
        if not substrate.is_ideal:
            network = network.on(substrate)
        batches = Batches(train, self.batch_size, normalise, self.augment, self.seed, keep_last=self.keep_last)
        constraints = [constrain] if constrain is not None else []
        constraints += [Clipped(self.weight_clip)] if self.weight_clip else []
        periods = self.epochs * batches.steps if self.schedule_by_batch else self.epochs
        optimizer, scheduler = self.optimise(network, periods)
        return Experiment(
            # The report has residuals, the loop a limit.
            model=Equilibrium(network, phases_apart(estimator, substrate), on_unsettled="ignore"),
            optimizer=optimizer,
            scheduler=scheduler,
            schedule_by_batch=self.schedule_by_batch,
            train=batches,
            validation=held,
            test=Batches(test, self.eval_batch_size, normalise, shuffle=False),
            epochs=self.epochs,
            constrain=all_of(*constraints) if constraints else None,
            gradient_clip=self.gradient_clip,
            manifest=manifest,
            inputs=inputs,
            outputs=outputs,
            unused=self.unused(estimator),
        )


class ImageRecipe(TaskRecipe):
    """The common options of runs on labelled images.

    Args:
        data: "digits", a folder, or a name on the Hugging Face hub; see docs/data.md.
        train_images: the number of training images, drawn at random; 0: all.
        mean: of a channel's pixels / 255, one a channel or one for all; default: measured from the training set.
        std: the standard deviation, like the mean.
        width: the factor of the hidden layers' channels and units.
        depth: the number of hidden layers; 0: the recipe's. Layers beyond it repeat its last, without a pool.
        follow_links: read images through links that lead out of the data's folder.
    """

    train_images: Natural = 0
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    width: Annotated[float, "> 0", "<= 1000"] = 1.0
    depth: Annotated[int, ">= 0", "<= 1000"] = 0
    follow_links: bool = False

    def run(self, build: Build, estimator: Estimator, constrain: Constrain | None = None) -> Experiment:
        """Reads the images, builds the network, and puts the run together."""
        data = load_images(self.data, follow_links=self.follow_links)
        train = data.train.take(self.train_images, self.seed) if self.train_images else data.train
        channels, height, width = train.pixels.shape[1:]
        found = Normalise.measured(train) if self.mean is None or self.std is None else None
        mean, std = (
            tuple(given) * (channels if len(given) == 1 else 1) if given is not None else getattr(found, name)
            for name, given in (("mean", self.mean), ("std", self.std))
        )
        normalise = Normalise(mean, std)
        normalise.check(channels)
        blank = torch.zeros(1, channels, height, width)
        for change in self.augment:
            change(blank, torch.Generator())  # refused before anything is made
        return self.experiment(
            train,
            data.test,
            lambda: innermost(build((channels, height, width), train.classes, self.sized)),
            estimator,
            manifest=data.manifest,
            inputs=ImageInputs(channels, height, width, mean, std),
            outputs=Classes(tuple(data.manifest.classes)),
            normalise=normalise,
            constrain=constrain,
        )

    def sized(self, layers: Sequence[Layer]) -> list[Layer]:
        """The hidden layers with the width and the depth of these options."""
        chosen = list(layers[: self.depth] if self.depth else layers)
        for _ in range(self.depth - len(layers)):
            last = layers[-1]
            chosen.append(
                replace(last, kernel=3, stride=1, padding=1, pool=None) if isinstance(last, ConvLayer) else last
            )
        return [wider(layer, self.width) for layer in chosen]


def wider(layer: Layer, factor: float) -> Layer:
    """The layer with ``factor`` times the channels or units, rounded, at least 1."""
    if isinstance(layer, ConvLayer):
        return replace(layer, channels=max(1, round(factor * layer.channels)))
    if isinstance(layer, DenseLayer):
        return replace(layer, units=max(1, round(factor * layer.units)))
    return layer


def nesterov(
    network: Network, periods: int, lr: float, weight_decay: float, floor: float
) -> tuple[Optimizer, CosineAnnealingLR]:
    """SGD with Nesterov's momentum 0.9 and L2 on every tensor, with a rate that falls by a cosine to ``floor``."""
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    return optimizer, CosineAnnealingLR(optimizer, periods, floor)


class NudgeOptions(Options):
    """The options of a free phase and of nudged ones.

    Args:
        beta: the strength of the nudge.
        free_sweeps: of the free phase.
        nudged_sweeps: of each nudged phase.
    """

    beta: float
    free_sweeps: Count
    nudged_sweeps: Count

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        return {**super().unused(estimator), **of_phases(estimator, "beta", "free_sweeps", "nudged_sweeps")}


class WritingOptions(Options):
    """Where the weights are.

    Args:
        write: how steps are written into devices; none: the weights are digital. Weights are in devices, biases not.
        write_to: the device: a name, as in ``eqprop.devices.DEVICES``, or a CSV file of measured pulses.
        write_lr: the first learning rate of writing, in place of ``lr``.
        write_scale: weights are this times what devices hold; more where initial weights would not fit their range.
    """

    write: Literal["none", "pulses", "sign", "mixed", "tiki-taka", "chopped", "agad"] = "none"
    write_to: str = "ecram"
    write_lr: Positive = 0.01
    write_scale: Positive = 1.0

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        off = ("write_to", "write_lr", "write_scale") if self.write == "none" else ()
        return {**super().unused(estimator), **dict.fromkeys(off, "the weights are digital; --write changes this")}

    def written(self, named: Iterable[tuple[str, Tensor]], seed: int) -> Optimizer | None:
        """The optimiser that writes these parameters into devices, which ``seed`` draws; ``None`` if none does."""
        if self.write == "none":
            return None
        return METHODS[self.write](named, find_device(self.write_to), self.write_lr, seed=seed, scale=self.write_scale)


class FastOptions(Options):
    """The options of infinitesimal nudges.

    Args:
        tolerance: an example has settled if its estimated distance to rest, relative to each node's activity, is less.
        free_sweeps: the largest number of sweeps of the free phase.
        response_sweeps: the largest number of iterations of the linear phase.
        damping: of the linear phase.
    """

    tolerance: Positive
    free_sweeps: Count
    response_sweeps: Count
    damping: NonNegative = 0.25

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        options = ("tolerance", "free_sweeps", "response_sweeps", "damping")
        return {**super().unused(estimator), **of_phases(estimator, *options)}

    @property
    def estimator(self) -> InfinitesimalNudge:
        return fast(self.tolerance, self.free_sweeps, self.response_sweeps, self.damping)


def fast(tolerance: float, free_sweeps: int, response_sweeps: int, damping: float) -> InfinitesimalNudge:
    """The estimator of fast recipes: settle from the feedforward pass, then one linear phase. See ``FastOptions``."""
    free = FromFeedforward(UntilConverged(tolerance, free_sweeps, norm=relative_norm, over_relaxation=1.5))
    return InfinitesimalNudge(free, ConjugateGradients(response_sweeps, 1e-3), damping)


class WeakFeedbackOptions(Options):
    """The options of infinitesimal nudges with weak feedback.

    Args:
        feedback_gain: the factor of the drive of feedback; 1 is the symmetric network.
        free_sweeps: of the free phase, from the input to the output; the first is the feedforward pass.
        response_sweeps: of the linear phase, from the output to the input.
    """

    feedback_gain: Positive = 0.03
    free_sweeps: Count = 2
    response_sweeps: Count = 1

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        return {**super().unused(estimator), **of_phases(estimator, "free_sweeps", "response_sweeps")}

    @property
    def estimator(self) -> InfinitesimalNudge:
        return weak(self.free_sweeps, self.response_sweeps)


def weak(free_sweeps: int, response_sweeps: int) -> InfinitesimalNudge:
    """The estimator for networks with weak feedback: directed sweeps each way. See ``WeakFeedbackOptions``."""
    free = Directed(FixedSweeps(free_sweeps, forward_order))
    response = Directed(FixedSweeps(response_sweeps, backward_order))
    return InfinitesimalNudge(free, response, slopes_from_states=True)


def of_phases(estimator: Estimator, *options: str) -> dict[str, str]:
    """Options of phases, which backpropagation does not have, as ``unused`` tells of them."""
    return dict.fromkeys(options if isinstance(estimator, Backpropagation) else (), "backpropagation has no phases")


def refuse_unused(given: Mapping[str, str], run: Experiment) -> None:
    """Raises InputError if an option that was ``given``, by name and as text, has no effect with the others."""
    for name, why in run.unused.items():
        if name in given:
            raise InputError(f"--{name} {given[name]} would have no effect: {why}. Leave it out.")


def innermost(network: Network) -> Network:
    """The same network with channels innermost in its kernels, as in states: a few per cent faster.

    It is not the default of a convolution, as optimisers that flatten weights by ``view`` (L-BFGS) then fail.
    """
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
