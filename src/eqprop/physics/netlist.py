"""Netlists: a circuit as ngspice reads it, and the voltages that ngspice finds.

A circuit simulator knows nothing of energies. It solves for currents that balance, so it tells whether the mathematics
here is that of the circuit. Free nodes are named ``l<node>_<unit>``, numbered from 0 in the order of the network.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from eqprop.checks import Positive, checked
from eqprop.energy.couplings import Bias
from eqprop.energy.losses import SquaredError, Target
from eqprop.energy.network import Data, Network
from eqprop.energy.nodes import State
from eqprop.energy.units import Wire
from eqprop.errors import InputError
from eqprop.physics.diodes import THERMAL_VOLTAGE, DiodeLayer, JunctionDiodes
from eqprop.physics.resistors import Leak, Resistors

SHARP = JunctionDiodes(width=1e-3 * THERMAL_VOLTAGE)
"""What stands for an ideal diode: a real one that carries currents at less than 1 mV."""
OPTIONS = "RELTOL=1e-10 ABSTOL=1e-16 VNTOL=1e-12 GMIN=1e-15 ITL1=2000 NUMDGT=15"
"""Of ngspice: voltages to about 1e-14 V."""


@checked
def netlist(
    network: Network, data: Data, target: Target = None, beta: float = 0.0, diode: JunctionDiodes = SHARP
) -> str:
    """The circuit of one example as a netlist that prints the voltage of every free unit.

    Data are voltage sources, biases current sources. A nudge is a resistor of 1/beta between each output and a source
    at its target; under a negative beta that is an active element, which a simulator allows. A diode that is off lets
    through I_s (1 - (3 w / (e |v|))^3) in ngspice, and not I_s (1 - exp(-|v| / w)): voltages differ by what I_s allows.

    Args:
        network: of resistors, leaks and biases, between wires and diodes.
        data: (1, *input shape); for several clamped nodes a mapping.
        target: what the network's loss, a ``SquaredError``, takes for one example; needed if ``beta`` is not 0.
        beta: the nudge.
        diode: what stands for each ideal diode.

    Raises:
        InputError: the network has a part that no netlist describes, the data are not one example, a nudge has no
            target, or a number is not finite.
    """
    if not network.substrate.is_ideal:
        raise InputError(f"A netlist is of the ideal circuit, not of one on {network.substrate}.")
    held = network.check_data(data)
    if {len(x) for x in held.values()} != {1}:
        raise InputError("A netlist is of one example: pass data with one row.")
    with torch.no_grad():
        lines = [*elements(network, held), *diodes(network, diode), *nudge(network, target, beta)]
    if wrong := [line for line in lines if re.search(r"\b(nan|inf)\b", line)]:
        raise InputError(f"A value of the circuit is not finite, {wrong[0]!r}: check the data, the target and weights.")
    printed = [f"print v({place})" for node in network.free for place in places(network, node)]
    control = [f".options {OPTIONS}", ".control", "set numdgt=15", "op", *printed, ".endc", ".end"]
    return "\n".join(["* a circuit of eqprop", *lines, *control, ""])


@checked
def ngspice(circuit: str, timeout: Positive = 600.0) -> str:
    """The text that ngspice prints for a netlist.

    Args:
        circuit: from ``netlist``.
        timeout: in seconds.

    Raises:
        InputError: ngspice is not installed, or finds no operating point in time.
    """
    program = shutil.which("ngspice")
    if program is None:
        raise InputError("ngspice is not installed: it is a package of most systems (apt-get install ngspice).")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "circuit.cir").write_text(circuit)
        try:
            done = subprocess.run(
                [program, "-b", "circuit.cir"], cwd=folder, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"ngspice found no operating point in {timeout:g} s: give it more time.") from None
    return done.stdout + done.stderr


def read_voltages(network: Network, printed: str) -> State:
    """The voltages of free nodes, (1, *node shape) in float64, from what ngspice printed.

    Args:
        network: that of the netlist.
        printed: by ``ngspice``, or from a log of it.

    Raises:
        InputError: a voltage is missing.
    """
    found = {place: float(value) for place, value in re.findall(r"^v\((\w+)\)\s*=\s*(\S+)", printed, re.M)}
    state = {}
    for name, node in network.free.items():
        missing = [place for place in places(network, name) if place not in found]
        if missing:
            last = " ".join(printed.split())[-300:]
            raise InputError(f"ngspice printed no voltage v({missing[0]}), of {name!r}: ... {last}")
        values = [found[place] for place in places(network, name)]
        state[name] = torch.tensor(values, dtype=torch.float64).view(1, *node.shape)
    return state


def places(network: Network, node: str) -> list[str]:
    """The names of a free node's units in the netlist."""
    k = list(network.nodes).index(node)
    return [f"l{k}_{i}" for i in range(network.nodes[node].units)]


