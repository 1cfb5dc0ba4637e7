"""Circuits: Kirchhoff's laws, diodes, amplifiers, leaks; and what equilibrium propagation makes of them."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from circuits import SETTLE, SIZES, branches, circuit, conductances, example, into
from torch.utils._python_dispatch import TorchDispatchMode

import eqprop as ep
from eqprop import physics, substrates, testing
from eqprop.energy import Nudge, Wire
from eqprop.learning import forms

pytestmark = pytest.mark.usefixtures("double")
GAINS = (1.0, -1.0, 2.5, -4.0)


def flat(gradients):
    return torch.cat([each.flatten() for each in gradients])


def gradient(network, estimator, x, y):
    loss = ep.Equilibrium(network, estimator, on_unsettled="raise").loss(x, y)
    return flat(torch.autograd.grad(loss, list(network.parameters())))


def relative(found, right):
    return float((found - right).norm() / right.norm())


def nudged(network, x, y, beta):
    """The landscape under a nudge."""
    return network.landscape(x).with_term("nudge", Nudge(network.loss, y, torch.full((len(x),), beta)))


# -- settling --


@pytest.mark.parametrize("beta", [0.0, 0.3, -0.3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@torch.no_grad()
def test_kirchhoffs_current_law_holds_and_no_diode_carries_current_the_wrong_way(sizes, beta):
    network, rng = circuit(sizes)
    x, y = example(sizes, rng)
    landscape = nudged(network, x, y, beta)
    state = SETTLE(landscape, landscape.zeros()).state
    currents = branches(network, x, state)
    largest = max(float(each.abs().max()) for each in currents)
    sums = into(network, currents)
    sums[network.output] = sums[network.output] + beta * (y - state[network.output])
    conducting = 0
    for name, total in sums.items():
        held = (state[name] == 0) & (name != network.output)  # by a diode, which takes what the sum is short of
        assert float(total[~held].abs().max()) <= 1e-14 * largest, name
        kinds = torch.ones_like(total)
        kinds[:, total.shape[1] // 2 :] = -1
        assert bool(((kinds * total)[held] <= 1e-14 * largest).all()), name
        assert bool((kinds * state[name] >= 0).all()) or name == network.output
        conducting += int(held.sum())
    assert conducting > 0


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@torch.no_grad()
def test_no_sweep_raises_the_co_content(sizes):
    network, rng = circuit(sizes)
    x, _ = example(sizes, rng)
    landscape = network.landscape(x)
    state, energies = landscape.zeros(), []
    for _ in range(60):
        state = ep.alternating(landscape, state)
        energies.append(float(landscape.energy(state)))
    co_content = sum(
        0.5 * float((i.square() / g).nansum())
        for i, g in zip(branches(network, x, state), conductances(network), strict=True)
    )
    co_content -= sum(float((network.couplings[f"{n}_bias"].bias * v).sum()) for n, v in state.items())
    assert energies[-1] == pytest.approx(co_content, rel=1e-12)
    rises = [after - before for before, after in pairwise(energies)]
    assert max(rises) <= 1e-15 * abs(energies[-1])
    assert energies[0] - energies[-1] > 1e-6 * abs(energies[-1])


@torch.no_grad()
def test_a_divider():
    """From a source of 1.5 x through g1 to a node, from there through g2 to the ground."""
    nodes = {"x": ep.Node((1,)), "v": ep.Node((1,), Wire())}
    network = ep.Network(nodes, [physics.Resistors("x", "v", (1,), (1,), 1.5), physics.Leak("v", (1,), 0.5)])
    network.couplings["x_v"].conductance.fill_(0.25)
    found = ep.FixedSweeps(2)(landscape := network.landscape(torch.tensor([[2.0]])), landscape.zeros())
    assert float(found.state["v"]) == pytest.approx(1.5 * 2 * 0.25 / 0.75)


@pytest.mark.parametrize("beta", [0.5, -0.2, 30.0])
@torch.no_grad()
def test_an_output_goes_to_its_minimum_under_any_nudge_in_one_visit(beta):
    """A negative nudge too, as long as the resistors outweigh it."""
    network, rng = circuit(SIZES[0])
    x, y = example(SIZES[0], rng)
    total = conductances(network)[-1].sum(0)
    assert float(total.min()) > 0.2
    landscape, output = nudged(network, x, y, beta), network.output
    state = {name: torch.randn(1, *node.shape) for name, node in network.free.items()}
    found = landscape.step(state, [output])[output]
    source = state["layer1"] @ conductances(network)[-1] + network.couplings[f"{output}_bias"].bias
    torch.testing.assert_close(found, (source + beta * y) / (total + beta), rtol=1e-13, atol=1e-13)


def test_a_nudge_that_outweighs_the_resistors_is_not_taken_for_settled():
    network, rng = circuit(SIZES[0])
    x, y = example(SIZES[0], rng)
    estimator = ep.EquilibriumPropagation(ep.one_sided(-50.0), SETTLE, SETTLE)
    with pytest.raises(ep.NotSettledError, match="nudged"):
        gradient(network, estimator, x, y)


# -- learning --

ONE_SIDED = {0.03: 4.3e-2, 0.01: 1.5e-2, 0.003: 4.5e-3, 0.001: 1.5e-3}
CENTRED = {0.03: 1.8e-3, 0.01: 2.0e-4, 0.003: 1.8e-5, 0.001: 2.0e-6}
"""beta -> the relative error of conductances' gradients on 4-8-6-3, measured with an independent program."""


