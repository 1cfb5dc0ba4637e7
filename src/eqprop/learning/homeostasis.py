"""Penalties on a network's Jacobian, learnt beside its loss: for feedback like the transpose, or for quick settling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from eqprop.energy.maps import flat
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator, Learn, Learnt
from eqprop.learning.stencils import Generator
from eqprop.settling.displacement import tangent, tangents
from eqprop.settling.solvers import Settled

Penalty = Callable[[Landscape, State], Tensor]
"""(linear landscape round a state, probe) -> (batch,): what its mean over probes of +1 and -1 is to make small."""


def asymmetry(linear: Landscape, probe: State) -> Tensor:
    """|A e|^2 - <e, A A e>, (batch,): half of |A - A^T|^2 on average over e, A being the Jacobian of the drives.

    Jacobian homeostasis (Laborieux & Zenke 2024). It is 0 for each probe where the network has an energy.
    """

    def pushed(by: State) -> State:
        # Silenced units drop out on both sides, and the others count alike as senders and as receivers.
        return linear.visible({node: linear.drive(by, node) for node in linear.nodes})

    once = pushed(probe)
    twice = pushed(once)
    return torch.stack([flat(once[n].square() - probe[n] * twice[n]) for n in probe]).sum(0)


def steepness(linear: Landscape, probe: State) -> Tensor:
    """|J e|^2, (batch,): |J|^2 on average over e, J being the Jacobian of the synchronous sweep.

    A network of small J settles in few sweeps (Bai, Koltun & Kolter 2021).
    """
    moved = linear.relax(probe, linear.nodes)
    return torch.stack([flat(value.square()) for value in moved.values()]).sum(0)


@dataclass(frozen=True, eq=False)
class JacobianPenalty(Estimator):
    """Another estimator, with strength * penalty / units added to what it descends.

    The penalty is that of the free state, which is held, as are the slopes of its units; the mean over the batch
    (each example counts the same, whatever its weight) and over random probes (Hutchinson 1990). In ``loss`` it is
    scaled along with the loss. Behind ``model(x)`` each backward pass adds it as it is, whatever the loss there. Data
    get no share of it.

    A probe's gradient is noisy even where separate feedback weights have become the transpose: where its weight is
    constant they stay off by an angle that falls with the learning rate and with probes times examples.

    Attributes:
        estimator: of the loss's gradient.
        penalty: ``asymmetry``, ``steepness``, or your own.
        strength: what the penalty counts beside the loss.
        probes: random vectors a step, drawn from a generator of its own, seeded with ``seed``.
    """

    estimator: Estimator
    penalty: Penalty
    strength: float
    probes: int = 5
    seed: int = 0
    generator: Generator = field(default_factory=Generator, repr=False, init=False)

    def __post_init__(self) -> None:
        if self.probes < 1 or not self.strength >= 0:
            raise InputError(f"probes {self.probes} must be at least 1, and strength {self.strength} not negative.")
        self.generator.manual_seed(self.seed)

    @property
    def sixteen_bits(self) -> bool:
        return self.estimator.sixteen_bits

    def generators(self) -> Iterable[torch.Generator]:
        return (*self.estimator.generators(), self.generator)

    def __call__(self, landscape: Landscape) -> tuple[Settled, Learn]:
        free, learn = self.estimator(landscape)
        return free, partial(self._learn, landscape, free.state, learn)

    def _learn(
        self, landscape: Landscape, state: State, learn: Learn, cost: Cost, parameters: Sequence[Tensor]
    ) -> Learnt:
        learnt = learn(cost, parameters)
        with torch.no_grad():
            held = tangent(landscape, state, {})
        with torch.enable_grad():
            linear = held.only(tangents(landscape.rebuilt(), state))
            total = torch.stack([self.penalty(linear, self._probe(state)).mean() for _ in range(self.probes)]).mean()
        if not total.requires_grad:  # no node hears another
            return learnt
        found = torch.autograd.grad(total, list(parameters), allow_unused=True)
        scale = self.strength / sum(node.units for node in landscape.nodes.values())
        gradients = tuple(
            gradient + scale * more if more is not None and isinstance(parameter, nn.Parameter) else gradient
            for gradient, more, parameter in zip(learnt.gradients, found, parameters, strict=True)
        )
        return learnt._replace(gradients=gradients)

    def _probe(self, state: State) -> State:
        """+1 and -1, (batch, *node shape)."""
        return {
            node: (2 * torch.randint(2, value.shape, generator=self.generator) - 1).to(value)
            for node, value in state.items()
        }
