"""The CIFAR-10 runs of Laborieux et al. (2021), with the settings of its authors' commands.

Doi 10.3389/fnins.2021.633674. One network (convolutions of 128, 256, 512 and 512 channels, 3x3, each with 2x2 max
pooling; 512-10 dense), one optimiser, one augmentation; the runs differ in loss, estimator and feedback. As in the
paper, the test set chooses the best epoch; ``--choose_by_test false`` holds out a part of the training set instead.
``cifar10_separate_asymmetric`` adds the rule of Scurria et al. (2026, arXiv 2602.03670) to the paper's table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from eqprop.checks import Count, NonNegative, Positive
from eqprop.energy import Network, ReadoutCrossEntropy, SquaredError
from eqprop.learning import forms
from eqprop.learning.estimators import EquilibriumPropagation
from eqprop.learning.penalties import RayleighPenalty
from eqprop.learning.references import BackpropagationThroughTime
from eqprop.learning.rules import Rule, contrastive, kolen_pollack, vector_field
from eqprop.learning.stencils import Nudging, RandomSign, one_sided, symmetric
from eqprop.learning.teachers import corrected
from eqprop.models.builders import ConvLayer, DenseLayer, chain, parameter_groups
from eqprop.recipes.setting import FastOptions, ImageRecipe, NudgeOptions, Sized
from eqprop.settling import FixedSweeps, synchronous
from eqprop.tasks import Augmentation, Crop, Flip, Normalise
from eqprop.training.loop import Experiment

AUGMENT: tuple[Augmentation, ...] = (Flip(0.5), Crop(4))
MEAN, STD = (0.4914, 0.4822, 0.4465), (3 * 0.2023, 3 * 0.1994, 3 * 0.2010)
NORMALISE = Normalise(MEAN, STD)
FLOOR, PERIOD = 1e-5, 100


class Paper(ImageRecipe):
    """The paper's optimiser, schedule and data.

    Args:
        rates: learning rates of the four convolutions and the dense layer.
        weight_decay: L2, on every tensor.
        epochs: passes through the training set; the schedule's period stays 100.
    """

    rates: Sequence[NonNegative] = (0.25, 0.15, 0.1, 0.08, 0.05)
    weight_decay: NonNegative = 3e-4
    batch_size: Count = 128
    epochs: Count = 120
    choose_by_test: bool = True
    data: str = "uoft-cs/cifar10"

    mean: Sequence[float] | None = MEAN
    std: Sequence[float] | None = STD

    augment = AUGMENT

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """Momentum 0.9, decay added to the gradient, a cosine from each rate to 1e-5 in 100 epochs, then constant."""
        groups = parameter_groups(network, self.rates)
        optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=self.weight_decay)
        return optimizer, LambdaLR(optimizer, [partial(cosine_factor, rate) for rate in self.rates])


class PaperNudge(NudgeOptions, Paper):
    beta: float = 1.0
    free_sweeps: Count = 250
    nudged_sweeps: Count = 25

    def by(self, nudging: Callable[[float], Nudging], rule: Rule = contrastive, **about_network: Any) -> Experiment:
        taught_by = ep(nudging(self.beta), self.free_sweeps, self.nudged_sweeps, rule)
        return self.run(partial(paper_network, **about_network), taught_by)


class SeparateNudge(PaperNudge):
    nudged_sweeps: Count = 30


class SquaredErrorNudge(PaperNudge):
    beta: float = 0.5
    nudged_sweeps: Count = 30


class PaperBptt(Paper):
    """Backpropagation through time.

    Args:
        free_sweeps: of the free phase.
        last_sweeps: the number of last sweeps with an autograd graph.
    """

    free_sweeps: Count = 250
    last_sweeps: Count = 25

    def back(self, **about_network: Any) -> Experiment:
        free = FixedSweeps(self.free_sweeps, synchronous)
        return self.run(partial(paper_network, **about_network), BackpropagationThroughTime(free, self.last_sweeps))


class LongerBptt(PaperBptt):
    last_sweeps: Count = 30


class PaperFast(FastOptions, Paper):
    """The options of infinitesimal nudges with a penalty on slow settling.

    Args:
        rates: learning rates of the four convolutions and the dense layer: of the published ones a fifth, in the last
            convolution a quarter, in the dense layer three fifths.
        slowness: the strength of the penalty on the slowest mode of the equilibrium; 0 for none.
    """

    rates: Sequence[NonNegative] = (0.05, 0.03, 0.02, 0.02, 0.03)
    tolerance: Positive = 0.2
    free_sweeps: Count = 60
    response_sweeps: Count = 4
    damping: NonNegative = 0.0
    slowness: NonNegative = 1.0


def cifar10_ce_fast(**options: Any) -> Experiment:
    """The main run's network by infinitesimal nudges and sweeps until rest: 8 to 10 times backpropagation's cost."""
    fast = PaperFast(**options)
    taught_by = RayleighPenalty(fast.estimator, fast.slowness) if fast.slowness else fast.estimator
    return fast.run(paper_network, taught_by)


def cifar10_mse_one_sided(**options: Any) -> Experiment:
    """Tied weights, squared error, one-sided nudging: the biased estimate, with which training nearly fails."""
    return SquaredErrorNudge(**options).by(one_sided, squared_error=True)


def cifar10_mse_random_sign(**options: Any) -> Experiment:
    """Tied weights, squared error, a nudge of random sign for each batch."""
    paper = SquaredErrorNudge(**options)
    return paper.by(partial(RandomSign, seed=paper.seed), squared_error=True)


def cifar10_mse_symmetric(**options: Any) -> Experiment:
    """Tied weights, squared error, symmetric nudging."""
    return SquaredErrorNudge(**options).by(symmetric, squared_error=True)


def cifar10_mse_bptt(**options: Any) -> Experiment:
    """Tied weights, squared error, backpropagation through the last sweeps."""
    return LongerBptt(**options).back(squared_error=True)


def cifar10_ce_symmetric(**options: Any) -> Experiment:
    """Tied weights, cross-entropy read-out, symmetric nudging: the paper's main run."""
    return PaperNudge(**options).by(symmetric)


