"""Faults of weights as they are read. Learning multiplies measured activities: gradients go straight through."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Self

import torch
from torch import Tensor, nn

from eqprop.checks import Bound, Natural, NonNegative, checked
from eqprop.devices.ageing import Ageing, PhaseChange, compensated
from eqprop.draws import generator_for
from eqprop.energy.couplings import Bias, Coupling, Synapse
from eqprop.energy.maps import linearization
from eqprop.energy.network import Network
from eqprop.energy.prediction import Prediction
from eqprop.energy.substitution import may_compute_weights
from eqprop.energy.substrate import Substrate, read_weights
from eqprop.energy.terms import Field, LinearTerm, Term
from eqprop.errors import InputError
from eqprop.substrates.together import Anew, Fault, fixed_uniform, short, with_parts

Share = Annotated[float, ">= 0", "<= 1"]


def read(coupling: Coupling, change: Callable[[str, Tensor], Tensor]) -> Coupling:
    """The coupling with changed weights; biases are digital."""
    if isinstance(coupling, Bias):
        return coupling
    return read_weights(coupling, lambda key, w: change(key, w.detach()))


@dataclass(frozen=True)
class WeightSpread(Fault):
    """Each weight is off by a fixed share of it: w (1 + size x), x standard normal.

    Effect: none on learning in situ: the gradient is that of the machine as it is. The ideal network's weights, put on
        this machine, are off by size.
    Remedy: learn in situ.
    Source: spreads of 0.1 to 0.3 in the devices of aihwkit 1.2.0.

    Args:
        size: standard deviation of the share.
    """

    size: NonNegative = 0.0

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        if not self.size:
            return coupling
        return read(coupling, lambda key, w: w * (1 + self.size * self.fixed(w.shape, name, key).to(w)))


@dataclass(frozen=True)
class WeightNoise(Anew):
    """Each weight is read with an error that is drawn anew in each phase: w + size W x, W the largest abs(w) of all.

    Effect: size / beta; symmetric nudges halve it.
    Remedy: a smaller learning rate, which takes the mean of many steps, as the root of their number; a larger beta. A
        larger batch is none: all its examples share the error.
    Source: 0.0175 for phase-change memory in the presets of aihwkit 1.2.0.

    Args:
        size: standard deviation, relative to the largest weight of the parameter.
    """

    size: NonNegative = 0.0

    @property
    def per_phase(self) -> bool:  # type: ignore[override]
        """Whether there is any noise."""
        return self.size > 0

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        if not self.size:
            return coupling
        return read(coupling, lambda key, w: w + self.size * w.abs().max() * self.noise(w, name, key, reading))


@dataclass(frozen=True)
class WriteNoise(Anew):
    """What is read differs from what was written by an error that each step draws anew, one for all its phases.

    Effect: size, whatever beta: the gradient is that of other weights. w + size W x, W the largest abs(w) of all.
    Remedy: a smaller learning rate, which takes the mean of many steps, as the root of their number; none by beta.
    Source: 0.6 to 75 smallest steps of the devices of aihwkit 1.2.0 (write noise).

    Args:
        size: standard deviation, relative to the largest weight of the parameter.
    """

    size: NonNegative = 0.0

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        if not self.size:
            return coupling
        return read(coupling, lambda key, w: w + self.size * w.abs().max() * self.noise(w, name, key))


@dataclass(frozen=True)
class WeightRange(Fault):
    """A weight is read within a range, as the nearest of so many levels.

    Effect: none on learning in situ; steps below half a level are not seen until they add up.
    Remedy: a scale for each layer that fits its weights; weights that are kept in more digits than are read.
    Source: conductances up to 25 microsiemens (phase change), 40 (filaments) in aihwkit 1.2.0.

    Args:
        largest: weights are read within [-largest, largest].
        levels: evenly from end to end, at least 2; 0: any value. An even number has no 0.

    Raises:
        InputError: a largest weight that is not positive, levels without one, or one level.
    """

    largest: Bound = math.inf
    levels: Natural = 0

    def __post_init__(self) -> None:
        if self.largest <= 0 or self.levels == 1 or (self.levels and self.largest == math.inf):
            raise InputError(f"{self}: largest must be above 0, and finite for levels, of which two are the fewest.")

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        if self.largest == math.inf:
            return coupling
        step = 2 * self.largest / (self.levels - 1) if self.levels else 0.0

        def change(key: str, w: Tensor) -> Tensor:
            inside = w.clamp(-self.largest, self.largest)
            return ((inside + self.largest) / step).round() * step - self.largest if step else inside

        return read(coupling, change)


@dataclass(frozen=True)
class StuckWeights(Fault):
    """A share of the weights is stuck at values of its own, uniform in [-largest, largest].

    Effect: none on learning in situ: the others learn round them, by the exact gradient. Two circuits: as TwoCircuits.
    Remedy: learn in situ, on one circuit.
    Source: shares of 0.098 and 0.135 in two arrays (aihwkit 1.2.0, presets of ReRAM arrays).

    Args:
        share: of the weights.
        largest: of the values at which they are stuck.
    """

    share: Share = 0.0
    largest: NonNegative = 0.01

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        if not self.share:
            return coupling

        def change(key: str, w: Tensor) -> Tensor:
            draws = fixed_uniform((2, *w.shape), "StuckWeights", self.seed, name, key).to(w.device)
            return torch.where(draws[0] < self.share, (self.largest * (2 * draws[1] - 1)).to(w.dtype), w)

        return read(coupling, change)


@dataclass(frozen=True)
class Aged(Fault):
    """Weights that were programmed into memory cells and are read later: see ``eqprop.devices.Ageing``.

    Effect: as WeightSpread at this age, with a common factor below 1. Between two phases: as Droop.
    Remedy: compensation by one factor a layer; learning in situ, for some epochs.
    Source: Joshi et al. 2020, doi 10.1038/s41467-020-16108-9, for phase-change memory.

    Args:
        ageing: the memory.
        age: seconds since programming; ``None``: never programmed, the ideal weights.
        compensate: whether reads are divided by the mean drift, which is measured.
    """

    ageing: Ageing = field(default_factory=PhaseChange)
    age: NonNegative | None = None
    compensate: bool = False

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        age = self.age
        if age is None:
            return coupling

        def change(key: str, w: Tensor) -> Tensor:
            def at(seconds: float) -> Tensor:
                made = generator_for("Aged", self.seed, name, key)
                return self.ageing.weights(w.double().cpu(), seconds, made).to(w)

            return compensated(at(age), at(self.ageing.earliest)) if self.compensate else at(age)

        return read(coupling, change)


@checked
def at_age(substrate: Substrate, age: NonNegative | None = None, compensate: bool = False) -> Substrate:
    """The same machine when its memory was programmed so long ago.

    Args:
        substrate: with ``Aged`` in it, alone or among other faults.
        age: seconds since programming; ``None``: as the substrate has it.
        compensate: compensate for drift, also where the substrate does not.

    Returns:
        The substrate, of which only the age and the compensation are changed.

    Raises:
        InputError: no memory ages on the substrate, or no age is known.
    """
    found: list[Substrate] = []

    def later(part: Substrate) -> Substrate:
        if not isinstance(part, Aged):
            return part
        if age is None and part.age is None:
            raise InputError(f"{short(part)} was never programmed: say its age.")
        found.append(part)
        return replace(part, age=part.age if age is None else age, compensate=part.compensate or compensate)

    changed = with_parts(substrate, later)
    if not found:
        raise InputError(f"No memory ages on {short(substrate)}: take a substrate with Aged in it, such as pcm.")
    return changed


@checked
@torch.no_grad()
def age_weights(network: Network, memory: Aged) -> None:
    """Replaces the weights of a network by those that are read from memory, in place: what learning goes on from.

    Biases are digital, and stay. Put a network on ``Aged`` instead to read its weights at an age and keep them.

    Args:
        network: whose weights are programmed and age.
        memory: the cells and the age.

    Raises:
        InputError: weights are computed by parametrisations or hooks.
    """
    if any(map(may_compute_weights, network.modules())):
        raise InputError("Weights that are computed from others have no cells of their own: undo that first.")
    seen: dict[nn.Parameter, Tensor] = {}
    for name, coupling in network.terms.items():
        held = dict(memory.mounted(name, coupling, 0).named_parameters())
        seen |= {w: held[key] for key, w in coupling.named_parameters() if w not in seen}
    for w, value in seen.items():
        w.copy_(value)


@dataclass(frozen=True)
class FeedbackSpread(Fault):
    """Feedback runs through other weights than feedforward: w (1 + size x), x standard normal and fixed.

    Effect: size, whatever beta.
    Remedy: one array that is read from both sides, as ``Wires`` allow.
    Source: derived and measured here.

    Args:
        size: standard deviation of the share.
    """

    size: NonNegative = 0.0

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        if not self.size:
            return coupling
        if not isinstance(coupling, Synapse):
            return unchanged(self, coupling)
        return TwoWays.of(
            coupling,
            coupling,
            read_weights(coupling, lambda key, w: w * (1 + self.size * self.fixed(w.shape, name, key).to(w))),
        )


@dataclass(frozen=True)
class MessageGains(Fault):
    """The state of a unit is sent with a gain of its own: e^(size x) upwards, e^(size x + apart x') downwards.

    The units of a channel of a (channels, height, width) node, and those at different places of a token, share one.

    Effect: if apart is 0, on learning in situ that of NudgeGain, size: the network is a symmetric one in other
        variables, in which the outputs weigh differently in the loss, and its gradient is scaled by positive factors.
        Apart counts as FeedbackSpread: apart, whatever beta.
    Remedy: one amplifier for both directions.
    Source: derived and measured here.

    Args:
        size: of the gain's logarithm, standard deviation.
        apart: of the difference between the two directions.

    Raises:
        InputError: on use, a weight has no place for the gain of each unit, as in a convolution of several groups.
    """

    size: NonNegative = 0.0
    apart: NonNegative = 0.0

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        if not (self.size or self.apart):
            return coupling
        if not isinstance(coupling, Synapse):
            return unchanged(self, coupling)
        pre, post = coupling.nodes

        def up(key: str, w: Tensor) -> Tensor:
            if w.ndim < 2:
                return w
            return w * self.gains(pre, coupling.map.in_shape, w.shape[1], 0.0).to(w).view(1, -1, *[1] * (w.ndim - 2))

        def down(key: str, w: Tensor) -> Tensor:
            if w.ndim < 2:
                return w
            return w * self.gains(post, coupling.map.out_shape, len(w), self.apart).to(w).view(-1, *[1] * (w.ndim - 1))

        return TwoWays.of(coupling, read_weights(coupling, up), read_weights(coupling, down))

    def gains(self, node: str, shape: tuple[int, ...], count: int, apart: float) -> Tensor:
        """(count,): of the messages of a node of this shape, by channel or by unit."""
        channels = shape[0] if len(shape) == 3 else shape[-1]
        drawn = (self.size * self.fixed((channels,), node) + apart * self.fixed((channels,), node, "down")).exp()
        if count == channels:
            return drawn
        if count == math.prod(shape):
            return (drawn.view(-1, 1, 1) if len(shape) == 3 else drawn).expand(shape).flatten()
        raise InputError(
            f"{self}: a weight has {count} entries for {node!r} of shape {shape}, and so no place for the gain of each "
            "unit: take a dense layer, or a convolution of one group."
        )


def unchanged(substrate: Substrate, coupling: Coupling) -> Coupling:
    """A coupling that is no synapse. Raises InputError for a prediction, which sends errors down."""
    if isinstance(coupling, Prediction):
        raise InputError(
            f"{substrate} changes the messages of synapses, and has no model for the errors of the prediction "
            f"{coupling.name}: take a fault of its weights instead."
        )
    return coupling


class TwoWays(Synapse):
    """A synapse whose drive on ``pre`` is that of another synapse; it learns as its forward half does.

    Its parameters are those of the forward half, so it has the names that an optimiser knows.
    """

    reciprocal = False
    downwards: tuple[Synapse]

    @classmethod
    def of(cls, synapse: Synapse, up: Synapse, down: Synapse) -> Self:
        """``synapse`` with the weights of ``up`` and of ``down``."""
        found = object.__new__(cls)
        found.__dict__.update(up.__dict__)
        found.downwards = (down.downwards[0] if isinstance(down, TwoWays) else down,)  # a tuple: no parameters of it
        found.symmetric = False
        return found

    def energy(self, *states: Tensor) -> Tensor:
        raise InputError(
            f"The coupling {self.name} has no energy: on this substrate its feedback is not the transpose."
        )

    def potential(self, node: str, *states: Tensor) -> Tensor:
        half = self.downwards[0] if node == self.nodes[0] else self
        return half.gain(node) * Synapse.energy(half, *states)

    def contrast(self, *states: Tensor) -> Tensor:
        return Synapse.energy(self, *states)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return Synapse.drive(self.downwards[0] if node == self.nodes[0] else self, node, *states)

    def drive_dot(self, states: Sequence[Tensor], displacements: Sequence[Tensor]) -> Tensor:
        return Term.drive_dot(self, states, displacements)

    def tangent(self, *states: Tensor) -> Term:
        if not self.bilinear:
            return Term.tangent(self, *states)
        up, down = (linearization(each.map, states[0]) for each in (self, self.downwards[0]))
        return LinearTerm(self.nodes, up, down, self.feedback_gain, symmetric=False)

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        found = super().clamp(data)
        return found if isinstance(found, Field) or any(node in data for node in self.nodes) else self
