"""A unit that is not elementwise: orders in beta, the feedforward limit, and the gradient in plain PyTorch."""

import copy
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from every_estimator import EXACT, REST, WAYS, gradients, relative
from pages import section
from torch.nn import functional as F

import eqprop as ep
from eqprop.energy.holomorphic import softmax
from eqprop.settling.displacement import tangent

SOFTMAX = section("A unit that is not elementwise").Softmax


@dataclass(frozen=True)
class Holomorphic(SOFTMAX):
    """The same, for complex nudges too."""

    holomorphic = True

    def response(self, drive):
        return softmax(drive, -1)


def network(unit=None, gain=1.0):
    """A vector of softmax units, and three rows of them."""
    torch.manual_seed(0)
    unit = unit or SOFTMAX()
    nodes = {"x": ep.Node((4,)), "h": ep.Node((6,), unit), "k": ep.Node((3, 5), unit), "y": ep.Node((3,), ep.identity)}
    edges = [("x", "h"), ("h", "k"), ("k", "y")]
    couplings = [
        ep.Synapse(a, b, ep.Dense(nodes[a].shape, nodes[b].shape), gain if a != "x" else 1.0) for a, b in edges
    ]
    found = ep.Network(nodes, [*couplings, ep.Bias("h", (6,))], ep.SquaredError("y", (3,))).double()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(3)
    return found


def batch():
    torch.manual_seed(1)
    return torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3


def plain(network, x, y):
    """The gradient of the feedforward network of the same weights, by all parameters and the data."""
    x = x.clone().requires_grad_()
    weights = {name: each.map.weight for name, each in network.terms.items() if isinstance(each, ep.Synapse)}
    h = F.linear(x, weights["x_h"], network.couplings["h_bias"].bias).softmax(-1)
    k = F.linear(h, weights["h_k"]).view(-1, 3, 5).softmax(-1)
    out = F.linear(k.flatten(1), weights["k_y"])
    loss = 0.5 * (out - F.one_hot(y, 3)).square().sum(1).mean()
    found = torch.autograd.grad(loss, [*network.parameters(), x])
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("unit", [SOFTMAX(), Holomorphic()], ids=["softmax", "holomorphic"])
@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.order and not way.feedforward])
def test_the_bias_falls_as_the_stencil_says(name, unit):
    x, y = batch()
    net, way = network(unit), WAYS[name]
    right = gradients(net, EXACT, x, y)
    beta = {1: 0.004, 2: 0.02, 4: 0.1}[way.order]
    if name.startswith(("holomorphic", "oscillating")) and not unit.holomorphic:
        with pytest.raises(ep.InputError, match="not holomorphic"):
            gradients(net, way.make(beta), x, y)
        return
    wide, narrow = (relative(gradients(net, way.make(b), x, y), right) for b in (beta, beta / 2))
    assert narrow < 0.1
    assert wide / narrow == pytest.approx(2**way.order, rel=0.3)


@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.feedforward and not way.weak])
def test_feedforward_estimators_give_the_gradient_of_plain_pytorch(name):
    x, y = batch()
    net, way = network(), WAYS[name]
    right = plain(net, x, y)
    if not way.order:
        assert relative(gradients(net, way.make(0.1), x, y), right) < 1e-12
        return
    wide, narrow = (relative(gradients(net, way.make(b), x, y), right) for b in (0.02, 0.01))
    assert narrow < 1e-2
    assert wide / narrow == pytest.approx(2**way.order, rel=0.2)


@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.weak])
def test_rules_of_weak_feedback_tend_to_it(name):
    """Their error falls with the feedback gain, on the way to the feedforward gradient by parameters.

    Data get what comes back over a synapse that has no gain.
    """
    x, y = batch()
    errors = []
    for gain in (2e-3, 1e-3):
        net = network(gain=gain)
        found, right = gradients(net, WAYS[name].make(1e-6), x, y), plain(net, x, y)
        errors.append(relative(found, right))
    assert errors[1] < 1e-2
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)


def test_penalties_use_the_whole_derivative_of_the_response():
    """|J|^2 of the synchronous sweep, by its explicit Jacobian: the mean over all probes of a basis."""
    x, _ = batch()
    net = network()
    landscape = net.landscape(x[:1])
    state = REST(landscape, landscape.zeros()).state
    linear = tangent(landscape, state, {})
    units = {name: value.numel() for name, value in state.items()}

    def sweep(flat):
        parts = flat.split(list(units.values()))
        at = {name: part.view_as(state[name]) for name, part in zip(units, parts, strict=True)}
        return torch.cat([value.flatten() for value in ep.synchronous(landscape, at).values()])

    jacobian = torch.func.jacrev(sweep)(torch.cat([value.flatten() for value in state.values()]))
    columns = []
    for each in torch.eye(len(jacobian), dtype=torch.float64):
        parts = each.split(list(units.values()))
        probe = {name: part.view_as(state[name]) for name, part in zip(units, parts, strict=True)}
        columns.append(ep.learning.jacobian_norm(linear, probe))
    torch.testing.assert_close(torch.cat(columns), jacobian.square().sum(0), rtol=1e-9, atol=1e-12)


def test_a_softmax_that_says_it_is_elementwise_is_refused():
    class Claims(SOFTMAX):
        elementwise = True

    with pytest.raises(ep.InputError, match="elementwise = False"):
        ep.chain((4,), [ep.DenseLayer(6, Claims()), ep.DenseLayer(3)], ep.SquaredError)


def test_cross_entropy_on_probabilities():
    """A loss that wants states in [0, 1] takes the unit, and EP follows it."""
    torch.manual_seed(0)
    layers = [ep.DenseLayer(5, ep.tanh), ep.DenseLayer(3, SOFTMAX())]
    net = ep.chain((4,), layers, ep.BinaryCrossEntropy).double()
    x, y = batch()
    found, right = (gradients(net, e, x, y) for e in (WAYS["symmetric states"].make(1e-4), EXACT))
    assert relative(found, right) < 1e-4


def test_a_copy_learns_as_the_network_does():
    x, y = batch()
    net = network()
    way = partial(gradients, estimator=WAYS["symmetric states"].make(0.01), data=x, target=y)
    assert torch.equal(way(net), way(copy.deepcopy(net)))
