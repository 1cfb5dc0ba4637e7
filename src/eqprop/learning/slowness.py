"""A penalty on how slowly a network settles, learnt beside its loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator, Learn, Learnt
from eqprop.settling.displacement import slope, tangent, tangents
from eqprop.settling.solvers import Settled
from eqprop.settling.sweeps import alternating


def slowness(linear: Landscape, change: State) -> Tensor:
    """<v, A v> / <v, D^-1 v>, (batch,): v being a ``change``, A the derivative of the drives, D the units' slopes.

    The Rayleigh quotient of the synchronous sweep D A. Along the slowest mode it is mu, the factor by which that
    sweep's changes shrink (mu^2 for an alternating one), and 1 at the brink of instability.

    Raises:
        InputError: the network has no energy.
    """
    energies = linear.energies(change)
    own = torch.stack([energies.pop(node) for node in linear.nodes]).sum(0)
    coupled = sum(energies.values(), torch.zeros_like(own))
    return -coupled / own.clamp_min(torch.finfo(own.dtype).tiny)


@dataclass(frozen=True, eq=False)
class SlownessPenalty(Estimator):
    """Another estimator, with strength * slowness^2 added to what it descends, so that networks stay quick to settle.

    Training strengthens the feedback that a network hears of itself, and sweeps rise from a few to tens. What is left
    to settle lies along the slowest mode: this asks each example's last change how slow it is (``slowness``), and
    makes the weights answer for it, the state and the slopes of its units held. Two sweeps more, and one product of
    each synapse, on a share of the batch. Data get no share of it.

    Attributes:
        estimator: of the loss's gradient.
        strength: what the penalty, between 0 and 1, counts beside the loss.
        share: of the batch's examples, the first ones, that are asked.
    """

    estimator: Estimator
    strength: float
    share: float = 0.25

    def __post_init__(self) -> None:
        if not (self.strength >= 0 and 0 < self.share <= 1):
            raise InputError(f"strength {self.strength} must not be negative, and share {self.share} in (0, 1].")

    @property
    def sixteen_bits(self) -> bool:
        return self.estimator.sixteen_bits

    def generators(self) -> Iterable[torch.Generator]:
        return self.estimator.generators()

    def __call__(self, landscape: Landscape) -> tuple[Settled, Learn]:
        free, learn = self.estimator(landscape)
        return free, partial(self._learn, landscape, free, learn)

    def _learn(
        self, landscape: Landscape, free: Settled, learn: Learn, cost: Cost, parameters: Sequence[Tensor]
    ) -> Learnt:
        learnt = learn(cost, parameters)
        asked = torch.arange(max(1, round(self.share * len(free.sweeps))), device=free.sweeps.device)
        part, state = landscape.taken(asked), free.taken(asked).state
        with torch.no_grad():
            state, change = last_change(part, state)
            held = tangent(part, state, {})
        with torch.enable_grad():
            linear = held.only(tangents(part.rebuilt(), state))
            total = slowness(linear, change).clamp_min(0).square().mean()
        if not total.requires_grad:  # no node hears another
            return learnt
        found = torch.autograd.grad(total, list(parameters), allow_unused=True)
        gradients = tuple(
            gradient + self.strength * more if more is not None and isinstance(parameter, nn.Parameter) else gradient
            for gradient, more, parameter in zip(learnt.gradients, found, parameters, strict=True)
        )
        return learnt._replace(gradients=gradients)


def last_change(landscape: Landscape, state: State) -> tuple[State, State]:
    """The state after two sweeps more, and how the second one moved the units that could move on."""
    before = alternating(landscape, state)
    after = alternating(landscape, before)
    change = {
        name: (after[name] - before[name]) * (slope(node, landscape.drive(after, name)) > 0)
        for name, node in landscape.nodes.items()
    }
    return after, change
