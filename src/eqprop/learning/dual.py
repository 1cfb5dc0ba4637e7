"""Dual propagation: two states for each unit in one phase; their difference is the error signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from eqprop.checks import Count
from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.energy.shapes import sum_per_example
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction, nudge_of
from eqprop.learning.stencils import check_beta
from eqprop.learning.teachers import NUDGE
from eqprop.settling.displacement import tangents
from eqprop.settling.solvers import Solution
from eqprop.settling.starts import check_feedforward, one_pass, upstream


@dataclass(frozen=True)
class DualPropagation(Estimator):
    """Each unit has two states, z+ and z-. Nodes below drive both; nodes above and the loss separate them.

    Let a be the drive from the nodes below at their means alpha z+ + (1 - alpha) z-. Let D be the sum of the
    transposed messages of z+ - z- from the nodes above, plus beta times the loss's force at the mean. Then

        z+ = r(a + (1 - alpha) D),    z- = r(a - alpha D)

    (Høier, Staudt & Zach 2023, arXiv 2302.01228; the form that is stable for every alpha: Høier & Zach 2024, arXiv
    2402.08573). The estimate is -<d drive/d theta at the mean, z+ - z->/beta, plus a read-out's own gradient at the
    mean. The mean differs from the feedforward pass only by order D^2, so the estimate tends to the gradient of
    ``Backpropagation`` as beta tends to 0: with an error of order beta^2 for alpha 1/2, else beta, on smooth networks.

    Each term sends activity to the last of its nodes in the network's order, and errors back from it. Separate
    feedback weights, where a term has them, send the errors; their own gradient is 0.

    Attributes:
        beta: the nudge.
        alpha: the share of z+ in the mean, between 0 and 1.
        passes: the number of backward and forward passes. One gives the order above, many the fixed point.

    Raises:
        InputError: an argument is out of range; a unit has no response; or a term is quadratic in a node.
    """

    beta: float
    alpha: Annotated[float, ">= 0", "<= 1"] = 0.5
    passes: Count = 1

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return True  # it stores the difference of z+ and z-, and never subtracts them

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        check_feedforward(landscape)
        for name, term in landscape.terms.items():
            if term.quadratic:
                raise InputError(f"The coupling {name!r} is quadratic in a node, which dual propagation cannot follow.")
        with torch.no_grad():
            free = one_pass(landscape)
        return free, partial(self._learn, landscape, free.state)

    def _learn(self, landscape: Landscape, free: State, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
        nudge = landscape.only({NUDGE: landscape.substrate.injected(nudge_of(cost, [self.beta])[0])})
        heard, rest = upstream(landscape, landscape.nodes), landscape.zeros()
        mean, apart = dict(free), dict(rest)  # of z+ and z-

        def around(node: str) -> State:
            """Where a node's terms are evaluated: as in a feedforward pass, its own state is still zero."""
            return mean | {node: rest[node]}

        def respond(node: str) -> None:
            unit = landscape.unit(node)
            low = drives[node] - self.alpha * pushes[node]
            apart[node] = unit.difference(low, pushes[node])
            mean[node] = unit.response(low) + self.alpha * apart[node]

        def pair() -> State:
            """z+ and z-, stacked along the batch."""
            return {
                n: torch.cat([mean[n] + (1 - self.alpha) * apart[n], mean[n] - self.alpha * apart[n]]) for n in mean
            }

        with torch.no_grad():
            drives = {node: heard[node].drive(around(node), node) for node in heard}
            for _ in range(self.passes):
                before = pair()
                pushes = rest | {node: nudge.drive(mean, node) for node in cost.loss.nodes}
                for node in reversed(heard):
                    respond(node)
                    back = heard[node].only(tangents(heard[node], around(node)))
                    for other in {n for term in back.terms.values() for n in term.nodes} - {node}:
                        pushes[other] = pushes[other] + back.drive(rest | {node: apart[node]}, other)
                for node in heard:
                    drives[node] = heard[node].drive(around(node), node)
                    respond(node)
            settled = pair()
            if not landscape.substrate.is_ideal:
                batch, measured = len(cost.weight), landscape.substrate.measured
                true = [{n: v[part] for n, v in settled.items()} for part in (slice(batch), slice(batch, None))]
                high, low = measured(true[0], 1), measured(true[1], 2)
                if high is not true[0] or low is not true[1]:  # subtracting would round
                    apart = {n: high[n] - low[n] for n in high}
                    mean = {n: low[n] + self.alpha * apart[n] for n in low}
        with torch.enable_grad():
            rebuilt, seen = landscape.rebuilt(), landscape.masked(apart)
            carried = [
                sum_per_example(each.drive(around(node), node) * seen[node])
                for node, each in upstream(rebuilt, rebuilt.nodes).items()
            ]
            objective = cost.mean(cost.values(rebuilt, mean) - torch.stack(carried).sum(0) / self.beta)
            gradients = torch.autograd.grad(objective, list(parameters), materialize_grads=True)
        # One pass has the order of error that the class states, so the change in the last pass counts as settled.
        nudged = Solution.from_states([before, settled], self.passes, torch.inf)
        return GradientEstimate(gradients, nudged._replace(distance=nudged.residual))
