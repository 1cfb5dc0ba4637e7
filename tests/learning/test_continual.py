"""Weights that learn at every sweep: against the loop written out, and against their limit."""

import pytest
import torch
from networks import NETWORKS, SETTLE, data, dense, gradients, nudging, relative, shrunk

import eqprop as ep

pytestmark = pytest.mark.usefixtures("double")

SWEEPS = ep.FixedSweeps(8)


def small():
    """A dense network of two layers, and its parameters: weights and biases, from the input on."""
    network = shrunk(ep.chain((3,), [ep.DenseLayer(4, ep.tanh), ep.DenseLayer(2, ep.tanh)], ep.SquaredError))
    names = ("input_layer1.map.weight", "layer1_layer2.map.weight", "layer1_bias.bias", "layer2_bias.bias")
    parameters = dict(network.named_parameters())
    return network, [parameters[f"couplings.{name}"] for name in names]


@torch.no_grad()
def written_out(parameters, x, y, stencil, sweeps, rate):
    """Continual weights under synchronous sweeps, by hand: where they end."""
    w1, w2, b1, b2 = (p.clone() for p in parameters)
    free = (torch.zeros(len(x), 4), torch.zeros(len(x), 2))
    for _ in range(400):
        free = torch.tanh(x @ w1.T + b1 + free[1] @ w2), torch.tanh(free[0] @ w2.T + b2)
    for beta, weight in zip(stencil.betas, stencil.weights, strict=True):
        s1, s2 = free
        for _ in range(sweeps if beta else 0):
            t1 = torch.tanh(x @ w1.T + b1 + s2 @ w2)
            t2 = torch.tanh(s1 @ w2.T + b2 + beta * (y - s2))
            step = (
                rate * weight / len(x)
            )  # the energy is -s W s, so its gradient's change is minus that of the products
            w1, b1 = w1 + step * (t1 - s1).T @ x, b1 + step * (t1 - s1).sum(0)
            w2, b2 = w2 + step * (t2.T @ t1 - s2.T @ s1), b2 + step * (t2 - s2).sum(0)
            s1, s2 = t1, t2
    return w1, w2, b1, b2


@pytest.mark.parametrize("stencil", [ep.one_sided(0.3), ep.symmetric(0.3), ep.learning.five_point(0.2)], ids=repr)
def test_a_step_of_gradient_descent_ends_where_the_weights_written_out_do(stencil):
    """Not a limit: at a large rate, and with phases that go on from each other's weights."""
    network, parameters = small()
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    estimator = ep.learning.ContinualEP(stencil, SETTLE, ep.FixedSweeps(6, ep.synchronous), 0.1)
    expected = written_out(parameters, x, y, stencil, 6, 0.1)
    ep.Equilibrium(network, estimator).loss(x, y).backward()
    torch.optim.SGD(parameters, lr=0.1).step()
    for parameter, answer in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), answer, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "stencil", [ep.one_sided(0.2), ep.symmetric(0.2), ep.learning.five_point(0.1)], ids=lambda s: len(s.betas)
)
@pytest.mark.parametrize("name", ["dense", "dense mse", "max", "soft", "separate", "skip"])
def test_it_tends_to_equilibrium_propagation(name, stencil):
    """Linearly in the rate, each phase with its own weight: phases of another scale would stay apart."""
    network = NETWORKS[name]()
    x, y = data(network)
    exact = gradients(network, ep.EquilibriumPropagation(stencil, SETTLE, SWEEPS, form=ep.learning.forms.states), x, y)
    big, small = (
        relative(gradients(network, ep.learning.ContinualEP(stencil, SETTLE, SWEEPS, r), x, y), exact)
        for r in (2e-4, 1e-4)
    )
    assert small < 5e-3
    assert big / small == pytest.approx(2, abs=0.05)


def test_both_sides_of_a_symmetric_stencil_count_alike():
    """The seed program divides one side by beta and the other by 2 beta: a step of 3/2, biased (see its C-EP)."""
    network = dense(loss=ep.SquaredError)
    x, y = data(network)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    found = gradients(network, ep.learning.ContinualEP(ep.symmetric(0.02), SETTLE, ep.FixedSweeps(30), 1e-6), x, y)
    assert float(found @ exact / exact.square().sum()) == pytest.approx(1, abs=1e-3)
    assert relative(found, exact) < 1e-3


def test_with_the_vector_field_rule_it_serves_separate_feedback():
    network = dense(separate=True)
    x, y = data(network)
    stencil = ep.symmetric(1e-3)
    exact = gradients(network, ep.EquilibriumPropagation(stencil, SETTLE, SETTLE, ep.vector_field), x, y)
    found = gradients(
        network, ep.learning.ContinualEP(stencil, SETTLE, ep.FixedSweeps(40), 1e-8, ep.vector_field), x, y
    )
    assert relative(found, exact) < 1e-3


