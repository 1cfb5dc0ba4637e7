"""What a backward reads is what the forward saw: PyTorch's own contract for saved tensors and graphs."""

import pytest
import torch
from estimators import BATCH, CLASSES, data, dense, equilibrium, gradients, learnt, readout, relative
from torch.nn import functional as F

import eqprop as ep

CHANGED = "modified by an inplace operation"
TWICE = r"(?is)differentiat.*twice|twice.*differentiat"


def test_an_output_whose_inputs_changed_refuses_its_backward(setting):
    """One example of the input, or any parameter."""
    x, _ = setting.data()
    x.requires_grad_()
    model = setting.model()
    for changed in (x[:1], *learnt(model)):
        output = model(x)
        with torch.no_grad():
            changed.mul_(2)
        with pytest.raises(RuntimeError, match=CHANGED):
            output.sum().backward()


def test_a_loss_whose_data_changed_refuses_its_backward(setting):
    """The input, the labels, or the weights of examples."""
    model = setting.model()
    for changed in range(3):
        given = (*setting.data(), torch.ones(BATCH))
        loss = model.loss(*given)
        given[changed][:2] = given[changed][2:4].clone()
        with pytest.raises(RuntimeError, match=CHANGED):
            loss.backward()


def test_a_loss_whose_target_of_values_changed_refuses_its_backward(case):
    x, _ = data(dense())
    target = torch.randn(BATCH, CLASSES)
    loss = case.model(dense()).loss(x, target)
    target.zero_()
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()


def test_a_loss_one_of_whose_targets_changed_refuses_its_backward():
    base = dense()
    both = ep.energy.WeightedSum([ep.SquaredError("layer2", (CLASSES,)), ep.SquaredError("layer1", (5,))])
    network = ep.Network(base.nodes, base.terms, both)
    x, y = data(network)
    values = torch.randn(BATCH, 5)
    loss = equilibrium(network, ep.ImplicitDifferentiation(ep.FixedSweeps(9))).loss(x, (y, values))
    values.zero_()
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()


def test_a_loss_whose_parameters_changed_refuses_its_backward(setting):
    """As an optimiser's step between a loss and its backward would."""
    x, y = setting.data()
    model = setting.model()
    for parameter in learnt(model):
        loss = model.loss(x, y)
        with torch.no_grad():
            parameter.mul_(2)
        with pytest.raises(RuntimeError, match=CHANGED):
            loss.backward()


def test_a_readout_that_changed_refuses_its_backward(case):
    if case.name.startswith(("ep-clamp-", "ep-soft-clamp", "predictive")):
        pytest.skip("A read-out does not say where to hold its node.")
    model = case.model(readout())
    x, y = data(model.network)
    loss = model.loss(x, y)
    with torch.no_grad():
        model.network.loss.readout.weight.mul_(2)
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()


class Masked(ep.energy.Map):
    """A dense map with some connections left out, by a buffer."""

    def __init__(self, units, out):
        super().__init__()
        self.in_shape, self.out_shape = (units,), (out,)
        self.weight = torch.nn.Parameter(0.3 * torch.randn(out, units))
        self.register_buffer("mask", torch.ones(out, units))

    def linearize(self, pre):
        weight = self.mask * self.weight
        return ep.energy.Linearization(
            pre @ weight.T,
            lambda move: move @ weight.T,
            lambda post: post @ weight,
            lambda some: self.linearize(pre[some]),
        )


def masked():
    base = dense()
    terms = base.terms | {"layer1_layer2": ep.Synapse("layer1", "layer2", Masked(5, CLASSES))}
    return ep.Network(base.nodes, terms, ep.SquaredError("layer2", (CLASSES,)))


@pytest.mark.parametrize("call", ["output", "loss"])
def test_a_buffer_that_changed_refuses_its_backward(case, call):
    if "holomorphic-states" in case.name or "oscillating-states" in case.name:
        pytest.skip("The map is not holomorphic.")
    model = case.model(masked())
    x, y = data(model.network)
    loss = model.loss(x, y) if call == "loss" else F.cross_entropy(model(x), y)
    model.network.couplings["layer1_layer2"].map.mask[0, 0] = 0
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()


