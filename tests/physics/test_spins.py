"""Spins: gradients at a temperature are exact, annealing finds ground states, and other networks are refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupted import check_same_bits

import eqprop as ep
from eqprop import physics, testing

HIDDEN, OUT = 7, 3
X = torch.zeros(1, 2, dtype=torch.float64)
Y = torch.tensor([[1.0, -1.0, 1.0]], dtype=torch.float64)


def small(seed=0):
    """Two inputs, seven hidden spins and three outputs."""
    torch.manual_seed(seed)
    layers = [ep.DenseLayer(HIDDEN, physics.Spin()), ep.DenseLayer(OUT, physics.Spin())]
    network = ep.chain((2,), layers, lambda node, shape: physics.SpinError(node, shape, 1)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return network


def gradient(network, estimator, x=X, y=Y):
    loss = ep.Equilibrium(network, estimator, "raise").loss(x, y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


@torch.no_grad()
def mean_cost(network, temperature, x=X, y=Y):
    """By enumeration, written out from the weights."""
    weights = {name: parameter.numpy() for name, parameter in network.named_parameters()}
    w0, w1 = (weights[f"couplings.{name}.map.weight"] for name in ("input_layer1", "layer1_layer2"))
    b, c = (weights[f"couplings.layer{i}_bias.bias"] for i in (1, 2))
    spins = np.array(list(itertools.product((-1.0, 1.0), repeat=HIDDEN + OUT)))
    h, o = spins[:, :HIDDEN], spins[:, HIDDEN:]
    total = 0.0
    for xi, yi in zip(x.numpy(), y.numpy(), strict=True):
        energy = -h @ (w0.reshape(HIDDEN, 2) @ xi + b) - ((h @ w1.reshape(OUT, HIDDEN).T + c) * o).sum(1)
        chance = np.exp(-(energy - energy.min()) / temperature)
        total += chance @ (0.5 * ((o - yi) ** 2).sum(1)) / chance.sum() / len(x)
    return total


@pytest.mark.parametrize("temperature", [2.0, 0.5, 0.1])
def test_the_covariance_is_the_gradient_of_the_mean_cost(temperature):
    network, slopes = small(), []
    x, y = torch.tensor([[0.3, -0.7], [1.0, 0.2]]).double(), torch.cat([Y, -Y])
    found = gradient(network, physics.CovarianceEP(physics.Enumerated(temperature)), x, y)
    for parameter in network.parameters():
        for place in range(min(parameter.numel(), 4)):
            costs = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.view(-1)[place] += step
                    costs.append(mean_cost(network, temperature, x, y))
                    parameter.view(-1)[place] -= step
            slopes.append((costs[0] - costs[1]) / 2e-5)
    places = [torch.arange(p.numel()) < 4 for p in network.parameters()]
    assert float((found[torch.cat(places)] - torch.tensor(slopes)).abs().max()) < 1e-8


def test_nudged_means_have_the_orders_of_their_stencils():
    network = small()
    for temperature in (2.0, 0.5):
        sampler = physics.Enumerated(temperature)
        exact = gradient(network, physics.CovarianceEP(sampler))
        for stencil, order in ((ep.one_sided, 1), (ep.symmetric, 2)):
            errors = [
                float((gradient(network, physics.ThermalEP(stencil(beta), sampler)) - exact).norm() / exact.norm())
                for beta in (0.02, 0.01)
            ]
            assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_gibbs_draws_from_the_distribution():
    network, temperature = small(), 1.0
    landscape = network.landscape(X)
    with torch.no_grad():
        exact = physics.Enumerated(temperature)(landscape)
        found = physics.Gibbs(temperature, 2000, 20, 50)(landscape)
        for (_, right), (_, mean) in zip(exact.mean_state().items(), found.mean_state().items(), strict=True):
            assert float((right - mean).abs().max()) < 0.04
        products = [s.mean(s.state["layer1"][:, 0] * s.state["layer2"][:, 1]) for s in (exact, found)]
        assert float((products[0] - products[1]).abs()) < 0.04


def test_the_covariance_of_draws_is_near_that_of_all_states():
    network = small()
    exact = gradient(network, physics.CovarianceEP(physics.Enumerated(1.0)))
    found = gradient(network, physics.CovarianceEP(physics.Gibbs(1.0, 2000, 20, 50)))
    assert float((found - exact).norm() / exact.norm()) < 0.1


def bipartite(trials):
    """Nets of 12 and 12 spins, normal couplings/sqrt(12) and fields of 0.5, and the energies of their ground states."""
    n, rng = 12, np.random.default_rng(5)
    all_spins = np.array(list(itertools.product((-1.0, 1.0), repeat=n)))
    for _ in range(trials):
        couplings, fields = rng.standard_normal((n, n)) / np.sqrt(n), 0.5 * rng.standard_normal(2 * n)
        best = (all_spins @ fields[:n] + np.abs(all_spins @ couplings + fields[n:]).sum(1)).max()
        nodes = {"a": ep.Node((n,), physics.Spin()), "b": ep.Node((n,), physics.Spin())}
        parts = [ep.Synapse("a", "b", ep.Dense((n,), (n,))), ep.Bias("a", (n,)), ep.Bias("b", (n,))]
        network = ep.Network(nodes, parts, clamped=()).double()
        with torch.no_grad():
            network.couplings["a_b"].map.weight.copy_(torch.as_tensor(couplings.T))
            network.couplings["a_bias"].bias.copy_(torch.as_tensor(fields[:n]))
            network.couplings["b_bias"].bias.copy_(torch.as_tensor(fields[n:]))
        yield network.landscape(torch.zeros(1, 0, dtype=torch.float64)), -best


@torch.no_grad()
def found_in(solver, trials=150):
    """The share of ground states that it finds."""
    hits = 0
    for landscape, best in bipartite(trials):
        settled = solver(landscape, landscape.zeros())
        assert bool(settled.settled.all()) or solver.sweeps < 10
        energy = float(landscape.energy(settled.state))
        assert energy > best - 1e-9
        hits += energy < best + 1e-9
    return hits / trials


def test_the_best_of_ten_reads_of_thirty_sweeps_is_the_ground_state():
    assert found_in(physics.Annealed(30, 10)) >= 0.95


def test_fewer_reads_find_fewer_ground_states():
    assert found_in(physics.Annealed(3, 1)) < 0.8


@torch.no_grad()
def test_a_nudge_is_a_field():
    """Of any sign: its own part in the drive of a spin, s^2 / 2, is the same for both states."""
    from eqprop.physics.spins import fields

    network = small()
    for beta in (3.0, -3.0):
        nudge = ep.energy.Nudge(network.loss, Y, torch.full((1,), beta).double())
        landscape = network.landscape(X)
        nudged = landscape.with_term(".nudge", nudge)
        state = {"layer1": torch.ones(1, HIDDEN).double(), "layer2": torch.tensor([[1.0, -1.0, -1.0]]).double()}
        expected = fields(landscape, state, "layer2") + beta * Y
        torch.testing.assert_close(fields(nudged, state, "layer2"), expected)
        for k in range(OUT):
            flipped = state["layer2"].clone()
            flipped[0, k] *= -1
            cost = nudged.energy(state | {"layer2": flipped}) - nudged.energy(state)
            torch.testing.assert_close(cost, 2 * expected[:, k] * state["layer2"][:, k])


@torch.no_grad()
def test_the_free_state_is_kept_where_no_read_is_lower():
    network = small()
    landscape = network.landscape(X)
    free = physics.Annealed(30, 20)(landscape, landscape.zeros())
    for solver in (physics.Annealed(1, 1, seed=3), physics.ReverseAnnealed(20, 3)):
        again = solver(landscape, free.state)
        assert all(torch.equal(again.state[node], value) for node, value in free.state.items())
    nudged = landscape.with_term(".nudge", ep.energy.Nudge(network.loss, Y, torch.full((1,), 50.0).double()))
    settled = physics.ReverseAnnealed(20, 5)(nudged, free.state)
    assert torch.equal(settled.state["layer2"], Y)
    changes = physics.moved(free.state, settled.state)
    assert changes["layer2"] == float(not torch.equal(free.state["layer2"], Y))


def test_an_ising_network_learns_at_temperature_0():
    torch.manual_seed(0)
    network = physics.ising_network((8,), [16], 3, copies=4)
    x = torch.randn(3, 8).repeat(4, 1) + 0.1 * torch.randn(12, 8)
    y = torch.arange(3).repeat(4)
    estimator = ep.EquilibriumPropagation(
        ep.one_sided(5.0), physics.Annealed(20, 5), physics.ReverseAnnealed(20, 5, seed=1)
    )
    assert len(list(estimator.generators())) == 2
    model = ep.Equilibrium(network, estimator, "raise")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        record = ep.Record()
        model.loss(x, y, record=record).backward()
        optimizer.step()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.clamp_(-1, 1)
    scores = model(x).detach()
    assert bool((scores.argmax(1) == y).all())
    assert physics.moved(record.free.state, record.nudged.state).keys() == {"layer1", "layer2"}


def test_the_same_seed_draws_the_same():
    network, outcomes = small(), []
    for seed in (0, 0, 1):
        sample = physics.Gibbs(1.0, 5, 2, 1, seed)(network.landscape(X))
        outcomes.append(torch.cat([value.flatten() for value in sample.state.values()]))
    assert torch.equal(outcomes[0], outcomes[1])
    assert not torch.equal(outcomes[0], outcomes[2])


def test_the_unit_and_the_loss_conform():
    testing.check_unit(physics.Spin())
    testing.check_loss(physics.SpinError("a", (6,), 2), torch.arange(3), {"a": (6,)})


def test_what_is_no_ising_network_is_refused():
    landscape = ep.chain((2,), [ep.DenseLayer(3, ep.tanh)], ep.SquaredError).landscape(torch.zeros(1, 2))
    spins = physics.Spin()
    with pytest.raises(ep.InputError, match="no spin"):
        physics.Annealed()(landscape, landscape.zeros())
    pooled = ep.chain((1, 4, 4), [ep.ConvLayer(1, pool=None, activation=spins), ep.ConvLayer(2, activation=spins)])
    landscape = pooled.landscape(torch.randn(1, 1, 4, 4))
    with pytest.raises(ep.InputError, match="not linear"):
        physics.Annealed()(landscape, landscape.zeros())
    crossed = ep.chain((2,), [ep.DenseLayer(3, spins)], ep.CrossEntropy)
    estimator = ep.EquilibriumPropagation(ep.one_sided(1.0), physics.Annealed(), physics.Annealed())
    loss = ep.Equilibrium(crossed, estimator).loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ep.InputError, match=r"'\.nudge' is not linear"):
        loss.backward()
    landscape = small().landscape(X)
    with pytest.raises(ep.InputError, match="ReverseAnnealed"):
        physics.ReverseAnnealed()(landscape, landscape.zeros())
    big = ep.chain((2,), [ep.DenseLayer(17, spins)], ep.SquaredError).landscape(torch.zeros(1, 2))
    with pytest.raises(ep.InputError, match="Gibbs"):
        physics.Enumerated(1.0)(big)
    with pytest.raises(ep.InputError, match="copies"):
        physics.SpinError("a", (5,), 2)
    with pytest.raises(ep.InputError, match="real"):
        physics.ThermalEP(ep.learning.holomorphic(0.1, 4), physics.Enumerated(1.0))


FREE = ep.FixedSweeps(3)


@pytest.mark.parametrize(
    "estimator",
    [
        ep.InfinitesimalNudge(FREE),
        ep.ImplicitDifferentiation(FREE),
        ep.BackpropagationThroughTime(FREE, 2),
        ep.Backpropagation(),
        ep.learning.DualPropagation(0.1),
        ep.learning.JacobianPenalty(
            ep.EquilibriumPropagation(ep.one_sided(5.0), FREE, FREE), ep.learning.jacobian_norm, 1
        ),
        ep.learning.RayleighPenalty(ep.EquilibriumPropagation(ep.one_sided(5.0), FREE, FREE), 1.0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_gradients_that_spins_do_not_have_are_refused(estimator):
    """They would be 0, whatever a spin does to the loss."""
    with pytest.raises(ep.InputError, match=r"Spin|no response") as told:
        ep.Equilibrium(small(), estimator, "ignore").loss(X, Y).backward()
    assert "\n" not in str(told.value)


RECIPE = """
import torch, eqprop as ep
from eqprop import physics
from eqprop.tasks import Batches, Images, Normalise
from eqprop.training.loop import Experiment


def ising(epochs: int = 2) -> Experiment:
    g = torch.Generator().manual_seed(1)
    images = Images(torch.randint(0, 256, (12, 1, 2, 2), generator=g, dtype=torch.uint8), torch.arange(12) % 3, 3)
    torch.manual_seed(0)
    network = physics.ising_network((1, 2, 2), [6], 3, copies=2)
    free, nudged = physics.Annealed(5, 3), physics.ReverseAnnealed(5, 3, seed=1)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.one_sided(5.0), free, nudged), "ignore")
    batches = Batches(images, 4, Normalise((0.5,), (0.25,)))
    return Experiment(model, torch.optim.SGD(network.parameters(), 0.1), batches, batches, epochs)
"""


@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupted_run_of_annealed_spins_ends_with_the_same_bits(tmp_path, monkeypatch, at):
    """Three batches an epoch: inside the first, and inside the second."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(RECIPE)
    session = ["--threads", "1", "--device", "cpu", "--precision", "32"]
    check_same_bits(monkeypatch, ["train", "mine.py:ising", *session], at)


def test_networks_come_back_from_their_specs():
    network = physics.ising_network((6,), [4], 3, copies=2)
    assert ep.Network.from_spec(network.spec()).spec() == network.spec()
