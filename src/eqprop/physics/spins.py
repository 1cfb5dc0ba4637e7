"""Ising networks: spins +1 and -1 that are settled by simulated annealing, or sampled at a temperature.

E = -sum_{i<j} J_ij s_i s_j - sum_i h_i s_i is the energy of synapses and biases between nodes of ``Spin`` units. No
term couples two nodes of one colour, so all their spins are drawn at once, each from its exact distribution given all
others: P(s = 1) = 1 / (1 + exp(-2 f / T)) in a field f at temperature T (block Gibbs). Laydevant et al. 2024, doi
10.1038/s41467-024-46879-4, train such networks on an Ising machine.

At T > 0 the mean cost of a network has, exactly, the gradient

    d<C>/d theta = d/d beta <dE/d theta>_beta at beta = 0 = <dC/d theta> - Cov(C, dE/d theta) / T,

where <>_beta is the mean at the energy E + beta C, and the second term is that of C's own parameters (Massar & Mognetti
2024, arXiv 2405.08467). ``ThermalEP`` estimates the first expression, ``CovarianceEP`` the second. At T = 0 a nudge
changes nothing until it flips a spin: take a large beta, and several spins for each class; ``moved`` tells how often.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from eqprop.checks import Count, Natural, Positive, checked
from eqprop.draws import Generator
from eqprop.energy.landscape import Landscape
from eqprop.energy.losses import Target, Valued, check_labels, is_labels, select_target
from eqprop.energy.network import Network
from eqprop.energy.nodes import State, select
from eqprop.energy.shapes import sum_per_example
from eqprop.energy.terms import Field
from eqprop.energy.units import Unit
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction, nudge_of, phases_of
from eqprop.learning.rules import differentiate
from eqprop.learning.stencils import Nudging
from eqprop.models import DenseLayer, chain
from eqprop.settling.progress import swept
from eqprop.settling.solvers import Solution, Solver

if TYPE_CHECKING:
    from torchmetrics import Metric

Share = Annotated[float, ">= 0", "<= 1"]

LARGEST = 16
"""The spins of a network that are enumerated, at most."""


@dataclass(frozen=True)
class Spin(Unit):
    """s = +1 or -1, without an energy of its own: the sign of the drive, +1 for 0. ``Annealed`` settles it."""

    low, high, continuous = -1.0, 1.0, False

    def potential(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)

    def force(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)

    def step(self, state: Tensor, drive: Tensor, rate: Tensor | float = 1.0) -> Tensor:
        return sign(drive)


class SpinError(Valued):
    """|s - y|^2 / 2, with several spins for each class. ``target``: labels, or values of all spins.

    Of labels, y is +1 for the spins of the label and -1 for all others: a nudge beta is a field beta y. The scores of a
    prediction are the means over each class's spins.

    Args:
        node: its node.
        shape: of that node; its first ``copies`` units are those of class 0, and so on.
        copies: spins for each class.

    Raises:
        InputError: the units are no multiple of ``copies``; when bound, the node has another shape.
    """

    quadratic = True

    def __init__(self, node: str, shape: tuple[int, ...], copies: Count = 4):
        super().__init__(node, shape)
        if math.prod(shape) % copies:
            raise InputError(f"SpinError: {math.prod(shape)} spins are no multiple of copies, {copies}.")
        self.copies = copies

    @property
    def classes(self) -> int:
        """The number of scores."""
        return math.prod(self.shape) // self.copies

    def forward(self, target: Target, *states: Tensor) -> Tensor:
        return 0.5 * sum_per_example(self.target_minus_state(self.nodes[0], target, *states).square())

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return self.target_minus_state(node, target, *states)

    def stiffness(self, node: str, target: Target, *states: Tensor) -> Tensor | None:
        return states[0].new_ones(len(states[0]))

    def scores(self, *states: Tensor) -> Tensor:
        return states[0].reshape(len(states[0]), -1, self.copies).mean(2)

    def check(self, target: Target, batch: int) -> None:
        super().check(target, batch)
        if is_labels(target):
            check_labels(target, batch, self.classes)

    def metrics(self, target: Target) -> dict[str, Metric]:
        """Of labels their accuracies; of values none, as scores are means over copies."""
        from eqprop.energy import metrics

        return metrics.of_labels(self.classes) if is_labels(target) else {}

    def _values(self, target: Tensor, state: Tensor) -> Tensor:
        if not is_labels(target):
            return target
        hot = F.one_hot(target, self.classes).repeat_interleave(self.copies, 1)
        return (2 * hot - 1).to(state.dtype).view(state.shape)


@dataclass(frozen=True, eq=False)
class Annealed(Solver):
    """Simulated annealing from random spins: several reads, of which the one of least energy is kept.

    Temperatures fall geometrically between two that the fields on random spins set (``temperature_range``). Then each
    read descends at temperature 0 until no spin moves, for at most ``sweeps`` sweeps. A start that consists of
    spins, such as the free state in a nudged phase, descends beside the reads and is kept unless one is lower. An
    example is settled if the last sweep moved no spin, which does not say that the state is the ground state.

    Attributes:
        sweeps: temperatures, each for one sweep.
        reads: how many times each example is annealed.
        seed: of its own generator.

    Raises:
        InputError: a number is out of range; on use, a unit is no spin, or a term is not linear in its spins.
    """

    sweeps: Count = 30
    reads: Count = 10
    seed: Natural = 0
    generator: Generator = field(default_factory=Generator, repr=False, init=False)

    def __post_init__(self) -> None:
        self.generator.manual_seed(self.seed)

    def generators(self) -> Iterable[torch.Generator]:
        return (self.generator,)

    @torch.no_grad()
    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        batch = len(landscape.like)
        every = torch.arange(batch, device=landscape.like.device)
        many, known = landscape.select(every.repeat(self.reads)), is_spins(start)
        state = random_spins(many, self.generator)
        check_spins(many, state)
        ladder = self._schedule(*temperature_range(many, state))
        state = self._begin(state, {node: value.repeat(self.reads, *ones(value)) for node, value in start.items()})
        for temperature in ladder:
            state = drawn(many, state, temperature, self.generator)
        if known:  # first, so that of equal ones it is kept
            many = landscape.select(every.repeat(1 + self.reads))
            state = {node: torch.cat([start[node], value]) for node, value in state.items()}
        before = state
        for _ in range(self.sweeps):
            before, state = state, descended(many, state)
            if all(torch.equal(before[node], value) for node, value in state.items()):
                break
        best = many.energy(state).view(-1, batch).argmin(0) * batch + every
        return Solution.from_states([select(before, best), select(state, best)], len(ladder), 1e-9)

    def _schedule(self, hot: float, cold: float) -> list[float]:
        """The temperatures, one for each sweep."""
        return [hot * (cold / hot) ** (k / max(self.sweeps - 1, 1)) for k in range(self.sweeps)]

    def _begin(self, random: State, start: State) -> State:
        """The spins before the first sweep."""
        return random


@dataclass(frozen=True, eq=False)
class ReverseAnnealed(Annealed):
    """Annealing that warms its start up in part and cools it again, for nudged phases, which start at the free state.

    It makes the sweeps of ``Annealed`` without the first ``share`` of them, first backwards and then forwards.

    Attributes:
        sweeps, reads, seed: see ``Annealed``.
        share: the hottest share of temperatures, which is left out.

    Raises:
        InputError: a number is out of range; on use, the start does not consist of spins, or see ``Annealed``.
    """

    share: Share = 0.25

    def __call__(self, landscape: Landscape, start: State, memory: State | None = None) -> Solution:
        if not is_spins(start):
            raise InputError("ReverseAnnealed warms up a state of spins: take Annealed for the free phase.")
        return super().__call__(landscape, start, memory)

    def _schedule(self, hot: float, cold: float) -> list[float]:
        kept = super()._schedule(hot, cold)[int(self.share * self.sweeps) :]
        return kept[::-1] + kept

    def _begin(self, random: State, start: State) -> State:
        return start


class Sample(NamedTuple):
    """Spins of a network at a temperature.

    Attributes:
        state: node -> (draws * batch, *node shape), draw by draw.
        weight: (draws, batch), of sum 1 for each example.
    """

    state: State
    weight: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """(batch,): the mean of values, (draws * batch,)."""
        return (self.weight * values.view_as(self.weight)).sum(0)

    def mean_state(self) -> State:
        """Node -> (batch, *node shape): the mean of each spin."""
        found = {}
        for node, value in self.state.items():
            draws = value.view(*self.weight.shape, *value.shape[1:])
            found[node] = (self.weight.view(*self.weight.shape, *ones(value)) * draws).sum(0)
        return found


class Sampler(ABC):
    """Draws spins from the Boltzmann distribution exp(-E / T) of a landscape, or enumerates them."""

    temperature: float

    @abstractmethod
    def __call__(self, landscape: Landscape) -> Sample:
        """Spins of each example.

        Raises:
            InputError: the landscape's units are no spins, or its terms not linear in them.
        """

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators that it uses; a checkpoint stores their states."""
        return ()


