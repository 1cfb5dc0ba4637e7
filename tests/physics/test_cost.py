"""The counter counts what happens and changes nothing; the modelled cost is the formula, and says what it is."""

from dataclasses import replace

import pytest
import torch

import eqprop as ep
from eqprop import learning, physics, substrates, testing
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


def of(nudge, **more):
    return {"nudging": nudge, "free": ep.FixedSweeps(6), "nudged": ep.FixedSweeps(4), **more}


NUDGE = ep.symmetric(0.1)
READ_NOTHING = {
    "infinitesimal": ep.InfinitesimalNudge(ep.FixedSweeps(6)),
    "through time": learning.BackpropagationThroughTime(ep.FixedSweeps(6), 3),
    "backpropagation": learning.Backpropagation(),
    "implicit": learning.ImplicitDifferentiation(ep.UntilConverged(1e-10, 500)),
}
RECORD_A_PART = {
    "lock-in": learning.LockIn(0.1, 4, ep.FixedSweeps(6), ep.FixedSweeps(2)),
    "continual": learning.ContinualEP(**of(NUDGE, rate=0.01)),
    "agnostic": learning.AgnosticEP(**of(NUDGE, epsilon=0.01)),
    "dual": learning.DualPropagation(0.1),
}


@pytest.mark.parametrize("name", [*READ_NOTHING, *RECORD_A_PART])
def test_estimators_that_are_not_counted_say_so(name):
    words = "No nudged state was read" if name in READ_NOTHING else "does not hold all"
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, 4, dtype=torch.float64), torch.arange(BATCH) % OUT
    with pytest.raises(ep.InputError, match=words):
        physics.tally_of_step(ep.Equilibrium(network(), {**READ_NOTHING, **RECORD_A_PART}[name], "ignore"), x, y)


def test_moments_that_units_predict_from_are_readings_too():
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, 4, dtype=torch.float64), torch.arange(BATCH) % OUT
    predictor = learning.LeastSquares((1,))
    estimator = learning.PredictiveLearning(ep.FixedSweeps(8), ep.FixedSweeps(4), 2, 2, predictor)
    tally = physics.tally_of_step(ep.Equilibrium(network(), estimator, "ignore"), x, y)
    assert tally.phases == BATCH + 2
    assert tally.readings == BATCH + BATCH + 2
    assert tally.nudge_conversions == 2 * OUT


def test_a_penalty_is_not_taken_for_the_estimator():
    x, y = torch.randn(BATCH, 4, dtype=torch.float64), torch.arange(BATCH) % OUT
    plain = ep.EquilibriumPropagation(**of(NUDGE))
    tallies = [
        physics.tally_of_step(ep.Equilibrium(network(), each, "ignore"), x, y)
        for each in (plain, learning.RayleighPenalty(plain, 0.1))
    ]
    assert tallies[0] == tallies[1]


@pytest.mark.parametrize("machine", [substrates.ReadNoise(1e-3), substrates.WeightNoise(0.01), substrates.UnitSpread()])
def test_a_step_is_counted_on_its_machine_and_nothing_changes(machine):
    layers = [ep.DenseLayer(HIDDEN, ep.tanh, dropout=0.3), ep.DenseLayer(OUT, ep.tanh)]
    net = ep.chain((4,), layers, ep.SquaredError).double().on(machine)
    model = ep.Equilibrium(net, ep.EquilibriumPropagation(**of(learning.RandomSign(0.1), stacked=False)))
    x, y = torch.randn(BATCH, 4, dtype=torch.float64), torch.arange(BATCH) % OUT

    def states():
        return [torch.get_rng_state(), *(generator.get_state() for generator in model.generators()), *net.parameters()]

    before = [state.clone() for state in states()]
    tally = physics.tally_of_step(model.eval(), x, y)
    assert tally == Tally(
        cells=CELLS,
        phases=2 * BATCH,
        cell_operations=CELLS * BATCH * (6 + 4),
        readings=2 * BATCH,
        conversions=2 * BATCH * (HIDDEN + OUT),
        nudge_conversions=BATCH * OUT,
    )
    assert all(torch.equal(old, new) for old, new in zip(before, states(), strict=True))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not model.training
    assert net.substrate is machine


def test_a_report_names_each_number_as_modelled():
    tally = Tally(cells=10, phases=3, readings=4, conversions=80, pulses=7)
    table = CostTable(analogue_to_digital=1e-12)
    report = physics.cost_report(tally, table)
    assert all(name.startswith("modelled_") for name in report)
    assert report["modelled_pulses"] == 7
    cost = modelled_cost(tally, table)
    assert (report["modelled_energy_joules"], report["modelled_time_seconds"]) == (cost.energy, cost.time)
    assert str(cost) in report["modelled_cost"]
    for word in ("4 readings", "80 conversions", "7 pulses"):
        assert word in report["modelled_cost"]
