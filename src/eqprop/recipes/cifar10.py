"""The CIFAR-10 runs of Laborieux et al. (2021), with the settings of its authors' commands.

One network (convolutions of 128, 256, 512 and 512 channels, 3x3, each with 2x2 max pooling; 512-10 dense), one
optimiser, one augmentation; the runs differ in loss, estimator and feedback. The paper chooses its best epoch by
the test set: ``--choose_by_test true`` (the default here, as in the paper) says so; ``false`` holds out a part of
the training set instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from eqprop.energy.losses import ReadoutCrossEntropy, SquaredError
from eqprop.energy.network import Network
from eqprop.learning import forms
from eqprop.learning.estimators import EquilibriumPropagation, Estimator
from eqprop.learning.penalties import RayleighPenalty
from eqprop.learning.references import BackpropagationThroughTime
from eqprop.learning.rules import Rule, contrastive, kolen_pollack, vector_field
from eqprop.learning.stencils import Nudging, RandomSign, one_sided, symmetric
from eqprop.models.builders import ConvLayer, DenseLayer, chain, parameter_groups
from eqprop.recipes.setting import Build, fast, image_run
from eqprop.settling.solvers import FixedSweeps
from eqprop.settling.sweeps import synchronous
from eqprop.training.data import Crop, Flip, Normalise
from eqprop.training.loop import Experiment

NORMALISE = Normalise((0.4914, 0.4822, 0.4465), (3 * 0.2023, 3 * 0.1994, 3 * 0.2010))
AUGMENT = (Flip(0.5), Crop(4))
RATES = (0.25, 0.15, 0.1, 0.08, 0.05)
FLOOR, PERIOD = 1e-5, 100


def cifar10_ce_fast(
    tolerance: float = 0.04,
    free_sweeps: int = 60,
    response_sweeps: int = 4,
    damping: float = 0.25,
    slowness: float = 1.0,
    **paper: Any,
) -> Experiment:
    """The main run's network by infinitesimal nudges and sweeps until rest, at a few times backpropagation's cost."""
    taught_by: Estimator = fast(tolerance, free_sweeps, response_sweeps, damping)
    if slowness:
        taught_by = RayleighPenalty(taught_by, slowness)
    return _run(taught_by, network, **paper)


def cifar10_mse_one_sided(
    beta: float = 0.5, free_sweeps: int = 250, nudged_sweeps: int = 30, **paper: Any
) -> Experiment:
    """Tied weights, squared error, one-sided nudging: the biased estimate, which hardly trains."""
    return _run(ep(one_sided(beta), free_sweeps, nudged_sweeps), partial(network, squared_error=True), **paper)


def cifar10_mse_random_sign(
    beta: float = 0.5, free_sweeps: int = 250, nudged_sweeps: int = 30, seed: int = 0, **paper: Any
) -> Experiment:
    """Tied weights, squared error, the sign of the nudge drawn for each batch."""
    return _run(
        ep(RandomSign(beta, seed), free_sweeps, nudged_sweeps), partial(network, squared_error=True), seed=seed, **paper
    )


def cifar10_mse_symmetric(
    beta: float = 0.5, free_sweeps: int = 250, nudged_sweeps: int = 30, **paper: Any
) -> Experiment:
    """Tied weights, squared error, symmetric nudging."""
    return _run(ep(symmetric(beta), free_sweeps, nudged_sweeps), partial(network, squared_error=True), **paper)


def cifar10_mse_bptt(free_sweeps: int = 250, last_sweeps: int = 30, **paper: Any) -> Experiment:
    """Tied weights, squared error, backpropagation through the last sweeps."""
    return _run(bptt(free_sweeps, last_sweeps), partial(network, squared_error=True), **paper)


def cifar10_ce_symmetric(
    beta: float = 1.0, free_sweeps: int = 250, nudged_sweeps: int = 25, **paper: Any
) -> Experiment:
    """Tied weights, cross-entropy read-out, symmetric nudging: the paper's main run."""
    return _run(ep(symmetric(beta), free_sweeps, nudged_sweeps), network, **paper)


def cifar10_ce_bptt(free_sweeps: int = 250, last_sweeps: int = 25, **paper: Any) -> Experiment:
    """Tied weights, cross-entropy read-out, backpropagation through the last sweeps."""
    return _run(bptt(free_sweeps, last_sweeps), network, **paper)


def cifar10_ce_dropout_symmetric(
    beta: float = 1.0, free_sweeps: int = 250, nudged_sweeps: int = 25, dropout: float = 0.1, **paper: Any
) -> Experiment:
    """The main run with dropout on the third layer."""
    return _run(ep(symmetric(beta), free_sweeps, nudged_sweeps), partial(network, dropout=dropout), **paper)


