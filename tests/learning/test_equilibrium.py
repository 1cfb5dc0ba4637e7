"""The module as a user of PyTorch meets it: autograd, optimisers, modes; and gradients with closed-form oracles."""

import copy
import warnings

import pytest
import torch
from networks import SETTLE, data, dense, gradients, nudging, relative, shrunk
from torch.nn import functional as F

import eqprop as ep
from eqprop.learning.equilibrium import rounds

pytestmark = pytest.mark.usefixtures("double")

EXACT = ep.ImplicitDifferentiation(SETTLE)
CLOSE = nudging(ep.symmetric(1e-3))


def by_name(network, estimator, x, y):
    found = torch.autograd.grad(ep.Equilibrium(network, estimator).loss(x, y), list(network.parameters()))
    return dict(zip((n for n, _ in network.named_parameters()), found, strict=True))


@pytest.mark.parametrize("rule", [ep.contrastive, ep.vector_field])
def test_estimates_undo_the_feedback_gains(rule):
    """Gain g at every synapse is the energy whose layer k of L weighs g^(k-L) (Xie & Seung 2003)."""
    gain, sizes = 0.3, (8, 7, 4)
    layers = [ep.DenseLayer(n, ep.tanh) for n in sizes]
    network = shrunk(ep.chain((6,), layers, ep.SquaredError, feedback_gain=gain), 0.8)
    x, y = data(network)
    exact, found = by_name(network, EXACT, x, y), by_name(network, nudging(ep.symmetric(1e-3), rule), x, y)
    limit = by_name(network, ep.InfinitesimalNudge(SETTLE, SETTLE, 0.0), x, y)
    for name, value in found.items():
        assert relative(value, exact[name]) < 1e-5, name
        assert relative(limit[name], exact[name]) < 1e-9, name


def test_one_linear_layer_is_linear_regression():
    """No hidden node: the gradients are those of 1/2 |Wx + b - y|^2, and a nudge by beta divides them by 1 + beta."""
    network = ep.chain((6,), [ep.DenseLayer(4, ep.identity)], ep.SquaredError)
    weight, bias = (p for _, p in sorted(network.named_parameters(), key=lambda item: "bias" in item[0]))
    x, y = torch.randn(5, 6), torch.randn(5, 4)
    expected = torch.autograd.grad(0.5 * (F.linear(x, weight, bias) - y).square().sum(1).mean(), [weight, bias])
    for beta in (0.25, -0.5):
        model = ep.Equilibrium(network, nudging(ep.one_sided(beta)))
        found = torch.autograd.grad(model.loss(x, y), [weight, bias])
        for each, answer in zip(found, expected, strict=True):
            torch.testing.assert_close(each, answer / (1 + beta), rtol=1e-9, atol=1e-12)


def test_a_map_shared_by_two_synapses_learns_from_both():
    nodes = {"x": ep.Node((6,)), **{n: ep.Node((5,), ep.tanh) for n in "abc"}}
    shared = ep.Dense((5,), (5,))
    edges = [ep.Synapse("x", "a", ep.Dense((6,), (5,))), ep.Synapse("a", "b", shared), ep.Synapse("b", "c", shared)]
    network = shrunk(ep.Network(nodes, edges, ep.SquaredError("c", (5,))))
    x, y = data(network)
    assert len(list(network.parameters())) == 2
    assert relative(gradients(network, CLOSE, x, y), gradients(network, EXACT, x, y)) < 1e-4


def test_a_loss_in_the_middle_of_the_chain_teaches_what_is_above_it_too():
    network = dense(loss=None)
    network = ep.Network(network.nodes, network.terms, ep.SquaredError("layer2", (7,)))
    x, y = data(network)
    exact = by_name(network, EXACT, x, y)
    assert all(value.any() for value in exact.values())
    found = by_name(network, CLOSE, x, y)
    assert all(relative(found[name], exact[name]) < 1e-4 for name in exact)


def test_a_target_for_each_of_several_losses():
    base = dense(loss=None)
    loss = ep.energy.WeightedSum([ep.CrossEntropy("layer3", (4,)), ep.SquaredError("layer1", (8,))], [0.7, -0.2])
    network = ep.Network(base.nodes, base.terms, loss)
    x, y = data(network)
    target = (y, torch.randn(5, 8))
    assert relative(gradients(network, CLOSE, x, target), gradients(network, EXACT, x, target)) < 1e-4
    model = ep.Equilibrium(network, CLOSE)
    state = model.settle(x).state
    by_hand = 0.7 * F.cross_entropy(state["layer3"], y) - 0.1 * (state["layer1"] - target[1]).square().sum(1).mean()
    torch.testing.assert_close(model.loss(x, target).detach(), by_hand)
    with pytest.raises(ep.InputError, match="2 losses and got 1"):
        model.loss(x, (y,))


