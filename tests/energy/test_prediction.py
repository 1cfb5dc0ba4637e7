"""The coupling of predictive coding: its contract, what it refuses, and what a landscape may remember of it."""

import itertools
import json

import pytest
import torch
from networks import predictive
from torch import nn

import eqprop as ep
from eqprop import testing
from eqprop.energy import Activated, Prediction, Wire, relu
from eqprop.energy.maps import ModuleMap
from eqprop.learning import holomorphic
from eqprop.settling import ForwardPass, error_pass
from eqprop.substrates import FeedbackSpread, MessageGains, WeightSpread

pytestmark = pytest.mark.usefixtures("double")

IMAGE, UNITS = (2, 6, 6), (5,)


def modules():
    torch.manual_seed(0)
    yield nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), (3, 3, 3)
    yield nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)), (3, 3, 3)
    yield nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Tanh()), UNITS
    yield Activated(ep.Convolution(IMAGE, 3, padding=1, pool=ep.MaxPool(2)), relu), (3, 3, 3)
    yield Activated(ep.Dense(IMAGE, UNITS), ep.tanh), UNITS
    yield ep.Dense(IMAGE, UNITS), UNITS
    yield ep.energy.Skip(IMAGE), IMAGE


CASES = list(modules())


def bound(module, shape):
    coupling = Prediction("a", "b", module)
    coupling.bind({"a": ep.Node(IMAGE), "b": ep.Node(shape, Wire())})
    return coupling


@pytest.mark.parametrize(("module", "shape"), CASES)
@pytest.mark.parametrize("record", [False, True], ids=["graph", "recorded"])
def test_it_keeps_the_contract_of_couplings(module, shape, record):
    """Also outside grad mode, where a landscape records evaluations."""
    with torch.set_grad_enabled(not record):
        testing.check_coupling(bound(module, shape), {"a": IMAGE, "b": shape})


@pytest.mark.parametrize(("module", "shape"), CASES[3:5])
def test_activated_maps_keep_the_contract_of_maps(module, shape):
    testing.check_map(module)


def test_a_visit_is_the_minimum_over_its_node_where_nothing_comes_after():
    network = predictive((6, 5, 4))
    landscape = network.landscape(torch.randn(3, 6))
    with torch.no_grad():
        state = {node: torch.randn_like(value) for node, value in landscape.zeros().items()}
        moved = state | landscape.step(state, ["layer2"])
        assert float(landscape.force(moved, "layer2").abs().max()) < 1e-12
        assert float(landscape.energy(moved).max()) < float(landscape.energy(state).min())


def test_the_free_state_is_the_forward_pass_of_energy_zero():
    network = predictive((6, 7, 5, 4))
    x = torch.randn(3, 6)
    with torch.no_grad():
        landscape = network.landscape(x)
        free = ForwardPass()(landscape, landscape.zeros())
        expected = x
        for name, coupling in network.terms.items():
            expected = coupling.module(expected)
            assert torch.equal(free.state[coupling.post], expected), name
        assert bool(free.settled.all())
        assert free.sweeps.tolist() == [1, 1, 1]
        assert float(landscape.energy(free.state).max()) == 0
        for node in landscape.nodes:
            assert float(landscape.force(free.state, node).abs().max()) == 0


def test_a_forward_pass_that_is_not_finite_says_so():
    network = predictive((6, 5, 4))
    x = torch.randn(3, 6)
    x[1] = torch.nan
    with torch.no_grad():
        landscape = network.landscape(x)
        found = ForwardPass()(landscape, landscape.zeros())
    assert found.status.tolist() == [0, 2, 0]


def test_it_is_written_down_and_read_back():
    network = predictive((6, 7, 4))
    twin = ep.Network.from_spec(json.loads(json.dumps(network.spec())))
    twin.load_state_dict(network.state_dict())
    x, estimator = torch.randn(2, 6), ep.EquilibriumPropagation(ep.symmetric(0.1), ForwardPass(), ForwardPass())
    assert torch.equal(ep.Equilibrium(network, estimator)(x), ep.Equilibrium(twin, estimator)(x))
    other = ep.Network({"x": ep.Node((2,)), "y": ep.Node((2,), Wire())}, [Prediction("x", "y", nn.Linear(2, 2))])
    assert type(other.terms["x_y"].module) is ModuleMap


def after_dense(module):
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 5), module)


