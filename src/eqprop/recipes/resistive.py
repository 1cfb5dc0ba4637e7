"""Deep resistive networks on MNIST, with the settings of the released program of Scellier (2024, arXiv 2402.11674).

Resistors between layers, diodes at hidden units, no amplifiers; centred equilibrium propagation at a large nudge. As in
the program, no image is held out and the test set chooses the best epoch; ``--choose_by_test false`` holds out a tenth
of the training set instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import ExponentialLR

from eqprop.checks import Count, Positive
from eqprop.energy import Network
from eqprop.learning import EquilibriumPropagation, symmetric
from eqprop.models.builders import DenseLayer
from eqprop.physics import deep_resistive_network, keep_passive
from eqprop.recipes.setting import PLAIN, ImageRecipe, NudgeOptions, Sized
from eqprop.settling import FixedSweeps
from eqprop.training.loop import Experiment


class Resistive(NudgeOptions, ImageRecipe):
    """Gradient descent with one rate for all conductances and current sources; no conductance falls below 0.

    Args:
        lr: the learning rate in the first epoch.
        decay: the factor of the learning rate from an epoch to the next.
        input_gain: the voltage of a pixel of 1.
    """

    lr: Positive = 0.006
    decay: Positive = 0.99
    input_gain: Positive
    beta: float = 1.0
    free_sweeps: Count = 4
    nudged_sweeps: Count = 4
    batch_size: Count = 4
    choose_by_test: bool = True
    data: str = "ylecun/mnist"
    mean: Sequence[float] | None = PLAIN[0]
    std: Sequence[float] | None = PLAIN[1]

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, ExponentialLR]:
        optimizer = torch.optim.SGD(network.parameters(), self.lr)
        return optimizer, ExponentialLR(optimizer, self.decay)

    def learn(self, hidden: int) -> Experiment:
        """The run with one hidden layer of so many units; the options may change that."""
        free, nudged = FixedSweeps(self.free_sweeps), FixedSweeps(self.nudged_sweeps)
        estimator = EquilibriumPropagation(symmetric(self.beta), free, nudged)
        return self.run(partial(network, hidden=hidden, input_gain=self.input_gain), estimator, keep_passive)


class ResistiveSmall(Resistive):
    input_gain: Positive = 100.0
    epochs: Count = 10


class ResistiveLarge(Resistive):
    input_gain: Positive = 480.0
    epochs: Count = 50


def mnist_resistive_xs(**options: Any) -> Experiment:
    """MNIST by a network of 157,800 resistors: 2x784 voltage sources, 100 diodes, 10 outputs."""
    return ResistiveSmall(**options).learn(100)


def mnist_resistive_1h(**options: Any) -> Experiment:
    """MNIST by a network of 1.6 million resistors: 2x784 voltage sources, 1,024 diodes, 10 outputs."""
    return ResistiveLarge(**options).learn(1024)


def network(shape: tuple[int, int, int], classes: int, sized: Sized, hidden: int, input_gain: float) -> Network:
    layers = [layer.units for layer in sized([DenseLayer(hidden)]) if isinstance(layer, DenseLayer)]
    return deep_resistive_network(shape, layers, classes, input_gain)
