"""Runs for two CPU cores: digits, MNIST, and a small CIFAR-10 network.

Laborieux et al. 2021: doi 10.3389/fnins.2021.633674.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from eqprop.checks import Count, Fraction, Positive
from eqprop.energy import Network, ReadoutCrossEntropy, SquaredError, hard_sigmoid, tanh
from eqprop.learning import Backpropagation, EquilibriumPropagation, forms, symmetric
from eqprop.models.builders import ConvLayer, DenseLayer, chain, parameter_groups
from eqprop.models.initial import scale_weights
from eqprop.recipes.cifar10 import MEAN, STD, ep
from eqprop.recipes.setting import PLAIN, FastOptions, ImageRecipe, NudgeOptions, Share, Sized, WeakFeedbackOptions
from eqprop.settling.solvers import FixedSweeps
from eqprop.tasks import Crop, Flip
from eqprop.training.loop import Experiment


class CosineRecipe(ImageRecipe):
    """Momentum 0.9, with the same rate for all layers, which falls to 0 by a cosine.

    Args:
        lr: the first learning rate.
    """

    lr: Positive = 0.1

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
        rates = [self.lr] * (len(network.free) + bool(list(network.loss.parameters()) if network.loss else []))
        optimizer = torch.optim.SGD(parameter_groups(network, rates), momentum=0.9)
        return optimizer, CosineAnnealingLR(optimizer, periods)


class Small(NudgeOptions, CosineRecipe):
    """Symmetric nudges in the form ``states``, alternating sweeps: half as many are as good as synchronous ones."""

    beta: float = 0.5
    free_sweeps: Count = 12
    nudged_sweeps: Count = 6
    data: str = "ylecun/mnist"

    @property
    def estimator(self) -> EquilibriumPropagation:
        free, nudged = FixedSweeps(self.free_sweeps), FixedSweeps(self.nudged_sweeps)
        return EquilibriumPropagation(symmetric(self.beta), free, nudged, form=forms.states)


class Digits(Small):
    batch_size: Count = 32
    epochs: Count = 15
    data: str = "digits"

    augment = (Crop(1),)


class DigitsDeep(WeakFeedbackOptions, ImageRecipe):
    """Adam, with a rate that falls to 0 by a cosine with each batch.

    Args:
        lr: the first learning rate.
        activity: the standard deviation of each layer's drives at first (``eqprop.models.scale_weights``).
        smoothing: of labels, see ``CrossEntropy``.
    """

    lr: Positive = 2e-3
    activity: Positive = 0.5
    smoothing: Fraction = 0.1
    batch_size: Count = 64
    epochs: Count = 30
    validation: Share = 0.0
    data: str = "digits"
    depth: Annotated[int, ">= 1", "<= 1000"] = 6

    schedule_by_batch = True

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
        optimizer = torch.optim.Adam(network.parameters(), self.lr)
        return optimizer, CosineAnnealingLR(optimizer, periods)

    def network(self, shape: tuple[int, int, int], classes: int, sized: Sized = list) -> Network:
        read_out = partial(ReadoutCrossEntropy, classes=classes, smoothing=self.smoothing)
        return chain(shape, sized([DenseLayer(256, tanh)]), read_out, feedback_gain=self.feedback_gain)


class MnistDense(Small):
    mean: Sequence[float] | None = PLAIN[0]
    std: Sequence[float] | None = PLAIN[1]
    free_sweeps: Count = 10
    lr: Positive = 0.05
    batch_size: Count = 50
    epochs: Count = 12


class MnistConv(Small):
    mean: Sequence[float] | None = PLAIN[0]
    std: Sequence[float] | None = PLAIN[1]
    epochs: Count = 3


class Cifar10(CosineRecipe):
    """The rate falls with each batch, and images are flipped at random."""

    epochs: Count = 4
    validation: Share = 0.04
    data: str = "uoft-cs/cifar10"

    mean: Sequence[float] | None = MEAN
    std: Sequence[float] | None = STD

    augment = (Flip(),)
    schedule_by_batch = True


class Cifar10Fast(FastOptions, Cifar10):
    tolerance: Positive = 0.2
    free_sweeps: Count = 40
    response_sweeps: Count = 2


class Cifar10PaperSchedule(NudgeOptions, Cifar10):
    beta: float = 1.0
    free_sweeps: Count = 250
    nudged_sweeps: Count = 25


def digits(**options: Any) -> Experiment:
    """The embedded 8x8 handwritten digits: two convolutions, cross-entropy read-out, under a minute on a CPU."""
    small = Digits(**options)
    return small.run(partial(convolutions, layers=[ConvLayer(32, pool=None), ConvLayer(64)]), small.estimator)


def digits_deep(**options: Any) -> Experiment:
    """The digits with any number of dense tanh layers, by weak feedback: two sweeps forwards, one back."""
    deep = DigitsDeep(**options)
    run = deep.run(deep.network, deep.estimator)
    scale_weights(run.model.network, run.train.sample(min(200, len(run.train)))[0], deep.activity)
    return run


def mnist_dense(**options: Any) -> Experiment:
    """MNIST, dense 784-512-10: squared error on output units inside the dynamics."""
    small = MnistDense(**options)
    return small.run(dense, small.estimator)


def mnist_conv(**options: Any) -> Experiment:
    """MNIST, two convolutions with max pooling, cross-entropy read-out."""
    small = MnistConv(**options)
    return small.run(partial(convolutions, layers=[ConvLayer(32), ConvLayer(64)]), small.estimator)


def cifar10_small(**options: Any) -> Experiment:
    """CIFAR-10 with two convolutions, by infinitesimal nudges, for two CPU cores."""
    small = Cifar10Fast(**options)
    return small.run(small_network, small.estimator)


def cifar10_small_paper_schedule(**options: Any) -> Experiment:
    """The same network by the paper schedule (Laborieux et al. 2021): symmetric nudges, 250 + 2 x 25 sweeps."""
    small = Cifar10PaperSchedule(**options)
    return small.run(small_network, ep(symmetric(small.beta), small.free_sweeps, small.nudged_sweeps))


def cifar10_small_backpropagation(**options: Any) -> Experiment:
    """The same weights as a feedforward network, by backpropagation: the baseline."""
    return Cifar10(**options).run(small_network, Backpropagation())


def dense(shape: tuple[int, int, int], classes: int, sized: Sized = list) -> Network:
    layers = [*sized([DenseLayer(512, hard_sigmoid)]), DenseLayer(classes, hard_sigmoid)]
    return chain(shape, layers, SquaredError)


def convolutions(
    shape: tuple[int, int, int], classes: int, sized: Sized = list, *, layers: Sequence[ConvLayer]
) -> Network:
    return chain(shape, sized(layers), partial(ReadoutCrossEntropy, classes=classes))


def small_network(shape: tuple[int, int, int], classes: int, sized: Sized = list) -> Network:
    """Two convolutions of 64 and 128 channels with a cross-entropy read-out.

    The drive of the input is computed once for a batch, so the largest map is the first; the second has a stride
    instead of a pool, which is cheaper in every sweep. Initial weights of the first layer are doubled, as its images
    have a standard deviation of 1/3.
    """
    layers = [ConvLayer(64, kernel=5, padding=2), ConvLayer(128, stride=2, pool=None)]
    network = convolutions(shape, classes, sized, layers=layers)
    with torch.no_grad():
        next(network.terms["input_layer1"].parameters()).mul_(2)
    return network
