"""How an estimator's bias falls with beta."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eqprop.diagnostics.gradients import Named, check_batch, double, estimate, joined, relative_error, undisturbed
from eqprop.diagnostics.references import exact_gradients
from eqprop.energy import Network, State, Target
from eqprop.errors import InputError
from eqprop.learning.estimators import Estimator

WITHIN = (1e-9, 0.1)


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
        errors.append(relative_error(joined(made.gradients), joined(known[1])))
    return fit(sorted(betas), errors, within)


def fit(betas: Sequence[float], errors: Sequence[float], within: tuple[float, float] = WITHIN) -> BiasCurve:
    """The power law through the points whose error lies ``within``."""
    points = [(b, e) for b, e in zip(betas, errors, strict=True) if within[0] <= e <= within[1]]
    order = constant = math.nan
    if len(points) > 1:
        x, y = np.log(np.array(points)).T
        order, height = (float(c) for c in np.polyfit(x, y, 1))
        constant = math.exp(height)
    return BiasCurve(tuple(betas), tuple(errors), tuple(b for b, _ in points), order, constant)