@dataclass(frozen=True)
class Enumerated(Sampler):
    """All states, weighed by exp(-E / T): exact, for up to 16 spins.

    Attributes:
        temperature: T, in units of energy.

    Raises:
        InputError: the temperature is not positive; on use, there are more spins, or a unit is no spin.
    """

    temperature: Positive

    @torch.no_grad()
    def __call__(self, landscape: Landscape) -> Sample:
        sizes = {name: node.units for name, node in landscape.nodes.items()}
        if sum(sizes.values()) > LARGEST:
            raise InputError(f"{sum(sizes.values())} spins have too many states to enumerate: take Gibbs.")
        like, batch = landscape.like, len(landscape.like)
        bits = torch.arange(2 ** sum(sizes.values()), device=like.device)[:, None] >> torch.arange(sum(sizes.values()))
        spins = (2 * (bits & 1) - 1).to(like.dtype).repeat_interleave(batch, 0)
        parts = zip(landscape.nodes.items(), spins.split(list(sizes.values()), 1), strict=True)
        state = {name: part.reshape(-1, *node.shape) for (name, node), part in parts}
        many = landscape.select(torch.arange(batch, device=like.device).repeat(len(bits)))
        check_units(many)
        energy = many.energy(state).view(-1, batch)
        return Sample(state, (-energy / self.temperature).softmax(0))


