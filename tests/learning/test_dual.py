"""Dual propagation against its equations written out, and against backpropagation, its limit."""

import math

import pytest
import torch
from networks import NETWORKS, data, dense, gradients, relative, shrunk
from torch.nn import functional as F

import eqprop as ep

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("alpha", [0.5, 0.0, 1.0, 0.3])
@pytest.mark.parametrize("passes", [1, 3])
def test_it_is_its_equations_written_out(alpha, passes):
    """Not a limit: at beta 0.7, two layers, with each example's own weight."""
    network = ep.chain((3,), [ep.DenseLayer(4, ep.tanh), ep.DenseLayer(2, ep.sigmoid)], ep.SquaredError)
    names = ("input_layer1.map.weight", "layer1_layer2.map.weight", "layer1_bias.bias", "layer2_bias.bias")
    parameters = [dict(network.named_parameters())[f"couplings.{name}"] for name in names]
    w1, w2, b1, b2 = parameters
    x, y, beta, weight = torch.randn(5, 3), torch.randn(5, 2), 0.7, torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    with torch.no_grad():
        a1 = x @ w1.T + b1
        m1 = torch.tanh(a1)
        a2 = m1 @ w2.T + b2
        m2 = ep.sigmoid.response(a2)
        for _ in range(passes):
            d2 = beta * (y - m2)
            up2, down2 = ep.sigmoid.response(a2 + (1 - alpha) * d2), ep.sigmoid.response(a2 - alpha * d2)
            d1 = (up2 - down2) @ w2
            up1, down1 = torch.tanh(a1 + (1 - alpha) * d1), torch.tanh(a1 - alpha * d1)
            m1 = alpha * up1 + (1 - alpha) * down1
            a2 = m1 @ w2.T + b2
            up2, down2 = ep.sigmoid.response(a2 + (1 - alpha) * d2), ep.sigmoid.response(a2 - alpha * d2)
            m2 = alpha * up2 + (1 - alpha) * down2
        share = weight[:, None] / (5 * beta)
        e1, e2 = share * (down1 - up1), share * (down2 - up2)
    record = ep.Record()
    loss = ep.Equilibrium(network, ep.learning.DualPropagation(beta, alpha, passes)).loss(x, y, weight, record)
    found = torch.autograd.grad(loss, parameters)
    for each, answer in zip(found, (e1.T @ x, e2.T @ m1, e1.sum(0), e2.sum(0)), strict=True):
        torch.testing.assert_close(each, answer, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        record.nudged.state, {"layer1": torch.cat([up1, down1]), "layer2": torch.cat([up2, down2])}
    )
    assert record.nudged.sweeps.tolist() == [passes] * 10


def aligned(network):
    """Separate feedback weights become the feedforward ones."""
    with torch.no_grad():
        for term in network.terms.values():
            for _, up, down in term.pairs() if isinstance(term, ep.energy.SeparateFeedback) else ():
                down.copy_(up)
    return network


@pytest.mark.parametrize(("alpha", "order"), [(0.5, 2), (0.0, 1), (1.0, 1)])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_tends_to_backpropagation(name, alpha, order):
    """Chains, pooling's winners, skips, a loss on two nodes, a read-out, a term of three nodes that is not bilinear."""
    network = aligned(NETWORKS[name]())
    x, y = data(network)
    exact = gradients(network, ep.Backpropagation(), x, y)
    big, small = (
        relative(gradients(network, ep.learning.DualPropagation(b, alpha), x, y), exact) for b in (0.02, 0.01)
    )
    assert small < 4 * 0.01**order
    assert math.log2(big / small) == pytest.approx(order, abs=0.1)


class Own(ep.Coupling):
    """strength (s + s^2 + s^3): a push on a node that depends on where the node itself stands."""

    def __init__(self, node):
        super().__init__()
        self.nodes, self.strength = (node,), torch.nn.Parameter(torch.tensor(0.3))

    def energy(self, *states):
        (s,) = states
        return self.strength * (s + s.square() + s**3).sum(1)


