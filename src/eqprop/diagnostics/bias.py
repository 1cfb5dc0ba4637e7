"""The error of an estimator as a function of beta: its bias, its noise, and the minimum of their sum."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqprop.diagnostics.gradients import Named, as_vector, check_batch, double, estimate, relative_error, undisturbed
from eqprop.diagnostics.references import exact_gradients
from eqprop.energy import Network, State, Target
from eqprop.errors import InputError
from eqprop.learning import EquilibriumPropagation, Estimator, Noisy
from eqprop.learning.estimators import phases_apart

WITHIN = (1e-9, 0.1)

Family = Callable[[float], EquilibriumPropagation]
"""beta -> the estimator with this nudge."""


@dataclass(frozen=True)
class BiasCurve:
    """Relative error of the whole gradient for each beta, and the power law fitted to it.

    Attributes:
        betas, errors: the points.
        fitted: the betas that the fit uses.
        order, constant: error = constant * beta^order, a straight line in logarithms by least squares; NaN if fewer
            than two points remain.
    """

    betas: tuple[float, ...]
    errors: tuple[float, ...]
    fitted: tuple[float, ...]
    order: float
    constant: float


def bias_curve(
    network: Network,
    x: Tensor,
    y: Target,
    make: Callable[[float], Estimator],
    betas: Sequence[float],
    within: tuple[float, float] = WITHIN,
) -> BiasCurve:
    """The errors of ``make(beta)`` relative to the exact gradient at the equilibrium it finds, in float64.

    Args:
        network, x, y: as for ``compare``.
        make: beta -> estimator, which should settle to less than the errors to be measured, e.g. with
            ``UntilConverged(1e-12, 5000)``.
        betas: at least two, positive.
        within: the fit uses the betas with an error in this range: below it rounding and settling bend the curve, above
            it higher orders.

    Raises:
        InputError: fewer than two betas, or one that is not positive.
        NotSettledError: an estimator's free state does not lead to rest.
    """
    if len(set(betas)) < 2 or min(betas) <= 0:
        raise InputError(f"betas {tuple(betas)}: give at least two different ones, all positive.")
    check_batch(network, x, y)
    doubled, x = double(network), x.double()
    known: tuple[State, Named] | None = None
    errors = []
    for beta in sorted(betas):
        estimator = make(beta)
        with undisturbed(x, [estimator]):
            made = estimate(doubled, estimator, x, y)
        state = made.free.state
        if known is None or not all(torch.equal(state[node], value) for node, value in known[0].items()):
            known = state, exact_gradients(doubled, state, x, y)
        errors.append(relative_error(as_vector(made.gradients), as_vector(known[1])))
    return power_law(sorted(betas), errors, within)


def power_law(betas: Sequence[float], errors: Sequence[float], within: tuple[float, float] = WITHIN) -> BiasCurve:
    """The power law through the points with an error ``within`` the range."""
    points = [(b, e) for b, e in zip(betas, errors, strict=True) if within[0] <= e <= within[1]]
    order = constant = math.nan
    if len(points) > 1:
        x, y = np.log(np.array(points)).T
        order, height = (float(c) for c in np.polyfit(x, y, 1))
        constant = math.exp(height)
    return BiasCurve(tuple(betas), tuple(errors), tuple(b for b, _ in points), order, constant)


@dataclass(frozen=True)
class Suggestion:
    """The best beta for a model of the error, relative to the norm of the batch's gradient.

    Attributes:
        order, bias_constant: bias = bias_constant * beta^order.
        noise_constant: noise = noise_constant / beta.
    """

    order: float
    bias_constant: float
    noise_constant: float

    def bias(self, beta: float) -> float:
        """The relative bias at ``beta``."""
        return self.bias_constant * beta**self.order

    def noise(self, beta: float) -> float:
        """The relative noise at ``beta``: the root mean square over reads."""
        return self.noise_constant / beta

    @property
    def beta(self) -> float:
        """The minimum of their sum: (noise_constant / (order bias_constant))^(1 / (order + 1))."""
        return (self.noise_constant / (self.order * self.bias_constant)) ** (1 / (self.order + 1))

    @property
    def error(self) -> float:
        """The sum of both at ``beta``. The two are independent, so the root mean square error is at most this."""
        return self.bias(self.beta) + self.noise(self.beta)

    def as_dict(self) -> dict[str, Any]:
        """The attributes, ``beta`` and ``error``, for JSON."""
        return vars(self) | {"beta": self.beta, "error": self.error}


def suggest_beta(
    network: Network,
    x: Tensor,
    y: Target,
    estimator: Family,
    read_noise: float = 0.0,
    reads: int = 1,
    probes: tuple[float, float] = (0.1, 0.05),
    draws: int = 8,
    seed: int = 0,
) -> Suggestion:
    """The beta with the smallest sum of bias and noise, fitted to two probe runs in float64.

    The bias falls as beta^order, so the difference of the two probes' estimates gives its constant, and their
    extrapolation the gradient (Richardson); no exact gradient is needed. It is that against the gradient of the machine
    itself (``Substrate.as_made``). The noise is the deviation of repeated estimates from their mean: by what the
    network's own substrate draws anew, and by ``read_noise``. The part of it that falls as 1 / beta counts. The result
    is proportional to (size of the noise)^(1 / (order + 1)).

    Args:
        network, x, y: as for ``compare``; the network is on any substrate.
        estimator: beta -> estimator, e.g. ``lambda beta: EquilibriumPropagation(symmetric(beta), free, nudged)``.
        read_noise: standard deviation of one read of one unit's state, besides what the substrate draws.
        reads: how many reads are averaged.
        probes: two betas with a small bias, but above rounding and settling errors.
        draws: the number of repeated estimates.
        seed: of ``read_noise``, and of substrates that draw from torch's generator.

    Raises:
        InputError: a number is out of range; nothing is drawn anew, or nothing that beta divides; or there is no bias.
    """
    big, small = max(probes), min(probes)
    if not 0 < small < big or draws < 2:
        raise InputError(f"probes {probes}, draws {draws}: give two different positive betas, and at least two draws.")
    if not callable(estimator):
        raise InputError(f"{estimator!r} is no function: give one from beta to an EquilibriumPropagation.")
    if network.substrate.is_ideal and not read_noise > 0:
        raise InputError(
            f"read_noise {read_noise}, on the ideal substrate: without noise the smallest beta is best; see "
            "InfinitesimalNudge. Give the noise, or a network on a substrate that has some."
        )
    check_batch(network, x, y)
    doubled, x = double(network), x.double()
    made = doubled.on(doubled.substrate.as_made())
    at = estimator(big)
    if not isinstance(at, EquilibriumPropagation):
        raise InputError(f"{at!r} is not an EquilibriumPropagation: give a function from beta to one.")
    order = at.nudging.draw().order
    with undisturbed(x):
        at_big, at_small = (as_vector(estimate(made, estimator(beta), x, y).gradients) for beta in (big, small))
    slope = (at_big - at_small) / (big**order - small**order)
    size = float((at_small - slope * small**order).norm())
    bias = float(slope.norm()) / size if size else 0.0
    if not bias > 0:
        raise InputError(f"The estimates at beta {big} and {small} are the same or 0: there is no bias to weigh.")
    noises = [spread(doubled, x, y, read_noisily(estimator(beta), read_noise, reads), draws, seed) for beta in probes]
    if not max(noises) > 0:
        raise InputError(
            f"{network.substrate} draws nothing anew, so repeated estimates are equal and have no noise: give "
            "read_noise; what a fixed fault adds is in `eqprop check --substrate`."
        )
    by_beta, fixed = divided(dict(zip(probes, noises, strict=True)))
    if by_beta < fixed / 10:
        raise InputError(
            f"What {network.substrate} draws anew is the same in all phases of a step: its noise, {fixed / size:.2g} "
            "of the gradient, is the same at every beta; smaller steps average over it."
        )
    return Suggestion(order, bias, big * by_beta / size)


def best_beta(curve: BiasCurve, noise: float) -> Suggestion:
    """The best beta for a measured bias, and a noise of ``noise`` / beta.

    Args:
        curve: of the bias.
        noise: relative to the gradient, times beta.

    Raises:
        InputError: the measured bias does not grow with beta as a power of it.
    """
    if not (curve.order > 0 and curve.constant > 0):
        raise InputError(f"The bias at beta {list(curve.betas)} is {list(curve.errors)}: it follows no power of beta.")
    return Suggestion(curve.order, curve.constant, noise)


def spread(network: Network, x: Tensor, y: Target, estimator: EquilibriumPropagation, draws: int, seed: int) -> float:
    """The standard deviation of |estimate| over repeated ones, at least two; exactly 0 if nothing is drawn anew."""
    network, estimator = copy.deepcopy(network), phases_apart(estimator, network.substrate)
    with undisturbed(x, [estimator]):
        torch.manual_seed(seed)
        found = torch.stack([as_vector(estimate(network, estimator, x, y).gradients) for _ in range(draws)])
    return math.sqrt(float((found - found[0]).var(0).sum()))


def divided(errors: Mapping[float, float]) -> tuple[float, float]:
    """The part of an error that falls as 1 / beta, at the larger of two betas; and the one that is the same at both.

    error(beta)^2 = (first * larger / beta)^2 + second^2; ``errors``: beta -> error.
    """
    small, big = sorted(errors)
    whole = errors[big] ** 2
    first = min(max(errors[small] ** 2 - whole, 0.0) / ((big / small) ** 2 - 1), whole)
    return math.sqrt(first), math.sqrt(whole - first)


def read_noisily(estimator: EquilibriumPropagation, read_noise: float, reads: int) -> EquilibriumPropagation:
    return replace(estimator, rule=Noisy(estimator.rule, read_noise, reads))


def noise_curve(
    network: Network,
    x: Tensor,
    y: Target,
    estimator: Family,
    betas: Sequence[float],
    read_noise: float,
    reads: int,
    draws: int = 8,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """Pairs (beta, root mean square of the noise relative to the norm of the noiseless estimate), in float64."""
    doubled, x = double(network), x.double()
    found = []
    for beta in betas:
        with undisturbed(x):
            quiet = as_vector(estimate(doubled, estimator(beta), x, y).gradients)
        noise = spread(doubled, x, y, read_noisily(estimator(beta), read_noise, reads), draws, seed)
        found.append((beta, noise / float(quiet.norm())))
    return found
