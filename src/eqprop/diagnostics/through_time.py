"""The gradient-descending-updates property: nudged sweeps give the same gradient as backpropagation through time.

From a free equilibrium and with synchronous sweeps, the one-sided estimate after K nudged sweeps tends, as beta tends
to 0, to the gradient of backpropagation through the last K sweeps (Ernoult et al. 2019, arXiv 1905.13633; Laborieux et
al. 2021, doi 10.3389/fnins.2021.633674). Both sums here include the last step. A read-out is left out, as its whole
gradient arises in the first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eqprop.diagnostics.gradients import check_batch, double, loss_of
from eqprop.energy import Landscape, Network, State, Target
from eqprop.errors import InputError
from eqprop.learning import Cost, Rule, contrastive, forms
from eqprop.learning.estimators import Phase, compare, nudge_of
from eqprop.learning.teachers import Teacher, force
from eqprop.settling import FixedSweeps, synchronous

Sums = dict[str, Tensor]
"""Parameter name -> (sweeps, *parameter shape): the partial sums R(1), R(2), ..."""


@dataclass(frozen=True, eq=False)
class ThroughTime:
    """Partial sums over steps, of the estimates at ±beta and of backpropagation; float64.

    Attributes:
        beta: the nudge.
        plus, minus: R(K) is the one-sided estimate of that sign after K nudged sweeps.
        exact: R(K) is the gradient of backpropagation through the last K sweeps.
        residual: the largest change of a unit in the last free sweep. The property requires rest.
    """

    beta: float
    plus: Sums
    minus: Sums
    exact: Sums
    residual: float

    @property
    def mean(self) -> Sums:
        """The sums of the symmetric estimate."""
        return {name: (up + self.minus[name]) / 2 for name, up in self.plus.items()}

    def relative_distance(self) -> dict[str, float]:
        """Parameter -> the mean over entries of 2 |mean - exact| / (|+| + |-|), as in Laborieux et al. (2021).

        |+| and |-| are the two one-sided errors, all after the last step; if both are 0 the entry counts as 1. The
        result is in [0, 1]; at 1 the two errors have the same sign, so that the mean is no better.
        """
        found = {}
        for name, exact in self.exact.items():
            up, down = (sums[name][-1] - exact[-1] for sums in (self.plus, self.minus))
            apart = up.abs() + down.abs()
            found[name] = float(torch.where(apart > 0, (up + down).abs() / apart, 1).mean())
        return found

    def errors(self) -> list[dict[str, Any]]:
        """A row for each parameter and each of "+beta", "-beta", "mean": the errors of Laborieux et al. (2021).

        They compare the steps, not their sums. rmse: the mean over entries of rms(estimate - exact) / max(rms estimate,
        rms exact), with the rms over steps. wrong_signs: the share of entries and steps with opposite signs.
        """
        rows = []
        for side, sums in {"+beta": self.plus, "-beta": self.minus, "mean": self.mean}.items():
            for name in self.exact:
                found, exact = per_step(sums[name]), per_step(self.exact[name])
                wrong = float((found * exact < 0).double().mean())
                rows.append({"parameter": name, "estimate": side, "rmse": rmse(found, exact), "wrong_signs": wrong})
        return rows


def through_time(
    network: Network,
    x: Tensor,
    y: Target,
    beta: float,
    sweeps: int = 30,
    free: int = 200,
    rule: Rule = contrastive,
    teacher: Teacher = force,
) -> ThroughTime:
    """The partial sums of the estimates at ±beta, and of backpropagation through the last sweeps.

    In float64, with synchronous sweeps, in the form ``states``; one gradient for each sweep, and one backward pass for
    all of backpropagation's.

    Args:
        network, x, y: as for ``compare``.
        beta: the nudge; its negative is also used.
        sweeps: nudged sweeps of each sign, and sweeps to go back through.
        free: free sweeps before.
        rule: how phases become gradients; ``vector_field`` for networks without energy.
        teacher: how the nudge acts; with ``corrected`` the property holds without energy too.

    Raises:
        InputError: a number is out of range, or x and y do not fit the network.
    """
    check_batch(network, x, y)
    if beta == 0 or not 1 <= sweeps <= free:
        raise InputError(
            f"beta {beta}, sweeps {sweeps}, free {free}: beta must not be 0, and sweeps between 1 and free."
        )
    doubled, x = double(network), x.double()
    cost = Cost(loss_of(doubled), y, x.new_ones(len(x)))
    parameters = {f"couplings.{name}": p for name, p in doubled.couplings.named_parameters() if p.requires_grad}
    with torch.no_grad():
        landscape = doubled.landscape(x)
        before = landscape.zeros()
        if free > sweeps:
            before = FixedSweeps(free - sweeps, synchronous)(landscape, before).state
        settled = FixedSweeps(sweeps, synchronous)(landscape, before)
    teacher.check(landscape)
    plus, minus = (
        nudged_sums(landscape, settled.state, cost, b, sweeps, rule, teacher, parameters) for b in (beta, -beta)
    )
    exact = backpropagated_sums(doubled, x, before, cost, sweeps, list(parameters))
    return ThroughTime(beta, plus, minus, exact, float(settled.residual.max()))


def nudged_sums(
    landscape: Landscape,
    free: State,
    cost: Cost,
    beta: float,
    sweeps: int,
    rule: Rule,
    teacher: Teacher,
    parameters: Mapping[str, Tensor],
) -> Sums:
    """R(K) = (rule after K nudged sweeps - rule at the free state) / beta."""
    nudged = teacher(forms.states, landscape, free, nudge_of(cost, [beta])[0])

    def read(state: State) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            phases = compare(forms.states, landscape.rebuilt(), cost, [Phase(beta, 1 / beta)], free, state, teacher)
            return rule(phases, list(parameters.values()))

    start, state, sums = read(free), free, []
    for _ in range(sweeps):
        with torch.no_grad():
            state = synchronous(nudged, state)
        sums.append([now - then for now, then in zip(read(state), start, strict=True)])
    return {name: torch.stack(each) for name, each in zip(parameters, zip(*sums, strict=True), strict=True)}


def backpropagated_sums(
    network: Network, x: Tensor, state: State, cost: Cost, sweeps: int, parameters: Sequence[str]
) -> Sums:
    """R(K) = the gradient of the loss through the parameters' use in the last K of ``sweeps`` sweeps from ``state``.

    Every sweep has its own leaf of each parameter (they share memory), so one backward pass gives the contribution of
    each sweep.
    """
    landscape, own = network.landscape(x), dict(network.named_parameters())
    with torch.enable_grad():
        leaves = [{name: own[name].detach().requires_grad_() for name in parameters} for _ in range(sweeps)]
        for leaf in leaves:
            state = synchronous(landscape.rebuilt({id(own[name]): each for name, each in leaf.items()}), state)
        loss = cost.values(landscape, state).mean()
        flat = [leaf[name] for name in parameters for leaf in reversed(leaves)]
        found = iter(torch.autograd.grad(loss, flat, materialize_grads=True))
    return {name: torch.stack([next(found) for _ in range(sweeps)]).cumsum(0) for name in parameters}


def per_step(sums: Tensor) -> Tensor:
    """(steps, ...): what each step adds to the partial sums."""
    return sums.diff(dim=0, prepend=torch.zeros_like(sums[:1]))


def rmse(found: Tensor, exact: Tensor) -> float:
    apart, one, other = ((each.square().mean(0)).sqrt() for each in (found - exact, found, exact))
    return float((apart / (1e-10 + torch.maximum(one, other))).mean())
