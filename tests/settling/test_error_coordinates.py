"""Error coordinates on predictive-coding energies: their stationary points, their cost in passes, and their limit."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from networks import chain, predictive

import eqprop as ep
from eqprop import testing
from eqprop.diagnostics import exact_gradients
from eqprop.energy import Prediction, Wire
from eqprop.energy.losses import Nudge
from eqprop.learning import RandomSign
from eqprop.settling import ConjugateGradients, ForwardPass, Leaky, Status, alternating, crossing, error_pass

pytestmark = pytest.mark.usefixtures("double")
LOSSES = [ep.CrossEntropy, ep.SquaredError]


def nudged(network, x, y, beta):
    """The landscape of a nudged phase, and its free state."""
    landscape = network.landscape(x)
    free = ForwardPass()(landscape, landscape.zeros()).state
    return landscape.with_term("nudge", Nudge(network.loss, y, torch.full((len(x),), beta))), free


def given_net(sizes=(8, 8, 8, 8, 4), gain=1.2, loss=ep.CrossEntropy, seed=0):
    torch.manual_seed(seed)
    return predictive(sizes, gain, loss, ep.tanh), torch.randn(5, sizes[0]), torch.arange(5) % sizes[-1]


def largest_force(landscape, state):
    return max(float(landscape.force(state, node).abs().max()) for node in landscape.nodes)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("beta", [0.05, -0.05])
def test_errors_and_states_come_to_the_same_stationary_point(loss, beta):
    network, x, y = given_net(loss=loss)
    with torch.no_grad():
        landscape, free = nudged(network, x, y, beta)
        errors = ep.UntilConverged(1e-11, 500, error_pass)(landscape, free)
        states = ep.UntilConverged(1e-11, 5000, Leaky(0.5, alternating))(landscape, free)
        assert bool((errors.settled & states.settled).all())
        assert largest_force(landscape, errors.state) < 1e-10
        for node, value in states.state.items():
            torch.testing.assert_close(errors.state[node], value, rtol=0, atol=1e-8)


@pytest.mark.parametrize("beta", [0.5, -0.5, 3.0])
def test_under_a_squared_error_one_pass_goes_to_the_minimum_over_the_output(beta):
    network, x, y = given_net((8, 4), loss=ep.SquaredError)
    with torch.no_grad():
        landscape, free = nudged(network, x, y, beta)
        assert largest_force(landscape, error_pass(landscape, free)) < 1e-12


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.sampled_from([-0.02, -0.01, 0.01, 0.02]))
def test_they_settle_at_stationary_points(seed, beta):
    network, x, y = given_net(seed=seed)
    with torch.no_grad():
        landscape, free = nudged(network, x, y, beta)
        found = ep.UntilConverged(1e-9, 500, error_pass)(landscape, free)
        assert bool(found.settled.all())
        assert found.explain() == ""
        assert largest_force(landscape, found.state) < 1e-8


class Step(ep.Loss):
    """-s, plus a step of so much height from s = 0 to s = width, whose slope at both ends is 0."""

    nodes = ("b",)

    def __init__(self, width, height):
        super().__init__()
        self.width, self.height = width, height

    def forward(self, target, *states):
        s = states[0].sum(1)
        return self.height * (s / self.width - torch.sin(2 * math.pi * s / self.width) / (2 * math.pi)) - s


def two_layers(loss):
    """x predicts a, which predicts b, each by a weight of 1; a and b are 0 in the free state of x = 0."""
    nodes = {"x": ep.Node((1,)), "a": ep.Node((1,), Wire()), "b": ep.Node((1,), Wire())}
    layers = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
    for layer in layers:
        torch.nn.init.ones_(layer.weight)
    return ep.Network(nodes, [Prediction("x", "a", layers[0]), Prediction("a", "b", layers[1])], loss, "b")


@pytest.mark.parametrize("sweep", [error_pass, alternating])
@settings(max_examples=20, deadline=None)
@given(beta=st.floats(0.05, 0.5), height=st.floats(3.0, 20.0))
def test_a_nudged_state_of_higher_energy_than_the_free_one_is_settled(sweep, beta, height):
    """No descent is demanded: the nudge of slope -1 moves b by beta, or with a by 2 beta, where its slope is -1 again.

    In between is a step of any height.
    """
    network = two_layers(Step(2 * beta if sweep is error_pass else beta, height))
    with torch.no_grad():
        landscape, free = nudged(network, torch.zeros(1, 1), torch.zeros(1, 1), beta)
        found = ep.UntilConverged(1e-9, 50, sweep)(landscape, free)
        assert found.status.tolist() == [Status.SETTLED]
        assert largest_force(landscape, found.state) < 1e-8
        assert float(landscape.energy(found.state) - landscape.energy(free)) > 0


@pytest.mark.parametrize("sweep", [error_pass, alternating])
def test_a_saddle_is_at_rest(sweep):
    """b = (1 + w^2) beta (t - b), where beta is below -1 / (1 + w^2): the energy falls from there in one direction."""
    network, weight, beta, target = two_layers(ep.SquaredError("b", (1,))), 1.0, -0.75, torch.full((1, 1), 1.0)
    more = 1 + weight**2
    b = beta * more * target / (1 + beta * more)
    a = weight * beta * (target - b)
    with torch.no_grad():
        landscape, _ = nudged(network, torch.zeros(1, 1), target, beta)
        state = {"a": a, "b": b}
        assert largest_force(landscape, state) < 1e-12
        ahead = {"a": a + 0.1 * weight, "b": b + 0.1 * more}
        assert float(landscape.energy(ahead)) < float(landscape.energy(state))
        found = ep.FixedSweeps(2, sweep)(landscape, state)
        assert found.status.tolist() == [Status.SETTLED]
        assert float((found.state["b"] - b).abs()) < 1e-12


def test_one_pass_is_a_step_of_gradient_descent_in_errors():
    """Of length 1: the gradient by the errors of the energy of the states that follow from them."""
    network, x, y = given_net()
    layers = [coupling.module for coupling in network.terms.values()]
    errors = [0.1 * torch.randn(5, *layer.out_shape) for layer in layers]

    def states(errors):
        at, found = x, {}
        for node, layer, error in zip(network.free, layers, errors, strict=True):
            at = found[node] = layer(at) + error
        return found

    landscape, _ = nudged(network, x, y, 0.3)
    moved = torch.func.grad(lambda e: landscape.energy(states(e)).sum())(errors)
    with torch.no_grad():
        right = states([e - g for e, g in zip(errors, moved, strict=True)])
        found = error_pass(landscape, states(errors))
    for node, value in right.items():
        torch.testing.assert_close(found[node], value)


@pytest.mark.parametrize("depth", [5, 10])
def test_one_pass_takes_a_force_through_all_layers(depth):
    network, x, y = given_net((8,) * depth + (4,))
    with torch.no_grad():
        landscape, free = nudged(network, x, y, 1e-3)
        assert crossing(landscape, error_pass) == 1
        assert crossing(landscape, alternating) == (depth + 2) // 2
        moved = error_pass(landscape, free)
    assert all(float((moved[node] - free[node]).abs().max()) > 0 for node in landscape.nodes)


def gradients(network, estimator, x, y):
    model = ep.Equilibrium(network, estimator, "ignore")
    weights = [p for name, p in network.named_parameters() if name.endswith("weight")]
    return torch.autograd.grad(model.loss(x, y), weights)


def worst_cosine(found, right):
    pairs = zip(found, right, strict=True)
    return min(float(torch.cosine_similarity(a.flatten(), b.flatten(), 0)) for a, b in pairs)


def estimator(beta, solver, nudging=ep.symmetric):
    return ep.EquilibriumPropagation(nudging(beta), ForwardPass(), solver)


def wide(depth, gain, seed):
    torch.manual_seed(seed)
    network = predictive((64,) * depth + (10,), gain)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return network, torch.randn(16, 64), torch.randint(10, (16,))


SETTINGS = [(5, 1.0, 0.02), (10, 1.0, 0.001), (10, 1.4, 0.001)]
"""Depth, gain, beta."""


@pytest.mark.parametrize(("depth", "gain", "beta"), SETTINGS)
def test_centred_with_one_pass_it_points_where_backpropagation_does(depth, gain, beta):
    """In the worst layer; the median of three networks."""
    found = []
    for seed in range(3):
        network, x, y = wide(depth, gain, seed)
        right = gradients(network, ep.Backpropagation(), x, y)
        found.append(worst_cosine(gradients(network, estimator(beta, ep.FixedSweeps(1, error_pass)), x, y), right))
    assert sorted(found)[1] > 0.99


@pytest.mark.parametrize(("depth", "gain", "beta"), SETTINGS)
def test_fewer_sweeps_of_states_than_layers_teach_the_first_layers_nothing(depth, gain, beta):
    """The force moves each node once in ``crossing`` sweeps, but it arrives where it started as the states below have
    not moved yet: the error of the first layer has the right direction after as many sweeps as layers."""
    network, x, y = wide(depth, gain, 0)
    right = gradients(network, ep.Backpropagation(), x, y)
    enough = worst_cosine(gradients(network, estimator(beta, ep.FixedSweeps(depth)), x, y), right)
    for few in (1, (depth - 1) // 2):
        assert worst_cosine(gradients(network, estimator(beta, ep.FixedSweeps(few)), x, y), right) < 0.5 < enough


@pytest.mark.parametrize("loss", LOSSES)
def test_with_one_pass_and_a_small_nudge_it_is_backpropagation(loss):
    """Not near it: the difference falls as beta squared."""
    network, x, y = given_net(loss=loss)
    right = gradients(network, ep.Backpropagation(), x, y)
    errors = []
    for beta in (1e-2, 1e-3):
        found = gradients(network, estimator(beta, ep.FixedSweeps(1, error_pass)), x, y)
        errors.append(max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, right, strict=True)))
    assert errors[1] < 1e-4
    assert errors[1] < 0.02 * errors[0]


def test_the_exact_gradient_at_the_forward_pass_is_that_of_backpropagation():
    network, x, y = given_net()
    right = gradients(network, ep.Backpropagation(), x, y)
    with torch.no_grad():
        landscape = network.landscape(x)
        free = ForwardPass()(landscape, landscape.zeros())
    try:
        found = exact_gradients(network, free.state, x, y)
    except ep.NotSettledError as error:
        raise AssertionError("it cannot be found by this sweep") from error
    for a, b in zip([g for name, g in found.items() if name.endswith("weight")], right, strict=True):
        torch.testing.assert_close(a, b)


def test_the_infinitesimal_nudge_is_backpropagation_too():
    network, x, y = given_net()
    right = gradients(network, ep.Backpropagation(), x, y)
    found = gradients(network, ep.InfinitesimalNudge(ForwardPass(), ConjugateGradients(200, 1e-13)), x, y)
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_a_random_sign_and_one_side_point_there_too():
    network, x, y = wide(5, 1.0, 0)
    right = gradients(network, ep.Backpropagation(), x, y)
    one = ep.FixedSweeps(1, error_pass)
    for nudging in (RandomSign, ep.one_sided):
        assert worst_cosine(gradients(network, estimator(1e-3, one, nudging), x, y), right) > 0.98


def test_a_network_in_which_a_node_predicts_two():
    nodes = {"x": ep.Node((4,)), **{n: ep.Node((4,), Wire()) for n in "abc"}}
    edges = [("x", "a"), ("a", "b"), ("a", "c")]
    couplings = [Prediction(p, q, torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())) for p, q in edges]
    loss = ep.energy.WeightedSum([ep.SquaredError("b", (4,)), ep.CrossEntropy("c", (4,))], [1.0, 0.5])
    network = ep.Network(nodes, couplings, loss)
    x, y = torch.randn(5, 4), torch.arange(5) % 4
    right = gradients(network, ep.Backpropagation(), x, y)
    found = gradients(network, estimator(1e-4, ep.FixedSweeps(1, error_pass)), x, y)
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_conformance_of_sweeps_and_solvers():
    network = predictive((4, 5, 3), 0.8)
    testing.check_sweep(error_pass, network)
    testing.check_solver(ep.UntilConverged(1e-6, 50, error_pass), network)
    testing.check_solver(ep.FixedSweeps(2, error_pass), network)
    testing.check_solver(ForwardPass(), network)


def two_predictions():
    nodes = {"x": ep.Node((4,)), "a": ep.Node((4,), Wire()), "b": ep.Node((4,), Wire())}
    edges = [("x", "a"), ("a", "b"), ("x", "b")]
    return ep.Network(nodes, [Prediction(p, q, ep.Dense((4,), (4,))) for p, q in edges])


def backwards():
    nodes = {"x": ep.Node((4,)), "b": ep.Node((4,), Wire()), "a": ep.Node((4,), Wire())}
    return ep.Network(nodes, [Prediction(p, q, ep.Dense((4,), (4,))) for p, q in [("x", "a"), ("a", "b")]])


def bounded():
    nodes = {"x": ep.Node((4,)), "a": ep.Node((4,), Wire(low=0.0))}
    return ep.Network(nodes, [Prediction("x", "a", ep.Dense((4,), (4,)))])


@pytest.mark.parametrize(
    ("make", "words"),
    [(two_predictions, "Two predictions"), (backwards, "after it"), (bounded, "Wire"), (lambda: chain(2), "Wire")],
)
def test_other_networks_are_refused(make, words):
    network = make()
    landscape = network.landscape(torch.randn(2, *network.nodes["x" if "x" in network.nodes else "input"].shape))
    for solver in (ForwardPass(), ep.FixedSweeps(1, error_pass)):
        with pytest.raises(ep.InputError, match=words):
            solver(landscape, landscape.zeros())


def test_over_relaxation_and_a_forward_pass_under_a_nudge_are_refused():
    network, x, y = given_net()
    with torch.no_grad():
        landscape, free = nudged(network, x, y, 0.1)
    with pytest.raises(ep.InputError, match="over-relaxation"):
        ep.UntilConverged(1e-3, 10, error_pass, over_relaxation=1.5)(landscape, free)
    with pytest.raises(ep.InputError, match="nudge"):
        ForwardPass()(landscape, free)
