"""The common options of recipes, and the steps from a data set to an experiment."""

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
from eqprop.tasks import Augmentation, Batches, Images, Normalise, load_images
from eqprop.training.constraints import Constrain
from eqprop.training.loop import Experiment

Build = Callable[[tuple[int, int, int], int], Network]
"""(shape of an image, classes) -> a network."""

PLAIN = Normalise((0.0,), (1.0,))
"""Pixels in [0, 1]."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Options:
    """Subclasses are frozen dataclasses with keyword-only fields."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


class ImageRecipe(Options, ABC):
    """The common options of runs on labelled images.

    Args:
        data: a hub name, or a folder.
        batch_size: images a step.
        epochs: passes through the training set.
        validation: the share of the training set that is held out to choose the best epoch.
        choose_by_test: choose the best epoch by the test set, and hold out no image.
        train_images: the number of training images; 0: all.
        seed: of the initial weights, the order, the augmentation, and the images held out.
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
        data = load_images(self.data)
        images, test = data.train, data.test
        validation: Batches | None = None
        if self.validation > 0 and not self.choose_by_test:
            held, images = images.split(self.validation, self.seed)
            validation = self._fixed(held)
        if self.train_images:
            images = images.take(self.train_images, self.seed)
        channels, height, width = images.pixels.shape[1:]
        network = innermost(build((channels, height, width), images.classes))
        train = Batches(images, self.batch_size, self.normalise, self.augment, self.seed, keep_last=self.keep_last)
        periods = self.epochs * train.steps if self.schedule_by_batch else self.epochs
        optimizer, scheduler = self.optimise(network, periods)
        return Experiment(
            model=Equilibrium(network, estimator, on_unsettled="ignore"),  # the report has residuals, the loop a limit
            optimizer=optimizer,
            scheduler=scheduler,
            schedule_by_batch=self.schedule_by_batch,
            train=train,
            validation=validation,
            test=self._fixed(test),
            epochs=self.epochs,
            constrain=constrain,
            manifest=data.manifest,
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
        tolerance: an example has settled if its estimated distance to rest, relative to each node's activity, is less.
        free_sweeps: the largest number of sweeps of the free phase.
        response_sweeps: the largest number of iterations of the linear phase.
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
    """The estimator of fast recipes: settle from the feedforward pass, then one linear phase. See ``FastOptions``."""
    free = FromFeedforward(UntilConverged(tolerance, free_sweeps, norm=relative_norm, over_relaxation=1.5))
    return InfinitesimalNudge(free, ConjugateGradients(response_sweeps, 1e-3), damping)


def innermost(network: Network) -> Network:
    """The same network with channels innermost in its kernels, as in states: a few per cent faster.

    It is not the default of a convolution, as optimisers that flatten weights by ``view`` (L-BFGS) then fail.
    """
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
