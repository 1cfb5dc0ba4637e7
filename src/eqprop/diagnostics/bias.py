"""How the error of an estimator depends on beta: its bias, its noise, and where their sum is least."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

WITHIN = (1e-9, 0.1)

Family = Callable[[float], EquilibriumPropagation]
"""beta -> the estimator that nudges with it."""


@dataclass(frozen=True)
class BiasCurve:
    """Relative error of the whole gradient against beta, and the power law fitted to it.

    Attributes:
        betas, errors: the points.
        fitted: the betas that the fit took.
        order, constant: error = constant * beta^order, a straight line in logarithms by least squares; not a number
            when fewer than two points remain.
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
    """Hold ``make(beta)`` against the exact gradient at the equilibrium it finds, in float64.

    Args:
        make: beta -> estimator, which should settle further than the errors to be seen, e.g.
            ``UntilConverged(1e-12, 5000)``.
        within: the fit takes the betas whose error lies in this range: below it rounding and settling bend the curve,
            above it higher orders.

    Raises:
        InputError: fewer than two betas, or one that is not positive.
        NotSettledError: an estimator's free state leads to no rest.
    """
    if len(set(betas)) < 2 or min(betas) <= 0:
        raise InputError(f"betas {tuple(betas)}: give at least two different ones, all positive.")
    check_batch(network, x, y)
    twin, x = double(network), x.double()
    known: tuple[State, Named] | None = None
    errors = []
    for beta in sorted(betas):
        estimator = make(beta)
        with undisturbed(x, [estimator]):
            made = estimate(twin, estimator, x, y)
        state = made.free.state
        if known is None or not all(torch.equal(state[node], value) for node, value in known[0].items()):
            known = state, exact_gradients(twin, state, x, y)
        errors.append(relative_error(as_vector(made.gradients), as_vector(known[1])))
    return power_law(sorted(betas), errors, within)


def power_law(betas: Sequence[float], errors: Sequence[float], within: tuple[float, float] = WITHIN) -> BiasCurve:
    """The power law through the points whose error lies ``within``."""
    points = [(b, e) for b, e in zip(betas, errors, strict=True) if within[0] <= e <= within[1]]
    order = constant = math.nan
    if len(points) > 1:
        x, y = np.log(np.array(points)).T
        order, height = (float(c) for c in np.polyfit(x, y, 1))
        constant = math.exp(height)
    return BiasCurve(tuple(betas), tuple(errors), tuple(b for b, _ in points), order, constant)


@dataclass(frozen=True)
class Suggestion:
    """The best beta by a model of the error: bias = bias_constant beta^order, noise = noise_constant / beta.

    All errors are relative to the norm of the gradient of the batch that the model was fitted on.
    """

    order: int
    bias_constant: float
    noise_constant: float

    def bias(self, beta: float) -> float:
        return self.bias_constant * beta**self.order

    def noise(self, beta: float) -> float:
        """Root mean square over reads."""
        return self.noise_constant / beta

    @property
    def beta(self) -> float:
        """Where the sum of both is least: (noise_constant / (order bias_constant))^(1 / (order + 1))."""
        return (self.noise_constant / (self.order * self.bias_constant)) ** (1 / (self.order + 1))

    @property
    def error(self) -> float:
        """The sum of both at ``beta``. The two are independent, so the root mean square error is at most this."""
        return self.bias(self.beta) + self.noise(self.beta)

    def as_dict(self) -> dict[str, Any]:
        return vars(self) | {"beta": self.beta, "error": self.error}


def suggest_beta(
    network: Network,
    x: Tensor,
    y: Target,
    read_noise: float,
    reads: int,
    estimator: Family,
    probes: tuple[float, float] = (0.1, 0.05),
    draws: int = 8,
    seed: int = 0,
) -> Suggestion:
    """Fit bias and noise to two probe runs, and find the beta at which their sum is least; in float64.

    The bias falls as beta^order, so the difference of the two probes' estimates gives its constant, and their
    extrapolation the gradient (Richardson); no exact gradient is needed. The noise is that of ``draws`` noisy readings
    at the larger probe. Then beta* is proportional to (read_noise / sqrt(reads))^(1 / (order + 1)).

    Args:
        read_noise: standard deviation of one read of one unit's state.
        reads: how many reads are averaged.
        estimator: beta -> estimator, e.g. ``lambda beta: EquilibriumPropagation(symmetric(beta), free, nudged)``.
        probes: two betas at which the bias is small but not lost in rounding and settling.

    Raises:
        InputError: a number is out of range; or there is no noise, or no bias to weigh it against.
    """
    big, small = max(probes), min(probes)
    if not 0 < small < big or draws < 1:
        raise InputError(f"probes {probes}, draws {draws}: give two different positive betas, and at least one draw.")
    if not read_noise > 0:
        raise InputError(f"read_noise {read_noise}: without noise the smallest beta is best; see InfinitesimalNudge.")
    check_batch(network, x, y)
    twin, x = double(network), x.double()
    at = estimator(big)
    if not isinstance(at, EquilibriumPropagation):
        raise InputError(f"{at!r} is not an EquilibriumPropagation: give a function from beta to one.")
    order = at.nudging.draw().order
    with undisturbed(x):
        at_big, at_small = (as_vector(estimate(twin, estimator(beta), x, y).gradients) for beta in (big, small))
    slope = (at_big - at_small) / (big**order - small**order)
    size = float((at_small - slope * small**order).norm())
    bias = float(slope.norm()) / size if size else 0.0
    if not bias > 0:
        raise InputError(f"The estimates at beta {big} and {small} are the same or 0: there is no bias to weigh.")
    noise = noise_of(twin, x, y, read_noisily(at, read_noise, reads), at_big, draws, seed)
    return Suggestion(order, bias, big * noise / size)


def noise_of(
    network: Network, x: Tensor, y: Target, noisy: EquilibriumPropagation, quiet: Tensor, draws: int, seed: int
) -> float:
    """The root mean square, over ``draws``, of |noisy estimate - quiet|; quiet: (parameters,), the noiseless one."""
    with undisturbed(x, [noisy]):
        torch.manual_seed(seed)
        found = [as_vector(estimate(network, noisy, x, y).gradients) - quiet for _ in range(draws)]
    return math.sqrt(sum(float(each.square().sum()) for each in found) / draws)


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
    """Pairs: beta, and the root mean square of the noise relative to the norm of the noiseless estimate; in float64."""
    twin, x = double(network), x.double()
    found = []
    for beta in betas:
        with undisturbed(x):
            quiet = as_vector(estimate(twin, estimator(beta), x, y).gradients)
        noise = noise_of(twin, x, y, read_noisily(estimator(beta), read_noise, reads), quiet, draws, seed)
        found.append((beta, noise / float(quiet.norm())))
    return found
