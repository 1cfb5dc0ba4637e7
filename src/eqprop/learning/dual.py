"""Dual propagation: two states a unit in one phase, whose difference is the error signal of a feedforward network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from eqprop.energy.maps import sum_per_example
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction, nudge_of
from eqprop.learning.stencils import check_beta
from eqprop.settling.displacement import tangents, unit_of
from eqprop.settling.solvers import Solution
from eqprop.settling.starts import one_pass, upstream


@dataclass(frozen=True)
class DualPropagation(Estimator):
    """Each unit holds z+ and z-, driven by the mean of those before it and pushed apart by those after it.

    With a, what the nodes before drive a unit with at their means alpha z+ + (1 - alpha) z-, and D, what the nodes
    after send back of their own z+ - z- by the transposed message, plus beta times the loss's force at the mean,

        z+ = r(a + (1 - alpha) D),    z- = r(a - alpha D)

    (Hoier, Staudt & Zach 2023; in the form that is stable for every alpha: Hoier & Zach 2024). The estimate is
    -<d drive/d theta at the mean, z+ - z->/beta, and a read-out's own gradient at the mean. The mean moves from the
    feedforward pass, the prediction, by order D^2 alone; so as beta falls, it tends to ``Backpropagation``'s gradient,
    with an error of order beta^2 at alpha 1/2 and beta elsewhere, on smooth networks.

    Each term carries activity to the last of its nodes in the network's order, and errors from there. Separate feedback
    weights carry the errors where there are some, and have gradient 0.

    Attributes:
        beta: the nudge.
        alpha: the share of z+ in the mean, between 0 and 1.
        passes: backward and forward again, so many times. The first gives the order above, others the fixed point.
    """

    beta: float
    alpha: float = 0.5
    passes: int = 1

    def __post_init__(self) -> None:
        check_beta(self.beta)
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha {self.alpha} is not a share: it must be between 0 and 1.")
        if self.passes < 1:
            raise InputError(f"passes {self.passes}: without one, nothing comes back.")

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return True  # z+ and z- are never subtracted: their difference is what is kept

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        with torch.no_grad():
            free = one_pass(landscape)
        return free, partial(self._learn, landscape, free.state)

    def _learn(self, landscape: Landscape, free: State, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
        nudge = landscape.only({"nudge": nudge_of(cost, [self.beta])[0]})
        heard, rest = upstream(landscape), landscape.zeros()
        mean, apart = dict(free), dict(rest)  # of z+ and z-

        def around(node: str) -> State:
            """Where a node's terms are seen from: in the feedforward pass it has not answered when it hears them."""
            return mean | {node: rest[node]}

        def respond(node: str) -> None:
            unit = unit_of(landscape.nodes[node])
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
        with torch.enable_grad():
            rebuilt, seen = landscape.rebuilt(), landscape.masked(apart)
            carried = [
                sum_per_example(each.drive(around(node), node) * seen[node]) for node, each in upstream(rebuilt).items()
            ]
            objective = (cost.values(rebuilt, mean) - torch.stack(carried).sum(0) / self.beta).mean()
            gradients = torch.autograd.grad(objective, list(parameters), materialize_grads=True)
        # One pass already has the order of the error that is promised, so the change of the last one counts as near.
        nudged = Solution.from_states([before, settled], self.passes, torch.inf)
        return GradientEstimate(gradients, nudged._replace(distance=nudged.residual))
