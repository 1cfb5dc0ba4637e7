"""What a step would cost on a machine: operations that are counted, times constants that are assumed.

    energy = cells + converters of readings + converters of nudges + pulses
    cells  = cells * sweeps * mac,  or  cells * phases * conductance * voltage^2 * settling
    time   = phases * settling + readings * reading + pulse slots * pulse time

Phases and readings are those of single examples, one after another on one machine. The result is arithmetic on
constants of the literature and no measurement: every report of it says "modelled".
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from eqprop.checks import Natural, NonNegative, Positive, checked
from eqprop.energy.couplings import Coupling
from eqprop.energy.losses import Nudge, Target
from eqprop.energy.network import Data
from eqprop.energy.nodes import Node, State
from eqprop.energy.substrate import Substrate
from eqprop.energy.terms import Term
from eqprop.errors import InputError
from eqprop.learning.equilibrium import Equilibrium, Record
from eqprop.substrates.together import Together


@dataclass(frozen=True)
class Tally:
    """Operations of a machine, counted.

    Attributes:
        cells: devices that hold a weight.
        phases: settled phases of single examples.
        cell_operations: cells times sweeps, over all of these phases.
        readings: measurements of the state of a single example, or of a column of a fast array (``TikiTaka``).
        conversions: units or weights that these measure.
        nudge_conversions: units that a nudge drives, over all nudged phases of single examples.
        pulses: single pulses that write weights.
        pulse_slots: moments at which pulses are sent; all cells of an array can get one in the same slot.

    Raises:
        InputError: a number is negative.
    """

    cells: Natural = 0
    phases: Natural = 0
    cell_operations: Natural = 0
    readings: Natural = 0
    conversions: Natural = 0
    nudge_conversions: Natural = 0
    pulses: Natural = 0
    pulse_slots: Natural = 0

    def __str__(self) -> str:
        return (
            f"{self.phases:,} phases of single examples, {self.cell_operations:.3g} cell operations, "
            f"{self.readings:,} readings with {self.conversions:,} conversions, {self.nudge_conversions:,} conversions "
            f"of nudges, {self.pulses:,} pulses"
        )


class Counter(Substrate):
    """A substrate that changes nothing and counts what passes its gates in a step: a prediction begins a new one.

    >>> counter = Counter()
    >>> model = Equilibrium(network.on(counter), estimator)
    >>> model.loss(x, y, record=record).backward()
    >>> print(modelled_cost(counter.tally(record)))

    The free state is read once, for the prediction and the rule, and so is each nudged state, however often the program
    asks. Gradients are those of the ideal substrate to rounding, as readings of two phases are subtracted.

    Some estimators are not counted, and ``tally`` says so: those that do not read nudged states (infinitesimal nudges,
    reference gradients), and those whose ``Record`` does not hold all nudged phases (``OscillatingNudge``, ``LockIn``,
    ``ContinualEP``, ``AgnosticEP``, ``DualPropagation``).
    """

    def __init__(self) -> None:
        self._cells: dict[str, int] = {}
        self._units: dict[str, int] = {}
        self._read: dict[int, tuple[int, int]] = {}
        self._driven: dict[str, int] = {}
        self._nudges = self._batch = 0

    def mounted(self, name: str, coupling: Coupling, reading: int) -> Coupling:
        self._cells[name] = sum(parameter.numel() for parameter in coupling.parameters())
        return coupling

    def unit(self, name: str, node: Node) -> Node:
        self._units[name] = node.units
        return node

    def injected(self, nudge: Term) -> Term:
        """The same nudge.

        Raises:
            InputError: another substrate has replaced it by a term without a scale.
        """
        if not isinstance(nudge, Nudge):
            raise InputError(f"Counter counts a Nudge, not a {type(nudge).__name__}: put it before other substrates.")
        driven = {node: self._units[node] for node in nudge.nodes}
        self._driven |= driven
        self._nudges += len(nudge.scale) * sum(driven.values())
        return nudge

    def aimed(self, node: str, gap: Tensor) -> Tensor:
        self._driven[node] = self._units[node]
        self._nudges += gap.numel()
        return gap

    def measured(self, state: State, reading: int) -> State:
        rows = len(next(iter(state.values())))
        if reading == -1:  # of a prediction; others below 0 are of moments on the way
            self._read, self._driven, self._nudges, self._batch = {}, {}, 0, rows
            reading = 0
        self._read[reading] = rows, sum(value.numel() for value in state.values())
        return state

    @checked
    def tally(self, record: Record, pulses: Natural = 0, pulse_slots: Natural = 0) -> Tally:
        """What was counted, with the sweeps of a step.

        Args:
            record: of the last step, after its backward pass.
            pulses, pulse_slots: see ``Tally``; what a method of ``eqprop.devices`` has written.

        Raises:
            InputError: the record is empty or of another step; the estimator is one that is not counted, see above; or
                pulses are negative.
        """
        if record.free is None:
            raise InputError("The record is empty: pass it to the model's loss first.")
        if self._batch != len(record.free.sweeps):
            raise InputError("The record is not of the last step on this counter: pass that of its loss.")
        if record.nudged is None or max(self._read) < 1:
            raise InputError(
                "No nudged state was read in this step: the cost is modelled for estimators that read them."
            )
        settled = [record.free, record.nudged]
        if (self._nudges, self._read[0][0]) != (len(record.nudged.sweeps) * sum(self._driven.values()), self._batch):
            raise InputError(
                "The cost is modelled from a record of all phases, and this estimator's does not hold all."
            )
        cells = sum(self._cells.values())
        return Tally(
            cells=cells,
            phases=sum(len(each.sweeps) for each in settled),
            cell_operations=cells * sum(int(each.sweeps.sum()) for each in settled),
            readings=sum(rows for rows, _ in self._read.values()),
            conversions=sum(units for _, units in self._read.values()),
            nudge_conversions=self._nudges,
            pulses=pulses,
            pulse_slots=pulse_slots,
        )


@dataclass(frozen=True)
class CostTable:
    """Constants of a machine, in joules, seconds, siemens and volts. All of them are to be replaced by your machine's.

    Attributes:
        mac: energy of a cell in a sweep, on machines that sweep, e.g. 1e-15 to 1e-13 for phase-change cells (a summary
            at second hand). ``None``, the default: the machine settles by itself, and cells turn energy into heat as
            long as it does.
        conductance, voltage: of a cell, and across it, while a machine settles by itself: at most 1 uS and 0.1 V here,
            an assumption.
        settling: of a phase: 1e-6, the class of the transistor networks of Dillavou et al. 2023 (arXiv 2311.00537);
            oscillators at GHz are of the class of 1e-9 (arXiv 2510.12934).
        analogue_to_digital: of the conversion of one unit; ``None``: no source, so left out, and the report says so.
        digital_to_analogue: of the nudge of one unit; ``None`` likewise.
        reading: time of one reading of all units: 250e-9, the read time in the fit of phase-change noise in aihwkit.
        converters: units that are converted at the same time; 0: all.
        pulse: energy of a pulse: 1e-9, of 100 uA for 100 ns through 1 uS (I^2 t / G); 29e-9 for 700 uA, 600 ns, 10 uS
            (tabulated in doi 10.1038/s41598-026-35641-z).
        pulse_time: 100e-9, of that pulse.

    Raises:
        InputError: a constant is negative.
    """

    mac: NonNegative | None = None
    conductance: Positive = 1e-6
    voltage: Positive = 0.1
    settling: Positive = 1e-6
    analogue_to_digital: NonNegative | None = None
    digital_to_analogue: NonNegative | None = None
    reading: Positive = 250e-9
    converters: Natural = 0
    pulse: Positive = 1e-9
    pulse_time: Positive = 100e-9


@dataclass(frozen=True)
class ModelledCost:
    """Energy and time of a ``Tally`` by a ``CostTable``; as text it says that it is modelled, and what is left out.

    Attributes:
        cells, readings, nudges, pulses: energies, in joules.
        time: in seconds.
        left_out: kinds of operations that the table has no constant for.
    """

    cells: float
    readings: float
    nudges: float
    pulses: float
    time: float
    left_out: tuple[str, ...] = ()

    @property
    def energy(self) -> float:
        """The sum of the parts, in joules."""
        return self.cells + self.readings + self.nudges + self.pulses

    def __str__(self) -> str:
        parts = {"cells": self.cells, "readings": self.readings, "nudges": self.nudges, "pulses": self.pulses}
        listed = ", ".join(f"{name} {value:.2g} J" for name, value in parts.items() if name not in self.left_out)
        missing = f"; left out, without a constant: {' and '.join(self.left_out)}" if self.left_out else ""
        return f"modelled energy {self.energy:.2g} J ({listed}{missing}), modelled time {self.time:.2g} s"


@checked
def modelled_cost(tally: Tally, table: CostTable | None = None) -> ModelledCost:
    """The energy and the time of counted operations, by the formulas at the head of this module.

    Args:
        tally: what is counted, e.g. by a ``Counter``.
        table: the machine's constants; default: ``CostTable()``.

    Returns:
        The cost, modelled.

    Raises:
        InputError: an argument is of the wrong kind.
    """
    table = table or CostTable()
    heat = table.conductance * table.voltage**2 * table.settling
    cells = tally.cells * tally.phases * heat if table.mac is None else tally.cell_operations * table.mac
    rounds = tally.conversions / table.converters if table.converters else tally.readings
    constants = {"readings": table.analogue_to_digital, "nudges": table.digital_to_analogue}
    return ModelledCost(
        cells=cells,
        readings=tally.conversions * (table.analogue_to_digital or 0.0),
        nudges=tally.nudge_conversions * (table.digital_to_analogue or 0.0),
        pulses=tally.pulses * table.pulse,
        time=tally.phases * table.settling + rounds * table.reading + tally.pulse_slots * table.pulse_time,
        left_out=tuple(name for name, constant in constants.items() if constant is None),
    )


def tally_of_step(model: Equilibrium, x: Data, y: Target) -> Tally:
    """What one training step of a model on a batch does, counted on a copy: the model and all draws stay as they are.

    Args:
        model: on its substrate.
        x: (batch, *input shape), as for ``Equilibrium.loss``.
        y: (batch,), or what the network's loss takes.

    Returns:
        The counts, without pulses.

    Raises:
        InputError: the estimator is one that ``Counter`` does not count, or the data do not fit.
    """
    twin, counter, record = copy.deepcopy(model).train(), Counter(), Record()
    twin.on_unsettled = "ignore"
    twin.network = twin.network.on(Together(counter, twin.network.substrate))
    like = x if isinstance(x, Tensor) else next(iter(x.values()))
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []), torch.enable_grad():
        twin.loss(x, y, record=record).backward()
    return counter.tally(record)


def cost_report(tally: Tally, table: CostTable | None = None) -> dict[str, float | str]:
    """Counts and their modelled cost as plain data, for a file; each name says that it is modelled.

    Args:
        tally: what is counted.
        table: the machine's constants; default: ``CostTable()``.

    Returns:
        ``modelled_`` and a field of ``Tally`` -> the count; ``modelled_energy_joules``; ``modelled_time_seconds``; and
        ``modelled_cost``, all in words.
    """
    cost = modelled_cost(tally, table)
    found: dict[str, float | str] = {f"modelled_{name}": value for name, value in asdict(tally).items()}
    found |= {"modelled_energy_joules": cost.energy, "modelled_time_seconds": cost.time}
    return found | {"modelled_cost": f"{cost}; {tally}"}
