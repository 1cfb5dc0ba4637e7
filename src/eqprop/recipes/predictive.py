"""The predictive learning rule (Luczak, McNaughton & Kubo 2022), with the settings of its authors' released programs.

Moments are counted in sweeps done: their step of index i, counted from 0, ends at moment i + 1. An epoch passes the
training set once, but learns from a few examples of each batch; the others fit the prediction. As there, the best epoch
is chosen by the test set; ``--choose_by_test false`` holds out a tenth of the training set instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from eqprop.energy.couplings import Bias
from eqprop.energy.losses import SquaredError
from eqprop.energy.network import Network
from eqprop.energy.units import Sigmoid
from eqprop.learning.predictive import LeastSquares, PredictiveLearning
from eqprop.learning.teachers import soft_clamp
from eqprop.models.builders import ConvLayer, DenseLayer, chain, parameter_groups
from eqprop.recipes.cifar10 import AUGMENT, NORMALISE
from eqprop.recipes.setting import image_run
from eqprop.settling.solvers import FixedSweeps
from eqprop.settling.sweeps import Leaky, synchronous
from eqprop.training.constraints import Constrain, Signs, dale
from eqprop.training.data import Normalise
from eqprop.training.loop import Experiment

LOGISTIC = Sigmoid(slope=1, centre=0)


def mnist_predictive(epochs: int = 600, **mlp: Any) -> Experiment:
    """MNIST, dense 784-1000-10, by the predictive learning rule: leaky units, the output clamped to its target."""
    return _mlp(epochs, high=None, constrain=None, **mlp)


def mnist_predictive_dale(
    excitatory: float = 0.8, epochs: int = 1000, hidden: int = 1000, seed: int = 0, **mlp: Any
) -> Experiment:
    """The same under Dale's law: all that a hidden unit sends to the output has the unit's own sign.

    Args:
        excitatory: the share of hidden units whose weights may not be negative; those of the others not be positive.
        epochs: passes through the training set.
        hidden: units of the hidden layer.
        seed: of the initial weights, the signs, the order.
    """
    signs = Signs({"couplings.layer1_layer2.map.weight": dale(hidden, excitatory, seed)})
    return _mlp(epochs, high=1.0, constrain=signs, hidden=hidden, seed=seed, **mlp)


def _mlp(
    epochs: int,
    high: float | None,
    constrain: Constrain | None,
    sweeps: int = 120,
    rate: float = 0.1,
    samples: int = 12,
    delay: int = 13,
    hidden: int = 1000,
    rates: Sequence[float] = (0.03, 0.02),
    batch_size: int = 500,
    learnt: int = 10,
    choose_by_test: bool = True,
    train_images: int = 0,
    seed: int = 0,
    data: str = "ylecun/mnist",
) -> Experiment:
    """The release's network, dynamics and optimiser.

    Args:
        epochs: passes through the training set.
        sweeps: of the free run, and of the taught one with what it shares with the free one.
        rate: the length of a sweep, in time constants of a unit.
        samples: so many of the first moments are what a unit predicts its free state from.
        delay: the moment at which the teacher comes.
        hidden: units of the hidden layer.
        rates: learning rates of the hidden and of the output layer.
        batch_size: images a step; a rest of an epoch that is smaller is left out.
        learnt: how many images of a batch are learnt from.
        choose_by_test: the best epoch is chosen by the test set; otherwise by a tenth of the training set.
        train_images: use only so many training images; 0 is all.
        seed: of the initial weights and the order.
        data: a hub name, or a folder.
    """

    def build(shape: tuple[int, int, int], classes: int) -> Network:
        network = chain(shape, [DenseLayer(hidden, LOGISTIC), DenseLayer(classes, LOGISTIC)], SquaredError)
        initialise(network)
        return network

    leaky = Leaky(rate, synchronous)
    estimator = PredictiveLearning(
        free=FixedSweeps(sweeps, leaky),
        taught=FixedSweeps(sweeps - delay, leaky),
        onset=delay,
        learnt=learnt,
        predictor=LeastSquares(tuple(range(1, samples + 1)), 0.0, high),
    )
    return image_run(
        build,
        estimator,
        lambda network, _: (Adagrad(parameter_groups(network, rates)), None),
        Normalise((0.0,), (1.0,)),
        data,
        batch_size,
        epochs,
        seed,
        0.0 if choose_by_test else 0.1,
        train_images=train_images,
        keep_last=False,
        constrain=constrain,
    )


def cifar10_predictive(
    sweeps: int = 130,
    taught_sweeps: int = 30,
    samples: Sequence[int] = (5, 21, 81),
    onset: int = 111,
    beta: float = 0.01,
    rates: Sequence[float] = (0.4, 0.028, 0.025),
    batch_size: int = 600,
    learnt: int = 20,
    epochs: int = 600,
    choose_by_test: bool = True,
    train_images: int = 0,
    seed: int = 0,
    data: str = "uoft-cs/cifar10",
) -> Experiment:
    """CIFAR-10, two convolutions and a dense layer, by the predictive learning rule under a weak clamp.

    Args:
        sweeps: of the free phase.
        taught_sweeps: with the teacher on.
        samples: the moments of the free phase that a unit predicts its free state from.
        onset: the moment of the free phase at which the teacher comes.
        beta: how strongly it holds the output.
        rates: learning rates of the two convolutions and the dense layer.
        batch_size: images a step; a rest of an epoch that is smaller is left out.
        learnt: how many images of a batch are learnt from.
        epochs: passes through the training set.
        choose_by_test: the best epoch is chosen by the test set; otherwise by a tenth of the training set.
        train_images: use only so many training images; 0 is all.
        seed: of the initial weights, the order, the augmentation.
        data: a hub name, or a folder.
    """
    estimator = PredictiveLearning(
        free=FixedSweeps(sweeps, synchronous),
        taught=FixedSweeps(taught_sweeps, synchronous),
        onset=onset,
        learnt=learnt,
        predictor=LeastSquares(tuple(samples), 0.0, 1.0),
        teacher=soft_clamp,
        beta=beta,
    )
    return image_run(
        convolutions,
        estimator,
        lambda network, _: (torch.optim.SGD(parameter_groups(network, rates)), None),
        NORMALISE,
        data,
        batch_size,
        epochs,
        seed,
        0.0 if choose_by_test else 0.1,
        AUGMENT,
        train_images,
        keep_last=False,
    )


def convolutions(shape: tuple[int, int, int], classes: int) -> Network:
    layers = [ConvLayer(256, padding=0), ConvLayer(512, padding=0), DenseLayer(classes)]
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


class Adagrad(torch.optim.Optimizer):
    """Adagrad (Duchi et al. 2011) on weights: rate * g / (sqrt(sum of g^2) + 1e-7); plain steps on biases."""

    def __init__(self, groups: list[dict[str, Any]]):
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if parameter.ndim == 1:
                    parameter.add_(gradient, alpha=-group["lr"])
                    continue
                state = self.state[parameter]
                if not state:
                    state["sum"] = torch.zeros_like(parameter)
                total = state["sum"].addcmul_(gradient, gradient)
                parameter.addcdiv_(gradient, total.sqrt().add_(1e-7), value=-group["lr"])
        return loss


RECIPES = (mnist_predictive, mnist_predictive_dale, cifar10_predictive)
