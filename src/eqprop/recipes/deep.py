"""Deep convolutional networks with weak feedback, for two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch.optim.lr_scheduler import OneCycleLR

from eqprop.checks import Count, Fraction, Natural, NonNegative, Positive
from eqprop.energy import Clip, MaxPool, Network, ReadoutCrossEntropy
from eqprop.learning import Backpropagation, Estimator
from eqprop.models.builders import ConvLayer, chain
from eqprop.models.initial import scale_weights
from eqprop.models.standardisation import standardise_weights
from eqprop.recipes.cifar10 import AUGMENT
from eqprop.recipes.setting import ImageRecipe, Share, Sized, WeakFeedbackOptions
from eqprop.tasks import Augmentation, Cutout
from eqprop.training.loop import Experiment

CLIPPED_RELU = Clip(low=0.0, high=6.0)
CHANNELS = (32, 64, 64, 256, 256, 256)
"""Of convolutions 3x3; every second one has a 2x2 max pool."""


class CifarDeep(WeakFeedbackOptions, ImageRecipe):
    """Nesterov momentum and a one-cycle rate; images are flipped, moved by up to 4 pixels, and a square is cut out.

    Args:
        lr: the largest learning rate; it rises to it linearly, and then falls to 0.
        rise: the share of the steps in which it rises, below 1.
        momentum: of the steps.
        weight_decay: L2 of weights, and of the gains and the biases of convolutions; not of the read-out's bias.
        smoothing: of labels, see ``CrossEntropy``.
        cutout: the sides of the square that is set to the mean, in pixels; 0 for none.
        activity: the standard deviation of each layer's drives at first (``eqprop.models.scale_weights``).
        standardise: standardise the weights (``eqprop.models.standardise_weights``).
    """

    feedback_gain: Positive = 0.003
    lr: Positive = 0.2
    rise: Annotated[float, ">= 0", "< 1"] = 0.2
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 2e-4
    smoothing: Fraction = 0.1
    cutout: Natural = 8
    activity: Positive = 1.0
    standardise: bool = True
    batch_size: Count = 128
    epochs: Count = 30
    gradient_clip: NonNegative = 1.0
    validation: Share = 0.0
    data: str = "uoft-cs/cifar10"

    mean: Sequence[float] | None = (0.4914, 0.4822, 0.4465)
    std: Sequence[float] | None = (0.2470, 0.2435, 0.2616)

    schedule_by_batch = True
    keep_last = False

    @property
    def augment(self) -> tuple[Augmentation, ...]:
        """Flips, shifts and cutouts."""
        return *AUGMENT, Cutout(self.cutout)

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, OneCycleLR]:
        """The optimiser and its schedule."""
        decayed = [each for each in network.parameters() if each.ndim > 1]
        others = [each for each in network.parameters() if each.ndim <= 1]  # the read-out's bias
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": others}]
        optimizer = torch.optim.SGD(groups, self.lr, self.momentum, nesterov=self.momentum > 0)
        rise = self.rise if self.rise * periods > 1 else 0.0  # a rise of less than a step is none
        return optimizer, OneCycleLR(
            optimizer, self.lr, periods, pct_start=rise, anneal_strategy="linear", cycle_momentum=False
        )

    def network(self, shape: tuple[int, int, int], classes: int, sized: Sized = list) -> Network:
        """The chain of convolutions."""
        layers = [
            ConvLayer(channels, pool=MaxPool(2) if number % 2 else None, activation=CLIPPED_RELU)
            for number, channels in enumerate(CHANNELS)
        ]
        read_out = partial(ReadoutCrossEntropy, classes=classes, smoothing=self.smoothing)
        made = chain(shape, sized(layers), read_out, feedback_gain=self.feedback_gain)
        if self.standardise:
            standardise_weights(made)
        return made

    def taught_by(self, estimator: Estimator) -> Experiment:
        """The run with this estimator."""
        run = self.run(self.network, estimator)
        scale_weights(run.model.network, run.train.sample(min(200, len(run.train)))[0], self.activity)
        return run


def cifar10_deep(**options: Any) -> Experiment:
    """Six convolutions by equilibrium propagation alone: weak feedback, two sweeps forwards, one back."""
    deep = CifarDeep(**options)
    return deep.taught_by(deep.estimator)


def cifar10_deep_backpropagation(**options: Any) -> Experiment:
    """Backpropagation through the feedforward network of the weights of ``cifar10-deep``: the baseline."""
    return CifarDeep(**options).taught_by(Backpropagation())
