"""Reference gradients: to compare estimators with, and to train baselines. They are estimators themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps

import torch
from torch import Tensor

from eqprop.checks import Count, NonNegative
from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.energy.shapes import sum_per_example
from eqprop.errors import InputError, NotSettledError
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction
from eqprop.learning.rules import differentiate
from eqprop.settling.crossing import crossing
from eqprop.settling.displacement import check_differentiable
from eqprop.settling.solvers import FixedSweeps, Solution, Solver
from eqprop.settling.starts import check_feedforward, one_pass
from eqprop.settling.sweeps import Sweep, synchronous


@dataclass(frozen=True)
class BackpropagationThroughTime(Estimator):
    """Truncated: ``free.n`` sweeps from zero, the last ``last`` of them with an autograd graph.

    The reference of Laborieux et al. (2021, doi 10.3389/fnins.2021.633674): exact for the truncated unrolling. Its
    memory grows with ``last``. ``free``: solver of the free phase.

    Raises:
        InputError: ``last`` is not between 1 and ``free.n``; on use, a unit has no derivative, as a spin.
    """

    free: FixedSweeps
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.last <= self.free.n:
            raise InputError(f"last {self.last} must be between 1 and the free phase's {self.free.n} sweeps.")

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        check_differentiable(landscape)
        with torch.enable_grad():
            unrolled = landscape.rebuilt()
        counting = itertools.count(1)

        @wraps(self.free.sweep)
        def sweep(landscape: Landscape, state: State) -> State:
            last = next(counting) > self.free.n - self.last
            with torch.set_grad_enabled(last):
                return self.free.sweep(unrolled if last else landscape, state)

        settled = replace(self.free, sweep=sweep)(landscape, landscape.zeros())
        free = settled._replace(state=detached(settled.state))
        return free, partial(through, unrolled, settled.state)


@dataclass(frozen=True)
class Backpropagation(Estimator):
    """The gradient of the feedforward network with the same weights: one pass through the nodes, and back.

    Each node responds before any feedback, so nothing settles, and weights that only feed back have gradient 0. It is
    the baseline for training an equilibrium network, and the limit of learning with weak feedback (Xie & Seung 2003,
    doi 10.1162/089976603762552988).
    """

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return True  # autograd, as of any feedforward network

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        check_feedforward(landscape)
        with torch.enable_grad():
            passed = landscape.rebuilt()
            free = one_pass(passed)
        return free._replace(state=detached(free.state)), partial(through, passed, free.state)


def through(landscape: Landscape, state: State, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
    """Autograd along the graph of ``state``."""
    with torch.enable_grad():
        loss = cost.mean(cost.values(landscape, state))
        # The loss need not reach each parameter (a truncated unrolling, a pass without feedback): it then has 0.
        return GradientEstimate(torch.autograd.grad(loss, list(parameters), retain_graph=True, materialize_grads=True))


def detached(state: State) -> State:
    return {node: value.detach() for node, value in state.items()}


@dataclass(frozen=True)
class ImplicitDifferentiation(Estimator):
    """The exact gradient at the fixed point that the solver ``free`` finds.

    With s = F(s, theta) at rest and the cost's gradient c, dcost/dtheta = (dF/dtheta)^T a, where the adjoint
    a = c + (dF/ds)^T a is iterated until no entry changes by more than ``tolerance`` times the largest
    (recurrent backpropagation: Almeida 1987; Pineda 1987, doi 10.1103/PhysRevLett.59.2229).

    Attributes:
        free: solver of the free phase, from zero.
        tolerance: see above.
        steps: the largest number of steps of the adjoint.
        sweep: F, which must be stable at the fixed point: ``error_pass`` for predictive coding.

    Raises:
        NotSettledError: the adjoint did not converge in ``steps`` steps: the equilibrium is not stable, or not
            settled.
        InputError: on use, a unit has no derivative, as a spin.
    """

    free: Solver
    tolerance: NonNegative = 1e-10
    steps: Count = 10_000
    sweep: Sweep = synchronous

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        check_differentiable(landscape)
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free.state)

    def _learn(self, landscape: Landscape, state: State, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
        names = list(state)
        with torch.enable_grad():
            at = {node: value.detach().requires_grad_() for node, value in state.items()}
            rebuilt = landscape.rebuilt()
            moved, loss = self.sweep(rebuilt, at), cost.values(rebuilt, at)
            points = [at[node] for node in names]
            # Of each example's own loss: weights enter at the end, so that a large one cannot hide others' adjoints.
            gradient = torch.autograd.grad(loss.sum(), points, retain_graph=True, allow_unused=True)
            source = [torch.zeros_like(p) if g is None else g for p, g in zip(points, gradient, strict=True)]
            adjoint = source
            # Examples that are not finite from the start stay so, and do not decide for the others.
            finite = torch.stack([sum_per_example(each).isfinite() for each in (*points, *source)]).all(0)
            outputs = [moved[node] for node in names]
            least = crossing(landscape, self.sweep)  # before that, some node has not received its share
            for step in range(1, self.steps + 1):
                pulled = torch.autograd.grad(outputs, points, adjoint, retain_graph=True, allow_unused=True)
                new = [c if a is None else c + a for c, a in zip(source, pulled, strict=True)]
                change = max_abs([(n - a)[finite] for n, a in zip(new, adjoint, strict=True)])
                size = max_abs([n[finite] for n in new])
                adjoint = new
                if step >= least and change <= self.tolerance * size < math.inf:
                    break
                if not size < math.inf:
                    raise NotSettledError(
                        f"The exact gradient's adjoint overflowed after {step} steps: the equilibrium is not stable "
                        f"under {name_of(self.sweep)} sweeps, by which this reference iterates."
                    )
            else:
                raise NotSettledError(
                    f"The exact gradient's adjoint still changed by {change / size:.1e} of its size after "
                    f"{self.steps} steps: settle the free phase further, or raise `tolerance` or `steps`; if it "
                    "grows, the equilibrium is not stable and has no gradient."
                )
            through = torch.stack([sum_per_example(o * a) for o, a in zip(outputs, adjoint, strict=True)]).sum(0)
            return GradientEstimate(differentiate(cost.mean(through + loss), parameters))


def name_of(sweep: Sweep) -> str:
    return getattr(sweep, "__name__", type(sweep).__name__)


def max_abs(values: Sequence[Tensor]) -> float:
    """The largest absolute value in any of the tensors; 0 if they hold none."""
    return max((float(each.abs().max()) for each in values if each.numel()), default=0.0)
