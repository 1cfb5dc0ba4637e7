"""Terms that are quadratic in a node: a parabolic unit goes to its exact minimum in one visit."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import eqprop as ep
from eqprop.energy.losses import Nudge
from eqprop.learning.teachers import Force
from eqprop.settling.displacement import ShiftedUnit

pytestmark = pytest.mark.usefixtures("double")

PARABOLAS = [ep.identity, ep.hard_sigmoid, ep.energy.half_hard_sigmoid, ep.energy.Clip(0.7, -1.0, 2.0)]
number = st.floats(-3, 3)


@settings(deadline=None, max_examples=60)
@given(drive=number, stiffness=st.floats(0, 5), change=number)
@pytest.mark.parametrize("unit", PARABOLAS, ids=lambda u: type(u).__name__ + str(getattr(u, "slope", "")))
def test_the_response_minimises_the_energy_with_the_terms_share(unit, drive, stiffness, change):
    drive, stiffness, change = (torch.tensor([v], dtype=torch.float64) for v in (drive, stiffness, change))
    found = unit.response(drive, stiffness)
    others = torch.linspace(max(unit.low, -8), min(unit.high, 8), 4001, dtype=torch.float64)
    cost = unit.potential(others) + stiffness / 2 * others.square() - drive * others
    least = unit.potential(found) + stiffness / 2 * found.square() - drive * found
    assert float(least) <= float(cost.min()) + 1e-12
    rest = unit.response(drive)  # of a shifted unit the term's own part pulls back to where it was seen from
    both = unit.response(drive + change + stiffness * rest, stiffness) - rest
    torch.testing.assert_close(unit.difference(drive, change, stiffness), both, rtol=0, atol=1e-12)
    torch.testing.assert_close(ShiftedUnit(unit, drive).response(change, stiffness), both, rtol=0, atol=1e-12)


def test_a_nudge_of_any_size_settles_in_one_visit():
    """Of an output that nothing feeds back from: its minimum is (a + beta y) / (1 + beta)."""
    network = ep.chain((3,), [ep.DenseLayer(2, ep.identity)], ep.SquaredError)
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    with torch.no_grad():
        landscape = network.landscape(x)
        free = landscape.step(landscape.zeros(), ["layer1"])
        for beta in (0.1, 3.0, 1e6):
            nudged = landscape.with_term("more", Nudge(network.loss, y, torch.full((4,), beta)))
            found = nudged.step(free, ["layer1"])
            torch.testing.assert_close(found["layer1"], (free["layer1"] + beta * y) / (1 + beta))
            assert float(nudged.force(found, "layer1").abs().max()) < 1e-9 * (1 + beta)


@pytest.mark.parametrize("form", [ep.learning.forms.states, ep.learning.forms.displacements], ids=["states", "moves"])
@pytest.mark.parametrize("beta", [0.5, -0.5])
def test_the_exact_and_the_published_nudge_come_to_the_same_rest(form, beta):
    network = ep.chain((3,), [ep.DenseLayer(5, ep.tanh), ep.DenseLayer(2, ep.hard_sigmoid)], ep.SquaredError)
    x, y, sweeps, found = torch.randn(4, 3), torch.rand(4, 2), ep.FixedSweeps(200), []
    for exact in (True, False):
        estimator = ep.EquilibriumPropagation(ep.one_sided(beta), sweeps, sweeps, form=form, teacher=Force(exact=exact))
        loss = ep.Equilibrium(network, estimator).loss(x, y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_a_wire_without_a_stiff_term_is_refused():
    nodes = {"x": ep.Node((3,)), "a": ep.Node((2,), ep.energy.Wire())}
    network = ep.Network(nodes, [ep.Synapse("x", "a", ep.Dense((3,), (2,)))])
    landscape = network.landscape(torch.randn(1, 3))
    with pytest.raises(ep.InputError, match="stiffness"):
        landscape.step(landscape.zeros(), ["a"])
