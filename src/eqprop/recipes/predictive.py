"""The predictive learning rule, with the settings of its authors' released programs.

Luczak, McNaughton & Kubo 2022, doi 10.1038/s42256-021-00430-y. Moments are numbers of sweeps: the authors' step of
index i, counted from 0, ends at moment i + 1. An epoch passes once through the training set, but learns from a few
examples of each batch; the others fit the prediction. As in the programs, the test set chooses the best epoch;
``--choose_by_test false`` holds out a tenth of the training set instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch

from eqprop.checks import Count, Fraction, NonNegative, Positive
from eqprop.energy import Bias, Network, Sigmoid, SquaredError
from eqprop.errors import InputError
from eqprop.learning import (
    Backpropagation,
    EquilibriumPropagation,
    Estimator,
    LeastSquares,
    PredictiveLearning,
    soft_clamp,
    symmetric,
)
from eqprop.models.builders import ConvLayer, DenseLayer, chain, parameter_groups
from eqprop.recipes.cifar10 import AUGMENT, MEAN, STD
from eqprop.recipes.setting import PLAIN, Build, ImageRecipe, Sized, of_phases, wider
from eqprop.settling import FixedSweeps, Leaky, synchronous
from eqprop.training.constraints import Constrain, Signs, dale
from eqprop.training.loop import Experiment

LOGISTIC = Sigmoid(slope=1, centre=0)


class Predictive(ImageRecipe):
    """Options of the predictive rule. A last batch that is smaller than the others is left out.

    Args:
        sweeps: of the free phase.
        learnt: how many images of a batch are learnt from.
        rates: learning rates, layer by layer.
    """

    sweeps: Count
    learnt: Count
    rates: Sequence[NonNegative]
    choose_by_test: bool = True

    keep_last = False

    def run(self, build: Build, estimator: Estimator, constrain: Constrain | None = None) -> Experiment:
        """Refuses batches that the estimator cannot learn from before anything is made."""
        if isinstance(estimator, PredictiveLearning):
            estimator.check(self.batch_size)
        return super().run(build, estimator, constrain)


class PredictiveDense(Predictive):
    """The release's dense network, dynamics and optimiser.

    Args:
        sweeps: of the free run; the taught run has the same total, including the part shared with the free one.
        rate: the length of a sweep, in time constants of a unit.
        samples: the number of first moments from which a unit predicts its free state.
        delay: the moment at which the teacher starts.
        hidden: units of the hidden layer.
    """

    sweeps: Count = 120
    rate: Positive = 0.1
    samples: Count = 12
    delay: Count = 13
    hidden: Count = 1000
    rates: Sequence[NonNegative] = (0.03, 0.02)
    batch_size: Count = 500
    learnt: Count = 10
    epochs: Count = 600
    data: str = "ylecun/mnist"
    mean: Sequence[float] | None = PLAIN[0]
    std: Sequence[float] | None = PLAIN[1]

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, None]:
        return Adagrad(parameter_groups(network, self.rates)), None

    def by(self, high: float | None = None, constrain: Constrain | None = None) -> Experiment:
        """The experiment; ``high``: an upper bound of the prediction."""
        leaky = Leaky(self.rate, synchronous)
        estimator = PredictiveLearning(
            free=FixedSweeps(self.sweeps, leaky),
            taught=FixedSweeps(self.sweeps - self.delay, leaky),
            onset=self.delay,
            learnt=self.learnt,
            predictor=LeastSquares(tuple(range(1, self.samples + 1)), 0.0, high),
        )
        return self.run(partial(sigmoid_network, hidden=self.hidden), estimator, constrain)


class Dale(PredictiveDense):
    """Under Dale's law.

    Args:
        excitatory: the share of hidden units with outgoing weights >= 0; the others have outgoing weights <= 0.
    """

    excitatory: Fraction = 0.8
    epochs: Count = 1000


class PredictiveConvolutions(Predictive):
    """The options of the convolutional network.

    Args:
        rule: predictive; ep: equilibrium propagation, with nudges of ±beta; backpropagation: through the feedforward
            network of the same weights. The last two learn from all images of a batch.
        taught_sweeps: sweeps with the teacher, or of each nudged phase.
        samples: the moments of the free phase from which a unit predicts its free state.
        onset: the moment of the free phase at which the teacher starts.
        beta: how strongly the teacher holds the output; the strength of the nudge.
    """

    rule: Literal["predictive", "ep", "backpropagation"] = "predictive"
    sweeps: Count = 130
    taught_sweeps: Count = 30
    samples: Sequence[int] = (5, 21, 81)
    onset: Count = 111
    beta: float = 0.01
    rates: Sequence[NonNegative] = (0.4, 0.028, 0.025)
    batch_size: Count = 600
    learnt: Count = 20
    epochs: Count = 600
    data: str = "uoft-cs/cifar10"

    mean: Sequence[float] | None = MEAN
    std: Sequence[float] | None = STD

    augment = AUGMENT

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        off = dict.fromkeys(() if self.rule == "predictive" else ("samples", "onset", "learnt"), f"--rule {self.rule}")
        return {**super().unused(estimator), **off, **of_phases(estimator, "sweeps", "taught_sweeps", "beta")}

    @property
    def estimator(self) -> Estimator:
        free, taught = FixedSweeps(self.sweeps, synchronous), FixedSweeps(self.taught_sweeps, synchronous)
        if self.rule == "backpropagation":
            return Backpropagation()
        if self.rule == "ep":
            return EquilibriumPropagation(symmetric(self.beta), free, taught)
        predictor = LeastSquares(tuple(self.samples), 0.0, 1.0)
        return PredictiveLearning(free, taught, self.onset, self.learnt, predictor, soft_clamp, self.beta)

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, None]:
        return torch.optim.SGD(parameter_groups(network, self.rates)), None


def mnist_predictive(**options: Any) -> Experiment:
    """MNIST, dense 784-1000-10, by the predictive learning rule: leaky units, the output clamped to its target."""
    return PredictiveDense(**options).by()


def mnist_predictive_dale(**options: Any) -> Experiment:
    """The same under Dale's law: all weights from a hidden unit to the output have the same sign."""
    law = Dale(**options)
    if law.depth > 1:
        raise InputError(f"--depth {law.depth}: the signs are those of one hidden layer: leave it out.")
    (hidden,) = (each for each in [wider(DenseLayer(law.hidden), law.width)] if isinstance(each, DenseLayer))
    signs = dale(hidden.units, law.excitatory, law.seed)
    return law.by(high=1.0, constrain=Signs({"couplings.layer1_layer2.map.weight": signs}))