@pytest.mark.parametrize(("make", "order", "known"), [(ep.one_sided, 1, ONE_SIDED), (ep.symmetric, 2, CENTRED)])
def test_the_error_of_equilibrium_propagation_falls_as_its_stencil_says(make, order, known):
    sizes = [4, 8, 6, 3]
    network, _ = circuit(sizes, seed=1)
    x, y = (torch.as_tensor(np.random.default_rng(2).standard_normal((1, n))) for n in (4, 3))
    errors, exact = {}, part(network, gradient(network, ep.ImplicitDifferentiation(SETTLE, 1e-13), x, y))
    for beta in known:
        found = part(network, gradient(network, ep.EquilibriumPropagation(make(beta), SETTLE, SETTLE), x, y))
        errors[beta] = relative(found, exact)
        assert errors[beta] == pytest.approx(known[beta], rel=0.05), beta
    slope = math.log(errors[0.01] / errors[0.001]) / math.log(10)
    assert slope == pytest.approx(order, abs=0.1)


def part(network, found):
    """Of a gradient by all parameters, that by conductances."""
    named = dict(network.named_parameters())
    pieces = found.split([p.numel() for p in named.values()])
    return torch.cat([piece for name, piece in zip(named, pieces, strict=True) if name.endswith("conductance")])


def test_implicit_differentiation_is_the_slope_of_the_settled_loss():
    network, rng = circuit([4, 8, 6, 3], seed=1)
    x, y = example([4, 8, 6, 3], rng)
    model = ep.Equilibrium(network, ep.ImplicitDifferentiation(SETTLE, 1e-13))
    exact = dict(
        zip(
            dict(network.named_parameters()),
            torch.autograd.grad(model.loss(x, y), list(network.parameters())),
            strict=True,
        )
    )
    for name, parameter in network.named_parameters():
        place = torch.unravel_index(exact[name].abs().argmax(), parameter.shape)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter[place] += step
                values.append(float(model.loss(x, y)))
                parameter[place] -= step
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(exact[name][place]), rel=1e-6), name


