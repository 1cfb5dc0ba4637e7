"""Deep resistive networks as runs: their settings are the release's, and they learn on any images."""

import pytest
import torch

import eqprop as ep
from eqprop import physics
from eqprop.recipes import RECIPES, resistive

NAMES = ("mnist-resistive-xs", "mnist-resistive-1h")


def start(name, **options):
    torch.manual_seed(0)
    return RECIPES[name](**({"data": "digits"} | options))


@pytest.mark.parametrize(("name", "gain", "hidden", "epochs"), [(NAMES[0], 100, 100, 10), (NAMES[1], 480, 1024, 50)])
def test_the_settings_are_the_releases(name, gain, hidden, epochs):
    run = start(name)
    network, estimator = run.model.network, run.model.estimator
    assert [c.voltage_gain for c in network.terms.values() if isinstance(c, physics.Resistors)] == [gain, -gain, 1]
    assert network.nodes["layer1"] == ep.Node((hidden,), physics.IdealDiodes())
    assert isinstance(network.loss, ep.SquaredError)
    assert (run.epochs, run.train.batch_size, run.chosen_by, len(run.train)) == (epochs, 4, "test", 1437)
    assert (estimator.nudging, estimator.free, estimator.nudged) == (
        *(ep.symmetric(1.0), ep.FixedSweeps(4)),
        ep.FixedSweeps(4),
    )
    rates = []
    for _ in range(3):
        rates.append(run.optimizer.param_groups[0]["lr"])
        run.optimizer.step()
        run.scheduler.step()
    assert rates == pytest.approx([0.006, 0.006 * 0.99, 0.006 * 0.99**2])
    assert run.constrain is physics.keep_passive


def trained(name, **options):
    """The run after its epochs, and the share of the test images that it gets right."""
    run = start(name, **options)
    for number in range(run.epochs):
        for x, y in run.train.epoch(number):
            run.optimizer.zero_grad()
            run.model.loss(x, y).backward()
            run.optimizer.step()
            run.constrain(run.model.network)
        run.scheduler.step()
    x, y = run.test.sample(len(run.test))
    with torch.no_grad():
        return run, float((run.model(x).argmax(1) == y).double().mean())


def test_digits_are_learnt_in_a_few_epochs():
    """A network of conductances that keep their sign, near rest after 4 sweeps."""
    run, accuracy = trained("mnist-resistive-xs", epochs=2)
    assert accuracy > 0.85
    network = run.model.network
    for coupling in network.terms.values():
        if isinstance(coupling, physics.Resistors):
            assert float(coupling.conductance.detach().min()) == 0
    x, _ = run.test.sample(100)
    few, many = (
        ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(1.0), ep.FixedSweeps(n), ep.FixedSweeps(n)))
        for n in (4, 200)
    )
    few, many = (each.settle(x).state["layer2"] for each in (few, many))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-3)


def test_other_widths_and_depths():
    run = start("mnist-resistive-xs", width=0.2, depth=2, batch_size=100)
    assert [node.units for node in run.model.network.free.values()] == [20, 20, 10]
    (x, y), before = next(run.train.epoch(0)), [p.clone() for p in run.model.parameters()]
    run.model.loss(x, y).backward()
    run.optimizer.step()
    assert all(not torch.equal(p, q) for p, q in zip(before, run.model.parameters(), strict=True))


def test_the_module_offers_these_recipes_alone():
    assert {name for name, recipe in RECIPES.items() if recipe.__module__ == resistive.__name__} == {*NAMES}
