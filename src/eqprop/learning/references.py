"""Reference gradients: what estimators are held against, and train as baselines.

Both serve wherever an estimator does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps

import torch
from torch import Tensor

from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError, NotSettledError
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction
from eqprop.learning.rules import differentiate
from eqprop.settling.crossing import crossing
from eqprop.settling.solvers import FixedSweeps, Solution, Solver
from eqprop.settling.starts import one_pass
from eqprop.settling.sweeps import synchronous


@dataclass(frozen=True)
class BackpropagationThroughTime(Estimator):
    """Truncated: ``free.n`` sweeps from rest, the last ``last`` of them with an autograd graph.

    The reference of Laborieux et al. (2021): exact for the truncated unrolling, with memory that grows with ``last``.
    """

    free: FixedSweeps
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.last <= self.free.n:
            raise InputError(f"last {self.last} must be between 1 and the free phase's {self.free.n} sweeps.")

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
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
    """The ordinary feedforward network of the same weights: one pass through the nodes in their order, and back.

    No feedback reaches a node before it answers, so nothing settles, and weights of feedback alone have gradient 0. It
    is the baseline that training an equilibrium network is held against, and what learning tends to where feedback
    is weak (Xie & Seung 2003).
    """

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return True  # autograd, as of any feedforward network

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        with torch.enable_grad():
            passed = landscape.rebuilt()
            free = one_pass(passed)
        return free._replace(state=detached(free.state)), partial(through, passed, free.state)


def through(landscape: Landscape, state: State, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
    """Autograd along the graph by which ``state`` came about."""
    with torch.enable_grad():
        loss = cost.values(landscape, state).mean()
        # The loss need not reach each parameter (a truncated unrolling, a pass without feedback): it then has 0.
        return GradientEstimate(torch.autograd.grad(loss, list(parameters), retain_graph=True, materialize_grads=True))


def detached(state: State) -> State:
    return {node: value.detach() for node, value in state.items()}


@dataclass(frozen=True)
class ImplicitDifferentiation(Estimator):
    """The exact gradient at the fixed point that ``free`` finds.

    With s = F(s, theta) at rest and the cost's gradient c, dcost/dtheta = (dF/dtheta)^T a, where the adjoint
    a = c + (dF/ds)^T a is iterated until no entry changes by more than ``tolerance`` times the largest
    (recurrent backpropagation: Almeida 1987, Pineda 1987).

    Raises:
        NotSettledError: the adjoint did not come to rest in ``steps`` steps: the equilibrium is not stable, or
            not settled.
    """

    free: Solver
    tolerance: float = 1e-10
    steps: int = 10_000

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        with torch.no_grad():
            free = self.free(landscape, landscape.zeros())
        return free, partial(self._learn, landscape, free.state)

    def _learn(self, landscape: Landscape, state: State, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
        names = list(state)
        with torch.enable_grad():
            at = {node: value.detach().requires_grad_() for node, value in state.items()}
            moved = synchronous(landscape.rebuilt(), at)
            loss = cost.values(landscape, at).mean()
            points = [at[node] for node in names]
            gradient = torch.autograd.grad(loss, points, retain_graph=True, allow_unused=True)
            source = [torch.zeros_like(p) if g is None else g for p, g in zip(points, gradient, strict=True)]
            adjoint = source
            outputs = [moved[node] for node in names]
            least = crossing(landscape, synchronous)  # before them some node has not received its share
            for step in range(1, self.steps + 1):
                pulled = torch.autograd.grad(outputs, points, adjoint, retain_graph=True, allow_unused=True)
                new = [c if a is None else c + a for c, a in zip(source, pulled, strict=True)]
                change = max(float((n - a).abs().max()) for n, a in zip(new, adjoint, strict=True))
                size = max(float(n.abs().max()) for n in new)
                adjoint = new
                if step >= least and change <= self.tolerance * size:
                    break
            else:
                raise NotSettledError(
                    f"The exact gradient's adjoint still changed by {change / size:.1e} of its size after "
                    f"{self.steps} steps: settle the free phase further, or raise `tolerance` or `steps`; if it "
                    "grows, the equilibrium is not stable and has no gradient."
                )
            through = sum((o * a).sum() for o, a in zip(outputs, adjoint, strict=True))
            return GradientEstimate(differentiate(through + loss, parameters))
