"""Penalties on the Jacobian: their values and gradients against the Jacobian itself, and what they do to a network."""

import copy

import pytest
import torch
from networks import NETWORKS, data, dense, gradients, relative, shrunk
from penalties import FREE, Nothing, jacobian, nudging

import eqprop as ep
from eqprop.settling.displacement import tangent
from eqprop.training.loop import alignment_angles

pytestmark = pytest.mark.usefixtures("double")


def tiny(kind):
    layers = {
        "dense": [ep.DenseLayer(n, ep.tanh) for n in (4, 3, 2)],
        "conv": [ep.ConvLayer(2, pool=None, activation=ep.tanh), ep.ConvLayer(2, activation=ep.tanh)],
    }[kind]
    shape = {"dense": (3,), "conv": (1, 4, 4)}[kind]
    return shrunk(ep.chain(shape, layers, ep.SquaredError, separate_feedback=True), 0.8)


def settled(network, x):
    with torch.no_grad():
        scene = network.landscape(x)
        return scene, FREE(scene, scene.zeros()).state


def over_a_basis(penalty):
    """The penalty's sum over all unit vectors: what its mean over random probes estimates, exactly."""

    def exact(linear, probe):
        units = torch.eye(sum(value[0].numel() for value in probe.values()))
        parts = units.split([value[0].numel() for value in probe.values()], 1)
        total = 0
        for row in range(len(units)):
            unit = {
                n: part[row].view(1, *value.shape[1:]).expand_as(value)
                for (n, value), part in zip(probe.items(), parts, strict=True)
            }
            total = total + penalty(linear, unit)
        return total

    return exact


def expected(penalty, a, slopes):
    if penalty is ep.learning.jacobian_asymmetry:
        return 0.5 * (a - a.T).square().sum()
    return (slopes[:, None] * a).square().sum()


@pytest.mark.parametrize("penalty", [ep.learning.jacobian_asymmetry, ep.learning.jacobian_norm])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_its_mean_is_the_norm_of_the_jacobian_and_so_is_its_gradient(kind, penalty):
    network = tiny(kind)
    parameters = list(network.parameters())
    x, y = data(network, 2)
    y = y % 2
    exact, norms = [], []
    for i in range(2):
        _, state = settled(network, x[i : i + 1])
        a, slopes = jacobian(network, x[i : i + 1], state)
        norms.append(expected(penalty, a, slopes.detach()))
    units = sum(node.units for node in network.free.values())
    found = torch.autograd.grad(0.3 * sum(norms) / 2 / units, parameters, materialize_grads=True)
    exact = torch.cat([g.flatten() for g in found])
    scene, state = settled(network, x)
    with torch.no_grad():
        value = over_a_basis(penalty)(tangent(scene, state, {}), state)
    torch.testing.assert_close(value, torch.stack(norms).detach(), rtol=1e-9, atol=0)
    estimator = ep.learning.JacobianPenalty(Nothing(), over_a_basis(penalty), 0.3, probes=1)
    assert relative(gradients(network, estimator, x, y), exact) < 1e-9
    many = ep.learning.JacobianPenalty(Nothing(), penalty, 0.3, probes=600)
    assert relative(gradients(network, many, x, y), exact) < 0.1


@pytest.mark.parametrize("name", [name for name in NETWORKS if "separate" not in name])
def test_a_network_with_energy_has_no_asymmetry(name):
    network = NETWORKS[name]()
    x, y = data(network)
    estimator = ep.InfinitesimalNudge(FREE)
    found = gradients(network, ep.learning.JacobianPenalty(estimator, ep.learning.jacobian_asymmetry, 10.0), x, y)
    assert relative(found, gradients(network, estimator, x, y)) < 1e-12


def test_nor_has_one_whose_units_are_silenced():
    layers = [ep.DenseLayer(9, ep.tanh, dropout=0.4), ep.DenseLayer(8, ep.tanh), ep.DenseLayer(4, ep.tanh, dropout=0.2)]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError))
    x, y = data(network)
    model = ep.Equilibrium(
        network, ep.learning.JacobianPenalty(Nothing(), ep.learning.jacobian_asymmetry, 10.0)
    ).train()
    model.loss(x, y).backward()
    assert all(float(p.grad.abs().max()) < 1e-14 for p in network.parameters())


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_it_turns_feedback_weights_towards_the_feedforward_ones(kind):
    network = tiny(kind)
    x, y = data(network)
    model = ep.Equilibrium(
        network, ep.learning.JacobianPenalty(Nothing(), ep.learning.jacobian_asymmetry, 1.0, probes=50)
    )
    before = alignment_angles(model)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(30):
        optimiser.zero_grad()
        model.loss(x, y % 2).backward()
        optimiser.step()
    after = alignment_angles(model)
    assert max(before.values()) > 45
    assert max(after.values()) < 8