@dataclass(frozen=True, eq=False)
class Gibbs(Sampler):
    """Spins drawn one colour of nodes after another, each from its exact distribution given all others.

    Attributes:
        temperature: T, in units of energy.
        sweeps: of each chain that count.
        chains: for each example, from random spins.
        burn_in: sweeps of each chain before those.
        seed: of its own generator.

    Raises:
        InputError: a number is out of range; on use, a unit is no spin, or a term is not linear in its spins.
    """

    temperature: Positive
    sweeps: Count = 100
    chains: Count = 10
    burn_in: Natural = 20
    seed: Natural = 0
    generator: Generator = field(default_factory=Generator, repr=False, init=False)

    def __post_init__(self) -> None:
        self.generator.manual_seed(self.seed)

    def generators(self) -> Iterable[torch.Generator]:
        return (self.generator,)

    @torch.no_grad()
    def __call__(self, landscape: Landscape) -> Sample:
        batch, states = len(landscape.like), []
        many = landscape.select(torch.arange(batch, device=landscape.like.device).repeat(self.chains))
        state = random_spins(many, self.generator)
        check_spins(many, state)
        for sweep in range(self.burn_in + self.sweeps):
            state = drawn(many, state, self.temperature, self.generator)
            if sweep >= self.burn_in:
                states.append(state)
        every = {node: torch.cat([each[node] for each in states]) for node in state}
        draws = self.sweeps * self.chains
        return Sample(every, landscape.like.new_full((draws, batch), 1 / draws))


class SampledEstimator(Estimator):
    """The base of estimators of the gradient of the mean cost of spins at a temperature.

    The state of the free phase, and so the prediction and the loss that is reported, is that of the mean spins; the
    gradient is that of the mean of the loss.

    Attributes:
        sampler: how spins are drawn.

    Raises:
        InputError: on use, the network does not consist of spins, or its substrate is not the ideal one.
    """

    sampler: Sampler

    def generators(self) -> Iterable[torch.Generator]:
        return [*super().generators(), *self.sampler.generators()]

    def __call__(self, landscape: Landscape) -> tuple[Solution, GradientFunction]:
        if not landscape.substrate.is_ideal:
            raise InputError(f"{type(self).__name__} reads means of products: no substrate but the ideal one has them.")
        with torch.no_grad():
            free = self.sampler(landscape)
        mean = free.mean_state()
        return Solution.from_states([mean, mean], 1, torch.inf), partial(self._learn, landscape, free)

    @abstractmethod
    def _learn(
        self, landscape: Landscape, free: Sample, cost: Cost, parameters: Sequence[Tensor]
    ) -> GradientEstimate: ...


