"""Hopfield-ResNet13 on CIFAR-10, with the settings of its authors' program. For a GPU.

Sankar Vinayak E P & Srinivasan 2025, doi 10.1109/ICEdge67252.2025.11412472, arXiv 2509.26003. Eight layers of rectified
units that are clipped at 6, in four blocks of 3x3 convolutions, the second of stride 2; a 1x1 convolution of stride 2
past each block; a dense output with squared error: 13 weight tensors. As there, gradients are clipped to a length of 1,
and the test set chooses the best epoch; ``--choose_by_test false`` holds out a tenth of the training set instead.

What differs: images are flipped and moved only (there also RandAugment, three operations of strength 9); free phases of
training start from zero (there from the states of the batch before); and no two coupled nodes move at once (there all
odd layers do, then all even ones, and skips join even layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from eqprop.checks import Count, NonNegative, Positive
from eqprop.energy import Bias, Clip, Network, SquaredError, identity
from eqprop.errors import InputError
from eqprop.learning import EquilibriumPropagation, symmetric
from eqprop.learning.teachers import Force
from eqprop.models.builders import ConvLayer, DenseLayer, graph
from eqprop.recipes.cifar10 import AUGMENT, MEAN, STD
from eqprop.recipes.setting import FastOptions, ImageRecipe, NudgeOptions, Sized, nesterov
from eqprop.settling import FixedSweeps
from eqprop.training.loop import Experiment

CLIPPED = Clip(low=0.0, high=6.0)
BLOCKS = (128, 256, 512, 512)
FLOOR = 2e-6


class HopfieldResNet(ImageRecipe):
    """The published optimiser and initial weights.

    Args:
        lr: the first learning rate; it falls by a cosine to 2e-6.
        weight_decay: L2, on every tensor.
        gains: initial weights are uniform in ±gain/sqrt(fan in): the gain of the output, and in each block those of its
            two 3x3 convolutions and of the 1x1 past them; the first block's, then those of the other three. Biases
            have the gain 0.5.
    """

    lr: Positive = 0.03
    weight_decay: NonNegative = 2.5e-4
    gains: Sequence[NonNegative] = (0.8, 0.6, 0.6, 0.7, 0.6, 0.6, 0.7)
    batch_size: Count = 128
    epochs: Count = 300
    gradient_clip: NonNegative = 1.0
    choose_by_test: bool = True
    data: str = "uoft-cs/cifar10"

    mean: Sequence[float] | None = MEAN
    std: Sequence[float] | None = STD

    augment = AUGMENT

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
        """Nesterov's momentum 0.9; the rate falls by a cosine."""
        return nesterov(network, periods, self.lr, self.weight_decay, FLOOR)

    def network(self, shape: tuple[int, int, int], classes: int, sized: Sized = list) -> Network:
        """The blocks, one after another, and the output."""
        if len(self.gains) != 7:
            raise InputError(f"--gains has {len(self.gains)} numbers: give 7, of the output and of two blocks.")
        if self.depth:
            raise InputError(f"--depth {self.depth}: this network has four blocks of two layers: leave it out.")
        plan = sized([layer for channels in BLOCKS for layer in block(channels)])
        nodes = ["input", *(f"layer{number}" for number in range(1, 2 * len(BLOCKS) + 2))]
        edges = []
        for number in range(len(BLOCKS)):
            start, middle, end = nodes[2 * number : 2 * number + 3]
            first, second, past = plan[3 * number : 3 * number + 3]
            edges += [(start, middle, first), (middle, end, second), (start, end, past)]
        edges.append((nodes[-2], nodes[-1], DenseLayer(classes, identity)))
        found = graph({"input": shape, **dict.fromkeys(nodes[1:])}, edges, SquaredError)
        head, *rest = self.gains
        gains = iter([*rest[:3], *(rest[3:] * (len(BLOCKS) - 1)), head])
        with torch.no_grad():
            for term in found.couplings.values():
                factor = 0.5 if isinstance(term, Bias) else next(gains)
                for parameter in term.parameters():
                    parameter.mul_(factor)
        return found


class Nudged(NudgeOptions, HopfieldResNet):
    beta: float = 0.1
    free_sweeps: Count = 120
    nudged_sweeps: Count = 50


class Fast(FastOptions, HopfieldResNet):
    tolerance: Positive = 0.1
    free_sweeps: Count = 60
    response_sweeps: Count = 8
    damping: NonNegative = 0.0


def block(channels: int) -> list[ConvLayer]:
    """The two convolutions of a block, and the one past them."""
    layer = partial(ConvLayer, channels, pool=None, activation=CLIPPED)
    return [layer(), layer(stride=2), layer(kernel=1, stride=2, padding=0)]


def cifar10_hopfield_resnet13(**options: Any) -> Experiment:
    """Hopfield-ResNet13, the published 93.92 % on CIFAR-10, by the published centred nudges. For a GPU."""
    nudged = Nudged(**options)
    free, taught = FixedSweeps(nudged.free_sweeps), FixedSweeps(nudged.nudged_sweeps)
    published = EquilibriumPropagation(symmetric(nudged.beta), free, taught, teacher=Force(exact=False))
    return nudged.run(nudged.network, published)


def cifar10_hopfield_resnet13_fast(**options: Any) -> Experiment:
    """The same network by infinitesimal nudges and sweeps until rest. For a GPU."""
    fast = Fast(**options)
    return fast.run(fast.network, fast.estimator)
