"""References for estimators: exact gradients at the equilibrium that an estimator found.

Equilibria are not unique, so the exact gradient at another one is no reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.diagnostics.gradients import Named, double, double_data, estimate, learning, loss_of
from eqprop.energy import Network, State, Target
from eqprop.energy.network import Data
from eqprop.errors import InputError, NotSettledError
from eqprop.learning import Cost, Estimator, ImplicitDifferentiation
from eqprop.settling import FromState, Solution, UntilConverged

Reference = Callable[[Network, Estimator, Solution, Data, Target], Named]
"""(network, estimator to compare, its free phase, x, y) -> the reference gradients, by name."""

REST = 1e-12
SWEEPS = 5000
AT_REST = 1e-8


def exact_gradients(network: Network, state: State, x: Data, y: Target) -> Named:
    """The gradients by implicit differentiation, in float64, at the equilibrium that ``state`` leads to.

    ``network``, ``x``, ``y``: as for ``compare``.

    Raises:
        NotSettledError: ``state`` does not lead to rest, or the equilibrium is not stable.
    """
    exact = ImplicitDifferentiation(onward(state), tolerance=1e-10, steps=SWEEPS)
    found = estimate(double(network), exact, double_data(x), y)
    check_rest(found.free)
    return found.gradients


def implicit(network: Network, estimator: Estimator, settled: Solution, x: Data, y: Target) -> Named:
    """The exact gradient at the estimator's own equilibrium: the default reference.

    Args:
        network, x, y: as for ``compare``.
        estimator: is not used.
        settled: the estimator's free phase.
    """
    return exact_gradients(network, settled.state, x, y)


@dataclass(frozen=True)
class FiniteDifferences:
    """Central differences of the settled loss at the estimator's own equilibrium, in float64, for tiny networks.

    Each parameter is changed by ±``step``, and the network settles from the equilibrium before.

    Raises:
        InputError: the network has more than ``limit`` parameters.
        NotSettledError: it does not settle.
    """

    step: float = 1e-4
    limit: int = 4000

    def __call__(self, network: Network, estimator: Estimator, settled: Solution, x: Data, y: Target) -> Named:
        doubled, x = double(network), double_data(x)
        parameters = learning(doubled)
        count = sum(parameter.numel() for parameter in parameters.values())
        if count > self.limit:
            raise InputError(
                f"Finite differences of {count:,} parameters would settle {2 * count:,} times; the limit is "
                f"{self.limit:,} parameters. Use the implicit gradient, or raise `limit`."
            )
        with torch.no_grad():
            rest = onward(settled.state)(doubled.landscape(x), doubled.landscape(x).zeros()).state
            return {name: self._slopes(doubled, parameter, rest, x, y) for name, parameter in parameters.items()}

    def _slopes(self, network: Network, parameter: Tensor, rest: State, x: Data, y: Target) -> Tensor:
        whole, slopes = parameter.clone(), torch.empty_like(parameter)
        for i in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                parameter.view(-1)[i] += sign * self.step
                values.append(self._loss(network, rest, x, y))
                parameter.copy_(whole)
            slopes.view(-1)[i] = (values[0] - values[1]) / (2 * self.step)
        return slopes

    def _loss(self, network: Network, rest: State, x: Data, y: Target) -> float:
        landscape = network.landscape(x)
        free = onward(rest)(landscape, landscape.zeros())
        check_rest(free)
        return float(
            Cost(loss_of(network), y, landscape.like.new_ones(len(landscape.like))).values(landscape, free.state).mean()
        )


def onward(state: State) -> FromState:
    """The solver that continues from a state to its equilibrium."""
    return FromState(state, UntilConverged(REST, SWEEPS))


def check_rest(free: Solution) -> None:
    residual = float(free.residual.max())
    if not residual <= AT_REST:
        raise NotSettledError(
            f"The free state leads to no rest: after {SWEEPS} more sweeps, node {free.worst_node()!r} still changes "
            f"by {residual:.1e}. There is no exact gradient to compare this estimate with."
        )