def cifar10_ce_bptt(**options: Any) -> Experiment:
    """Tied weights, cross-entropy read-out, backpropagation through the last sweeps."""
    return PaperBptt(**options).back()


def cifar10_ce_dropout_symmetric(dropout: float = 0.1, **options: Any) -> Experiment:
    """The main run with dropout on the third layer.

    Args:
        dropout: the share of the third layer's units that is dropped.
    """
    return PaperNudge(**options).by(symmetric, dropout=dropout)


def cifar10_ce_dropout_bptt(dropout: float = 0.1, **options: Any) -> Experiment:
    """Dropout on the third layer, backpropagation through the last sweeps.

    Args:
        dropout: the share of the third layer's units that is dropped.
    """
    return PaperBptt(**options).back(dropout=dropout)


def cifar10_separate_vector_field(**options: Any) -> Experiment:
    """Separate feedback weights, each with its own update (the paper's "different updates")."""
    return SeparateNudge(**options).by(symmetric, vector_field, separate_feedback=True)


def cifar10_separate_kolen_pollack(**options: Any) -> Experiment:
    """Separate feedback weights, one update shared by both (the paper's "same update")."""
    return SeparateNudge(**options).by(symmetric, kolen_pollack, separate_feedback=True)


def cifar10_separate_asymmetric(**options: Any) -> Experiment:
    """Separate feedback weights, asymmetric EP: corrected nudged phases, in the form ``displacements``."""
    paper = SeparateNudge(**options)
    taught_by = ep(symmetric(paper.beta), paper.free_sweeps, paper.nudged_sweeps, vector_field)
    taught_by = replace(taught_by, form=forms.displacements, teacher=corrected)
    return paper.run(partial(paper_network, separate_feedback=True), taught_by)


def cifar10_separate_bptt(**options: Any) -> Experiment:
    """Separate feedback weights, backpropagation through the last sweeps."""
    return LongerBptt(**options).back(separate_feedback=True)


def paper_network(
    shape: tuple[int, int, int],
    classes: int,
    sized: Sized = list,
    squared_error: bool = False,
    separate_feedback: bool = False,
    dropout: float = 0.0,
) -> Network:
    """The paper's network: with squared error on a dense last layer, else with a read-out outside the dynamics."""
    layers = sized([ConvLayer(128), ConvLayer(256), ConvLayer(512, dropout=dropout), ConvLayer(512, padding=0)])
    if squared_error:
        return chain(shape, [*layers, DenseLayer(classes)], SquaredError, separate_feedback)
    return chain(shape, layers, partial(ReadoutCrossEntropy, classes=classes), separate_feedback)


def ep(nudging: Nudging, free_sweeps: int, nudged_sweeps: int, rule: Rule = contrastive) -> EquilibriumPropagation:
    """The paper's estimator: synchronous sweeps in the form ``states``."""
    free, nudged = FixedSweeps(free_sweeps, synchronous), FixedSweeps(nudged_sweeps, synchronous)
    return EquilibriumPropagation(nudging, free, nudged, rule, forms.states)


def cosine_factor(rate: float, epoch: int) -> float:
    turn = math.cos(math.pi * min(epoch, PERIOD) / PERIOD)
    return (FLOOR + (rate - FLOOR) * (1 + turn) / 2) / rate