def elements(network: Network, held: Mapping[str, Tensor]) -> Iterator[str]:
    """A line for each element of each coupling."""
    for c, (name, coupling) in enumerate(network.terms.items()):
        if isinstance(coupling, Resistors):
            ends, gains = [], (coupling.voltage_gain, 1.0)
            for side, node, gain in zip("ab", coupling.nodes, gains, strict=True):
                own = [f"{side}{c}_{i}" for i in range(network.nodes[node].units)]
                if node in held:
                    yield from sources(own, gain * held[node])
                elif gain != 1:
                    for i, (at, unit) in enumerate(zip(own, places(network, node), strict=True)):
                        yield f"E{c}_{i} m{c}_{i} 0 {unit} 0 {gain!r}"
                        yield f"Vm{c}_{i} m{c}_{i} {at} DC 0"
                        yield f"F{c}_{i} {unit} 0 Vm{c}_{i} {1 / gain!r}"
                else:
                    own = places(network, node)
                ends.append(own)
            for i, row in enumerate(coupling.conductance.double().tolist()):
                for j, g in enumerate(row):
                    yield from resistor(f"{c}_{i}_{j}", ends[0][i], ends[1][j], g)
        elif isinstance(coupling, Leak) and coupling.node not in held:
            for i, (at, g) in enumerate(
                zip(places(network, coupling.node), numbers(coupling.conductance), strict=True)
            ):
                yield from resistor(f"{c}_{i}", at, "0", g)
        elif isinstance(coupling, Bias) and coupling.node not in held:
            values = coupling.bias.expand(network.nodes[coupling.node].shape)
            for i, (at, b) in enumerate(zip(places(network, coupling.node), numbers(values), strict=True)):
                yield f"I{c}_{i} 0 {at} DC {b!r}"
        elif not isinstance(coupling, Leak | Bias):
            raise InputError(f"{name!r} is a {type(coupling).__name__}, which no netlist here describes.")


def diodes(network: Network, ideal: JunctionDiodes) -> Iterator[str]:
    """A line for each diode, and for each kind of diode."""
    for k, (name, node) in enumerate(network.free.items()):
        unit, at = node.unit, places(network, name)
        if isinstance(unit, DiodeLayer):
            channels, inner = node.shape[0], node.units // node.shape[0]
            excitatory = unit.count(channels) * inner
            kinds = [(True, at[:excitatory]), (False, at[excitatory:])]
        elif isinstance(unit, Wire) and {unit.low, -unit.high} <= {0.0, -float("inf")}:
            kinds = [(above, at) for above, bound in ((True, unit.low), (False, unit.high)) if bound == 0]
        else:
            raise InputError(f"{name!r} has the unit {unit}, which no netlist here describes: take wires and diodes.")
        if not kinds:
            continue
        real = unit if isinstance(unit, JunctionDiodes) else ideal
        yield f".model d{k} D(IS={real.saturation!r} N={real.width / THERMAL_VOLTAGE!r} RS=0)"
        for above, some in kinds:
            for place in some:
                yield f"D{place}{'p' if above else 'n'} {'0 ' + place if above else place + ' 0'} d{k}"
                yield from resistor(f"d{place}", place, "0", real.leakage)


def nudge(network: Network, target: Target, beta: float) -> Iterator[str]:
    """A source and a resistor for each output."""
    if not beta:
        return
    loss = network.loss
    if not isinstance(loss, SquaredError) or target is None:
        raise InputError("A nudge is a resistor to a source at the target: it needs a SquaredError and a target.")
    loss.check(target, 1)
    (node,) = loss.nodes
    zero = torch.zeros(1, *network.nodes[node].shape, dtype=torch.float64)
    own = [f"y{i}" for i in range(network.nodes[node].units)]
    yield from sources(own, loss.target_minus_state(node, target, zero))
    for i, (at, unit) in enumerate(zip(own, places(network, node), strict=True)):
        yield f"Rn{i} {at} {unit} {1 / beta!r}"


def sources(at: list[str], values: Tensor) -> Iterator[str]:
    for place, value in zip(at, numbers(values), strict=True):
        yield f"V{place} {place} 0 DC {value!r}"


def resistor(name: str, one: str, other: str, conductance: float) -> Iterator[str]:
    """None where the conductance is 0. Raises InputError for one below 0."""
    if conductance < 0:
        raise InputError(f"The conductance between {one} and {other} is {conductance:g}: call keep_passive first.")
    if conductance:
        yield f"R{name} {one} {other} {1 / conductance!r}"


def numbers(values: Tensor) -> list[float]:
    found: list[float] = values.double().flatten().tolist()
    return found
