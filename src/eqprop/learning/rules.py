"""Learning rules: what each parameter reads off the settled phases.

A rule takes the phases of one step and returns an estimate of the gradient of the mean loss.
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
Rule = Callable[[Phases, Sequence[Tensor]], Gradients]
"""(phases, parameters) -> the estimate of d mean loss / d parameter, for each."""


def contrastive(phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
    """d/dtheta of sum_k weight_k F(theta, s_k): the difference of the nudged energy between phases.

    Equilibrium propagation's rule (Scellier & Bengio 2017), and contrastive Hebbian learning's, each coupling
    amplified by what feedback gains have weakened (``Landscape.amplification``). With separate feedback weights, each
    of the two maps reads the product of activities at its own two ends (Kolen-Pollack without the tie).
    """
    return differentiate((phases.weight * (phases.contrast() + phases.cost())).sum(), parameters)


def vector_field(phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
    """-<d drive / d theta at the free state, change of the driven node>: for networks without energy.

    Each node's potential is read with that node nudged and its neighbours still free; so a feedforward weight
    sees the free presynaptic activity, a feedback weight the free postsynaptic one (Laborieux et al. 2021, "different
    updates"; Scellier et al. 2018). For a network with energy it equals ``contrastive`` to first order in beta.
    """
    return differentiate((phases.weight * (phases.work() + phases.cost())).sum(), parameters)


def kolen_pollack(phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
    """``contrastive``, each feedforward weight and its feedback weight then sharing the mean of both estimates.

    With equal learning rates and weight decay, the two converge to each other (Laborieux et al. 2021, "same update";
    Kolen & Pollack 1994).
    """
    found = dict(zip(map(id, parameters), contrastive(phases, parameters), strict=True))
    for term in phases.landscape.terms.values():
        for _, up, down in term.pairs() if isinstance(term, SeparateFeedback) else ():
            if id(up) in found and id(down) in found:
                found[id(up)] = found[id(down)] = (found[id(up)] + found[id(down)]) / 2
    return tuple(found[id(parameter)] for parameter in parameters)


@dataclass(frozen=True)
class DeltaRule:
    """-<d drive / d theta, change of the driven node>, over what each coupling drives its last node with.

    A weight learns by (its input) x (what its unit does under the teacher - what it did freely). One half of
    ``contrastive``, which sees changes at both ends; to first order in the feedback gain they are the same.

    Attributes:
        presynaptic: at which activity drives are read, from the free state (0) to the nudged one (1).
    """

    presynaptic: float

    def __call__(self, phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
        return differentiate((phases.weight * (phases.driven(self.presynaptic) + phases.cost())).sum(), parameters)


generalised_recirculation = DeltaRule(0.0)
"""Free presynaptic activity (O'Reilly 1996)."""
clamped_presynaptic = DeltaRule(1.0)
"""Nudged presynaptic activity, as the predictive rule of Luczak et al. (2022) has it."""
mean_presynaptic = DeltaRule(0.5)
"""The mean of both (dual propagation, Høier et al. 2023)."""


@dataclass(frozen=True)
class Noisy:
    """A rule that reads every unit's state with Gaussian noise, anew in each phase; from torch's generator.

    The noise of the estimate is then proportional to read_noise / (beta sqrt(reads)). The free state that some rules
    read beside the phases is left exact: its noise enters without the 1 / beta.

    Attributes:
        rule: what reads.
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
                "every state is read at least once."
            )

    def __call__(self, phases: Phases, parameters: Sequence[Tensor]) -> Gradients:
        noise = self.read_noise / math.sqrt(self.reads)
        read = {node: value + noise * torch.randn_like(value) for node, value in phases.moved.items()}
        return self.rule(replace(phases, moved=read), parameters)


def differentiate(objective: Tensor, parameters: Sequence[Tensor]) -> Gradients:
    """The gradient of a scalar, or of a complex one's real part; one for each parameter.

    Raises:
        InputError: a parameter does not enter it.
    """
    found = torch.autograd.grad(objective.real, list(parameters), allow_unused=True)
    for gradient, parameter in zip(found, parameters, strict=True):
        if gradient is None:
            raise InputError(
                f"A parameter of shape {tuple(parameter.shape)} takes no part in the energy or the loss, so it "
                "would silently never learn: remove it, or call requires_grad_(False) on it."
            )
    return found