@pytest.mark.parametrize("frozen", [False, True], ids=["learning", "frozen"])
def test_the_data_receive_their_exact_gradient(frozen):
    network = dense()
    network.requires_grad_(not frozen)
    x, y = data(network)
    found = []
    for estimator in (EXACT, CLOSE, ep.InfinitesimalNudge(SETTLE, ep.settling.ConjugateGradients(200, 1e-13), 0.0)):
        leaf = x.clone().requires_grad_()
        ep.Equilibrium(network, estimator).loss(leaf, y).backward()
        found.append(leaf.grad)
    assert relative(found[1], found[0]) < 1e-4
    assert relative(found[2], found[0]) < 1e-8
    assert all((p.grad is None) == frozen for p in network.parameters())


def test_a_frozen_parameter_changes_nothing_for_the_others():
    network = dense()
    x, y = data(network)
    whole = by_name(network, CLOSE, x, y)
    first, *others = dict(network.named_parameters())
    network.get_parameter(first).requires_grad_(False)
    ep.Equilibrium(network, CLOSE).loss(x, y).backward()
    assert network.get_parameter(first).grad is None
    for name in others:
        torch.testing.assert_close(network.get_parameter(name).grad, whole[name])


@pytest.mark.parametrize("rule", [ep.contrastive, ep.vector_field])
def test_an_example_of_weight_minus_one_unlearns_in_the_limit(rule):
    network = dense()
    x, y = data(network, 1)
    estimator = nudging(ep.symmetric(1e-4), rule)
    plus, minus, nothing = (gradients(network, estimator, x, y, torch.tensor([w])) for w in (1.0, -1.0, 0.0))
    assert relative(minus, -plus) < 1e-7
    assert not nothing.any()


@pytest.mark.parametrize(
    "form", [ep.learning.forms.displacements, ep.learning.forms.states], ids=["difference", "ordinary"]
)
@pytest.mark.parametrize("beta", [1e-3, 1e-5])
def test_nudged_phases_start_from_the_free_state(form, beta):
    """One nudged sweep moves no unit by more than a multiple of beta; from rest it would move them by the state."""
    network = dense()
    x, y = data(network)
    estimator = ep.EquilibriumPropagation(ep.symmetric(beta), SETTLE, ep.FixedSweeps(1), form=form)
    record = ep.Record()
    ep.Equilibrium(network, estimator).loss(x, y, record=record).backward()
    for node, value in record.nudged.state.items():
        moved = float((value - torch.cat([record.free.state[node]] * 2)).abs().max())
        assert moved < 2 * beta < 0.02 * float(value.abs().max())
    assert float((record.nudged.state["layer3"] - record.free.state["layer3"].repeat(2, 1)).abs().max()) > 0


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop], ids=lambda m: m.__name__)
def test_optimisers_train_and_a_state_dict_carries_on(make):
    network = dense()
    x, y = data(network)
    model = ep.Equilibrium(network, nudging(ep.symmetric(0.1)))
    optimiser = make(model.parameters(), lr=0.01)

    def step(model, optimiser):
        optimiser.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    losses = [step(model, optimiser) for _ in range(8)]
    assert losses[-1] < losses[0]
    twin = ep.Equilibrium(dense(), model.estimator)
    other = make(twin.parameters(), lr=0.01)
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert [step(twin, other) for _ in range(3)] == [step(model, optimiser) for _ in range(3)]


