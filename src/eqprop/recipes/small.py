"""Runs for a small machine: digits, MNIST, and a CIFAR-10 network for two CPU cores."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from eqprop.energy.losses import ReadoutCrossEntropy, SquaredError
from eqprop.energy.network import Network
from eqprop.energy.units import hard_sigmoid
from eqprop.learning import forms
from eqprop.learning.estimators import EquilibriumPropagation, Estimator
from eqprop.learning.references import Backpropagation
from eqprop.learning.stencils import symmetric
from eqprop.models.builders import ConvLayer, DenseLayer, chain, parameter_groups
from eqprop.recipes.cifar10 import NORMALISE, ep
from eqprop.recipes.setting import fast, image_run
from eqprop.settling.solvers import FixedSweeps
from eqprop.training.data import Crop, Flip, Normalise
from eqprop.training.loop import Experiment


def digits(
    beta: float = 0.5,
    free_sweeps: int = 12,
    nudged_sweeps: int = 6,
    lr: float = 0.1,
    batch_size: int = 32,
    epochs: int = 15,
    validation: float = 0.1,
    seed: int = 0,
    data: str = "digits",
) -> Experiment:
    """The embedded 8x8 handwritten digits: two convolutions, cross-entropy read-out, under a minute on a CPU."""

    def build(shape: tuple[int, int, int], classes: int) -> Network:
        return chain(shape, [ConvLayer(32, pool=None), ConvLayer(64)], partial(ReadoutCrossEntropy, classes=classes))

    return image_run(
        build,
        estimator(beta, free_sweeps, nudged_sweeps),
        partial(sgd, lr=lr),
        Normalise((0.305,), (0.376,)),
        data,
        batch_size,
        epochs,
        seed,
        validation,
        (Crop(1),),
    )


def mnist_dense(
    beta: float = 0.5,
    free_sweeps: int = 10,
    nudged_sweeps: int = 6,
    lr: float = 0.05,
    batch_size: int = 50,
    epochs: int = 12,
    validation: float = 0.1,
    seed: int = 0,
    data: str = "ylecun/mnist",
) -> Experiment:
    """MNIST, dense 784-512-10: squared error on output units inside the dynamics."""

    def build(shape: tuple[int, int, int], classes: int) -> Network:
        layers = [DenseLayer(512, hard_sigmoid), DenseLayer(classes, hard_sigmoid)]
        return chain(shape, layers, SquaredError)

    return image_run(
        build,
        estimator(beta, free_sweeps, nudged_sweeps),
        partial(sgd, lr=lr),
        Normalise((0.0,), (1.0,)),
        data,
        batch_size,
        epochs,
        seed,
        validation,
    )


def mnist_conv(
    beta: float = 0.5,
    free_sweeps: int = 12,
    nudged_sweeps: int = 6,
    lr: float = 0.1,
    batch_size: int = 64,
    epochs: int = 3,
    validation: float = 0.1,
    seed: int = 0,
    data: str = "ylecun/mnist",
) -> Experiment:
    """MNIST, two convolutions with max pooling, cross-entropy read-out."""

    def build(shape: tuple[int, int, int], classes: int) -> Network:
        return chain(shape, [ConvLayer(32), ConvLayer(64)], partial(ReadoutCrossEntropy, classes=classes))

    return image_run(
        build,
        estimator(beta, free_sweeps, nudged_sweeps),
        partial(sgd, lr=lr),
        Normalise((0.0,), (1.0,)),
        data,
        batch_size,
        epochs,
        seed,
        validation,
    )


def cifar10_small(
    tolerance: float = 0.05, free_sweeps: int = 40, response_sweeps: int = 2, damping: float = 0.25, **common: Any
) -> Experiment:
    """CIFAR-10 with two convolutions, by infinitesimal nudges: sized for two CPU cores."""
    return _cifar10(fast(tolerance, free_sweeps, response_sweeps, damping), **common)


def cifar10_small_paper_schedule(
    beta: float = 1.0, free_sweeps: int = 250, nudged_sweeps: int = 25, **common: Any
) -> Experiment:
    """The same network by the paper schedule (Laborieux et al. 2021): symmetric nudges, synchronous sweeps, far more
    of them.
    """
    return _cifar10(ep(symmetric(beta), free_sweeps, nudged_sweeps), **common)


def cifar10_small_backpropagation(**common: Any) -> Experiment:
    """The same weights as a feedforward network, by backpropagation: the baseline."""
    return _cifar10(Backpropagation(), **common)


def _cifar10(
    taught_by: Estimator,
    lr: float = 0.1,
    batch_size: int = 64,
    epochs: int = 4,
    validation: float = 0.04,
    train_images: int = 0,
    seed: int = 0,
    data: str = "uoft-cs/cifar10",
) -> Experiment:
    """Momentum SGD, its rate a cosine to 0 that falls with each batch, images flipped at random.

    Args:
        lr: the first learning rate.
        batch_size: images a step.
        epochs: passes through the training set.
        validation: the share of the training set that is held out to choose the best epoch by.
        train_images: use only so many training images; 0 is all.
        seed: of the initial weights, the order, the images held out.
        data: a hub name, or a folder.
    """
    return image_run(
        small_network,
        taught_by,
        partial(sgd, lr=lr),
        NORMALISE,
        data,
        batch_size,
        epochs,
        seed,
        validation,
        (Flip(),),
        train_images,
        schedule_by_batch=True,
    )


def small_network(shape: tuple[int, int, int], classes: int) -> Network:
    """Two convolutions of 64 and 128 channels, read out by cross-entropy.

    What the input drives is computed once a batch, so the largest map comes first; the second has a stride rather than
    a pool, since every sweep pays for it. The first layer starts with twice the usual weights: its images have a third
    of unit deviation.
    """
    layers = [ConvLayer(64, kernel=5, padding=2), ConvLayer(128, stride=2, pool=None)]
    network = chain(shape, layers, partial(ReadoutCrossEntropy, classes=classes))
    with torch.no_grad():
        next(network.terms["input_layer1"].parameters()).mul_(2)
    return network


def estimator(beta: float, free_sweeps: int, nudged_sweeps: int) -> EquilibriumPropagation:
    """Symmetric nudges of states, alternating sweeps: half as many of them as synchronous ones do the same."""
    free, nudged = FixedSweeps(free_sweeps), FixedSweeps(nudged_sweeps)
    return EquilibriumPropagation(symmetric(beta), free, nudged, form=forms.states)


def sgd(network: Network, periods: int, lr: float) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
    """Momentum 0.9, every layer at the same rate, a cosine to 0 over the run."""
    rates = [lr] * (len(network.free) + bool(list(network.loss.parameters()) if network.loss else []))
    optimizer = torch.optim.SGD(parameter_groups(network, rates), momentum=0.9)
    return optimizer, CosineAnnealingLR(optimizer, periods)


RECIPES = (digits, mnist_dense, mnist_conv, cifar10_small, cifar10_small_paper_schedule, cifar10_small_backpropagation)