def test_a_resistor_learns_by_its_own_voltage():
    """The squared voltage across it, under one nudge and under the other; in another order of the arithmetic."""
    sizes, beta = [4, 8, 6, 3], 0.1
    network, rng = circuit(sizes)
    x, y = example(sizes, rng)
    record = ep.Record()
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(beta), SETTLE, SETTLE))
    model.loss(x, y, record=record).backward()
    up, down = ({n: v[k : k + 1] for n, v in record.nudged.state.items()} for k in (0, 1))
    squares = []
    for state in (up, down):
        ends = [torch.cat([4 * x, -4 * x], 1), *state.values()]
        squares.append([0.5 * (v[0, :, None] - u[0, None, :]).square() for v, u in pairwise(ends)])
    right = [(p - m) / (2 * beta) for p, m in zip(*squares, strict=True)]
    found = [c.conductance.grad for c in network.terms.values() if isinstance(c, physics.Resistors)]
    torch.testing.assert_close([torch.cat(found[:2]), *found[2:]], right, rtol=1e-9, atol=1e-12)
    for name in network.free:
        torch.testing.assert_close(
            network.couplings[f"{name}_bias"].bias.grad, (down[name] - up[name])[0] / (2 * beta), rtol=1e-9, atol=1e-12
        )


def test_sources_of_hundreds_of_volts_leave_the_digits_of_small_changes():
    """In float32: the squares of the sources cancel example by example."""
    network, rng = circuit([20, 60, 10])
    x, y = example([20, 60, 10], rng)
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.1), ep.FixedSweeps(60), ep.FixedSweeps(60))
    right = part(network, gradient(network, estimator, 100 * x, y))
    found = part(network, gradient(network.float(), estimator, 100 * x.float(), y.float()))
    assert relative(found.double(), right) < 1e-3


