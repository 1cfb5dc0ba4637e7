"""Reference gradients against gradients written out by hand, and stencils against polynomials."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from networks import NETWORKS, SETTLE, data as batch_of, gradients, nudging, relative, shrunk
from torch.nn import functional as F

import eqprop as ep

pytestmark = pytest.mark.usefixtures("double")


def two_layers(activation, loss=ep.SquaredError):
    torch.manual_seed(0)
    network = ep.chain((3,), [ep.DenseLayer(4, activation), ep.DenseLayer(2, activation)], loss)
    shrunk(network, 0.5)
    parts = dict(network.named_parameters())
    keys = ("input_layer1.map.weight", "layer1_layer2.map.weight", "layer1_bias.bias", "layer2_bias.bias")
    return network, [parts[f"couplings.{key}"] for key in keys]


def data():
    torch.manual_seed(1)
    return torch.randn(5, 3), torch.randn(5, 2)


def found_by(network, estimator, parameters):
    return torch.autograd.grad(ep.Equilibrium(network, estimator).loss(*data()), parameters)


def close(found, expected, tolerance):
    for each, answer in zip(found, expected, strict=True):
        assert relative(each, answer) < tolerance


def linear_loss(parameters, beta=0.0):
    """The loss at the equilibrium of a linear network with output nudged by beta, by solving its linear system."""
    (w1, w2, b1, b2), (x, y) = parameters, data()
    system = torch.cat(
        [torch.cat([torch.eye(4), -w2.T], 1), torch.cat([-w2, (1 + beta) * torch.eye(2)], 1)]
    )  # d energy / d state = 0
    state = torch.linalg.solve(system, torch.cat([x @ w1.T + b1, b2 + beta * y], 1).T).T
    return state, 0.5 * (state[:, 4:] - y).square().sum(1).mean()


@pytest.mark.parametrize(
    "estimator",
    [
        ep.ImplicitDifferentiation(SETTLE),
        ep.BackpropagationThroughTime(SETTLE, 60),
        ep.InfinitesimalNudge(SETTLE, ep.settling.ConjugateGradients(50, 1e-14), 0.0),
        nudging(ep.learning.five_point(0.01)),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_linear_networks_gradient_is_that_of_its_linear_system(estimator):
    network, parameters = two_layers(ep.identity)
    expected = torch.autograd.grad(linear_loss(parameters)[1], parameters)
    close(found_by(network, estimator, parameters), expected, 1e-6)


@pytest.mark.parametrize("beta", [0.7, -0.3])
@pytest.mark.parametrize(
    "form", [ep.learning.forms.displacements, ep.learning.forms.states], ids=["difference", "ordinary"]
)
def test_a_large_nudge_of_a_linear_network_is_the_difference_of_two_solved_energies(form, beta):
    """Not a limit: the finite-beta estimate itself, from states that no solver of this package found."""
    network, parameters = two_layers(ep.identity)
    (w1, w2, b1, b2), (x, _) = parameters, data()

    def contrast(state):
        s1, s2 = state.detach().split([4, 2], 1)
        return -((x @ w1.T + b1) * s1).sum(1).mean() - ((s1 @ w2.T + b2) * s2).sum(1).mean()

    moved = contrast(linear_loss(parameters, beta)[0]) - contrast(linear_loss(parameters)[0])
    expected = torch.autograd.grad(moved / beta, parameters)
    close(found_by(network, nudging(ep.one_sided(beta), form=form), parameters), expected, 1e-9)


@pytest.mark.parametrize(("sweeps", "last"), [(1, 1), (6, 1), (6, 4), (6, 6)])
def test_truncated_backpropagation_is_that_of_the_loop_written_out(sweeps, last):
    network, parameters = two_layers(ep.tanh)
    (w1, w2, b1, b2), (x, y) = parameters, data()
    s1, s2 = torch.zeros(5, 4), torch.zeros(5, 2)
    for t in range(sweeps):
        if t == sweeps - last:
            s1, s2 = s1.detach(), s2.detach()
        s1, s2 = torch.tanh(x @ w1.T + b1 + s2 @ w2), torch.tanh(s1 @ w2.T + b2)
    loss = 0.5 * (s2 - y).square().sum(1).mean()
    estimator = ep.BackpropagationThroughTime(ep.FixedSweeps(sweeps, ep.synchronous), last)
    torch.testing.assert_close(ep.Equilibrium(network, estimator).loss(x, y).detach(), loss.detach())
    found = found_by(network, estimator, parameters)
    expected = torch.autograd.grad(loss, parameters, materialize_grads=True)
    for each, answer in zip(found, expected, strict=True):
        torch.testing.assert_close(each, answer, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("last", [0, 6])
def test_a_truncation_beyond_the_phase_is_refused(last):
    with pytest.raises(ep.InputError, match=f"last {last}"):
        ep.BackpropagationThroughTime(ep.FixedSweeps(5), last)


def test_implicit_differentiation_is_the_solve_of_its_linear_system():
    """(1 - dF/ds)^T a = c, solved densely for one example."""
    network, parameters = two_layers(ep.tanh)
    (w1, w2, b1, b2), (x, y) = parameters, (v[:1] for v in data())
    with torch.no_grad():
        scene = network.landscape(x)
        state = SETTLE(scene, scene.zeros()).state
    at = torch.cat(list(state.values()), 1)[0]

    def step(s, w1, w2, b1, b2):
        s1, s2 = s.split([4, 2])
        return torch.cat([torch.tanh(x[0] @ w1.T + b1 + s2 @ w2), torch.tanh(s1 @ w2.T + b2)])

    jacobian = torch.autograd.functional.jacobian(lambda s: step(s, w1, w2, b1, b2), at)
    cost = torch.cat([torch.zeros(4), at[4:] - y[0]])
    adjoint = torch.linalg.solve((torch.eye(6) - jacobian).T, cost)
    expected = torch.autograd.grad(step(at, w1, w2, b1, b2) @ adjoint, parameters)
    model = ep.Equilibrium(network, ep.ImplicitDifferentiation(SETTLE))
    close(torch.autograd.grad(model.loss(x, y), parameters), expected, 1e-9)


@pytest.mark.parametrize("loss", ["loss", "downstream"])
@pytest.mark.parametrize(
    "estimator",
    [
        ep.ImplicitDifferentiation(SETTLE),
        nudging(ep.learning.five_point(0.01)),
        nudging(ep.learning.five_point(0.01), form=ep.learning.forms.states),
        ep.InfinitesimalNudge(SETTLE, SETTLE, damping=0.0),
        ep.InfinitesimalNudge(SETTLE, damping=0.0),
    ],
    ids=["implicit", "difference", "ordinary", "relaxed", "conjugate"],
)
def test_one_free_node_learns_by_ordinary_backpropagation(estimator, loss):
    """It hears the data alone, so its equilibrium is one feedforward layer, and autograd is the oracle."""
    network = ep.chain((3,), [ep.DenseLayer(4, ep.tanh)], lambda n, s: ep.ReadoutCrossEntropy(n, s, 3))
    y, (x, _) = torch.arange(5) % 3, data()
    model = ep.Equilibrium(network, estimator)
    weight, bias = network.terms["input_layer1"].map.weight, network.terms["layer1_bias"].bias
    parameters = [weight, bias, *network.loss.parameters()]
    value = model.loss(x, y) if loss == "loss" else F.cross_entropy(model(x), y)
    expected = F.cross_entropy(network.loss.readout(torch.tanh(F.linear(x, weight, bias))), y)
    torch.testing.assert_close(value.detach(), expected.detach())
    close(torch.autograd.grad(value, parameters), torch.autograd.grad(expected, parameters), 1e-6)


@pytest.mark.parametrize(
    "form", [ep.learning.forms.states, ep.learning.forms.displacements], ids=["ordinary", "difference"]
)
def test_a_node_beside_the_loss_learns_nothing(form):
    """Node a hears the data and speaks to no one, so the loss on b leaves it alone."""
    nodes = {"x": ep.Node((3,)), "a": ep.Node((4,), ep.tanh), "b": ep.Node((2,), ep.tanh)}
    edges = [ep.Synapse("x", n, ep.Dense((3,), nodes[n].shape)) for n in "ab"]
    network, (x, y) = ep.Network(nodes, edges, ep.SquaredError("b", (2,))), data()
    ep.Equilibrium(network, nudging(ep.symmetric(0.1), form=form)).loss(x, y).backward()
    assert network.terms["x_b"].map.weight.grad.any()
    assert not network.terms["x_a"].map.weight.grad.any()


def test_backpropagation_is_that_of_the_network_written_out():
    network = ep.chain((2, 8, 8), [ep.ConvLayer(3, activation=ep.tanh), ep.DenseLayer(4, ep.tanh)], ep.SquaredError)
    terms, x, y = network.terms, torch.randn(5, 2, 8, 8, requires_grad=True), torch.randn(5, 4)
    weight = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    z = F.max_pool2d(F.conv2d(x, terms["input_layer1"].map.weight, terms["layer1_bias"].bias.flatten(), 1, 1), 2)
    first = torch.tanh(z)
    output = torch.tanh(F.linear(first.flatten(1), terms["layer1_layer2"].map.weight, terms["layer2_bias"].bias))
    loss = (weight * 0.5 * (output - y).square().sum(1)).mean() + output.sin().sum()
    model, record = ep.Equilibrium(network, ep.Backpropagation()), ep.Record()
    found = model.loss(x, y, weight, record) + model(x).sin().sum()
    torch.testing.assert_close(found, loss)
    torch.testing.assert_close(record.free.state, {"layer1": first.detach(), "layer2": output.detach()})
    assert record.free.sweeps.tolist() == [1] * 5
    assert not record.free.residual.any()
    parameters = [x, *network.parameters()]
    expected = torch.autograd.grad(loss, parameters)
    for each, answer in zip(torch.autograd.grad(found, parameters), expected, strict=True):
        torch.testing.assert_close(each, answer, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "custom"])
def test_backpropagation_is_the_exact_gradient_of_a_network_that_feeds_nothing_back(name):
    """Feedback of gain 0, or through weights of 0; on any graph. Feedback weights take no part, and have gradient 0."""
    network = NETWORKS[name]()
    x, y = batch_of(network)
    backward = []
    for term in network.terms.values():
        if isinstance(term, ep.energy.SeparateFeedback):
            backward += [id(down) for _, _, down in term.pairs()]
    found = gradients(network, ep.Backpropagation(), x, y)
    for term in network.terms.values():
        if isinstance(term, ep.Synapse):
            term.feedback_gain = 0.0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(id(parameter) not in backward)
    exact = gradients(network, ep.ImplicitDifferentiation(SETTLE), x, y)
    forward = torch.cat([torch.full((p.numel(),), id(p) not in backward) for p in network.parameters()])
    assert relative(found[forward], exact[forward]) < 1e-12
    assert not found[~forward].any()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    beta=st.floats(1e-3, 2.0) | st.floats(-2.0, -1e-3),
    coefficients=st.lists(st.floats(-3, 3), min_size=2, max_size=5),
)
def test_stencils_differentiate_polynomials_of_their_order_exactly(beta, coefficients):
    for make in (ep.one_sided, ep.symmetric, ep.learning.five_point):
        stencil = make(beta)
        used = coefficients[: stencil.order + 1]
        value = sum(
            w * sum(c * b**n for n, c in enumerate(used)) for w, b in zip(stencil.weights, stencil.betas, strict=True)
        )
        assert value == pytest.approx(used[1], abs=1e-9 * max(1, 1 / abs(beta)))


@pytest.mark.parametrize("beta", [0.0, float("inf"), float("nan")])
@pytest.mark.parametrize(
    "make", [ep.one_sided, ep.symmetric, ep.learning.five_point, ep.learning.RandomSign], ids=lambda m: m.__name__
)
def test_nudges_that_cannot_be(make, beta):
    with pytest.raises(ep.InputError, match=r"does not nudge|beta must be finite"):
        make(beta)


@pytest.mark.parametrize("size", [1.5, 5.0])
def test_an_adjoint_that_overflows_is_no_gradient(size):
    """Infinite changes are not small beside infinite values."""
    torch.manual_seed(0)
    network = ep.chain((3,), [ep.DenseLayer(4, ep.identity) for _ in range(3)], ep.SquaredError)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(size)
    model = ep.Equilibrium(network, ep.ImplicitDifferentiation(ep.FixedSweeps(2)), on_unsettled="ignore")
    with pytest.raises(ep.NotSettledError, match="overflowed"):
        model.loss(torch.randn(2, 3), torch.randn(2, 4)).backward()
