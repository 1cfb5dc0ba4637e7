"""Equilibrium propagation on predictive-coding networks, with the published settings, in error coordinates.

Kerjan, Høier & Scellier 2026, arXiv 2606.03584: centred nudges of finite size, Nesterov's momentum, decay, a cosine,
flips and crops. There five (VGG5) or ten (VGG10) sweeps of states settle each nudged phase; here one pass of errors
does, which ``--passes`` changes. The channels of VGG10 are this package's choice. As in most reports on CIFAR-10, the
test set chooses the best epoch; ``--choose_by_test false`` holds out a tenth of the training set instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from eqprop.checks import Count, NonNegative, Positive
from eqprop.energy import CrossEntropy, Loss, MaxPool, Network, SquaredError, identity, relu
from eqprop.learning import Backpropagation, EquilibriumPropagation, Estimator, RandomSign, symmetric
from eqprop.models.builders import ConvLayer, DenseLayer, predictive_chain
from eqprop.recipes.cifar10 import AUGMENT
from eqprop.recipes.setting import ImageRecipe, Sized, nesterov, of_phases
from eqprop.settling import FixedSweeps, ForwardPass, error_pass
from eqprop.tasks import Crop
from eqprop.training.loop import Experiment

FLOOR = 1e-6


class PredictiveCoding(ImageRecipe):
    """The published optimiser and nudges.

    Args:
        rule: centred: equilibrium propagation with nudges of both signs; random-sign: with one of a random sign for
            each batch; backpropagation: through the feedforward network of the same weights, the baseline.
        beta: the strength of the nudge.
        passes: of errors, in each nudged phase. In the limit of a small beta one pass is backpropagation.
        lr: the first learning rate.
        weight_decay: L2, on every tensor.
        gain: initial weights, and the biases of convolutions, are uniform in ±gain/sqrt(fan in).
    """

    rule: Literal["centred", "random-sign", "backpropagation"] = "centred"
    beta: Positive = 0.02
    passes: Count = 1
    lr: Positive
    weight_decay: NonNegative = 3e-4
    gain: Positive = 2.45
    epochs: Count = 100
    choose_by_test: bool = True
    data: str = "uoft-cs/cifar10"

    augment = AUGMENT

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        return {**super().unused(estimator), **of_phases(estimator, "beta", "passes")}

    @property
    def estimator(self) -> Estimator:
        if self.rule == "backpropagation":
            return Backpropagation()
        nudging = symmetric(self.beta) if self.rule == "centred" else RandomSign(self.beta, seed=self.seed)
        return EquilibriumPropagation(nudging, ForwardPass(), FixedSweeps(self.passes, error_pass))

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
        """Nesterov's momentum 0.9; the rate falls by a cosine to 1e-6."""
        return nesterov(network, periods, self.lr, self.weight_decay, FLOOR)

    def by(self, layers: Sequence[ConvLayer], loss: Callable[[str, tuple[int, ...]], Loss]) -> Experiment:
        """The run of a network of these convolutions and a dense layer."""
        return self.run(partial(self.network, layers=layers, loss=loss), self.estimator)

    def network(
        self,
        shape: tuple[int, int, int],
        classes: int,
        sized: Sized = list,
        *,
        layers: Sequence[ConvLayer],
        loss: Callable[[str, tuple[int, ...]], Loss],
    ) -> Network:
        found = predictive_chain(shape, [*sized(layers), DenseLayer(classes, identity)], loss)
        with torch.no_grad():
            for parameter in found.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(self.gain)
        return found


class Vgg5(PredictiveCoding):
    lr: Positive = 0.04
    gain: Positive = 1.0
    batch_size: Count = 16


class Vgg5CrossEntropy(PredictiveCoding):
    lr: Positive = 0.01
    batch_size: Count = 64


class Vgg10(PredictiveCoding):
    beta: Positive = 0.05
    lr: Positive = 0.02
    weight_decay: NonNegative = 2e-4
    batch_size: Count = 256
    epochs: Count = 50


class DigitsPredictive(PredictiveCoding):
    lr: Positive = 0.01
    batch_size: Count = 32
    epochs: Count = 10
    choose_by_test: bool = False
    data: str = "digits"

    augment = (Crop(1),)


def digits_pc(**options: Any) -> Experiment:
    """The embedded digits on a predictive-coding network: two convolutions and a dense layer, cross-entropy."""
    return DigitsPredictive(**options).by(vgg(32, 64, "P"), CrossEntropy)


def cifar10_pc_vgg5(**options: Any) -> Experiment:
    """Predictive coding, five convolutions, squared error: the published 92.2 % on CIFAR-10. For a GPU."""
    return Vgg5(**options).by(vgg(128, 256, "P", 512, "P", 512, "P", 512, "P"), SquaredError)


def cifar10_pc_vgg5_ce(**options: Any) -> Experiment:
    """The same network with cross-entropy: the published 90.3 %. For a GPU."""
    return Vgg5CrossEntropy(**options).by(vgg(128, 256, "P", 512, "P", 512, "P", 512, "P"), CrossEntropy)


def cifar10_pc_vgg10(**options: Any) -> Experiment:
    """Predictive coding, nine convolutions, cross-entropy, with the published settings for ImageNet. For a GPU."""
    layers = vgg(128, 128, "P", 256, 256, "P", 512, 512, "P", 512, 512, 512, "P")
    return Vgg10(**options).by(layers, CrossEntropy)


def vgg(*plan: int | str) -> list[ConvLayer]:
    """Rectified 3x3 convolutions of so many channels; a "P" is 2x2 max pooling after the one before."""
    layers: list[ConvLayer] = []
    for each in plan:
        if isinstance(each, int):
            layers.append(ConvLayer(each, pool=None, activation=relu))
        else:
            layers[-1] = replace(layers[-1], pool=MaxPool(2))
    return layers