def test_a_node_hears_its_own_terms_before_it_has_answered():
    """As in the feedforward pass, where its own state is still at rest."""
    base = dense(loss=ep.SquaredError)
    network = ep.Network(base.nodes, base.terms | {"own": Own("layer2")}, base.loss)
    x, y = data(network)
    exact = gradients(network, ep.Backpropagation(), x, y)
    assert relative(gradients(network, ep.learning.DualPropagation(1e-4), x, y), exact) < 1e-8
    assert gradients(network, ep.learning.DualPropagation(1e-4), x, y).count_nonzero() == len(exact)


@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_a_read_out_learns_at_the_mean(alpha):
    network, record = dense(), ep.Record()
    x, y = data(network)
    loss = ep.Equilibrium(network, ep.learning.DualPropagation(2.0, alpha)).loss(x, y, record=record)
    readout = list(network.loss.parameters())
    found = torch.autograd.grad(loss, readout)
    up, down = record.nudged.state["layer3"].chunk(2)
    expected = torch.autograd.grad(network.loss(y, alpha * up + (1 - alpha) * down).mean(), readout)
    for each, answer in zip(found, expected, strict=True):
        torch.testing.assert_close(each, answer, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "estimator", [ep.Backpropagation(), ep.learning.DualPropagation(1e-3)], ids=lambda e: type(e).__name__
)
def test_it_stands_messages_of_16_bits(estimator):
    network = NETWORKS["average"]()
    x, y = data(network)
    exact = gradients(network, ep.Backpropagation(), x, y)
    network = network.float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = ep.Equilibrium(network, estimator).loss(x.float(), y)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])
    assert estimator.sixteen_bits(network.landscape(x.float()))
    assert relative(found.double(), exact) < 0.02


def test_further_passes_come_to_a_fixed_point():
    network = dense(loss=ep.SquaredError)
    x, y = data(network)
    one, eight, nine = (gradients(network, ep.learning.DualPropagation(0.5, passes=n), x, y) for n in (1, 8, 9))
    assert relative(one, nine) > 1e-6
    assert relative(eight, nine) < 1e-9


def test_weights_dropout_data_and_a_loss_downstream_go_through_it():
    layers = [ep.DenseLayer(9, ep.tanh, dropout=0.4), ep.DenseLayer(8, ep.tanh), ep.DenseLayer(4, ep.tanh, dropout=0.2)]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError))
    x, y = torch.randn(5, 6, requires_grad=True), torch.arange(5) % 4
    weight, found = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0]), []
    for estimator in (ep.Backpropagation(), ep.learning.DualPropagation(1e-3)):
        torch.manual_seed(3)
        model = ep.Equilibrium(network, estimator).train()
        loss = model.loss(x, y, weight) + F.cross_entropy(model(x), y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [x, *network.parameters()])]))
    assert relative(found[1], found[0]) < 1e-6


def test_it_survives_nudges_that_would_drown_a_difference_of_states():
    network = dense()
    x, y = data(network)
    exact = gradients(network, ep.Backpropagation(), x, y)
    found = gradients(network.float(), ep.learning.DualPropagation(1e-7), x.float(), y)
    assert relative(found.double(), exact) < 1e-5


def test_separate_feedback_weights_carry_the_errors_and_do_not_learn():
    """Of random feedback: what the last layer learns needs none, what the first learns is another's error."""
    network = dense(separate=True)
    x, y = data(network)
    names = [name for name, _ in network.named_parameters()]
    found, exact = (
        dict(zip(names, torch.autograd.grad(model.loss(x, y), list(network.parameters())), strict=True))
        for model in (ep.Equilibrium(network, e) for e in (ep.learning.DualPropagation(1e-4), ep.Backpropagation()))
    )
    last, first = "couplings.layer2_layer3.feedforward.map.weight", "couplings.input_layer1.map.weight"
    assert relative(found[last], exact[last]) < 1e-7
    assert relative(found[first], exact[first]) > 0.1
    assert not any(found[name].any() for name in names if ".feedback." in name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0,), "beta"), ((0.1, 1.5), "alpha"), ((0.1, -0.1), "alpha"), ((0.1, 0.5, 0), "passes")],
)
def test_what_cannot_be(arguments, message):
    with pytest.raises(ep.InputError, match=message):
        ep.learning.DualPropagation(*arguments)
