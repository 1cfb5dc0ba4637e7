"""What recipes share: their common options, and the way from a data set to batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, dataclass_transform

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from eqprop.energy.network import Network
from eqprop.learning import Equilibrium, Estimator, InfinitesimalNudge
from eqprop.settling import ConjugateGradients, FromFeedforward, UntilConverged, relative_norm
from eqprop.training.constraints import Constrain
from eqprop.training.data import Augmentation, Batches, Images, Normalise, load_images
from eqprop.training.loop import Experiment

Build = Callable[[tuple[int, int, int], int], Network]
"""(shape of an image, classes) -> a network."""

PLAIN = Normalise((0.0,), (1.0,))
"""Pixels in [0, 1]."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Options:
    """Its subclasses are frozen dataclasses, whose fields are given by name."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


class ImageRecipe(Options, ABC):
    """What runs on labelled images share: these options, and the way from a data set to an experiment.

    Args:
        data: a hub name, or a folder.
        batch_size: images a step.
        epochs: passes through the training set.
        validation: the share of the training set that is held out to choose the best epoch by.
        choose_by_test: the best epoch is chosen by the test set, and no image is held out.
        train_images: use only so many training images; 0 is all.
        seed: of all that is drawn: the initial weights, the order, the augmentation, the images held out.
    """

    data: str
    batch_size: int = 64
    epochs: int
    validation: float = 0.1
    choose_by_test: bool = False
    train_images: int = 0
    seed: int = 0

    normalise: ClassVar[Normalise] = PLAIN
    augment: ClassVar[tuple[Augmentation, ...]] = ()
    keep_last: ClassVar[bool] = True
    schedule_by_batch: ClassVar[bool] = False

    @abstractmethod
    def optimise(self, network: Network, periods: int) -> tuple[Optimizer, LRScheduler | None]:
        """The network's optimiser, and a scheduler that steps ``periods`` times in the whole run."""

    def run(self, build: Build, estimator: Estimator, constrain: Constrain | None = None) -> Experiment:
        images, test = load_images(self.data, "train"), load_images(self.data, "test")
        validation: Batches | None = None
        if self.validation > 0 and not self.choose_by_test:
            held, images = images.split(self.validation, self.seed)
            validation = self._fixed(held)
        if self.train_images:
            images = images.take(self.train_images)
        channels, height, width = images.pixels.shape[1:]
        network = innermost(build((channels, height, width), images.classes))
        train = Batches(images, self.batch_size, self.normalise, self.augment, self.seed, keep_last=self.keep_last)
        periods = self.epochs * len(train) if self.schedule_by_batch else self.epochs
        optimizer, scheduler = self.optimise(network, periods)
        return Experiment(
            model=Equilibrium(network, estimator),
            optimizer=optimizer,
            scheduler=scheduler,
            schedule_by_batch=self.schedule_by_batch,
            train=train,
            validation=validation,
            test=self._fixed(test),
            epochs=self.epochs,
            constrain=constrain,
        )

    def _fixed(self, images: Images) -> Batches:
        return Batches(images, 200, self.normalise, shuffle=False)


class NudgeOptions(Options):
    """The options of a free phase and of nudged ones.

    Args:
        beta: the strength of the nudge.
        free_sweeps: of the free phase.
        nudged_sweeps: of each nudged phase.
    """

    beta: float
    free_sweeps: int
    nudged_sweeps: int


class FastOptions(Options):
    """The options of infinitesimal nudges.

    Args:
        tolerance: the change of each node, relative to its activity, below which an example rests.
        free_sweeps: of the free phase, at most.
        response_sweeps: iterations of the linear phase, at most.
        damping: of the linear phase.
    """

    tolerance: float
    free_sweeps: int
    response_sweeps: int
    damping: float = 0.25

    @property
    def estimator(self) -> InfinitesimalNudge:
        return fast(self.tolerance, self.free_sweeps, self.response_sweeps, self.damping)


def fast(tolerance: float, free_sweeps: int, response_sweeps: int, damping: float) -> InfinitesimalNudge:
    """From the feedforward pass until rest; then one linear phase. Good in 16 bits. Arguments: ``FastOptions``."""
    free = FromFeedforward(UntilConverged(tolerance, free_sweeps, norm=relative_norm, over_relaxation=1.5))
    return InfinitesimalNudge(free, ConjugateGradients(response_sweeps, 1e-3), damping)


def innermost(network: Network) -> Network:
    """The same network, its kernels with their channels innermost, as states are: a few per cent quicker.

    Not the default of a convolution, since what flattens weights by ``view`` (L-BFGS) then fails.
    """
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
