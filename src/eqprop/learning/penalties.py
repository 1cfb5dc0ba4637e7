"""Penalties on a network's Jacobian, learnt beside its loss: for feedback like the transpose, or for quick settling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from eqprop.energy.maps import sum_per_example
from eqprop.energy.network import Landscape
from eqprop.energy.nodes import State
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction
from eqprop.learning.stencils import Generator
from eqprop.settling.displacement import slope_of, tangent, tangents
from eqprop.settling.solvers import Solution, tiny
from eqprop.settling.sweeps import alternating

Penalty = Callable[[Landscape, State], Tensor]
"""(linear landscape round a state, probe) -> (batch,): what its mean over probes of +1 and -1 is to make small."""


def jacobian_asymmetry(linear: Landscape, probe: State) -> Tensor:
    """|A e|^2 - <e, A A e>, (batch,): half of |A - A^T|^2 on average over e, A being the Jacobian of the drives.

    Jacobian homeostasis (Laborieux & Zenke 2024). It is 0 for each probe where the network has an energy.
    """

    def pushed(by: State) -> State:
        # Silenced units drop out on both sides, and the others count alike as senders and as receivers.
        return linear.masked({node: linear.drive(by, node) for node in linear.nodes})

    once = pushed(probe)
    twice = pushed(once)
    return torch.stack([sum_per_example(once[n].square() - probe[n] * twice[n]) for n in probe]).sum(0)


def jacobian_norm(linear: Landscape, probe: State) -> Tensor:
    """|J e|^2, (batch,): |J|^2 on average over e, J being the Jacobian of the synchronous sweep.

    A network of small J settles in few sweeps (Bai, Koltun & Kolter 2021).
    """
    moved = linear.relax(probe, linear.nodes)
    return torch.stack([sum_per_example(value.square()) for value in moved.values()]).sum(0)


def rayleigh_quotient(linear: Landscape, change: State) -> Tensor:
    """<v, A v> / <v, D^-1 v>, (batch,): v being a ``change``, A the derivative of the drives, D the units' slopes.

    The Rayleigh quotient of the synchronous sweep D A. Along the slowest mode it is mu, the factor by which that
    sweep's changes shrink (mu^2 for an alternating one), and 1 at the brink of instability. Units at slope 0
    cannot move.

    Raises:
        InputError: the network has no energy.
    """
    moving = {name: change[name] * (slope_of(name, node) > 0) for name, node in linear.nodes.items()}
    own = torch.stack(list(linear.node_energies(moving).values())).sum(0)
    coupled = sum(linear.term_energies(moving).values(), torch.zeros_like(own))
    return -coupled / own.clamp_min(tiny(own))


@dataclass(frozen=True, eq=False)
class Penalised(Estimator):
    """Another estimator, with a penalty on the network round its free state added to what it descends.

    Attributes:
        estimator: of the loss's gradient.
    """

    estimator: Estimator

    def sixteen_bits(self, landscape: Landscape) -> bool:
        return self.estimator.sixteen_bits(landscape)

    def generators(self) -> Iterable[torch.Generator]:
        return self.estimator.generators()

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        free, learn = self.estimator(landscape)
        return free, partial(self._learn, landscape, free, learn)

    @abstractmethod
    def _penalty(self, landscape: Landscape, free: Solution) -> tuple[float, Tensor]:
        """What the penalty counts, and its mean over examples, as a function of the parameters; within enable_grad."""

    def _learn(
        self, landscape: Landscape, free: Solution, learn: GradientFunction, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate:
        learnt = learn(cost, parameters)
        with torch.enable_grad():
            counts, total = self._penalty(landscape, free)
        if not total.requires_grad:  # no node hears another
            return learnt
        found = torch.autograd.grad(total, list(parameters), allow_unused=True)
        gradients = tuple(
            gradient + counts * more if more is not None and isinstance(parameter, nn.Parameter) else gradient
            for gradient, more, parameter in zip(learnt.gradients, found, parameters, strict=True)
        )
        return learnt._replace(gradients=gradients)


def linearised(landscape: Landscape, state: State) -> Landscape:
    """The landscape of small displacements round ``state``: its parameters learn, the slopes of its units are held."""
    with torch.no_grad():
        held = tangent(landscape, state, {})
    return held.only(tangents(landscape.rebuilt(), state))


@dataclass(frozen=True, eq=False)
class JacobianPenalty(Penalised):
    """Another estimator, with strength * penalty / units added to what it descends.

    The penalty is that of the free state, which is held, as are the slopes of its units; the mean over the batch
    (each example counts the same, whatever its weight) and over random probes (Hutchinson 1990). In ``loss`` it is
    scaled along with the loss. Behind ``model(x)`` each backward pass adds it as it is, whatever the loss there. Data
    get no share of it.

    A probe's gradient is noisy even where separate feedback weights have become the transpose: where its weight is
    constant they stay off by an angle that falls with the learning rate and with probes times examples.

    Attributes:
        estimator: of the loss's gradient.
        penalty: ``jacobian_asymmetry``, ``jacobian_norm``, or your own.
        strength: what the penalty counts beside the loss.
        probes: random vectors a step, drawn from a generator of its own, seeded with ``seed``.
    """

    penalty: Penalty
    strength: float
    probes: int = 5
    seed: int = 0
    generator: Generator = field(default_factory=Generator, repr=False, init=False)

    def __post_init__(self) -> None:
        if self.probes < 1 or not self.strength >= 0:
            raise InputError(f"probes {self.probes} must be at least 1, and strength {self.strength} not negative.")
        self.generator.manual_seed(self.seed)

    def generators(self) -> Iterable[torch.Generator]:
        return (*super().generators(), self.generator)

    def _penalty(self, landscape: Landscape, free: Solution) -> tuple[float, Tensor]:
        linear = linearised(landscape, free.state)
        means = [self.penalty(linear, self._probe(free.state)).mean() for _ in range(self.probes)]
        return self.strength / sum(node.units for node in landscape.nodes.values()), torch.stack(means).mean()

    def _probe(self, state: State) -> State:
        """+1 and -1, (batch, *node shape)."""
        return {
            node: (2 * torch.randint(2, value.shape, generator=self.generator) - 1).to(value)
            for node, value in state.items()
        }


@dataclass(frozen=True, eq=False)
class RayleighPenalty(Penalised):
    """Another estimator, with strength * slowness^2 added to what it descends, so that networks stay quick to settle.

    Training strengthens the feedback that a network hears of itself, and sweeps rise from a few to tens. What is left
    to settle lies along the slowest mode: this asks each example's last change how slow it is (``rayleigh_quotient``),
    and makes the weights answer for it, the state and the slopes of its units held. Two sweeps more, and one product of
    each synapse, on a share of the batch. Data get no share of it.

    Attributes:
        estimator: of the loss's gradient.
        strength: what the penalty, between 0 and 1, counts beside the loss.
        share: of the batch's examples, the first ones, that are asked.
    """

    strength: float
    share: float = 0.25

    def __post_init__(self) -> None:
        if not (self.strength >= 0 and 0 < self.share <= 1):
            raise InputError(f"strength {self.strength} must not be negative, and share {self.share} in (0, 1].")

    def _penalty(self, landscape: Landscape, free: Solution) -> tuple[float, Tensor]:
        asked = torch.arange(max(1, round(self.share * len(free.sweeps))), device=free.sweeps.device)
        part = landscape.select(asked)
        with torch.no_grad():
            state, change = last_change(part, free.select(asked).state)
        return self.strength, rayleigh_quotient(linearised(part, state), change).clamp_min(0).square().mean()


def last_change(landscape: Landscape, state: State) -> tuple[State, State]:
    """The state after two sweeps more, and what the second one changed."""
    before = alternating(landscape, state)
    after = alternating(landscape, before)
    return after, {name: after[name] - before[name] for name in after}
