"""What recipes share: the way from a data set to batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eqprop.energy.network import Network
from eqprop.learning.equilibrium import Equilibrium
from eqprop.learning.estimators import Estimator
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.settling.conjugate_gradients import ConjugateGradients
from eqprop.settling.solvers import UntilRest
from eqprop.settling.starts import FromFeedforward
from eqprop.training.constraints import Constrain
from eqprop.training.data import Augmentation, Batches, Images, Normalise, load_images
from eqprop.training.loop import Run

Build = Callable[[tuple[int, int, int], int], Network]
"""(shape of an image, classes) -> a network."""


def fast(tolerance: float, free_sweeps: int, response_sweeps: int, damping: float) -> InfinitesimalNudge:
    """From the feedforward pass until rest; then one linear phase. Good in 16 bits.

    ``tolerance``: the change of a unit below which an example rests.
    """
    free = FromFeedforward(UntilRest(tolerance, free_sweeps))
    return InfinitesimalNudge(free, ConjugateGradients(response_sweeps, 1e-3), damping)


def image_run(
    build: Build,
    estimator: Estimator,
    optimise: Callable[[Network], tuple[object, object]],
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
) -> Run:
    """A run on labelled images; ``optimise`` makes the optimiser and the scheduler (or None) of a network."""
    images, test = load_images(data, "train"), load_images(data, "test")
    held: Images | None = None
    if validation > 0:
        held, images = images.split(validation, seed)
    if train_images:
        images = images.take(train_images)
    channels, height, width = images.pixels.shape[1:]
    network = build((channels, height, width), images.classes)
    optimizer, scheduler = optimise(network)

    def fixed(what: Images) -> Batches:
        return Batches(what, 200, normalise, shuffle=False)

    return Run(
        model=Equilibrium(network, estimator),
        optimizer=optimizer,  # type: ignore[arg-type]
        scheduler=scheduler,  # type: ignore[arg-type]
        train=Batches(images, batch_size, normalise, tuple(augment), seed, keep_last=keep_last),
        validation=None if held is None else fixed(held),
        test=fixed(test),
        epochs=epochs,
        constrain=constrain,
    )
