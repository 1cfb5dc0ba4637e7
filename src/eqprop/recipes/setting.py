"""What recipes share: the way from a data set to batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from eqprop.energy.network import Network
from eqprop.learning.equilibrium import Equilibrium
from eqprop.learning.estimators import Estimator
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.settling.conjugate_gradients import ConjugateGradients
from eqprop.settling.solvers import UntilConverged, relative_norm
from eqprop.settling.starts import FromFeedforward
from eqprop.training.constraints import Constrain
from eqprop.training.data import Augmentation, Batches, Images, Normalise, load_images
from eqprop.training.loop import Experiment

Build = Callable[[tuple[int, int, int], int], Network]
"""(shape of an image, classes) -> a network."""

Optimise = Callable[[Network, int], tuple[Optimizer, LRScheduler | None]]
"""(network, how often the scheduler steps in the whole run) -> its optimiser and scheduler."""


def fast(tolerance: float, free_sweeps: int, response_sweeps: int, damping: float) -> InfinitesimalNudge:
    """From the feedforward pass until rest; then one linear phase. Good in 16 bits.

    ``tolerance``: the change of each node, relative to its activity, below which an example rests.
    """
    free = FromFeedforward(UntilConverged(tolerance, free_sweeps, norm=relative_norm, over_relaxation=1.5))
    return InfinitesimalNudge(free, ConjugateGradients(response_sweeps, 1e-3), damping)


def innermost(network: Network) -> Network:
    """The same network, its kernels with their channels innermost, as states are: a few per cent quicker.

    Not the default of a convolution, since what flattens weights by ``view`` (L-BFGS) then fails.
    """
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def image_run(
    build: Build,
    estimator: Estimator,
    optimise: Optimise,
    normalise: Normalise,
    data: str,
    batch_size: int,
    epochs: int,
    seed: int,
    validation: float,
    augment: Sequence[Augmentation] = (),
    train_images: int = 0,
    keep_last: bool = True,
    constrain: Constrain | None = None,
    schedule_by_batch: bool = False,
) -> Experiment:
    """A run on labelled images."""
    images, test = load_images(data, "train"), load_images(data, "test")
    held: Images | None = None
    if validation > 0:
        held, images = images.split(validation, seed)
    if train_images:
        images = images.take(train_images)
    channels, height, width = images.pixels.shape[1:]
    network = innermost(build((channels, height, width), images.classes))
    train = Batches(images, batch_size, normalise, tuple(augment), seed, keep_last=keep_last)
    optimizer, scheduler = optimise(network, epochs * len(train) if schedule_by_batch else epochs)

    def fixed(what: Images) -> Batches:
        return Batches(what, 200, normalise, shuffle=False)

    return Experiment(
        model=Equilibrium(network, estimator),
        optimizer=optimizer,
        scheduler=scheduler,
        schedule_by_batch=schedule_by_batch,
        train=train,
        validation=None if held is None else fixed(held),
        test=fixed(test),
        epochs=epochs,
        constrain=constrain,
    )