def test_at_a_rate_that_trains_it_is_still_a_good_gradient():
    network = dense(loss=ep.SquaredError)
    x, y = data(network)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    model = ep.Equilibrium(
        network, ep.learning.ContinualEP(ep.symmetric(0.25), ep.UntilConverged(1e-9, 400), SWEEPS, 0.05)
    )
    found = gradients(network, model.estimator, x, y)
    assert float(torch.nn.functional.cosine_similarity(found, exact, 0)) > 0.995
    optimiser, losses = torch.optim.SGD(network.parameters(), lr=0.05), []
    for _ in range(30):
        optimiser.zero_grad()
        loss = model.loss(x, y)
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


class Failing(ep.SquaredError):
    """Fails at its fifth force."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls = []

    def force(self, *arguments):
        self.calls.append(1)
        if len(self.calls) == 5:
            raise RuntimeError("no force left")
        return super().force(*arguments)


@pytest.mark.parametrize("loss", [ep.SquaredError, Failing])
def test_every_parameter_is_put_back(loss):
    """The same tensor, so bit for bit; after an error in the middle of a phase too."""
    network = dense(loss=loss)
    x, y = data(network)
    before = [(p.data_ptr(), p.detach().clone(), p._version) for p in network.parameters()]
    value = ep.Equilibrium(network, ep.learning.ContinualEP(ep.symmetric(0.2), SETTLE, SWEEPS, 0.02)).loss(x, y)
    if loss is Failing:
        with pytest.raises(RuntimeError, match="no force left"):
            value.backward()
    else:
        value.backward()
    for parameter, (place, bits, version) in zip(network.parameters(), before, strict=True):
        assert parameter.data_ptr() == place
        assert parameter._version == version
        assert torch.equal(parameter, bits)


def test_what_others_saved_for_their_backward_pass_stays_good():
    """A penalty on the weights, whose backward pass comes after this one's."""
    network = dense()
    x, y = data(network)
    estimator = ep.learning.ContinualEP(ep.symmetric(0.2), SETTLE, SWEEPS, 0.01)
    alone = gradients(network, estimator, x, y)
    penalty = sum(p.square().sum() for p in network.parameters())
    loss = penalty + ep.Equilibrium(network, estimator).loss(x, y)
    found = torch.autograd.grad(loss, list(network.parameters()))
    expected = alone + 2 * torch.cat([p.detach().flatten() for p in network.parameters()])
    assert relative(torch.cat([g.flatten() for g in found]), expected) < 1e-12


def test_weights_data_and_a_loss_downstream_go_through_it():
    network = NETWORKS["dense mse"]()
    x, y = torch.randn(5, 6, requires_grad=True), torch.arange(5) % 4
    weight, found = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0]), []
    stencil = ep.symmetric(0.1)
    for estimator in (
        nudging(stencil, form=ep.learning.forms.states),
        ep.learning.ContinualEP(stencil, SETTLE, ep.FixedSweeps(60), 1e-6),
    ):
        model = ep.Equilibrium(network, estimator)
        loss = model.loss(x, y, weight) + torch.nn.functional.cross_entropy(model(x), y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [x, *network.parameters()])]))
    assert relative(found[1], found[0]) < 1e-3


def test_in_16_bits_the_sweeps_feel_the_weights_that_moved():
    """Autocast remembers each weight in 16 bits, and must not remember it where it no longer is."""
    torch.set_default_dtype(torch.float32)
    network = dense(loss=ep.SquaredError)
    x, y = data(network)
    found = {}
    for name, rate, enabled in (("moving", 0.05, False), ("16 bits", 0.05, True), ("still", 1e-8, False)):
        model = ep.Equilibrium(network, ep.learning.ContinualEP(ep.one_sided(0.5), ep.FixedSweeps(30), SWEEPS, rate))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model.loss(x, y)
            found[name] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])
            if enabled:
                after = model.network.terms["layer2_layer3"].map(torch.ones(1, 7))
    assert relative(found["16 bits"], found["moving"]) < 0.3 * relative(found["still"], found["moving"])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(after, model.network.terms["layer2_layer3"].map(torch.ones(1, 7)), rtol=0, atol=0)


def test_record_and_generator():
    network = dense()
    (x, y), record = data(network), ep.Record()
    coin = ep.learning.RandomSign(0.1, seed=3)
    estimator = ep.learning.ContinualEP(coin, SETTLE, SWEEPS, 1e-3)
    assert list(estimator.generators()) == [coin.generator]
    ep.Equilibrium(network, estimator).loss(x, y, record=record).backward()
    assert record.nudged.sweeps.tolist() == [SWEEPS.n] * 5
    ep.Equilibrium(network, ep.learning.ContinualEP(ep.symmetric(0.1), SETTLE, SWEEPS, 1e-3)).loss(
        x, y, record=record
    ).backward()
    assert {node: len(value) for node, value in record.nudged.state.items()} == dict.fromkeys(network.free, 10)


@pytest.mark.parametrize("rate", [0.0, -0.1, float("inf"), float("nan")])
def test_rates_that_cannot_be(rate):
    with pytest.raises(ep.InputError, match="rate"):
        ep.learning.ContinualEP(ep.symmetric(0.1), SETTLE, SWEEPS, rate)
