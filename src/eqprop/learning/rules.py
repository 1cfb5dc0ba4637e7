"""Learning rules: from the settled phases of one step to an estimate of the gradient of the mean loss.

Each rule takes ``phases`` and ``parameters``, and returns one gradient for each parameter.
Laborieux et al. 2021: doi 10.3389/fnins.2021.633674.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqprop.energy.couplings import SeparateFeedback
from eqprop.errors import InputError
from eqprop.learning.forms import Phases

Gradients = tuple[Tensor, ...]
"""One for each parameter, of its shape."""
Rule = Callable[[Phases, Sequence[Tensor]], Gradients]
"""(phases, parameters) -> the estimate of d mean loss / d parameter, for each."""


def contrastive(phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
    """The gradient d/dtheta of sum_k weight_k F(theta, s_k): the contrast of the nudged energy between ``phases``.

    The rule of equilibrium propagation (Scellier & Bengio 2017, doi 10.3389/fncom.2017.00024) and of contrastive
    Hebbian learning; each coupling is multiplied by the inverse of the feedback gains on the path to it
    (``amplification_from``). With separate feedback weights, each map uses the activities at its own two ends. One
    gradient for each of the ``parameters``.
    """
    return differentiate((phases.weight * (phases.contrast() + phases.cost())).sum(), parameters)


def vector_field(phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
    """The estimate -<d drive / d theta at the free state, displacement of the driven node>, without any energy.

    It evaluates each node's potential with that node nudged and its neighbours free. So a feedforward weight uses the
    free presynaptic activity, and a feedback weight the free postsynaptic one (Laborieux et al. 2021, "different
    updates"; Scellier et al. 2018, arXiv 1808.04873). For a network with an energy it equals ``contrastive`` to first
    order in beta. ``phases``, ``parameters``: as for any ``Rule``.
    """
    return differentiate((phases.weight * (phases.vector_field_objective() + phases.cost())).sum(), parameters)


def kolen_pollack(phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
    """The ``contrastive`` estimate; a feedforward weight and its feedback weight both get the mean of their estimates.

    With equal learning rates and weight decay, the two weights converge to each other (Laborieux et al. 2021, "same
    update"; Kolen & Pollack 1994, doi 10.1109/ICNN.1994.374486). ``phases``, ``parameters``: as for any ``Rule``.
    """
    found = dict(zip(map(id, parameters), contrastive(phases, parameters), strict=True))
    for term in phases.landscape.terms.values():
        for _, up, down in term.pairs() if isinstance(term, SeparateFeedback) else ():
            if id(up) in found and id(down) in found:
                found[id(up)] = found[id(down)] = (found[id(up)] + found[id(down)]) / 2
    return tuple(found[id(parameter)] for parameter in parameters)


@dataclass(frozen=True)
class DeltaRule:
    """-<d drive / d theta, displacement of the driven node>, for the drive of each coupling on its last node.

    A weight changes by (its input) x (its unit's activity with the teacher - the free activity). This is one half of
    ``contrastive``, which uses the displacements of both ends; to first order in the feedback gain they are equal.

    Attributes:
        presynaptic: the state at which drives are evaluated, from the free one (0) to the nudged one (1).
    """

    presynaptic: float

    def __call__(self, phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
        return differentiate((phases.weight * (phases.driven(self.presynaptic) + phases.cost())).sum(), parameters)


generalised_recirculation = DeltaRule(0.0)
"""Free presynaptic activity (O'Reilly 1996, doi 10.1162/neco.1996.8.5.895)."""
clamped_presynaptic = DeltaRule(1.0)
"""Nudged presynaptic activity, as in the predictive rule (Luczak et al. 2022, doi 10.1038/s42256-021-00430-y)."""
mean_presynaptic = DeltaRule(0.5)
"""The mean of both (dual propagation, Høier et al. 2023, arXiv 2302.01228)."""


@dataclass(frozen=True)
class Noisy:
    """Another rule on states with Gaussian read noise, drawn for each unit and phase from torch's generator.

    The noise of the estimate is proportional to read_noise / (beta sqrt(reads)). The free state that some rules also
    read has no noise here, as its noise is not divided by beta.

    Attributes:
        rule: the rule that reads the noisy states.
        read_noise: standard deviation of one read.
        reads: how many reads of each state are averaged.

    Raises:
        InputError: read_noise is negative, or reads not positive.
    """

    rule: Rule
    read_noise: float
    reads: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.read_noise < float("inf") or self.reads < 1:
            raise InputError(
                f"read_noise {self.read_noise:g}, reads {self.reads}: the noise must be finite and not negative, and "
                "every state must be read at least once."
            )

    def __call__(self, phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
        noise = self.read_noise / math.sqrt(self.reads)
        read = {node: value + noise * torch.randn_like(value) for node, value in phases.displacement.items()}
        return self.rule(replace(phases, displacement=read, reached=None), parameters)


def differentiate(objective: Tensor, parameters: Sequence[Tensor]) -> Gradients:
    """The gradient of a scalar, or of its real part if it is complex; one for each parameter.

    Raises:
        InputError: it does not depend on a parameter.
    """
    found = torch.autograd.grad(objective.real, list(parameters), allow_unused=True)
    for gradient, parameter in zip(found, parameters, strict=True):
        if gradient is None:
            raise InputError(
                f"A parameter of shape {tuple(parameter.shape)} takes no part in the energy or the loss, so it "
                "would silently never learn: remove it, or call requires_grad_(False) on it."
            )
    return found
