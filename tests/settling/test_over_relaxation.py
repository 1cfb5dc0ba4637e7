"""Going further than the response: the same rest, sooner where a network settles slowly, and never uphill."""

import math

import pytest
import torch

import eqprop as ep
from eqprop import testing


def slow(gain, activation=ep.identity, units=12, seed=0):
    """Two nodes whose coupling's largest singular value is ``gain``: 1 is the brink of instability."""
    torch.manual_seed(seed)
    network = ep.chain((5,), [ep.DenseLayer(units, activation), ep.DenseLayer(units, activation)]).double()
    with torch.no_grad():
        weight = network.terms["layer1_layer2"].map.weight
        weight.mul_(gain / torch.linalg.matrix_norm(weight, 2))
    return network


def scene_of(network, batch=4, seed=1):
    torch.manual_seed(seed)
    return network.landscape(torch.randn(batch, *network.nodes["input"].shape, dtype=torch.float64))


@pytest.mark.parametrize("activation", [ep.hard_sigmoid, ep.energy.half_hard_sigmoid, ep.energy.centred_hard_sigmoid])
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3, 1.7, 1.99])
def test_no_factor_below_2_climbs_the_energy_of_clipped_units(factor, activation):
    torch.manual_seed(0)
    layers = [ep.ConvLayer(4, pool=None, activation=activation), ep.DenseLayer(20, activation)]
    network = ep.chain((2, 6, 6), [*layers, ep.DenseLayer(10, activation)]).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
        scene = scene_of(network)
        hurried = scene.over_relaxed(torch.full((4,), factor, dtype=torch.float64))
        state = {n: activation.response(torch.randn_like(v)) for n, v in scene.zeros().items()}
        energies = [scene.energy(state)]
        for _ in range(30):
            state = ep.alternating(hurried, state)
            energies.append(scene.energy(state))
            for value in state.values():
                assert activation.low <= float(value.min()) <= float(value.max()) <= activation.high
    assert float(torch.stack(energies).diff(dim=0).max()) < 1e-12
    assert float((energies[0] - energies[-1]).min()) > 0.1


@pytest.mark.parametrize("activation", [ep.tanh, ep.hard_sigmoid, ep.sigmoid, ep.identity], ids=str)
def test_it_comes_to_the_rest_of_plain_sweeps(activation):
    network = slow(0.6, activation)
    with torch.no_grad():
        scene = scene_of(network)
        plain, hurried = (
            ep.UntilConverged(1e-12, 3000, over_relaxation=most)(scene, scene.zeros()) for most in (1.0, 1.8)
        )
    for node, value in plain.state.items():
        torch.testing.assert_close(hurried.state[node], value, rtol=0, atol=1e-10)
    testing.check_solver(ep.UntilConverged(1e-6, 500, over_relaxation=1.8), network)


@pytest.mark.parametrize("gain", [0.9, 0.97, 0.99, 0.997])
def test_the_nearer_the_brink_the_more_it_saves(gain):
    """Young's best factor needs fewer sweeps by the order of 1 / sqrt(1 - gain^2), and is found on the way."""
    with torch.no_grad():
        scene = scene_of(slow(gain))
        plain, hurried = (
            ep.UntilConverged(1e-9, 5000, over_relaxation=most)(scene, scene.zeros()) for most in (1.0, 1.95)
        )
    assert float((plain.sweeps / hurried.sweeps).min()) > 0.5 / math.sqrt(1 - gain**2)


def test_a_network_that_settles_at_once_is_not_held_up():
    with torch.no_grad():
        scene = scene_of(slow(0.2))
        plain, hurried = (
            ep.UntilConverged(1e-6, 100, over_relaxation=most)(scene, scene.zeros()) for most in (1.0, 1.6)
        )
    assert bool((hurried.sweeps <= plain.sweeps + 3).all())


def test_each_example_has_a_pace_of_its_own():
    """Alone or in a batch, whichever of its neighbours rest before it."""
    network = slow(0.95, ep.tanh)
    torch.manual_seed(2)
    x = torch.randn(12, 5, dtype=torch.float64) * torch.logspace(-2, 1, 12).double().unsqueeze(1)
    solver = ep.UntilConverged(1e-4, 400, norm=ep.settling.relative_norm, over_relaxation=1.7)
    with torch.no_grad():
        scene = network.landscape(x)
        together = solver(scene, scene.zeros())
        assert together.sweeps.unique().numel() > 2
        for i in range(12):
            scene = network.landscape(x[i : i + 1])
            alone = solver(scene, scene.zeros())
            assert int(alone.sweeps) == int(together.sweeps[i])
            for node, value in alone.state.items():
                torch.testing.assert_close(together.state[node][i], value[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("most", [0.9, 2.0, math.nan])
def test_a_factor_that_cannot_settle_is_refused(most):
    with pytest.raises(ep.InputError, match=r"below 2|finite"):
        ep.UntilConverged(1e-3, 10, over_relaxation=most)


def test_complex_states_are_refused():
    scene = scene_of(slow(0.5))
    start = {node: value.cdouble() for node, value in scene.zeros().items()}
    with pytest.raises(ep.InputError, match="real states"):
        ep.UntilConverged(1e-3, 10, over_relaxation=1.5)(scene, start)
