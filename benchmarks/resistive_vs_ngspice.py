"""The block solver against ngspice: the time to an operating point, and how far the voltages are apart, over size.

    python benchmarks/resistive_vs_ngspice.py [--hidden 12 25 50 100 200 400] [--repeats 5]

Circuits of 2 x 0.64 h voltage sources, h units with diodes and 10 outputs, with a resistor between each two neighbours,
in float64 on one thread. The two take turns in one run; times are the least of all rounds. That of ngspice is given for
the whole process, with reading the netlist, and for its analysis alone, as it reports it, in whole milliseconds.
Solvers here start from 0, and stop at an estimated distance of 1e-14 V to rest. It needs ngspice and matplotlib; the
picture is docs/resistive_vs_ngspice.png.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import matplotlib
import torch
from common import Row, machine, show, timed, write

import eqprop as ep
from eqprop import physics
from eqprop.energy import State

PICTURE = Path(__file__).parents[1] / "docs" / "resistive_vs_ngspice.png"
SOLVER = ep.UntilConverged(1e-14, 1000)


def circuit(hidden: int, unit: physics.DiodeLayer) -> ep.Network:
    """Conductances uniform in (0, 1/sqrt(n)); the same ones for every unit."""
    torch.manual_seed(0)
    network = physics.deep_resistive_network((round(0.64 * hidden),), [hidden], 10, 4.0, unit=unit).double()
    with torch.no_grad():
        for coupling in network.terms.values():
            if isinstance(coupling, physics.Resistors):
                coupling.conductance.uniform_(0, (coupling.fan_in or len(coupling.conductance)) ** -0.5)
            else:
                next(coupling.parameters()).normal_(0, 0.3)
    return network


def settle(network: ep.Network, x: torch.Tensor) -> ep.Solution:
    landscape = network.landscape(x)
    return SOLVER(landscape, landscape.zeros())


def gap(one: State, other: State) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@torch.no_grad()
def row(hidden: int, repeats: int) -> Row:
    ideal, real = (circuit(hidden, unit) for unit in (physics.IdealDiodes(), physics.JunctionDiodes()))
    x = torch.randn(1, ideal.nodes["input"].units, dtype=torch.float64)
    text = physics.netlist(real, x).replace("\nop\n", "\nop\nrusage time\n")
    printed: list[str] = []
    rounds = [
        (
            timed(lambda: printed.append(physics.ngspice(text))),
            timed(lambda: settle(real, x)),
            timed(lambda: settle(ideal, x)),
        )
        for _ in range(repeats + 1)
    ][1:]
    whole, junctions, block = (min(side) for side in zip(*rounds, strict=True))
    analysis = [float(t) for each in printed[1:] for t in re.findall(r"analysis time \(seconds\) = (\S+)", each)]
    simulated, found, limit = physics.read_voltages(real, printed[0]), settle(real, x), settle(ideal, x)
    sharp = physics.read_voltages(ideal, physics.ngspice(physics.netlist(ideal, x)))
    return {
        "hidden": hidden,
        "resistors": sum(c.conductance.numel() for c in real.terms.values() if isinstance(c, physics.Resistors)),
        "ngspice_s": whole,
        "ngspice_analysis_s": min(analysis),
        "real_diodes_s": junctions,
        "ideal_diodes_s": block,
        "sweeps": int(limit.sweeps),
        "volts": max(float(v.abs().max()) for v in found.state.values()),
        "gap_real_v": gap(simulated, found.state),
        "gap_ideal_v": gap(sharp, limit.state),
    }


def tables(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    rows = [row(hidden, options.repeats) for hidden in options.hidden]
    show("an operating point by ngspice and by the block solver", rows)
    return {"rows": rows}


def draw(found: dict[str, Any]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = found["rows"]
    resistors = [each["resistors"] for each in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for key, label, style in (
        ("ngspice_s", "ngspice, whole process", "o-"),
        ("ngspice_analysis_s", "ngspice, analysis alone", "o--"),
        ("real_diodes_s", "block solver, real diodes", "s-"),
        ("ideal_diodes_s", "block solver, ideal diodes", "s--"),
    ):
        left.loglog(resistors, [each[key] or float("nan") for each in rows], style, ms=4, label=label)
    left.set(xlabel="resistors", ylabel="seconds", title="time to an operating point")
    left.legend(fontsize=8)
    right.loglog(
        resistors, [each["gap_ideal_v"] for each in rows], "s--", ms=4, label="ideal diodes, N = 0.001 in ngspice"
    )
    right.loglog(resistors, [each["gap_real_v"] for each in rows], "o-", ms=4, label="real diodes, N = 1")
    right.set(xlabel="resistors", ylabel="volts", title="largest difference of a voltage", ylim=(1e-16, 1))
    right.legend(fontsize=8)
    figure.suptitle(f"{found['machine']['machine']}, one thread, torch {found['machine']['torch']}", fontsize=8)
    figure.savefig(PICTURE, dpi=150)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--hidden", type=int, nargs="+", default=[12, 25, 50, 100, 200, 400])
    made.add_argument("--repeats", type=int, default=7)
    return made


if __name__ == "__main__":
    tabled = tables(parser().parse_args()) | {"machine": machine()}
    write("resistive_vs_ngspice", tabled)
    draw(tabled)