def test_a_copy_shares_nothing():
    model = ep.Equilibrium(dense(), nudging(ep.symmetric(0.1)))
    x, y = data(model.network)
    before = model(x).detach()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.loss(x, y).backward()
    torch.testing.assert_close(model(x).detach(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


def test_two_forward_calls_before_either_backward_do_not_disturb_each_other():
    """Nothing about a batch is kept on the module."""
    network = dense()
    model = ep.Equilibrium(network, nudging(ep.symmetric(0.1)))
    (x, y), (z, t) = data(network), data(network, 3)
    expected = gradients(network, model.estimator, x, y)
    mine, theirs = model.loss(x, y), model.loss(z, t)
    theirs.backward()
    network.zero_grad()
    mine.backward()
    total = torch.cat([p.grad.flatten() for p in network.parameters()])
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-14)


def test_the_order_of_examples_does_not_matter():
    network = dense()
    x, y = data(network)
    order, estimator = torch.tensor([3, 0, 4, 1, 2]), nudging(ep.symmetric(0.1))
    assert relative(gradients(network, estimator, x[order], y[order]), gradients(network, estimator, x, y)) < 1e-12


@pytest.mark.parametrize("estimator", [EXACT, CLOSE, ep.BackpropagationThroughTime(SETTLE, 20)], ids=lambda e: type(e))
def test_every_estimator_settles_to_the_same_loss_and_keeps_no_graph_without_grad(estimator):
    network = dense()
    x, y = data(network)
    model, record = ep.Equilibrium(network, estimator), ep.Record()
    with torch.no_grad():
        value = model.loss(x, y, record=record)
    assert not value.requires_grad
    assert all(state.grad_fn is None for state in record.free.state.values())
    expected = F.cross_entropy(network.scores(model.settle(x).state), y)
    torch.testing.assert_close(value, expected)
    assert int(record.free.sweeps[0]) == SETTLE.n


def test_dropout_draws_in_training_alone_and_scales_as_dropout_does():
    layers = [ep.DenseLayer(400, ep.identity, dropout=0.5), ep.DenseLayer(2, ep.identity)]
    network = ep.chain((6,), layers, ep.SquaredError, feedback_gain=1e-9)  # without feedback: a feedforward network
    few = ep.FixedSweeps(4)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), few, few))
    x = torch.randn(1, 6)
    with torch.no_grad():
        still = [model.eval()(x) for _ in range(2)]
        drawn = model.train()(x.expand(4000, 6))
    torch.testing.assert_close(still[0], still[1], rtol=0, atol=0)
    assert len(drawn.unique(dim=0)) > 3000
    spread = drawn.std(0) / 4000**0.5
    assert bool(((drawn.mean(0) - still[0][0]).abs() < 5 * spread).all())


def test_inference_mode_serves_as_no_grad_does():
    network = dense()
    model, (x, _) = ep.Equilibrium(network, CLOSE), data(network)
    with torch.no_grad():
        expected = model(x)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
@pytest.mark.parametrize("loss", [ep.SquaredError, ep.CrossEntropy])
def test_labels_of_another_dtype_are_refused_by_name(loss, dtype):
    network = dense(loss=loss)
    x, _ = data(network, 2)
    with pytest.raises(ep.InputError, match=f"int64 labels.*{dtype}"):
        ep.Equilibrium(network, CLOSE).loss(x, torch.tensor([0, 1], dtype=dtype))


@pytest.mark.parametrize("loss", [ep.SquaredError, ep.CrossEntropy])
def test_targets_and_batches_that_are_none_are_refused_by_name(loss):
    network = dense(loss=loss)
    model, (x, _) = ep.Equilibrium(network, CLOSE), data(network, 2)
    with pytest.raises(ep.InputError, match=r"int64 labels.*a list"):
        model.loss(x, [0, 1])
    with pytest.raises(ep.InputError, match="needs a target"):
        model.loss(x, None)
    with pytest.raises(ep.InputError, match="holds no example"):
        model(x[:0])


def test_a_weight_that_the_read_out_shares_with_a_coupling_gets_both_shares():
    network = ep.chain((6,), [ep.DenseLayer(6, ep.tanh), ep.DenseLayer(6, ep.tanh)], readout_of_six)
    network.loss.readout.weight = network.couplings["layer1_layer2"].map.weight
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    network, x, y = network.double(), torch.randn(3, 6, dtype=torch.float64), torch.arange(3)
    model, parameters = (
        ep.Equilibrium(network, ep.ImplicitDifferentiation(ep.FixedSweeps(100))),
        [*network.parameters()],
    )
    behind = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
    inside = torch.autograd.grad(model.loss(x, y), parameters)
    for one, other in zip(behind, inside, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def readout_of_six(node, shape):
    return ep.ReadoutCrossEntropy(node, shape, 6)


@pytest.mark.parametrize("form", ["states", "displacements"])
def test_a_gpu_that_rounds_is_told_once_where_it_matters(monkeypatch, form):
    monkeypatch.setattr("eqprop.learning.equilibrium.rounds", lambda tensor: True)
    sweeps = ep.FixedSweeps(3)
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.5), sweeps, sweeps, form=getattr(ep.learning.forms, form))
    network = ep.chain((4,), [ep.DenseLayer(5), ep.DenseLayer(3)], ep.SquaredError)
    model = ep.Equilibrium(network, estimator, on_unsettled="ignore")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            model(torch.zeros(2, 4))
    assert [("TF32" in str(each.message)) for each in told] == ([True] if form == "states" else [])


def test_the_cpu_rounds_nothing():
    assert not rounds(torch.zeros(2))
