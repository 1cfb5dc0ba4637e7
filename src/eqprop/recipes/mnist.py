"""Learning rules on one MNIST network: dense 784-256-256-10, tanh, linear output, squared error.

The runs differ in the rule and in the feedback that it needs; the optimiser, the batches and the epochs are the same.
Sources: Xie & Seung 2003, doi 10.1162/089976603762552988; Detorakis et al. 2019, arXiv 1806.07406; Ernoult et al. 2020,
arXiv 2005.04168; Laborieux et al. 2021, doi 10.3389/fnins.2021.633674; Stern et al. 2021, doi
10.1103/PhysRevX.11.021045; Laborieux & Zenke 2022, arXiv 2209.00530; Scellier et al. 2022, arXiv 2205.15021; Høier et
al. 2023, arXiv 2302.01228; Scellier et al. 2023, arXiv 2312.15103; Scurria et al. 2026, arXiv 2602.03670.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from eqprop.checks import Count, Positive
from eqprop.energy import Network, SeparateFeedback, SquaredError, identity, tanh
from eqprop.learning.agnostic import AgnosticEP
from eqprop.learning.continual import ContinualEP
from eqprop.learning.dual import DualPropagation
from eqprop.learning.dyadic import DyadicEP
from eqprop.learning.estimators import EquilibriumPropagation, Estimator
from eqprop.learning.infinitesimal import InfinitesimalNudge
from eqprop.learning.references import Backpropagation, BackpropagationThroughTime
from eqprop.learning.rules import Rule, kolen_pollack, vector_field
from eqprop.learning.stencils import Stencil, holomorphic, one_sided, symmetric
from eqprop.learning.teachers import Teacher, clamp, corrected, force
from eqprop.models.builders import DenseLayer, chain
from eqprop.recipes.setting import PLAIN, ImageRecipe, NudgeOptions, Sized, WritingOptions
from eqprop.settling import ConjugateGradients, FixedSweeps, FromFeedforward, Solver, UntilConverged
from eqprop.training.loop import Experiment


def network(
    shape: tuple[int, int, int],
    classes: int,
    sized: Sized = list,
    feedback_gain: float = 1.0,
    separate_feedback: bool = False,
) -> Network:
    layers = [*sized([DenseLayer(256, tanh), DenseLayer(256, tanh)]), DenseLayer(classes, identity)]
    return chain(shape, layers, SquaredError, separate_feedback, feedback_gain)


def random_feedback(
    shape: tuple[int, int, int], classes: int, sized: Sized = list, feedback_gain: float = 1.0
) -> Network:
    """The network with separate, random feedback weights that do not learn."""
    taught = network(shape, classes, sized, feedback_gain, separate_feedback=True)
    for coupling in taught.terms.values():
        if isinstance(coupling, SeparateFeedback):
            coupling.feedback.requires_grad_(False)
    return taught


def turned_feedback(
    shape: tuple[int, int, int], classes: int, sized: Sized = list, *, angle: float, learn_feedback: bool
) -> Network:
    """The network with separate feedback weights, at first at an ``angle`` in degrees to the feedforward weights.

    They have the size of the feedforward weights; what is not parallel to these is random.
    """
    taught = network(shape, classes, sized, separate_feedback=True)
    turn = math.radians(angle)
    for coupling in taught.terms.values():
        for _, up, down in coupling.pairs() if isinstance(coupling, SeparateFeedback) else ():
            down.requires_grad_(learn_feedback)
            with torch.no_grad():
                apart = down - up * ((up * down).sum() / up.square().sum())
                down.copy_(math.cos(turn) * up + math.sin(turn) * apart * (up.norm() / apart.norm()))
    return taught


class Mnist(WritingOptions, ImageRecipe):
    """Adam, or pulses into devices, with a rate that falls to 0 by a cosine.

    Args:
        lr: the first learning rate.
    """

    lr: Positive = 1e-3
    epochs: Count = 5
    data: str = "ylecun/mnist"
    mean: Sequence[float] | None = PLAIN[0]
    std: Sequence[float] | None = PLAIN[1]

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        off = {} if self.write == "none" else {"lr": f"--write {self.write} takes --write_lr for all parameters"}
        return {**super().unused(estimator), **off}

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
        learning = {name: each for name, each in network.named_parameters() if each.requires_grad}
        optimizer = self.written(learning.items(), self.seed) or torch.optim.Adam(learning.values(), self.lr)
        return optimizer, CosineAnnealingLR(optimizer, periods)


class MnistNudge(NudgeOptions, Mnist):
    beta: float = 0.2
    free_sweeps: Count = 10
    nudged_sweeps: Count = 6

    @property
    def solvers(self) -> tuple[Solver, FixedSweeps]:
        return FromFeedforward(FixedSweeps(self.free_sweeps)), FixedSweeps(self.nudged_sweeps)


class FeedbackNudge(MnistNudge):
    """With feedback that may be weak.

    Args:
        feedback_gain: the factor of the drive of feedback; 1 is the symmetric network.
    """

    feedback_gain: float = 1.0

    def contrast(self, nudging: Stencil, teacher: Teacher, build: Callable[..., Network] = network) -> Experiment:
        taught_by = EquilibriumPropagation(nudging, *self.solvers, teacher=teacher)
        return self.run(partial(build, feedback_gain=self.feedback_gain), taught_by)


class StudyNudge(FeedbackNudge):
    """The rules of the comparative study of Scellier et al. (2023).

    Args:
        rule: cl: the output clamped at the target; pep, nep, cep: a force with the positive, the negative or both signs
            of beta; pcpl, ncpl, ccpl: coupled learning with these signs; tbp: backpropagation through the last
            nudged_sweeps sweeps; rbp: recurrent backpropagation, the exact gradient, at rest after up
            to 10 times free_sweeps.
    """

    rule: Literal["cl", "pep", "nep", "cep", "pcpl", "ncpl", "ccpl", "tbp", "rbp"] = "cep"

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        off = {"cl": ["beta"], "tbp": ["beta"], "rbp": ["beta", "nudged_sweeps"]}.get(self.rule, [])
        return {**super().unused(estimator), **dict.fromkeys(off, f"the rule {self.rule} has none")}

    def learn(self) -> Experiment:
        if self.rule == "cl":
            return self.contrast(one_sided(1.0), clamp)
        if self.rule == "tbp":
            through = BackpropagationThroughTime(FixedSweeps(self.free_sweeps), self.nudged_sweeps)
            return self.run(partial(network, feedback_gain=self.feedback_gain), through)
        if self.rule == "rbp":
            at_rest = FromFeedforward(UntilConverged(1e-3, 10 * self.free_sweeps))
            exact = InfinitesimalNudge(at_rest, ConjugateGradients(50, 1e-3))
            return self.run(partial(network, feedback_gain=self.feedback_gain), exact)
        signs = {"p": one_sided(self.beta), "n": one_sided(-self.beta), "c": symmetric(self.beta)}
        return self.contrast(signs[self.rule[0]], force if self.rule.endswith("ep") else clamp)


class WeakFeedbackClamp(FeedbackNudge):
    beta: float = 1.0
    feedback_gain: float = 0.1
    free_sweeps: Count = 6
    nudged_sweeps: Count = 4


class SeparateNudge(MnistNudge):
    """With separate feedback weights.

    Args:
        angle: between feedforward and feedback weights at first, in degrees.
        learn_feedback: whether feedback weights learn too.
    """

    angle: Annotated[float, ">= 0", "<= 180"] = 90.0
    learn_feedback: bool = True

    def apart(self, estimator: Estimator) -> Experiment:
        return self.run(partial(turned_feedback, angle=self.angle, learn_feedback=self.learn_feedback), estimator)

    def by(self, rule: Rule, teacher: Teacher = force) -> Experiment:
        return self.apart(EquilibriumPropagation(symmetric(self.beta), *self.solvers, rule, teacher=teacher))


def mnist_ep(**options: Any) -> Experiment:
    """Equilibrium propagation: a force on the output, both signs of beta (Laborieux et al. 2021)."""
    nudge = FeedbackNudge(**options)
    return nudge.contrast(symmetric(nudge.beta), force)


def mnist_chl(**options: Any) -> Experiment:
    """Contrastive Hebbian learning: the output clamped at the target, weak feedback (Xie & Seung 2003)."""
    nudge = WeakFeedbackClamp(**options)
    return nudge.contrast(one_sided(nudge.beta), clamp)


def mnist_coupled(**options: Any) -> Experiment:
    """Coupled learning: the output held between its free state and the target (Stern et al. 2021)."""
    nudge = FeedbackNudge(**options)
    return nudge.contrast(symmetric(nudge.beta), clamp)


def mnist_random_feedback(**options: Any) -> Experiment:
    """Contrastive Hebbian learning through fixed random feedback weights (Detorakis et al. 2019)."""
    nudge = WeakFeedbackClamp(**options)
    return nudge.contrast(one_sided(nudge.beta), clamp, random_feedback)


def mnist_vector_field(**options: Any) -> Experiment:
    """Separate feedback weights, each with its own update: biased (Laborieux et al. 2021, "different updates")."""
    return SeparateNudge(**options).by(vector_field)


def mnist_kolen_pollack(**options: Any) -> Experiment:
    """Separate feedback weights, one update shared by both (Laborieux et al. 2021, "same update")."""
    return SeparateNudge(**options).by(kolen_pollack)


def mnist_asymmetric(**options: Any) -> Experiment:
    """Separate feedback weights, asymmetric EP: unbiased by corrected nudged phases (Scurria et al. 2026)."""
    return SeparateNudge(**options).by(vector_field, corrected)


def mnist_dyadic(**options: Any) -> Experiment:
    """Separate feedback weights, dyadic EP: two copies of the network settle together (Scurria et al. 2026)."""
    nudge = SeparateNudge(**options)
    return nudge.apart(DyadicEP(nudge.beta, *nudge.solvers))


def mnist_study(**options: Any) -> Experiment:
    """Seven energy-based rules and two baselines, by one option (Scellier et al. 2023)."""
    return StudyNudge(**options).learn()


def mnist_holomorphic(beta: float = 0.4, points: int = 4, **options: Any) -> Experiment:
    """Holomorphic equilibrium propagation: nudges on a circle of complex numbers (Laborieux & Zenke 2022).

    Args:
        beta: the radius of the circle.
        points: the number of nudges on it.
    """
    nudge = MnistNudge(beta=beta, **options)
    return nudge.run(network, EquilibriumPropagation(holomorphic(beta, points), *nudge.solvers, teacher=force))


def mnist_continual(rate: float = 1e-3, **options: Any) -> Experiment:
    """Continual equilibrium propagation: weights change at every nudged sweep (Ernoult et al. 2020).

    Args:
        rate: the learning rate within the phases.
    """
    nudge = MnistNudge(**options)
    return nudge.run(network, ContinualEP(symmetric(nudge.beta), *nudge.solvers, rate))


def mnist_agnostic(epsilon: float = 1e-3, **options: Any) -> Experiment:
    """Agnostic equilibrium propagation, centred: weights relax like the states (Scellier et al. 2022).

    Args:
        epsilon: the inverse stiffness that holds the weights.
    """
    nudge = MnistNudge(**options)
    return nudge.run(network, AgnosticEP(symmetric(nudge.beta), *nudge.solvers, epsilon))


def mnist_dual(beta: float = 0.1, alpha: float = 0.5, passes: int = 1, **options: Any) -> Experiment:
    """Dual propagation: two states for each unit, in one phase (Høier et al. 2023).

    Args:
        beta: the strength of the nudge.
        alpha: the share of the upper state in the mean of the two.
        passes: the number of backward and forward passes.
    """
    return Mnist(**options).run(network, DualPropagation(beta, alpha, passes))


def mnist_backpropagation(**options: Any) -> Experiment:
    """Backpropagation through the feedforward network of the same weights: the baseline."""
    return Mnist(**options).run(network, Backpropagation())
