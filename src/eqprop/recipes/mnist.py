"""The field's learning rules on one MNIST network: dense 784-256-256-10, tanh, linear output, squared error.

The runs differ in the rule, and in the feedback it is for; the optimiser, the batches and the epochs are the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from eqprop.energy.couplings import SeparateFeedback
from eqprop.energy.losses import SquaredError
from eqprop.energy.network import Network
from eqprop.energy.units import identity, tanh
from eqprop.learning.agnostic import AgnosticEP
from eqprop.learning.continual import ContinualEP
from eqprop.learning.dual import DualPropagation
from eqprop.learning.estimators import EquilibriumPropagation, Estimator
from eqprop.learning.references import Backpropagation
from eqprop.learning.stencils import Stencil, holomorphic, one_sided, symmetric
from eqprop.learning.teachers import Teacher, clamp, force
from eqprop.models.builders import DenseLayer, chain
from eqprop.recipes.setting import Build, image_run
from eqprop.settling.solvers import FixedSweeps, Solver
from eqprop.settling.starts import FromFeedforward
from eqprop.training.data import Normalise
from eqprop.training.loop import Experiment


def mnist_ep(
    beta: float = 0.2, feedback_gain: float = 1.0, free_sweeps: int = 10, nudged_sweeps: int = 6, **common: Any
) -> Experiment:
    """Equilibrium propagation: a force on the output, both signs of beta (Laborieux et al. 2021)."""
    taught = contrast(symmetric(beta), force, free_sweeps, nudged_sweeps)
    return _run(taught, partial(network, feedback_gain=feedback_gain), **common)


def mnist_chl(feedback_gain: float = 0.1, free_sweeps: int = 6, nudged_sweeps: int = 4, **common: Any) -> Experiment:
    """Contrastive Hebbian learning: the output clamped at the target, weak feedback (Xie & Seung 2003)."""
    taught = contrast(one_sided(1.0), clamp, free_sweeps, nudged_sweeps)
    return _run(taught, partial(network, feedback_gain=feedback_gain), **common)


def mnist_coupled(
    beta: float = 0.2, feedback_gain: float = 1.0, free_sweeps: int = 10, nudged_sweeps: int = 6, **common: Any
) -> Experiment:
    """Coupled learning: the output held a part of the way to the target, and away from it (Stern et al. 2021)."""
    taught = contrast(symmetric(beta), clamp, free_sweeps, nudged_sweeps)
    return _run(taught, partial(network, feedback_gain=feedback_gain), **common)


def mnist_random_feedback(
    feedback_gain: float = 0.1, free_sweeps: int = 6, nudged_sweeps: int = 4, **common: Any
) -> Experiment:
    """Contrastive Hebbian learning through fixed random feedback weights (Detorakis et al. 2019)."""
    taught = contrast(one_sided(1.0), clamp, free_sweeps, nudged_sweeps)
    return _run(taught, partial(random_feedback, feedback_gain=feedback_gain), **common)


def mnist_holomorphic(
    beta: float = 0.4, points: int = 4, free_sweeps: int = 10, nudged_sweeps: int = 6, **common: Any
) -> Experiment:
    """Holomorphic equilibrium propagation: nudges on a circle of complex numbers (Laborieux & Zenke 2022)."""
    taught = contrast(holomorphic(beta, points), force, free_sweeps, nudged_sweeps)
    return _run(taught, network, **common)


def mnist_continual(
    beta: float = 0.2, rate: float = 1e-3, free_sweeps: int = 10, nudged_sweeps: int = 6, **common: Any
) -> Experiment:
    """Continual equilibrium propagation: weights that learn at every nudged sweep (Ernoult et al. 2020)."""
    return _run(ContinualEP(symmetric(beta), *settling(free_sweeps, nudged_sweeps), rate), network, **common)


def mnist_agnostic(
    beta: float = 0.2, epsilon: float = 1e-3, free_sweeps: int = 10, nudged_sweeps: int = 6, **common: Any
) -> Experiment:
    """Agnostic equilibrium propagation, centred: weights that relax like the states (Scellier et al. 2022)."""
    return _run(AgnosticEP(symmetric(beta), *settling(free_sweeps, nudged_sweeps), epsilon), network, **common)


def mnist_dual(beta: float = 0.1, alpha: float = 0.5, passes: int = 1, **common: Any) -> Experiment:
    """Dual propagation: two states a unit, in one phase (Høier et al. 2023)."""
    return _run(DualPropagation(beta, alpha, passes), network, **common)


def mnist_backpropagation(**common: Any) -> Experiment:
    """Backpropagation through the feedforward network of the same weights: the baseline."""
    return _run(Backpropagation(), network, **common)


def _run(
    estimator: Estimator,
    build: Build,
    lr: float = 1e-3,
    batch_size: int = 64,
    epochs: int = 5,
    validation: float = 0.1,
    seed: int = 0,
    data: str = "ylecun/mnist",
) -> Experiment:
    """Adam, its rate a cosine to 0.

    Args:
        lr: the first learning rate.
        batch_size: images a step.
        epochs: passes through the training set.
        validation: the share of the training set that is held out to choose the best epoch by.
        seed: of the initial weights, the order, and the images held out.
        data: a hub name, or a folder.
    """
    plain = Normalise((0.0,), (1.0,))
    return image_run(build, estimator, partial(adam, lr=lr), plain, data, batch_size, epochs, seed, validation)


def network(
    shape: tuple[int, int, int], classes: int, feedback_gain: float = 1.0, separate_feedback: bool = False
) -> Network:
    layers = [DenseLayer(256, tanh), DenseLayer(256, tanh), DenseLayer(classes, identity)]
    return chain(shape, layers, SquaredError, separate_feedback, feedback_gain)


def random_feedback(shape: tuple[int, int, int], classes: int, feedback_gain: float) -> Network:
    """Feedback weights drawn once, which do not learn."""
    taught = network(shape, classes, feedback_gain, separate_feedback=True)
    for coupling in taught.terms.values():
        if isinstance(coupling, SeparateFeedback):
            coupling.feedback.requires_grad_(False)
    return taught


def contrast(nudging: Stencil, teacher: Teacher, free_sweeps: int, nudged_sweeps: int) -> EquilibriumPropagation:
    return EquilibriumPropagation(nudging, *settling(free_sweeps, nudged_sweeps), teacher=teacher)


def settling(free_sweeps: int, nudged_sweeps: int) -> tuple[Solver, FixedSweeps]:
    return FromFeedforward(FixedSweeps(free_sweeps)), FixedSweeps(nudged_sweeps)


def adam(taught: Network, periods: int, lr: float) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
    learning = [parameter for parameter in taught.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr)
    return optimizer, CosineAnnealingLR(optimizer, periods)


RECIPES = (
    mnist_ep,
    mnist_chl,
    mnist_coupled,
    mnist_random_feedback,
    mnist_holomorphic,
    mnist_continual,
    mnist_agnostic,
    mnist_dual,
    mnist_backpropagation,
)