def cifar10_predictive(**options: Any) -> Experiment:
    """CIFAR-10, two convolutions and a dense layer, by the predictive learning rule under a weak clamp; or by EP."""
    chosen = PredictiveConvolutions(**options)
    return chosen.run(smaller_convolutions, chosen.estimator)


def sigmoid_network(shape: tuple[int, int, int], classes: int, sized: Sized, hidden: int) -> Network:
    layers = [*sized([DenseLayer(hidden, LOGISTIC)]), DenseLayer(classes, LOGISTIC)]
    network = chain(shape, layers, SquaredError)
    initialise(network)
    return network


def smaller_convolutions(shape: tuple[int, int, int], classes: int, sized: Sized = list) -> Network:
    layers = [*sized([ConvLayer(256, padding=0), ConvLayer(512, padding=0)]), DenseLayer(classes)]
    return chain(shape, layers, SquaredError)


@torch.no_grad()
def initialise(network: Network) -> None:
    """Weights uniform in [0, sqrt(6 / (units in * units out))), all positive; biases normal round -1/2."""
    for term in network.terms.values():
        for parameter in term.parameters():
            if isinstance(term, Bias):
                parameter.normal_(-0.5, 1)
            else:
                parameter.uniform_(0, (6 / parameter.numel()) ** 0.5)


class Adagrad(torch.optim.Adagrad):
    """Adagrad (Duchi et al. 2011) on weights: rate * g / (sqrt(sum of g^2) + 1e-7); plain steps on biases."""

    def __init__(self, groups: list[dict[str, Any]]):
        super().__init__(groups, eps=1e-7)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step; the gradients of biases are then ``None``."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim == 1 and parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad)
                    parameter.grad = None
        super().step()