def cifar10_ce_dropout_bptt(
    free_sweeps: int = 250, last_sweeps: int = 25, dropout: float = 0.1, **paper: Any
) -> Experiment:
    """Dropout on the third layer, backpropagation through the last sweeps."""
    return _run(bptt(free_sweeps, last_sweeps), partial(network, dropout=dropout), **paper)


def cifar10_separate_vector_field(
    beta: float = 1.0, free_sweeps: int = 250, nudged_sweeps: int = 30, **paper: Any
) -> Experiment:
    """Separate feedback weights, each with its own update (the paper's "different updates")."""
    return _run(
        ep(symmetric(beta), free_sweeps, nudged_sweeps, vector_field), partial(network, separate_feedback=True), **paper
    )


def cifar10_separate_kolen_pollack(
    beta: float = 1.0, free_sweeps: int = 250, nudged_sweeps: int = 30, **paper: Any
) -> Experiment:
    """Separate feedback weights, one update shared by both (the paper's "same update")."""
    return _run(
        ep(symmetric(beta), free_sweeps, nudged_sweeps, kolen_pollack),
        partial(network, separate_feedback=True),
        **paper,
    )


def cifar10_separate_bptt(free_sweeps: int = 250, last_sweeps: int = 30, **paper: Any) -> Experiment:
    """Separate feedback weights, backpropagation through the last sweeps."""
    return _run(bptt(free_sweeps, last_sweeps), partial(network, separate_feedback=True), **paper)


def _run(
    estimator: Estimator,
    build: Build,
    rates: Sequence[float] = RATES,
    weight_decay: float = 3e-4,
    batch_size: int = 128,
    epochs: int = 120,
    choose_by_test: bool = True,
    train_images: int = 0,
    seed: int = 0,
    data: str = "uoft-cs/cifar10",
) -> Experiment:
    """The paper's optimiser, schedule and data.

    Args:
        rates: learning rates of the four convolutions and the dense layer.
        weight_decay: L2, on every tensor.
        batch_size: images a step.
        epochs: passes through the training set; the schedule's period stays 100.
        choose_by_test: the best epoch is chosen by the test set, as in the paper; otherwise by 5,000 held-out images.
        train_images: use only so many training images; 0 is all.
        seed: of the initial weights, the order, the augmentation.
        data: a hub name, or a folder.
    """

    return image_run(
        build,
        estimator,
        lambda taught, _: paper_sgd(taught, rates, weight_decay),
        NORMALISE,
        data,
        batch_size,
        epochs,
        seed,
        0.0 if choose_by_test else 0.1,
        AUGMENT,
        train_images,
    )


def network(
    shape: tuple[int, int, int],
    classes: int,
    squared_error: bool = False,
    separate_feedback: bool = False,
    dropout: float = 0.0,
) -> Network:
    """The paper's network. Squared error reads a dense last layer; otherwise a read-out is outside the dynamics."""
    layers = [ConvLayer(128), ConvLayer(256), ConvLayer(512, dropout=dropout), ConvLayer(512, padding=0)]
    if squared_error:
        return chain(shape, [*layers, DenseLayer(classes)], SquaredError, separate_feedback)
    return chain(shape, layers, partial(ReadoutCrossEntropy, classes=classes), separate_feedback)


def ep(nudging: Nudging, free_sweeps: int, nudged_sweeps: int, rule: Rule = contrastive) -> EquilibriumPropagation:
    """Synchronous sweeps in the ordinary form, as in the paper."""
    free, nudged = FixedSweeps(free_sweeps, synchronous), FixedSweeps(nudged_sweeps, synchronous)
    return EquilibriumPropagation(nudging, free, nudged, rule, forms.states)


def bptt(free_sweeps: int, last_sweeps: int) -> BackpropagationThroughTime:
    return BackpropagationThroughTime(FixedSweeps(free_sweeps, synchronous), last_sweeps)


def paper_sgd(taught: Network, rates: Sequence[float], weight_decay: float) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Momentum 0.9, decay added to the gradient, a cosine from each rate to 1e-5 in 100 epochs, then flat."""
    optimizer = torch.optim.SGD(parameter_groups(taught, rates), momentum=0.9, weight_decay=weight_decay)
    return optimizer, LambdaLR(optimizer, [partial(cosine_factor, rate) for rate in rates])


def cosine_factor(rate: float, epoch: int) -> float:
    turn = math.cos(math.pi * min(epoch, PERIOD) / PERIOD)
    return (FLOOR + (rate - FLOOR) * (1 + turn) / 2) / rate


RECIPES = (
    cifar10_ce_fast,
    cifar10_mse_one_sided,
    cifar10_mse_random_sign,
    cifar10_mse_symmetric,
    cifar10_mse_bptt,
    cifar10_ce_symmetric,
    cifar10_ce_bptt,
    cifar10_ce_dropout_symmetric,
    cifar10_ce_dropout_bptt,
    cifar10_separate_vector_field,
    cifar10_separate_kolen_pollack,
    cifar10_separate_bptt,
)
