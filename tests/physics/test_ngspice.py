"""The same circuits in a circuit simulator; the tests that run it are left out where it is not installed."""

import itertools
import math
import re
import shutil

import numpy as np
import pytest
import torch
from circuits import SETTLE, circuit, conductances

import eqprop as ep
from eqprop import physics
from eqprop.energy import Wire
from eqprop.physics.diodes import THERMAL_VOLTAGE
from eqprop.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("double")
simulated = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")

REAL = physics.JunctionDiodes()
SIZES = [4, 6, 3]


def subject(sizes=SIZES, **more):
    """A circuit, an input and a target."""
    network, _ = circuit(sizes, **more)
    return network, *(torch.as_tensor(np.random.default_rng(3).standard_normal((1, n))) for n in (4, 3))


def settled(network, x, y=None, beta=0.0):
    landscape = network.landscape(x)
    if beta:
        nudge = ep.energy.Nudge(network.loss, y, torch.full((1,), beta))
        landscape = landscape.with_term("nudge", nudge)
    with torch.no_grad():
        return SETTLE(landscape, landscape.zeros()).state


def by_ngspice(network, *of, **more):
    return physics.read_voltages(network, physics.ngspice(physics.netlist(network, *of, **more)))


def gap(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


CIRCUITS = {
    "real diodes": {"unit": REAL},
    "wide, saturating, leaking diodes": {"unit": physics.JunctionDiodes(0.3, 1e-12, 2 * THERMAL_VOLTAGE, 0.05)},
    "amplifiers": {"unit": REAL, "voltage_gain": 3.0},
    "inverting amplifiers": {"unit": REAL, "voltage_gain": -1.0},
    "three layers": {"unit": REAL, "sizes": [4, 8, 6, 3]},
}


@simulated
@pytest.mark.parametrize("beta", [0.0, 0.3, -0.1])
@pytest.mark.parametrize("name", CIRCUITS)
def test_the_simulator_finds_the_same_voltages(name, beta):
    network, x, y = subject(**CIRCUITS[name])
    found, right = by_ngspice(network, x, y, beta), settled(network, x, y, beta)
    assert max(float(v.abs().max()) for v in found.values()) > 0.3
    assert gap(found, right) < 1e-12


@simulated
def test_the_gradient_is_that_of_the_simulated_voltages():
    network, x, y = subject(unit=REAL)
    beta, parameters = 0.05, [*network.parameters()]
    up, down = (by_ngspice(network, x, y, each) for each in (beta, -beta))
    landscape = network.landscape(x)
    simulated = (landscape.energy(up) - landscape.energy(down)).sum() / (2 * beta)
    estimator = ep.EquilibriumPropagation(ep.symmetric(beta), SETTLE, SETTLE)
    loss = ep.Equilibrium(network, estimator).loss(x, y)
    found, right = (
        torch.cat([g.flatten() for g in torch.autograd.grad(each, parameters)]) for each in (loss, simulated)
    )
    assert float((found - right).norm() / right.norm()) < 1e-11
    assert float(right.norm()) > 1


@simulated
def test_ideal_diodes_are_the_limit_of_sharp_ones():
    """The gap falls in proportion to the emission coefficient."""
    network, x, _ = subject()
    ideal, sharpness = settled(network, x), (0.1, 0.01, 0.001)
    gaps = [
        gap(by_ngspice(network, x, diode=physics.JunctionDiodes(width=n * THERMAL_VOLTAGE)), ideal) for n in sharpness
    ]
    slopes = [math.log10(one / other) for one, other in itertools.pairwise(gaps)]
    assert slopes == pytest.approx([1, 1], abs=0.02)
    assert gaps[-1] == pytest.approx(8.7e-4, rel=0.02)  # as an independent program found
    assert gap(by_ngspice(network, x), ideal) == pytest.approx(gaps[-1], rel=1e-6)


@simulated
def test_wires_leaks_and_two_inputs():
    torch.manual_seed(0)
    nodes = {
        "x": ep.Node((2, 2)),
        "z": ep.Node((2,)),
        "up": ep.Node((2, 2), Wire(low=0.0)),
        "down": ep.Node((3,), Wire(high=0.0)),
        "y": ep.Node((2,), Wire()),
    }
    pairs = [("x", "up", 2.0), ("x", "down", -1.0), ("up", "z", 1.0), ("up", "y", 0.5), ("down", "y", 1.0)]
    couplings = [physics.Resistors(a, b, nodes[a].shape, nodes[b].shape, gain) for a, b, gain in pairs]
    couplings += [physics.Leak("up", (2, 2), 0.1), physics.Leak("y", (2,), 0.2), ep.Bias("down", (3,))]
    network = ep.Network(nodes, couplings, clamped=("x", "z"))
    data = {"x": torch.randn(1, 2, 2), "z": torch.randn(1, 2)}
    found, right = by_ngspice(network, data), settled(network, data)
    assert gap(found, right) < 1e-3
    assert min(float(v.abs().max()) for v in found.values()) > 0.05
    held = any(bool((right[name] == 0).any()) for name in ("up", "down"))
    assert held


@simulated
def test_the_network_of_a_run_and_an_image():
    """13,800 possible resistors, in float32, under sources of 100 V."""
    torch.set_default_dtype(torch.float32)
    run = RECIPES["mnist-resistive-xs"](data="digits")
    network, (x, _) = run.model.network, run.test.sample(1)
    found, right = by_ngspice(network, x), run.model.settle(x).state
    assert max(float(v.abs().max()) for v in right.values()) > 5
    assert gap(found, right) < 2e-3  # that of an ideal diode


def test_the_elements_are_counted():
    network, x, y = subject(unit=physics.JunctionDiodes(leakage=0.5), voltage_gain=2.0)
    text = physics.netlist(network, x, y, 0.25)
    assert re.search(r"IS=1e-14 N=1.0 RS=0", text)
    count = {kind: len(re.findall(rf"^{kind}\d", text, re.M)) for kind in "REFI"}
    positive = sum(int((g > 0).sum()) for g in conductances(network))
    assert count == {"R": positive, "E": 6, "F": 6, "I": 9}
    assert len(re.findall(r"^Rd\w+ \w+ 0 2.0$", text, re.M)) == 6
    assert len(re.findall(r"^Rn\d y\d l2_\d 4.0$", text, re.M)) == 3
    assert re.findall(r"^Va0_\d a0_\d 0 DC (\S+)$", text, re.M) == [repr(4 * v) for v in x[0].tolist()]
    assert re.findall(r"^Va1_\d a1_\d 0 DC (\S+)$", text, re.M) == [repr(-4 * v) for v in x[0].tolist()]
    assert re.findall(r"^D(\w+) (\w+) (\w+) d0$", text, re.M) == [
        *((f"l1_{i}p", "0", f"l1_{i}") for i in range(3)),
        *((f"l1_{i}n", f"l1_{i}", "0") for i in range(3, 6)),
    ]


def test_voltages_are_read_in_their_places():
    network, _, _ = subject()
    lines = [f"v(l{k}_{i}) = {k}.{i}e-01" for k, n in ((2, 3), (1, 6)) for i in range(n)]
    found = physics.read_voltages(network, "Note: circuit\n" + "\n".join(lines) + "\nngspice done\n")
    torch.testing.assert_close(found["layer1"], 0.1 + 0.01 * torch.arange(6.0)[None])
    torch.testing.assert_close(found["layer2"], 0.2 + 0.01 * torch.arange(3.0)[None])


def other(unit=None, coupling=None, loss=True):
    nodes = {"x": ep.Node((4,)), "y": ep.Node((3,), unit or Wire())}
    couplings = [physics.Resistors("x", "y", (4,), (3,))]
    couplings += [coupling] if coupling is not None else []
    return ep.Network(
        nodes, {str(k): each for k, each in enumerate(couplings)}, ep.SquaredError("y", (3,)) if loss else None
    )


def negative():
    network = other()
    with torch.no_grad():
        network.couplings["0"].conductance[1, 2] = -0.5
    return network


ROW, ROWS = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: physics.netlist(other(), ROWS), "one example"),
        (lambda: physics.netlist(other(), ROW, beta=0.5), "target"),
        (lambda: physics.netlist(other(loss=False), ROW, torch.tensor([1]), 0.5), "SquaredError"),
        (lambda: physics.netlist(other(), ROW, torch.tensor([7]), 0.5), "Label 7"),
        (lambda: physics.netlist(other(ep.tanh), ROW), "Tanh"),
        (lambda: physics.netlist(other(Wire(low=0.5)), ROW), "Wire"),
        (lambda: physics.netlist(other(coupling=ep.Synapse("x", "y", ep.Dense((4,), (3,)))), ROW), "Synapse"),
        (lambda: physics.netlist(negative(), ROW), "keep_passive"),
        (lambda: physics.netlist(other().on(type("Rust", (ep.energy.Substrate,), {})()), ROW), "Rust"),
        (
            lambda: physics.read_voltages(other(), "v(l1_0) = 1.0\ndoAnalyses: gmin stepping failed"),
            "gmin stepping failed",
        ),
    ],
)
def test_what_no_netlist_describes_is_refused_in_one_line(make, words):
    with pytest.raises(ep.InputError, match=words) as told:
        make()
    assert "\n" not in str(told.value)


def test_without_the_simulator_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ep.InputError, match="apt-get install ngspice"):
        physics.ngspice("")


@pytest.mark.parametrize("part", ["data", "target", "weights"])
def test_values_that_are_not_finite_make_no_netlist(part):
    network, x, y = subject()
    x, y = x[:1], y[:1]
    if part == "weights":
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] = math.nan
    x, y = (math.nan * each if part == name else each for name, each in (("data", x), ("target", y)))
    with pytest.raises(ep.InputError, match=r"A value of the circuit is not finite, '[RV]"):
        physics.netlist(network, x, y, 0.1)