class Largest(TorchDispatchMode):
    """The size of the largest tensor that is made within."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, torch.Tensor):
                self.numel = max(self.numel, each.untyped_storage().nbytes() // each.element_size())
        return found


def test_no_tensor_holds_a_number_for_every_resistor_and_example():
    network, _ = circuit([20, 60, 40, 5])
    x, y = torch.randn(16, 20), torch.randn(16, 5)
    settle = ep.FixedSweeps(5)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), settle, settle), on_unsettled="ignore")
    with Largest() as largest:
        model.loss(x, y).backward()
    resistors = max(g.numel() for g in conductances(network))
    assert resistors <= largest.numel < 3 * resistors  # two phases of 16 examples would be 32 times as many


# -- amplifiers --


@torch.no_grad()
def test_an_amplifier_passes_voltages_on_and_currents_back():
    network, rng = circuit([4, 8, 6, 3], voltage_gain=2.5)
    x, _ = example([4, 8, 6, 3], rng)
    landscape = network.landscape(x)
    state = SETTLE(landscape, landscape.zeros()).state
    currents = branches(network, x, state, 2.5)
    for name, total in into(network, currents, 2.5).items():
        free = (state[name] != 0) | (name == network.output)
        assert float(total[free].abs().max()) < 1e-13
        assert bool(free.any())


@torch.no_grad()
def test_amplifiers_scale_the_voltages_of_a_circuit_without():
    """Voltages of layer k times a^(k - 1), where the current sources are so, too."""
    plain, rng = circuit([4, 8, 6, 3])
    amplified, _ = circuit([4, 8, 6, 3], voltage_gain=2.5)
    for k, name in enumerate(amplified.free):
        amplified.couplings[f"{name}_bias"].bias.mul_(2.5**k)
    x, _ = example([4, 8, 6, 3], rng)
    one, other = (SETTLE(scene := net.landscape(x), scene.zeros()).state for net in (plain, amplified))
    for k, name in enumerate(plain.free):
        torch.testing.assert_close(other[name], 2.5**k * one[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("unit", [physics.IdealDiodes(), physics.JunctionDiodes(width=0.3, leakage=0.01)], ids=str)
def test_circuits_with_amplifiers_learn_too(unit):
    network, rng = circuit([4, 8, 6, 3], voltage_gain=2.5, unit=unit)
    x, y = example([4, 8, 6, 3], rng)
    exact = gradient(network, ep.ImplicitDifferentiation(SETTLE, 1e-13), x, y)
    centred = ep.EquilibriumPropagation(ep.symmetric(1e-4), SETTLE, SETTLE, form=forms.states)
    assert relative(gradient(network, centred, x, y), exact) < 1e-4


# -- the parts --


@pytest.mark.parametrize("gain", GAINS)
def test_resistors_conform(gain):
    testing.check_coupling(physics.Resistors("a", "b", (2, 2), (3,), gain), {"a": (2, 2), "b": (3,)})
    testing.check_coupling(physics.Leak("a", (2, 3), 0.3), {"a": (2, 3)})


DIODES = [
    *(physics.IdealDiodes(share) for share in (0.5, 1.0, 0.0, 0.3)),
    *(physics.JunctionDiodes(), physics.JunctionDiodes(0.2, 1e-9, 0.3, 1e-3)),
]


@pytest.mark.parametrize("shape", [(5,), (4, 2, 2), (1,)], ids=str)
@pytest.mark.parametrize("unit", DIODES, ids=str)
def test_diodes_conform(unit, shape):
    testing.check_unit(unit, shape=shape)


@pytest.mark.parametrize("unit", [physics.IdealDiodes(), physics.JunctionDiodes(), physics.IdealDiodes(1.0)], ids=str)
def test_the_first_units_of_a_node_are_excitatory(unit):
    drive = torch.tensor([[3.0, -3.0, 3.0, -3.0]])
    found = unit.response(drive, torch.tensor(2.0))
    first = 4 if unit.excitatory == 1 else 2
    kinds = torch.ones(1, 4)
    kinds[:, first:] = -1
    assert bool((kinds * found >= -0.9).all())
    torch.testing.assert_close(found[kinds * drive > 0], drive[kinds * drive > 0] / 2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [physics.diodes.THERMAL_VOLTAGE, 1.0, 1e-5])
def test_a_junctions_voltage_balances_its_current(width, dtype):
    """Over 24 decades of currents, against bisection in the logarithm-free form."""
    size = torch.logspace(-12, 12, 97, dtype=torch.float64)
    drive = torch.stack([torch.cat([-size, size])] * 2, 1)
    unit, k = physics.JunctionDiodes(saturation=1e-14, width=width), torch.tensor(0.7, dtype=torch.float64)
    side = torch.tensor([1.0, -1.0])
    low, high = -(drive.abs() / k), drive.abs() / k
    for _ in range(200):
        middle = (low + high) / 2
        carried = 1e-14 * torch.expm1((-side * middle / width).clamp(max=600))
        above = k * middle - drive - side * carried > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    found = unit.response(drive.to(dtype), k.to(dtype)).double()
    torch.testing.assert_close(found, middle, rtol=20 * torch.finfo(dtype).eps, atol=1e-15)


def test_a_junction_tends_to_the_ideal_diode_as_its_width_does_to_0():
    network, rng = circuit([4, 6, 3])
    x, _ = example([4, 6, 3], rng)
    ideal, gaps = ep.Equilibrium(network, ep.ImplicitDifferentiation(SETTLE)).settle(x).state, []
    for emission in (0.1, 0.01, 0.001):
        width = emission * physics.diodes.THERMAL_VOLTAGE
        real, _ = circuit([4, 6, 3], unit=physics.JunctionDiodes(width=width))
        state = ep.Equilibrium(real, ep.ImplicitDifferentiation(SETTLE)).settle(x).state
        gaps.append(max(float((state[name] - value).abs().max()) for name, value in ideal.items()))
    assert gaps == pytest.approx([gaps[0], gaps[0] / 10, gaps[0] / 100], rel=0.02)


def test_junctions_differentiate():
    unit, drive = physics.JunctionDiodes(width=0.2, leakage=0.1), torch.randn(3, 4, requires_grad=True)
    stiffness = torch.rand(4).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(unit.response, (drive, stiffness))


def test_conductances_start_as_half_a_uniform_distribution_and_current_sources_at_0():
    torch.manual_seed(0)
    network = physics.deep_resistive_network((1, 7, 8), [40, 30], 10, 100.0)
    sizes = {"input_layer1": 112, "inverted_input_layer1": 112, "layer1_layer2": 40, "layer2_layer3": 30}
    for name, sources in sizes.items():
        g, bound = network.couplings[name].conductance.detach(), sources**-0.5
        assert 0.8 * bound < float(g.max()) <= bound
        assert float((g == 0).double().mean()) == pytest.approx(0.5, abs=0.08)
        assert float(g.mean()) == pytest.approx(bound / 4, rel=0.2)
    assert [network.couplings[f"layer{n}_bias"].bias.abs().max().item() for n in (1, 2, 3)] == [0, 0, 0]
    assert [c.voltage_gain for c in network.terms.values() if isinstance(c, physics.Resistors)] == [100, -100, 1, 1]


def test_keep_passive_sets_what_is_negative_to_0_and_nothing_else():
    network, _ = circuit([4, 6, 3])
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.view(-1)[0] = -0.25
    physics.keep_passive(network)
    for name, parameter in network.named_parameters():
        first, *rest = parameter.detach().flatten()
        assert float(first) == (0.0 if name.endswith("conductance") else -0.25)
        assert torch.equal(torch.stack(rest), before[name].flatten()[1:])


def test_a_network_comes_back_from_its_spec():
    network, rng = circuit([4, 6, 3], voltage_gain=2.0, unit=physics.JunctionDiodes(0.25, 1e-12, 0.1, 0.0))
    twin = ep.Network.from_spec(network.spec()).double()
    twin.load_state_dict(network.state_dict())
    x, _ = example([4, 6, 3], rng)
    one, other = (SETTLE(scene := net.landscape(x), scene.zeros()).state for net in (network, twin))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: physics.Resistors("a", "a", (2,), (2,)), "to itself"),
        (lambda: physics.Resistors("a", "b", (2,), (2,), 0.0), "passes nothing on"),
        (lambda: physics.Leak("a", (2,), -1.0), "initial"),
        (lambda: physics.IdealDiodes(1.5), "excitatory"),
        (lambda: physics.JunctionDiodes(saturation=0.0), "saturation"),
        (lambda: physics.deep_resistive_network((4,), [], 3, 1.0), "hidden layer"),
        (lambda: physics.deep_resistive_network((4,), [5], 3, 0.0), "passes nothing on"),
        (lambda: physics.deep_resistive_network((4,), [0], 3, 1.0), "hidden"),
        (lambda: physics.IdealDiodes().response(torch.zeros(1, 2)), "resistors"),
        (lambda: physics.JunctionDiodes().response(torch.zeros(1, 2)), "resistors"),
        (lambda: physics.IdealDiodes().difference(torch.zeros(1, 2), torch.zeros(1, 2)), "displacement"),
        (lambda: bound(physics.Resistors("x", "v", (3,), (1,))), "resistors are for"),
        (lambda: bound(physics.Leak("v", (2,), 1.0)), "is for shape"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, words):
    with pytest.raises(ep.InputError, match=words) as told:
        make()
    assert "\n" not in str(told.value)


def bound(coupling):
    resistors = physics.Resistors("x", "v", (2,), (1,))
    return ep.Network({"x": ep.Node((2,)), "v": ep.Node((1,), Wire())}, {"one": resistors, "other": coupling})


@pytest.mark.parametrize(
    "fault", [substrates.StuckWeights(1.0, largest=0.5), substrates.WeightNoise(0.5), substrates.Aged(age=1e6)]
)
def test_no_machine_reads_a_conductance_below_0(fault):
    network, _ = circuit([4, 6, 3])
    for name, coupling in network.terms.items():
        if isinstance(coupling, physics.Resistors):
            seen = fault.mounted(name, coupling, 0).conductance
            assert float(seen.detach().min()) >= 0
            (slope,) = torch.autograd.grad(seen.sum(), coupling.conductance)
            assert bool((slope == 1).all())