def test_what_changes_after_the_backward_does_no_harm(setting):
    x, y = setting.data()
    model = setting.model()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimiser.zero_grad()
        model.loss(x, y).backward()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
        x.add_(0.1)


@pytest.mark.parametrize("call", ["output", "loss"])
def test_a_second_backward_is_refused_as_pytorch_refuses_it(setting, call):
    x, y = setting.data()
    model = setting.model()
    loss = model.loss(x, y) if call == "loss" else F.cross_entropy(model(x), y)
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


@pytest.mark.parametrize("call", ["output", "loss"])
def test_a_retained_graph_gives_the_same_again(setting, call):
    x, y = setting.data()
    x.requires_grad_()
    model = setting.model()
    loss = model.loss(x, y) if call == "loss" else F.cross_entropy(model(x), y)
    wanted = [x, *learnt(model)]
    once = torch.autograd.grad(loss, wanted, retain_graph=True)
    again = torch.autograd.grad(loss, wanted, retain_graph=True)
    third = torch.autograd.grad(loss, wanted)
    for a, b, c in zip(once, again, third, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize("call", ["output", "loss"])
def test_parts_of_the_gradient_in_turn_are_the_whole(setting, call):
    """Parameter by parameter, and the input alone: whatever is asked about."""
    x, y = setting.data()
    x.requires_grad_()

    def loss():
        model = setting.model()
        value = model.loss(x, y) if call == "loss" else F.cross_entropy(model(x), y)
        return value, [x, *learnt(model)]

    value, wanted = loss()
    whole = torch.autograd.grad(value, wanted)
    value, wanted = loss()
    for each, known in zip(wanted, whole, strict=True):
        (found,) = torch.autograd.grad(value, each, retain_graph=True)
        torch.testing.assert_close(found, known)


@pytest.mark.parametrize("call", ["output", "loss"])
def test_a_derivative_of_the_gradient_is_refused(setting, call):
    """A gradient penalty never counts 0 in silence: what comes back requires a gradient, and refuses to give it."""
    x, y = setting.data()
    x.requires_grad_()
    model = setting.model()
    value = model.loss(x, y) if call == "loss" else model(x).sum()
    found = torch.autograd.grad(value, [x, *learnt(model)], create_graph=True)
    for gradient in found:
        assert gradient.requires_grad
    for penalty in (found[0].square().sum(), sum(each.square().sum() for each in found[1:])):
        with pytest.raises(RuntimeError, match=TWICE):
            penalty.backward(retain_graph=True)


def test_a_penalty_beside_the_loss_is_refused(case):
    """The usual way to write one: the output's gradient in the input, squared, added to the loss."""
    x, y = data(dense())
    x.requires_grad_()
    model = case.model(dense())
    output = model(x)
    (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=TWICE):
        (F.cross_entropy(output, y) + slope.square().mean()).backward()


def test_the_hessian_is_refused():
    x, _ = data(dense(), batch=2)
    model = equilibrium(dense(), ep.ImplicitDifferentiation(ep.FixedSweeps(9)))
    with pytest.raises(RuntimeError, match=TWICE):
        torch.autograd.functional.hessian(lambda x: model(x).sum(), x)


def test_the_jacobian_of_the_output(setting):
    """Row by row, from one retained graph; each row that of a graph of its own."""
    if not setting.case.local or setting.case.name.startswith("ep-random-sign"):
        pytest.skip("Its estimate depends on more than the example.")
    x, _ = setting.data(batch=2)
    whole = torch.autograd.functional.jacobian(setting.model(), x)
    at = x.clone().requires_grad_()
    (row,) = torch.autograd.grad(setting.model()(at)[1, 3], at)
    torch.testing.assert_close(whole[1, 3], row)


def test_a_plain_network_is_held_to_the_same():
    """What the assertions above say of PyTorch itself."""
    x, y = data(dense())
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, CLASSES))
    loss = F.cross_entropy(model(x), y)
    x.add_(1)
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()
    model.zero_grad()
    loss = F.cross_entropy(model(x), y)
    once = gradients(F.cross_entropy(model(x), y), model)
    loss.backward(retain_graph=True)
    assert relative(torch.cat([p.grad.flatten() for p in learnt(model)]), once) < 1e-12
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()