def test_a_network_taught_to_be_less_steep_settles_sooner():
    network = dense(loss=ep.SquaredError)
    for parameter in network.parameters():
        parameter.data.mul_(2)
    x, y = data(network)
    rest = ep.UntilConverged(1e-6, 1000)

    def sweeps():
        with torch.no_grad():
            scene = network.landscape(x)
            return float(rest(scene, scene.zeros()).sweeps.double().mean())

    before = sweeps()
    model = ep.Equilibrium(network, ep.learning.JacobianPenalty(Nothing(), ep.learning.jacobian_norm, 1.0))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.3)
    for _ in range(40):
        optimiser.zero_grad()
        model.loss(x, y).backward()
        optimiser.step()
    assert sweeps() < 0.7 * before


def test_probes_come_from_a_generator_of_its_own():
    network = tiny("dense")
    x, y = data(network)
    y = y % 2
    coin = ep.learning.RandomSign(0.1)
    wrapped = ep.EquilibriumPropagation(coin, FREE, FREE)
    one, same, other = (
        ep.learning.JacobianPenalty(wrapped, ep.learning.jacobian_asymmetry, 1.0, seed=s) for s in (4, 4, 5)
    )
    assert [*one.generators()] == [coin.generator, one.generator]
    model = ep.Equilibrium(network, ep.learning.JacobianPenalty(Nothing(), ep.learning.jacobian_asymmetry, 1.0, seed=4))
    found = [gradients(network, model.estimator, x, y)]
    twin = copy.deepcopy(model)
    found += [gradients(network, model.estimator, x, y), gradients(network, twin.estimator, x, y)]
    assert relative(found[1], found[0]) > 1e-3  # another draw
    assert torch.equal(found[1], found[2])
    torch.manual_seed(9)
    draws = [e._probe({"a": torch.zeros(3, 5)})["a"] for e in (one, same, other)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].unique().tolist() == [-1, 1]
    assert draws[0].dtype == torch.float64
    again = copy.deepcopy(one)
    assert again.estimator.nudging.generator is not coin.generator
    assert again.estimator.nudging.draw() == coin.draw()


def test_data_and_parameters_of_no_recurrent_term_get_the_other_estimators_gradient():
    network = tiny("dense")
    x, y = torch.randn(5, 3, requires_grad=True), torch.arange(5) % 2
    names = ["x", *(name for name, _ in network.named_parameters())]
    found = []
    for estimator in (
        nudging(ep.symmetric(0.1)),
        ep.learning.JacobianPenalty(nudging(ep.symmetric(0.1)), ep.learning.jacobian_asymmetry, 1.0),
    ):
        loss = ep.Equilibrium(network, estimator).loss(x, y)
        found.append(dict(zip(names, torch.autograd.grad(loss, [x, *network.parameters()]), strict=True)))
    assert torch.equal(found[0]["x"], found[1]["x"])
    for name in names[1:]:
        assert torch.equal(found[0][name], found[1][name]) != ("feedforward" in name or "feedback" in name), name


def test_the_loss_scales_it_and_examples_count_alike():
    network = tiny("dense")
    x, y = data(network)

    def found(scale, weight=None):
        model = ep.Equilibrium(
            network, ep.learning.JacobianPenalty(Nothing(), ep.learning.jacobian_asymmetry, 1.0, seed=2)
        )
        loss = scale * model.loss(x, y % 2, weight)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])

    torch.testing.assert_close(found(3.0), 3 * found(1.0))
    torch.testing.assert_close(found(1.0, torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])), 1.3 * found(1.0))  # the mean size


@pytest.mark.parametrize("scale", [1e-6, 65536.0])
def test_behind_the_output_it_is_scaled_with_whatever_comes_in(scale):
    network = tiny("dense")
    x, y = data(network)
    found = []
    for by in (1.0, scale):
        penalised = ep.learning.JacobianPenalty(nudging(ep.symmetric(0.1)), ep.learning.jacobian_norm, 1.0, seed=2)
        loss = by * torch.nn.functional.cross_entropy(ep.Equilibrium(network, penalised)(x), y % 2)
        found.append(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True))
        again = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(found[-1], again, strict=True))
    for one, other in zip(*found, strict=True):
        if one is not None:
            torch.testing.assert_close(other, scale * one, rtol=1e-10, atol=0)


def test_one_node_alone_has_no_jacobian():
    network = ep.chain((3,), [ep.DenseLayer(2, ep.tanh)], ep.SquaredError)
    x, y = torch.randn(4, 3), torch.arange(4) % 2
    for penalty in (ep.learning.jacobian_asymmetry, ep.learning.jacobian_norm):
        found = gradients(network, ep.learning.JacobianPenalty(nudging(ep.symmetric(0.1)), penalty, 1.0), x, y)
        assert torch.equal(found, gradients(network, nudging(ep.symmetric(0.1)), x, y))


@pytest.mark.parametrize(("strength", "probes"), [(-1.0, 5), (float("nan"), 5), (1.0, 0)])
def test_what_cannot_be(strength, probes):
    with pytest.raises(ep.InputError, match=r"probes|strength"):
        ep.learning.JacobianPenalty(Nothing(), ep.learning.jacobian_asymmetry, strength, probes)
