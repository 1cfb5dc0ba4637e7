"""Penalties on a network's Jacobian, added to its loss: for symmetric feedback, or for fast settling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Annotated

import torch
from torch import Tensor

from eqprop.checks import Count, NonNegative
from eqprop.draws import Generator
from eqprop.energy.landscape import Landscape
from eqprop.energy.nodes import State
from eqprop.energy.shapes import sum_per_example
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction
from eqprop.settling.conjugate_gradients import largest
from eqprop.settling.displacement import slope_of, tangent, tangents
from eqprop.settling.solvers import Solution, rounding, tiny
from eqprop.settling.sweeps import alternating

Penalty = Callable[[Landscape, State], Tensor]
"""(linear landscape round a state, probe) -> (batch,), whose mean over random probes of +1 and -1 is minimised."""


def jacobian_asymmetry(linear: Landscape, probe: State) -> Tensor:
    """|A e|^2 - <e, A A e>, (batch,): half of |A - A^T|^2 on average over e, where A is the Jacobian of the drives.

    Jacobian homeostasis (Laborieux & Zenke 2024, arXiv 2309.02214). It is 0 for every e if the network has an energy.

    Args:
        linear: the ``tangent`` landscape round a state, which defines A.
        probe: e, of +1 and -1: node -> (batch, *node shape).
    """

    def pushed(by: State) -> State:
        # Dropped units are left out on both sides; the others have the same factor as senders and as receivers.
        return linear.masked({node: linear.drive(by, node) for node in linear.nodes})

    once = pushed(probe)
    twice = pushed(once)
    return torch.stack([sum_per_example(once[n].square() - probe[n] * twice[n]) for n in probe]).sum(0)


def jacobian_norm(linear: Landscape, probe: State) -> Tensor:
    """|J e|^2, (batch,): |J|^2 on average over e, where J is the Jacobian of the synchronous sweep.

    A network of small J settles in few sweeps (Bai, Koltun & Kolter 2021, arXiv 2106.14342). ``linear``, ``probe``: as
    for ``jacobian_asymmetry``.
    """
    moved = linear.step(probe, linear.nodes)
    return torch.stack([sum_per_example(value.square()) for value in moved.values()]).sum(0)


def rayleigh_quotient(linear: Landscape, change: State) -> Tensor:
    """<v, A v> / <v, D^-1 v>, (batch,), where v is ``change``, A the Jacobian of the drives, D the units' slopes.

    The Rayleigh quotient of the synchronous sweep D A, ``linear`` being the ``tangent`` landscape round a state. Along
    the slowest mode it is mu, the factor by which the changes of that sweep shrink (mu^2 for an alternating one); it
    is 1 at the limit of stability. Units of slope 0 are left out.

    Raises:
        InputError: the network has no energy.
    """
    moving = {name: change[name] * (slope_of(name, node) > 0) for name, node in linear.nodes.items()}
    own = torch.stack(list(linear.node_energies(moving).values())).sum(0)
    coupled = sum(linear.term_energies(moving).values(), torch.zeros_like(own))
    return -coupled / own.clamp_min(tiny(own))


@dataclass(frozen=True, eq=False)
class Penalised(Estimator):
    """Another estimator plus the gradient of a penalty on the network round its free state.

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
        penalty = cache(torch.enable_grad()(partial(self._penalty, landscape, free)))  # of one draw, if asked twice
        return free, partial(self._learn, landscape, learn, penalty)

    @abstractmethod
    def _penalty(self, landscape: Landscape, free: Solution) -> tuple[float, Tensor]:
        """The factor of the penalty, and its mean over examples as a function of the parameters; within enable_grad."""

    def _learn(
        self,
        landscape: Landscape,
        learn: GradientFunction,
        penalty: Callable[[], tuple[float, Tensor]],
        cost: Cost,
        parameters: Sequence[Tensor],
    ) -> GradientEstimate:
        estimate, (counts, total) = learn(cost, parameters), penalty()
        if not total.requires_grad:  # no node drives another
            return estimate
        found = torch.autograd.grad(total, list(parameters), retain_graph=True, allow_unused=True)
        data, size = {id(value) for value in landscape.data.values()}, counts * cost.weight.abs().mean()
        gradients = tuple(
            gradient if more is None or id(parameter) in data else gradient + size * more
            for gradient, more, parameter in zip(estimate.gradients, found, parameters, strict=True)
        )
        return estimate._replace(gradients=gradients)


def linearised(landscape: Landscape, state: State) -> Landscape:
    """The linear landscape round ``state``: parameters are in its graph, the units' slopes are constants."""
    with torch.no_grad():
        held = tangent(landscape, state, {})
    return held.only(tangents(landscape.rebuilt(), state))


@dataclass(frozen=True, eq=False)
class JacobianPenalty(Penalised):
    """Another estimator plus the gradient of strength * penalty / (number of units).

    The penalty is evaluated at the free state, which is a constant, as are the slopes of its units. It is the mean over
    the batch (every example has the same weight) and over random probes (Hutchinson 1990, doi
    10.1080/03610919008812866). It is scaled with the loss: by the mean size of the examples' weights, which behind
    ``model(x)`` are the lengths of the incoming gradients. Gradients of data do not include it.

    The gradient of a probe is noisy even if separate feedback weights equal the transpose. With a constant ``strength``
    an angle between them remains, which falls with the learning rate and with probes times examples.

    Attributes:
        estimator: of the loss's gradient.
        penalty: ``jacobian_asymmetry``, ``jacobian_norm``, or your own.
        strength: the factor of the penalty relative to the loss.
        probes: random vectors in each step, from a generator seeded with ``seed``.

    Raises:
        InputError: probes is not positive, or strength is negative.
    """

    penalty: Penalty
    strength: NonNegative
    probes: Count = 5
    seed: int = 0
    generator: Generator = field(default_factory=Generator, repr=False, init=False)

    def __post_init__(self) -> None:
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
    """Another estimator plus the gradient of strength * rayleigh_quotient^2, so that the network settles fast.

    Training strengthens feedback, and the number of sweeps rises from a few to tens. Near rest the remaining change
    lies along the slowest mode, so the ``rayleigh_quotient`` of each example's last change measures its slowness. Its
    gradient treats the state and the slopes of its units as constants. The cost is two more sweeps, and one product of
    each synapse, for a part of the batch. Gradients of data do not include it. An example at rest, whose last change
    can be rounding (of states, and under ``torch.autocast`` of messages), shows no slow mode and adds nothing.

    Attributes:
        estimator: of the loss's gradient.
        strength: the factor of the penalty, which is between 0 and 1, relative to the loss.
        share: the part of the batch, its first examples, on which the penalty is evaluated.

    Raises:
        InputError: strength is negative, or share is not in (0, 1].
    """

    strength: NonNegative
    share: Annotated[float, "> 0", "<= 1"] = 0.25

    def _penalty(self, landscape: Landscape, free: Solution) -> tuple[float, Tensor]:
        asked = torch.arange(max(1, round(self.share * len(free.sweeps))), device=free.sweeps.device)
        part = landscape.select(asked)
        with torch.no_grad():
            state, change = last_change(part, free.select(asked).state)
            moves = largest(change) > rounding(state) * largest(state)
        slowness = rayleigh_quotient(linearised(part, state), change).clamp_min(0).square()
        return self.strength, torch.where(moves, slowness, 0).mean()


def last_change(landscape: Landscape, state: State) -> tuple[State, State]:
    """The state after two more sweeps, and the change of the second one."""
    before = alternating(landscape, state)
    after = alternating(landscape, before)
    return after, {name: after[name] - before[name] for name in after}