REFUSED = {
    "itself": (lambda: Prediction("a", "a", nn.Linear(2, 2)), "predict itself"),
    "shape": (lambda: bound(nn.Flatten(), UNITS), "maps"),
    "random": (lambda: bound(after_dense(nn.Dropout(0.5)), UNITS), "random"),
    "mixing": (lambda: bound(after_dense(nn.BatchNorm1d(5, track_running_stats=False)), UNITS), "mixes"),
    "dropout": (
        lambda: Prediction("a", "b", nn.Linear(5, 5)).bind({"a": ep.Node((5,)), "b": ep.Node((5,), Wire(), 0.5)}),
        "dropout",
    ),
    "activation": (lambda: Activated(ep.Dense((2,), (2,)), ep.Unit()), "no response"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    make, words = REFUSED[case]
    with pytest.raises(ep.InputError, match=words):
        make()


def test_complex_nudges_are_refused():
    network = predictive((6, 5, 4))
    estimator = ep.EquilibriumPropagation(holomorphic(0.1, 4), ForwardPass(), ep.FixedSweeps(1, error_pass))
    with pytest.raises(ep.InputError, match="holomorphic"):
        ep.Equilibrium(network, estimator)(torch.randn(2, 6))


@pytest.mark.parametrize("substrate", [FeedbackSpread(0.1), MessageGains(0.1), MessageGains(0.0, 0.1)], ids=repr)
def test_substrates_that_need_a_second_way_down_are_refused(substrate):
    network = predictive((6, 5, 4)).on(substrate)
    with pytest.raises(ep.InputError, match="prediction"):
        network.landscape(torch.randn(2, 6))


def test_the_conformance_of_substrates_holds_with_weights_that_are_read_in_another_way():
    """The weights that are read predict; what learns is the parameter itself."""
    network = predictive((6, 5, 4))
    one = ep.EquilibriumPropagation(ep.symmetric(1e-3), ForwardPass(), ep.FixedSweeps(1, error_pass))
    x, y = torch.randn(8, 6), torch.arange(8) % 4
    on = network.on(WeightSpread(0.2))
    found, right = (
        torch.autograd.grad(ep.Equilibrium(on, each, "ignore").loss(x, y), list(network.parameters()))
        for each in (one, ep.Backpropagation())
    )
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert not torch.equal(ep.Equilibrium(on, one)(x), ep.Equilibrium(network, one)(x))


class Counted(nn.Module):
    """A linear layer that counts its evaluations."""

    def __init__(self, size):
        super().__init__()
        self.inner, self.counts = nn.Linear(size, size), []

    def forward(self, x):
        self.counts.append(len(x))
        return self.inner(x).relu()


def test_one_evaluation_serves_a_state():
    """A step with one pass a sign: each layer once for the free phase, once for the nudged ones, the first once more
    for learning."""
    nodes = {"x": ep.Node((4,)), **{n: ep.Node((4,), Wire()) for n in "abc"}}
    layers = [Counted(4) for _ in range(3)]
    couplings = [Prediction(p, q, layer) for (p, q), layer in zip(itertools.pairwise("xabc"), layers, strict=True)]
    network = ep.Network(nodes, couplings, ep.CrossEntropy("c", (4,)))
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.1), ForwardPass(), ep.FixedSweeps(1, error_pass))
    for layer in layers:
        layer.counts.clear()
    ep.Equilibrium(network, estimator, "ignore").loss(torch.randn(5, 4), torch.arange(5) % 4).backward()
    assert [layer.counts for layer in layers] == [[5, 5], [5, 10], [5, 10]]


def test_a_recorded_evaluation_is_of_that_state_alone():
    """Not of one that changed in place, nor of copies that are none."""
    network = predictive((6, 5, 4, 3))
    with torch.no_grad():
        landscape = network.landscape(torch.randn(3, 6))
        term = landscape.terms["layer1_layer2"]
        state = torch.randn(3, 5)
        for _ in range(2):
            assert torch.equal(term.predicted(state), network.terms["layer1_layer2"].module(state))
            state.mul_(0.5)
        for _ in range(2):
            other = torch.randn(3, 5)
            assert torch.equal(term.predicted(other), network.terms["layer1_layer2"].module(other))
        latest, twice = torch.randn(3, 5), torch.tensor([0, 1, 2, 0, 1, 2])
        term.predicted(latest)
        for examples in (twice, torch.tensor([2, 1, 0]), torch.tensor([0, 0, 0, 1, 1, 1])):
            for at in (latest[examples], torch.randn(len(examples), 5)):
                fresh = network.landscape(torch.randn(3, 6)).terms["layer1_layer2"]
                fresh.predicted(latest)
                chosen, error = fresh.select(examples), torch.randn(len(examples), 4)
                torch.testing.assert_close(chosen.predicted(at), network.terms["layer1_layer2"].module(at))
                right = torch.func.vjp(network.terms["layer1_layer2"].module, at)[1](error)[0]
                torch.testing.assert_close(chosen.pulled(at, error), right)


def test_selected_examples_are_predicted_by_their_own_data():
    network, x = predictive((6, 5)), torch.randn(3, 6)
    term = network.landscape(x).terms["input_layer1"]
    for examples in ([0, 1, 2, 0, 1, 2], [2, 1, 0], [0, 0, 0, 1, 1, 1], [1], [0, 1, 2, 1]):
        found = term.select(torch.tensor(examples)).predicted()
        torch.testing.assert_close(found, network.terms["input_layer1"].module(x[examples]))


def test_a_loss_may_be_differentiated_twice():
    network = predictive((6, 5, 4))
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.1), ForwardPass(), ep.FixedSweeps(1, error_pass))
    loss = ep.Equilibrium(network, estimator, "ignore").loss(torch.randn(3, 6), torch.arange(3))
    first = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(loss, list(network.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_predictions_work_in_inference_mode():
    network = predictive((6, 5, 4))
    x = torch.randn(3, 6)
    with torch.inference_mode():
        landscape = network.landscape(x)
        one = ForwardPass()(landscape, landscape.zeros()).state["layer2"]
        other = ep.UntilConverged(1e-9, 200)(landscape, landscape.zeros()).state["layer2"]
    torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
