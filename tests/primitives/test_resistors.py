"""Circuits: nodes that go to their exact minimum in one visit, and equilibrium propagation at any nudge."""

import pytest
import torch
from every_estimator import EXACT, REST, gradients, relative
from pages import section

import eqprop as ep
from eqprop import testing

RESISTORS = section("A term that is quadratic in its node").Resistors
WIRE = ep.energy.Wire()


class Unstated(RESISTORS):
    """The same energy, which does not say that it is quadratic."""

    quadratic = False

    def stiffness(self, node, *states):
        return None


def circuit(unit=WIRE, output=WIRE, coupling=RESISTORS, seed=0):
    torch.manual_seed(seed)
    nodes = {"x": ep.Node((4,)), "h": ep.Node((6,), unit), "y": ep.Node((3,), output)}
    couplings = [coupling("x", "h", (4, 6)), coupling("h", "y", (6, 3))]
    return ep.Network(nodes, couplings, ep.SquaredError("y", (3,))).double()


def batch():
    torch.manual_seed(1)
    return torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


def imbalance(landscape, state, node):
    """The largest sum of currents into a unit that is not held by its diode."""
    free = state[node] > landscape.unit(node).low
    return float((landscape.force(state, node) * free).abs().max())


@pytest.mark.parametrize("unit", [WIRE, ep.energy.Wire(low=0.0), ep.energy.Wire(0.0, 0.3)], ids=str)
@torch.no_grad()
def test_currents_sum_to_zero_after_a_visit_and_at_rest(unit):
    network = circuit(unit, output=ep.energy.Wire())
    landscape = network.landscape(batch()[0])
    torch.manual_seed(2)
    state = {name: torch.rand(5, *node.shape, dtype=torch.float64) for name, node in network.free.items()}
    for node in landscape.nodes:
        state = state | landscape.step(state, [node])
        inside = state[node] < landscape.unit(node).high
        assert float((landscape.force(state, node) * inside * (state[node] > unit.low)).abs().max()) < 1e-12
    settled = REST(landscape, landscape.zeros())
    assert bool(settled.settled.all())
    if unit.high == float("inf"):
        assert max(imbalance(landscape, settled.state, node) for node in landscape.nodes) < 1e-12


def least_energy(network, x, y, beta):
    """The minimum of E + beta |v_y - y|^2 / 2, by a linear solve: the mean over the batch, with its graph."""
    up, down = (network.couplings[name].conductance for name in ("x_h", "h_y"))
    system = torch.zeros(9, 9, dtype=x.dtype)
    system[:6, :6] = torch.diag(up.sum(0) + down.sum(1))
    system[6:, 6:] = torch.diag(down.sum(0) + beta)
    system[:6, 6:], system[6:, :6] = -down, -down.T
    source = torch.cat([x @ up, beta * y], 1)
    rest = torch.linalg.solve(system, source.T).T
    constant = 0.5 * (x.square() @ up.sum(1) + beta * y.square().sum(1))
    return (constant - 0.5 * (source * rest).sum(1)).mean()


@pytest.mark.parametrize("beta", [1e-3, 1e-1, 1.0, 10.0, 1000.0])
def test_the_estimate_is_right_at_any_nudge(beta):
    """One-sided EP is the gradient of (least E + beta loss, less least E) / beta, to rounding, at any beta."""
    network = circuit()
    x, y = batch()
    gain = (least_energy(network, x, y, beta) - least_energy(network, x, y, 0.0)) / beta
    right = torch.cat([g.flatten() for g in torch.autograd.grad(gain, list(network.parameters()))])
    found = gradients(network, ep.EquilibriumPropagation(ep.one_sided(beta), REST, REST), x, y)[: len(right)]
    assert relative(found, right) < 1e-9


def test_it_tends_to_the_exact_gradient():
    network = circuit(ep.energy.Wire(low=0.0))
    x, y = batch()
    right = gradients(network, EXACT, x, y)
    for beta in (1e-3, 1e-4):
        one, two = (ep.EquilibriumPropagation(made(beta), REST, REST) for made in (ep.one_sided, ep.symmetric))
        assert relative(gradients(network, one, x, y), right) < 2 * beta
        assert relative(gradients(network, two, x, y), right) < beta


@pytest.mark.parametrize("teacher", ["force", "clamp", "soft_clamp"])
@pytest.mark.parametrize("unit", [ep.identity, ep.energy.Clip(0.5, -1.0, 1.0)], ids=str)
def test_a_stiffness_that_is_stated_changes_the_way_and_not_the_rest(unit, teacher):
    """Small conductances, so that sweeps settle without it too."""
    found = []
    for coupling in (RESISTORS, Unstated):
        network = circuit(unit, unit, coupling)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(0.1)
        nudged = ep.EquilibriumPropagation(ep.symmetric(0.1), REST, REST, teacher=getattr(ep.learning, teacher))
        found.append(gradients(network, nudged, *batch()))
    assert relative(found[0], found[1]) < 1e-9


def test_a_soft_clamp_of_a_linear_node_is_the_minimiser_beside_stiff_terms_too():
    network = circuit(ep.identity, ep.identity)
    soft = ep.EquilibriumPropagation(ep.symmetric(0.1), REST, REST, teacher=ep.learning.soft_clamp)
    forced = ep.EquilibriumPropagation(ep.symmetric(0.1), REST, REST)
    assert relative(gradients(network, soft, *batch()), gradients(network, forced, *batch())) < 1e-9


def test_a_wire_without_resistors_says_so():
    nodes = {"x": ep.Node((4,)), "y": ep.Node((3,), WIRE)}
    network = ep.Network(nodes, [ep.Synapse("x", "y", ep.Dense((4,), (3,)))], ep.SquaredError("y", (3,)))
    with pytest.raises(ep.InputError, match="stiffness"):
        ep.Equilibrium(network, EXACT).settle(torch.randn(2, 4))


def test_a_soft_clamp_of_a_wire_says_so():
    soft = ep.EquilibriumPropagation(ep.symmetric(0.1), REST, REST, teacher=ep.learning.soft_clamp)
    with pytest.raises(ep.InputError, match="share of its own response"):
        gradients(circuit(), soft, *batch())


class Mine(ep.energy.Wire):
    """A user's own unit of the kind: it is built and settles like the library's."""


Mine.__module__ = "mine"


def test_a_users_own_wire():
    network, right = circuit(Mine(), Mine()), circuit()
    assert relative(*(gradients(each, EXACT, *batch()) for each in (network, right))) < 1e-12


WRONG = {
    "half of it": {"stiffness": lambda self, node, *states: 0.5 * RESISTORS.stiffness(self, node, *states)},
    "of another node": {"stiffness": lambda self, node, *states: self.conductance.sum().expand(1)},
    "negative": {"stiffness": lambda self, node, *states: -RESISTORS.stiffness(self, node, *states)},
    "not said": {"quadratic": False},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_conformance_suite_notices_a_wrong_stiffness(wrong):
    made = type("Wrong", (RESISTORS,), WRONG[wrong])("a", "b", (3, 2))
    testing.check_coupling(RESISTORS("a", "b", (3, 2)), {"a": (3,), "b": (2,)})
    with pytest.raises(AssertionError, match=r"stiffness|tangent"):
        testing.check_coupling(made, {"a": (3,), "b": (2,)})
