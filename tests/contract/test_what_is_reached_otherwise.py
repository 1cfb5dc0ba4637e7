"""Weights, modes and targets that a network reaches otherwise than by its registered parameters and plain tensors."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

import eqprop as ep
from eqprop.learning.teachers import soft_clamp

pytestmark = pytest.mark.usefixtures("double")
SETTLE = ep.FixedSweeps(200)


def small(*couplings, dropout=0.0, loss=None):
    nodes = {"x": ep.Node((3,)), "a": ep.Node((4,), ep.tanh), "b": ep.Node((2,), ep.identity, dropout)}
    edges = [ep.Synapse("x", "a", ep.Dense((3,), (4,))), ep.Synapse("a", "b", ep.Dense((4,), (2,)))]
    network = ep.Network(nodes, [*edges, *couplings], loss or ep.SquaredError("b", (2,)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    return network


def slope(network, parameter, x, y):
    """Central differences of the settled loss by the first entry of a parameter."""
    model, values = ep.Equilibrium(network, ep.ImplicitDifferentiation(SETTLE), "ignore"), []
    with torch.no_grad():
        for sign in (1, -2):
            parameter.view(-1)[0] += sign * 1e-5
            values.append(float(model.loss(x, y)))
        parameter.view(-1)[0] += 1e-5
    return (values[0] - values[1]) / 2e-5


class InAList(ep.Coupling):
    def __init__(self):
        super().__init__()
        self.nodes, self.w = ("a",), nn.Parameter(torch.full((4,), 0.3))
        self.all, self.by_name = [self.w], {"w": (self.w,)}

    def energy(self, *states):
        return (self.all[0] * states[0].square()).sum(1) + (self.by_name["w"][0] * states[0]).sum(1)


class ByAMethod(ep.Coupling):
    def __init__(self):
        super().__init__()
        self.nodes, self.w = ("a",), nn.Parameter(torch.full((4,), 0.3))
        self.function = self.quadratic

    def quadratic(self, s):
        return (self.w * s.square()).sum(1)

    def energy(self, *states):
        return self.function(states[0])


@pytest.mark.parametrize("coupling", [InAList, ByAMethod])
@pytest.mark.parametrize(
    "estimator",
    [ep.ImplicitDifferentiation(SETTLE), ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE)],
    ids=["implicit", "ep"],
)
def test_parameters_in_lists_and_behind_bound_methods_get_their_whole_gradient(coupling, estimator):
    torch.manual_seed(0)
    own = coupling()
    network, x, y = small(own), torch.randn(5, 3), torch.randn(5, 2)
    model = ep.Equilibrium(network, estimator, "ignore")
    (found,) = torch.autograd.grad(model.loss(x, y), own.w)
    assert float(found[0]) == pytest.approx(slope(network, own.w, x, y), rel=1e-4)


@pytest.mark.parametrize("convolution", [False, True], ids=["dense", "convolution"])
def test_a_users_hook_that_computes_a_weight_is_called_before_the_map(convolution):
    """As equalised learning rates do: the raw weight is the parameter."""
    torch.manual_seed(0)
    network, x, y = small(), torch.randn(5, 3), torch.randn(5, 2)
    if convolution:
        nodes = {"x": (1, 3, 3), "a": ep.Node((2, 3, 3), ep.tanh), "b": ep.Node((2, 1, 1), ep.identity)}
        maps = ep.Convolution((1, 3, 3), 2, padding=1), ep.Convolution((2, 3, 3), 2, kernel=3)
        edges = [("x", "a", maps[0]), ("a", "b", maps[1])]
        network, x, y = ep.graph(nodes, edges, ep.SquaredError), torch.randn(5, 1, 3, 3), torch.randn(5, 2, 1, 1)
    hooked = network.couplings["a_b"].map
    raw = hooked.weight
    del hooked.weight
    hooked.raw = raw

    def compute(module, given):
        module.weight = 2 * module.raw

    hooked.register_forward_pre_hook(compute)
    compute(hooked, ())
    for estimator in (
        ep.ImplicitDifferentiation(SETTLE),
        ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE),
        ep.InfinitesimalNudge(SETTLE, ep.settling.ConjugateGradients(50, 1e-12)),
    ):
        (found,) = torch.autograd.grad(ep.Equilibrium(network, estimator, "ignore").loss(x, y), raw)
        assert float(found.flatten()[0]) == pytest.approx(slope(network, raw, x, y), rel=1e-4)


@pytest.mark.parametrize("module", [lambda: nn.Dropout(0.5), lambda: nn.BatchNorm1d(4)], ids=["dropout", "batch norm"])
def test_a_module_stays_in_the_mode_in_which_it_was_tried(module):
    up = nn.Sequential(nn.Linear(3, 4), module()).eval()
    nodes = {"x": ep.Node((3,)), "a": ep.Node((4,), ep.tanh)}
    network = ep.Network(nodes, [ep.Synapse("x", "a", up)], ep.SquaredError("a", (4,)))
    model, x = ep.Equilibrium(network, ep.ImplicitDifferentiation(SETTLE), "ignore").train(), torch.randn(5, 3)
    assert torch.equal(model(x), model(x))
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


class Pair(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor


class TwoTargets(ep.Loss):
    def __init__(self):
        super().__init__()
        self.nodes = ("b",)

    def forward(self, target, *states):
        one, other = target.values() if isinstance(target, dict) else target
        return (states[0] - one).square().sum(1) + (states[0] - other).square().sum(1)


@pytest.mark.parametrize(
    "kind", [lambda a, b: {"a": a, "b": b}, Pair, lambda a, b: [a, b]], ids=["dict", "named", "list"]
)
def test_targets_of_any_structure_are_selected_and_watched(kind):
    torch.manual_seed(0)
    network, x = small(loss=TwoTargets()), torch.randn(5, 3)
    one, other = torch.randn(5, 2), torch.randn(5, 2)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE), "ignore")
    parameter = network.couplings["a_b"].map.weight
    (found,) = torch.autograd.grad(model.loss(x, kind(one, other)), parameter)
    assert float(found[0, 0]) == pytest.approx(slope(network, parameter, x, kind(one, other)), rel=1e-4)
    loss = model.loss(x, kind(one, other))
    one.add_(1)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_a_soft_clamp_of_an_output_that_drops_out_is_the_nudge():
    torch.manual_seed(0)
    network, x, y, found = small(dropout=0.4), torch.randn(6, 3), torch.randn(6, 2), []
    for teacher in (soft_clamp, ep.learning.force):
        torch.manual_seed(1)
        estimator = ep.EquilibriumPropagation(ep.symmetric(1e-3), SETTLE, SETTLE, teacher=teacher)
        loss = ep.Equilibrium(network, estimator, "ignore").train().loss(x, y)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-8)


def test_a_read_out_that_comes_first_of_several_losses_is_what_a_model_returns():
    nodes = {"x": ep.Node((3,)), "a": ep.Node((4,), ep.tanh)}
    losses = ep.energy.WeightedSum([ep.ReadoutCrossEntropy("a", (4,), 7), ep.SquaredError("a", (4,))])
    network = ep.Network(nodes, [ep.Synapse("x", "a", ep.Dense((3,), (4,)))], losses)
    model, record = ep.Equilibrium(network, ep.ImplicitDifferentiation(SETTLE), "ignore"), ep.Record()
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(x, record=record), record.scores)
    assert record.scores.shape == (5, 7)


def test_one_example_that_is_not_finite_leaves_the_others_alone():
    network, x, y = small(), torch.randn(5, 3), torch.randn(5, 2)
    x[2] = torch.nan
    x.requires_grad_()
    model = ep.Equilibrium(network, ep.ImplicitDifferentiation(SETTLE), "ignore")
    (found,) = torch.autograd.grad(model.loss(x, y), x)
    kept = [0, 1, 3, 4]
    alone = x.detach()[kept].requires_grad_()
    (known,) = torch.autograd.grad(model.loss(alone, y[kept]), alone)
    torch.testing.assert_close(found[kept], 0.8 * known)
    assert not found[2].isfinite().all()


def test_two_calls_in_one_graph_with_the_older_spectral_norm():
    network, x, y = small(), torch.randn(5, 3), torch.randn(5, 2)
    nn.utils.spectral_norm(network.couplings["a_b"].map)
    model = ep.Equilibrium(network, ep.ImplicitDifferentiation(SETTLE), "ignore").train()
    (model.loss(x, y) + model.loss(0.5 * x, y)).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
