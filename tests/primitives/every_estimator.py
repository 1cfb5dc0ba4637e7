"""Every estimator of the library, and what its gradient tends to as its nudge does to 0."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import eqprop as ep
from eqprop import learning
from eqprop.learning import forms

REST = ep.UntilConverged(1e-13, 20_000)
SWEEPS, NUDGED = ep.FixedSweeps(400, tolerance=1e-8), ep.FixedSweeps(120)
"""The first as far as float64 resolves, the second to what an error of 1e-4 asks."""
EXACT = ep.ImplicitDifferentiation(REST, 1e-13)

Data = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Way:
    """An estimator of one nudge, and the order in it of its bias; 0 where it has none.

    Attributes:
        make: beta -> estimator.
        small: a beta at which the bias is below 1e-4 of the gradient.
        feedforward: whether it tends to the gradient of the feedforward network, not of the equilibrium.
        weak: whether it does so only as feedback gains fall.
    """

    make: Callable[[float], ep.Estimator]
    order: int = 0
    small: float = 1e-4
    feedforward: bool = False
    weak: bool = False


def nudging(stencil: Callable[[float], learning.Nudging], **more: object) -> Callable[[float], ep.Estimator]:
    return lambda beta: ep.EquilibriumPropagation(stencil(beta), REST, REST, **more)


def either(name: str, way: Callable[..., Way]) -> dict[str, Way]:
    """In both forms."""
    return {f"{name} {form}": way(form=getattr(forms, form)) for form in ("states", "displacements")}


def stencil(make: Callable[[float], learning.Nudging], order: int, small: float = 1e-4, **more: object) -> Way:
    return Way(nudging(make, **more), order, small)


def rule(made: learning.Rule, **more: object) -> Way:
    return Way(nudging(ep.symmetric, rule=made, **more), 2, 1e-4, feedforward=True, weak=True)


PREDICTIVE = partial(learning.PredictiveLearning, SWEEPS, SWEEPS, 0, teacher=learning.soft_clamp)
WAYS: dict[str, Way] = {
    **either("one-sided", partial(stencil, ep.one_sided, 1, 1e-6)),
    **either("symmetric", partial(stencil, ep.symmetric, 2)),
    **either("five-point", partial(stencil, learning.five_point, 4, 1e-4)),
    **either("random sign", partial(stencil, learning.RandomSign, 1, 1e-6)),
    **either("holomorphic", partial(stencil, partial(learning.holomorphic, points=4), 4, 1e-3)),
    **either("vector field", partial(stencil, ep.symmetric, 2, rule=ep.vector_field)),
    **either("kolen-pollack", partial(stencil, ep.symmetric, 2, rule=learning.kolen_pollack)),
    **either("corrected", partial(stencil, ep.symmetric, 2, rule=ep.vector_field, teacher=learning.corrected)),
    **either("dyadic", lambda form: Way(lambda beta: learning.DyadicEP(beta, REST, REST, form), 2)),
    **either("soft clamp", partial(stencil, ep.symmetric, 2, teacher=learning.soft_clamp)),
    "in turn": stencil(ep.symmetric, 2, stacked=False),
    "noisy": stencil(ep.symmetric, 2, rule=learning.Noisy(ep.contrastive, 0.0)),
    "oscillating": Way(lambda beta: learning.OscillatingNudge(beta, 4, REST, REST, transient=0), 4, 1e-3),
    "lock-in": Way(lambda beta: learning.LockIn(beta, 8, REST, REST, transient=0), 2),
    "continual": Way(lambda beta: learning.ContinualEP(ep.symmetric(beta), SWEEPS, NUDGED, 1e-6 * beta), 0, 1e-4),
    "agnostic": Way(lambda beta: learning.AgnosticEP(ep.symmetric(beta), SWEEPS, NUDGED, 1e-6 * beta), 0, 1e-4),
    "infinitesimal, conjugate gradients": Way(
        lambda _: ep.InfinitesimalNudge(REST, ep.settling.ConjugateGradients(300, 1e-12))
    ),
    "infinitesimal, sweeps": Way(lambda _: ep.InfinitesimalNudge(REST, REST)),
    "infinitesimal, corrected": Way(lambda _: ep.InfinitesimalNudge(REST, REST, corrected=True)),
    "implicit": Way(lambda _: EXACT),
    "through time": Way(lambda _: ep.BackpropagationThroughTime(SWEEPS, SWEEPS.n)),
    "jacobian penalty": Way(lambda _: learning.JacobianPenalty(EXACT, learning.jacobian_norm, 0.0)),
    "rayleigh penalty": Way(lambda _: learning.RayleighPenalty(EXACT, 0.0)),
    "backpropagation": Way(lambda _: ep.Backpropagation(), feedforward=True),
    "dual": Way(learning.DualPropagation, 2, 1e-4, feedforward=True),
    "dual, high": Way(lambda beta: learning.DualPropagation(beta, 1.0), 1, 1e-6, feedforward=True),
    "dual, three passes": Way(lambda beta: learning.DualPropagation(beta, 0.5, 3), 2, 1e-4, feedforward=True),
    **either("recirculation", partial(rule, learning.generalised_recirculation)),
    **either("clamped presynaptic", partial(rule, learning.clamped_presynaptic)),
    **either("mean presynaptic", partial(rule, learning.mean_presynaptic)),
    **either("clamp", partial(rule, ep.contrastive, teacher=learning.clamp)),
    "predictive": Way(
        lambda beta: PREDICTIVE(learnt=6, predictor=learning.FreeStateBaseline(), beta=beta),
        1,
        1e-6,
        feedforward=True,
        weak=True,
    ),
}
"""By name. Six examples a batch, as ``predictive`` learns from so many."""


def forgotten() -> set[str]:
    """The names of the estimators that ``learning`` offers and no way above makes."""
    offered = {
        name
        for name, each in vars(learning).items()
        if inspect.isclass(each) and issubclass(each, ep.Estimator) and not inspect.isabstract(each)
    }
    return offered - {type(way.make(0.1)).__name__ for way in WAYS.values()}


def gradients(network: ep.Network, estimator: ep.Estimator, data: Data, target: Tensor) -> Tensor:
    """By all parameters and all data, in one vector; every phase settles, or it raises."""
    leaves = {name: x.clone().requires_grad_() for name, x in data.items()} if isinstance(data, Mapping) else None
    given = data.clone().requires_grad_() if leaves is None else leaves
    by = [*network.parameters(), *([given] if leaves is None else leaves.values())]
    loss = ep.Equilibrium(network, estimator, on_unsettled="raise").loss(given, target)
    found = torch.autograd.grad(loss, by, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def relative(found: Tensor, right: Tensor) -> float:
    return float((found - right).norm() / right.norm())