@dataclass(frozen=True)
class ThermalEP(SampledEstimator):
    """Equilibrium propagation of mean products: the sum over phases of weight_k <d(E + beta_k C)/d theta> at beta_k.

    The bias has the order of the stencil in beta, as long as beta C is small against T. Massar & Mognetti 2024, arXiv
    2405.08467.

    Attributes:
        nudging: the stencil over real nudges. A phase at beta 0 is the free phase.
        sampler: see ``SampledEstimator``.

    Raises:
        InputError: nudges are complex; on use, as ``SampledEstimator``.
    """

    nudging: Nudging
    sampler: Sampler

    def __post_init__(self) -> None:
        if self.nudging.is_complex:
            raise InputError("Spins have no complex extension: take a stencil of real nudges.")

    def _learn(self, landscape: Landscape, free: Sample, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
        parts = []
        for phase in phases_of(self.nudging.draw()):
            beta = phase.beta.real
            with torch.no_grad():
                nudged = landscape.with_term(".nudge", nudge_of(cost, [beta])[0])
                sample = self.sampler(nudged) if beta else free
            with torch.enable_grad():
                energy, price = energies(landscape, cost, sample)
                parts.append(phase.weight.real * cost.mean(sample.mean(energy + beta * price)))
        with torch.enable_grad():
            return GradientEstimate(differentiate(torch.stack(parts).sum(), parameters))


@dataclass(frozen=True)
class CovarianceEP(SampledEstimator):
    """<dC/d theta> - Cov(C, dE/d theta) / T from one free phase, without any nudge.

    Exact for any sampler whose draws are; the variance of the estimate rises as 1 / T^2. Massar & Mognetti 2024, arXiv
    2405.08467.

    Attributes:
        sampler: see ``SampledEstimator``.

    Raises:
        InputError: on use, as ``SampledEstimator``.
    """

    sampler: Sampler

    def _learn(self, landscape: Landscape, free: Sample, cost: Cost, parameters: Sequence[Tensor]) -> GradientEstimate:
        with torch.enable_grad():
            energy, price = energies(landscape, cost, free)
            fixed = price.detach().view_as(free.weight)
            excess = (fixed - free.mean(fixed)).flatten()
            objective = cost.mean(free.mean(price - excess * energy / self.sampler.temperature))
            return GradientEstimate(differentiate(objective, parameters))


def moved(before: State, after: State) -> dict[str, float]:
    """Node -> the share of examples in which any of its spins moved.

    Args:
        before: the free state, node -> (batch, *node shape).
        after: nudged states, phase by phase, node -> (phases * batch, *node shape).
    """
    return {
        node: float(
            (value != before[node].repeat(len(value) // len(before[node]), *ones(value)))
            .flatten(1)
            .any(1)
            .double()
            .mean()
        )
        for node, value in after.items()
    }


@checked
def ising_network(in_shape: tuple[int, ...], hidden: Sequence[Count], classes: Count, copies: Count = 4) -> Network:
    """A chain of dense layers of spins with ``copies`` output spins for each class, and ``SpinError``.

    Weights start at half of what ``chain`` draws for the first layer and a quarter for all others, and biases at 0, as
    in Laydevant et al. 2024, doi 10.1038/s41467-024-46879-4; they keep them within ±1.

    Args:
        in_shape: of one example.
        hidden: the spins of each hidden layer.
        classes: of the labels.
        copies: output spins for each class.

    Raises:
        InputError: an argument is out of range.
    """
    layers = [DenseLayer(size, Spin()) for size in (*hidden, classes * copies)]
    network = chain(in_shape, layers, partial(SpinError, copies=copies))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_(0 if name.endswith("bias") else 0.5 if "input" in name else 0.25)
    return network


# -- parts of the samplers --


def sign(drive: Tensor) -> Tensor:
    """+1 where the drive is 0 or more, else -1."""
    return torch.where(drive >= 0, 1.0, -1.0).to(drive.dtype)


def ones(value: Tensor) -> list[int]:
    """A 1 for each dimension of a node."""
    return [1] * (value.ndim - 1)


def is_spins(state: State) -> bool:
    """Whether all are +1 or -1."""
    return all(bool((value.abs() == 1).all()) for value in state.values())


def fields(landscape: Landscape, state: State, node: str) -> Tensor:
    """Half the energy that each spin's flip from +1 to -1 costs: the drive less the part from its own state."""
    found = landscape.drive(state, node)
    for term in landscape.terms.values():
        if term.quadratic and node in term.nodes:
            own = term.stiffness(node, *(state[each] for each in term.nodes))
            found = found if own is None else found + own * state[node]
    return found


def drawn(landscape: Landscape, state: State, temperature: float, generator: torch.Generator) -> State:
    """One sweep of block Gibbs: each colour in turn from its distribution given the others."""
    swept()
    for colour in landscape.colours:
        new = {}
        for node in colour:
            chance = torch.sigmoid(2 * fields(landscape, state, node) / temperature)
            new[node] = sign(chance - uniform(chance, generator))
        state = state | new
    return state


def descended(landscape: Landscape, state: State) -> State:
    """One sweep at temperature 0; a spin without a field stays."""
    swept()
    for colour in landscape.colours:
        new = {}
        for node in colour:
            here = fields(landscape, state, node)
            new[node] = torch.where(here == 0, state[node], sign(here))
        state = state | new
    return state


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """In [0, 1), drawn on the CPU, so that all devices get the same."""
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def random_spins(landscape: Landscape, generator: torch.Generator) -> State:
    return {node: sign(uniform(value, generator) - 0.5) for node, value in landscape.zeros().items()}


def temperature_range(landscape: Landscape, state: State) -> tuple[float, float]:
    """The hottest and the coldest of a schedule, from the fields on random spins.

    At the hottest a flip against the largest field has the odds exp(-2 f / T) = 1/4, at the coldest one against a field
    that a quarter of spins do not exceed 1/100. Of 200 nets of 12 and 12 spins, 30 such temperatures and ten reads find
    98 % of ground states; if the first odds are 1/2 they find 96 %.
    """
    found = torch.cat([fields(landscape, state, node).flatten().abs() for node in state])
    largest = float(found.max())
    if not 0 < largest < math.inf:
        raise InputError(f"The largest field on random spins is {largest:g}: there is nothing to anneal.")
    weak = float(found[found > 0].kthvalue(1 + int((found > 0).sum()) // 4).values)
    return largest / math.log(2), 2 * weak / math.log(100)


def energies(landscape: Landscape, cost: Cost, sample: Sample) -> tuple[Tensor, Tensor]:
    """(draws * batch,) each: the energy and the loss of a sample, with the parameters in their graph."""
    draws, batch = sample.weight.shape
    examples = torch.arange(batch, device=sample.weight.device).repeat(draws)
    rebuilt = landscape.rebuilt().select(examples)
    energy = torch.stack(list(rebuilt.term_energies(sample.state).values())).sum(0)
    loss, target = cost.loss, select_target(cost.target, examples)
    return energy, loss(target, *(sample.state[node] for node in loss.nodes))


def check_units(landscape: Landscape) -> None:
    """Raises InputError where units are no spins, or some are dropped."""
    for node in landscape.nodes:
        if not isinstance(landscape.unit(node), Spin):
            raise InputError(f"{landscape.unit(node)} of node {node!r} is no spin: annealing and sampling take Spin().")
    if landscape.masks:
        raise InputError("Spins are not dropped: set dropout to 0.")


def check_spins(landscape: Landscape, state: State) -> None:
    """Raises InputError where the spins of a node are not independent of each other given the other nodes.

    That is known of terms that are linear in each node, beside their stiffness. Pooling's winners are not: fields on
    opposite spins do not then add up to twice those on none.
    """
    check_units(landscape)
    for name, term in landscape.terms.items():
        if not (term.bilinear or term.quadratic or isinstance(term, Field)):
            raise InputError(f"The term {name!r} is not linear in each node: spins take synapses, biases, SpinError.")
    one = torch.zeros(1, dtype=torch.int64, device=landscape.like.device)
    few, here = landscape.select(one), select(state, one)
    there, none = ({node: by * value for node, value in here.items()} for by in (-1, 0))
    for node in here:
        up, down, middle = (fields(few, each, node) for each in (here, there, none))
        if float((up + down - 2 * middle).abs().max()) > 1e-4 * float(up.abs().max() + down.abs().max()):
            raise InputError(f"The fields on {node!r} are not linear in the other spins: pool by averages, if at all.")
