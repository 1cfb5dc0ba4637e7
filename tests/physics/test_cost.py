"""The counter counts what happens and changes nothing; the modelled cost is the formula, and says what it is."""

from dataclasses import replace

import pytest
import torch

import eqprop as ep
from eqprop import learning, physics, testing
from eqprop.physics import CostTable, Counter, Tally, modelled_cost

BATCH, HIDDEN, OUT = 5, 7, 3
CELLS = 4 * HIDDEN + HIDDEN + HIDDEN * OUT + OUT
STEPS = {
    "one-sided": (ep.one_sided(0.1), 1),
    "symmetric": (ep.symmetric(0.1), 2),
    "five": (learning.five_point(0.1), 4),
}
"""A stencil and its nudged phases."""


def network():
    torch.manual_seed(0)
    layers = [ep.DenseLayer(HIDDEN, ep.tanh), ep.DenseLayer(OUT, ep.tanh)]
    return ep.chain((4,), layers, ep.SquaredError).double()


def step(net, estimator):
    torch.manual_seed(1)
    x, y, record = torch.randn(BATCH, 4, dtype=torch.float64), torch.arange(BATCH) % OUT, ep.Record()
    loss = ep.Equilibrium(net, estimator, "ignore").loss(x, y, record=record)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]), record


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("stacked", [True, False])
def test_it_counts_what_happens(name, stacked):
    stencil, nudged = STEPS[name]
    estimator = ep.EquilibriumPropagation(stencil, ep.FixedSweeps(20), ep.FixedSweeps(8), stacked=stacked)
    counter = Counter()
    found, record = step(network().on(counter), estimator)
    tally = counter.tally(record, pulses=11, pulse_slots=2)
    assert tally.cells == CELLS
    assert tally.phases == BATCH * (1 + nudged)
    assert tally.cell_operations == CELLS * BATCH * (20 + 8 * nudged)
    assert tally.nudge_conversions == BATCH * OUT * nudged
    assert (tally.pulses, tally.pulse_slots) == (11, 2)
    assert tally.readings == BATCH * (1 + nudged)
    assert tally.conversions == (HIDDEN + OUT) * tally.readings
    ideal, _ = step(network(), estimator)
    torch.testing.assert_close(found, ideal, rtol=1e-9, atol=1e-12)


def test_a_step_is_counted_by_itself():
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.1), ep.FixedSweeps(20), ep.FixedSweeps(8))
    counter = Counter()
    net = network().on(counter)
    tallies = [counter.tally(step(net, estimator)[1]) for _ in range(3)]
    assert tallies[0] == tallies[1] == tallies[2]


def test_clamps_are_counted_as_nudges():
    counter = Counter()
    solver = ep.FixedSweeps(20)
    estimator = ep.EquilibriumPropagation(ep.one_sided(0.5), solver, solver, teacher=learning.clamp)
    _, record = step(network().on(counter), estimator)
    assert counter.tally(record).nudge_conversions == BATCH * OUT


def test_the_counter_conforms():
    testing.check_substrate(Counter())


def test_an_empty_record_is_refused():
    with pytest.raises(ep.InputError, match="empty"):
        Counter().tally(ep.Record())
    counter, solver = Counter(), ep.FixedSweeps(5)
    _, record = step(network().on(counter), ep.EquilibriumPropagation(ep.one_sided(0.1), solver, solver))
    with pytest.raises(ep.InputError, match="last step"):
        Counter().tally(record)


def test_the_example_of_a_resistive_network():
    """2 x 784-1024-10 at 1 uS, 0.1 V and 1 us: 16 mW and 16 nJ a phase, and 1.6 mJ for a pulse on each input weight."""
    inputs = 2 * 784 * 1024
    one = Tally(cells=inputs + 1024 * 10, phases=1, pulses=inputs, pulse_slots=1)
    cost = modelled_cost(one)
    assert cost.cells == pytest.approx(16e-9, rel=0.02)
    assert cost.cells / CostTable().settling == pytest.approx(16e-3, rel=0.02)
    assert cost.pulses == pytest.approx(1.6e-3, rel=0.02)
    assert cost.pulses > 1e4 * cost.cells
    assert cost.time == pytest.approx(1e-6 + 100e-9)


def test_each_constant_counts_once():
    tally = Tally(cells=10, phases=3, cell_operations=600, readings=4, conversions=80, nudge_conversions=6, pulses=50)
    table = CostTable(mac=1e-13, analogue_to_digital=2e-12, digital_to_analogue=3e-12, pulse=1e-9)
    cost = modelled_cost(tally, table)
    assert cost.energy == pytest.approx(600 * 1e-13 + 80 * 2e-12 + 6 * 3e-12 + 50e-9)
    assert cost.time == pytest.approx(3e-6 + 4 * 250e-9)
    assert modelled_cost(tally, replace(table, converters=8)).time == pytest.approx(3e-6 + 10 * 250e-9)
    assert modelled_cost(tally, replace(table, mac=None)).cells == pytest.approx(10 * 3 * 1e-6 * 0.01 * 1e-6)


def test_the_text_says_modelled_and_what_is_left_out():
    tally = Tally(cells=10, phases=3, conversions=80, readings=4)
    bare, full = (
        str(modelled_cost(tally, table))
        for table in (None, CostTable(analogue_to_digital=1e-12, digital_to_analogue=0.0))
    )
    for text in (bare, full):
        assert text.count("modelled") == 2
        assert "\n" not in text
    assert "left out, without a constant: readings and nudges" in bare
    assert "left out" not in full
    with pytest.raises(ep.InputError, match="cells"):
        Tally(cells=-1)
    assert physics.ModelledCost(0.0, 0.0, 0.0, 0.0, 0.0).energy == 0
