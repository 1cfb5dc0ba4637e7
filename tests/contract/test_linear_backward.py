"""The backward of ``model(x)`` is proportional to the incoming gradient, example by example."""

import pytest
import torch
from estimators import BATCH, CLASSES, data, dense, equilibrium, gradients, learnt, readout, relative
from torch.nn import functional as F

import eqprop as ep

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
FACTORS = (1e-6, 1 / 8, 65536.0, 1e6)
PRECISIONS = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
WEIGHTS = (1.0, 1e-6, 0.0, 1e6, 0.3, 2.0)
SIGNED = (1.0, -2.0, 0.0, 0.5, -1e6, 1e-6)


@PRECISIONS
def test_a_scaled_or_summed_loss_has_scaled_gradients(setting, dtype):
    x, y = setting.data(dtype)

    def found(scale, reduction="mean"):
        model = setting.model(dtype)
        return gradients(scale * F.cross_entropy(model(x), y, reduction=reduction), model)

    once = found(1.0)
    assert float(once.norm()) > 0
    errors = {factor: relative(found(factor) / factor, once) for factor in FACTORS}
    errors["sum"] = relative(found(1.0, "sum") / BATCH, once)
    assert max(errors.values()) < TOLERANCE[dtype], errors


@PRECISIONS
def test_the_networks_own_loss_scales_too(setting, dtype):
    x, y = setting.data(dtype)

    def found(scale):
        model = setting.model(dtype)
        return gradients(scale * model.loss(x, y), model)

    once = found(1.0)
    errors = {factor: relative(found(factor) / factor, once) for factor in (*FACTORS, -3.0)}
    assert max(errors.values()) < TOLERANCE[dtype], errors


def test_weights_of_examples_in_the_users_loss(setting):
    """Their sum over examples, each alone: from 1e-6 to 1e6 in one batch, with a 0."""
    if not setting.case.local:
        pytest.skip("An example's gradient depends on its batch.")
    x, y = setting.data()
    weight = torch.tensor(WEIGHTS)
    model = setting.model()
    together = gradients((weight * F.cross_entropy(model(x), y, reduction="none")).mean(), model)
    alone = 0
    for i, w in enumerate(WEIGHTS):
        model = setting.model()
        alone = alone + w / BATCH * gradients(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), model)
    assert relative(together, alone) < 1e-10


def test_a_small_share_of_a_batch_keeps_its_direction(setting):
    """Each example's own gradient in the input, however much larger those of the others are."""
    if not setting.case.local:
        pytest.skip("An example's gradient depends on its batch.")
    x, y = setting.data()
    weight = torch.full((BATCH,), 1e6)
    weight[1] = 1e-6

    def found(weight):
        at = x.clone().requires_grad_()
        loss = F.cross_entropy(setting.model()(at), y, reduction="none")
        return torch.autograd.grad((weight * loss).sum(), at)[0][1]

    assert relative(found(weight) / 1e-6, found(torch.ones(BATCH))) < 1e-10


def test_accumulation_over_small_batches(setting):
    if not setting.case.local:
        pytest.skip("An example's gradient depends on its batch.")
    x, y = setting.data()
    model = setting.model()
    whole = gradients(F.cross_entropy(model(x), y), model)
    model = setting.model()
    parts = 0
    for some, labels in zip(x.split(1), y.split(1), strict=True):
        if setting.case.name.startswith("ep-random-sign"):
            model = setting.model()  # each estimator draws the sign that the whole batch had
        parts = parts + gradients(F.cross_entropy(model(some), labels) / BATCH, model)
    assert relative(parts, whole) < 1e-10


@pytest.mark.parametrize("call", ["output", "loss"])
def test_a_gradient_scaler(case, call):
    """``torch.amp.GradScaler``: a loss times 65,536, whose gradients it divides again."""
    x, y = data(dense(), torch.float32)

    def found(scaler):
        model = case.model(dense()).float()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = model.loss(x, y) if call == "loss" else F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        return torch.cat([p.grad.flatten() for p in learnt(model)])

    on, off = (torch.amp.GradScaler("cpu", init_scale=65536.0, enabled=enabled) for enabled in (True, False))
    assert relative(found(on), found(off)) < 1e-4


def test_an_examples_saliency_does_not_depend_on_its_batch(setting):
    """The gradient of one output of one example by its own input; none by the others'."""
    if not setting.case.local:
        pytest.skip("An example's gradient depends on its batch.")
    x, _ = setting.data()

    def saliency(x, i):
        at = x.clone().requires_grad_()
        return torch.autograd.grad(setting.model()(at)[i, 2], at)[0]

    whole = saliency(x, 4)
    assert relative(whole[4], saliency(x[4:5], 0)[0]) < 1e-6
    assert relative(whole[4], saliency(torch.cat([x[4:5], 100 * x]), 0)[0]) < 1e-6
    assert float(whole[:4].abs().max()) == float(whole[5:].abs().max()) == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_comes_in_not_finite_goes_out_not_finite(setting, bad):
    x, _ = setting.data()
    x.requires_grad_()
    model = setting.model()
    output = model(x)
    incoming = torch.ones_like(output)
    incoming[1, 2] = bad
    for name, found in zip(
        ["x", *dict(model.named_parameters())],
        torch.autograd.grad(output, [x, *learnt(model)], incoming, materialize_grads=True),
        strict=True,
    ):
        silent = "feedback" in name and setting.case.name in ("dual", "backpropagation")  # it has gradient 0 there
        assert silent or not bool(found.isfinite().all()), name
    x, y = setting.data()
    model = setting.model()
    assert not bool(gradients(bad * model.loss(x, y), model).isfinite().all())


def test_one_example_not_finite_leaves_the_others_inputs_alone(setting):
    if not setting.case.local or setting.case.name == "implicit":  # whose adjoint is iterated for all at once
        pytest.skip("An example's gradient depends on its batch.")
    x, _ = setting.data()

    def found(second):
        at = x.clone().requires_grad_()
        output = setting.model()(at)
        incoming = torch.ones_like(output)
        incoming[1] = second
        return torch.autograd.grad(output, at, incoming)[0]

    others = [i for i in range(BATCH) if i != 1]
    assert relative(found(torch.nan)[others], found(1.0)[others]) < 1e-10


def test_no_incoming_gradient_gives_none(setting):
    """Exactly 0, and no NaN: for the whole batch, for one example of it, and as weights of the network's own loss."""
    x, y = setting.data()
    for zeros in (lambda m: (0 * m(x)).sum(), lambda m: 0 * m.loss(x, y), lambda m: m.loss(x, y, torch.zeros(BATCH))):
        model = setting.model()
        found = gradients(zeros(model), model)
        assert torch.equal(found, torch.zeros_like(found))
    if setting.case.local:
        x.requires_grad_()
        (rows,) = torch.autograd.grad(setting.model()(x)[1:].sum(), x)
        assert torch.equal(rows[0], torch.zeros_like(rows[0]))
        assert bool(rows[1:].isfinite().all())


@PRECISIONS
def test_a_weight_of_the_networks_loss_scales_its_examples_share(setting, dtype):
    """And not its nudge, whose size decides the estimate's bias."""
    x, y = setting.data(dtype)

    def found(weight):
        model = setting.model(dtype)
        return gradients(model.loss(x, y, weight), model)

    ones = torch.ones(BATCH, dtype=dtype)
    once = found(None)
    errors = {factor: relative(found(factor * ones) / factor, once) for factor in (1e-6, 1.0, 1e6)}
    assert max(errors.values()) < TOLERANCE[dtype], errors


def test_weights_of_the_networks_loss_add_up_what_each_example_says(setting):
    if not setting.case.local:
        pytest.skip("An example's gradient depends on its batch.")
    x, y = setting.data()
    model = setting.model()
    together = gradients(model.loss(x, y, torch.tensor(SIGNED)), model)
    alone = 0
    for i, w in enumerate(SIGNED):
        model = setting.model()
        alone = alone + w / BATCH * gradients(model.loss(x[i : i + 1], y[i : i + 1]), model)
    assert relative(together, alone) < 1e-10


def test_the_gradient_of_the_weights(setting):
    """Each example's own loss, over the batch."""
    x, y = setting.data()
    weight = torch.tensor(SIGNED).requires_grad_()
    setting.model().loss(x, y, weight).backward()
    with torch.no_grad():
        model = setting.model()
        each = torch.stack([model.loss(x[i : i + 1], y[i : i + 1]) for i in range(BATCH)])
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, each / BATCH)


def test_the_gradient_of_the_weights_scales_too(case):
    x, y = data(dense())
    weight = torch.ones(BATCH).requires_grad_()
    loss = case.model(dense()).loss(x, y, weight)
    (once,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (often,) = torch.autograd.grad(1e6 * loss, weight)
    torch.testing.assert_close(often / 1e6, once)


def test_the_gradient_of_a_target_of_values(setting):
    """Of the loss at the free equilibrium, weights included: (target - state) * weight / batch for squared errors."""
    x, _ = setting.data()
    target, weight = torch.randn(BATCH, CLASSES).requires_grad_(), torch.rand(BATCH)
    model = setting.model()
    with torch.no_grad():
        output = model(x)
    model.loss(x, target, weight).backward()
    assert target.grad is not None
    torch.testing.assert_close(target.grad, weight[:, None] * (target.detach() - output) / BATCH)


def test_a_frozen_network_still_gives_the_gradient_of_a_target():
    x, _ = data(dense())
    network = dense().requires_grad_(False)
    target = torch.randn(BATCH, CLASSES).requires_grad_()
    equilibrium(network, ep.ImplicitDifferentiation(ep.FixedSweeps(20))).loss(x, target).backward()
    assert target.grad is not None
    assert float(target.grad.abs().max()) > 0


class OutputsOnly(torch.nn.Module):
    """A model's output as a function of the inputs and of tensors in place of its parameters, for ``gradcheck``."""

    def __init__(self, model):
        super().__init__()
        self.model, self.names = model, list(dict(model.named_parameters()))

    def forward(self, x, *parameters):
        return torch.func.functional_call(self.model, dict(zip(self.names, parameters, strict=True)), (x,))


@pytest.mark.parametrize("make", [dense, readout, lambda: dense(separate=True)], ids=["dense", "readout", "separate"])
def test_gradcheck(make):
    """By inputs and parameters, against PyTorch's own finite differences."""
    network = make()
    x, _ = data(network, batch=2)
    if network.loss.nodes == ("layer2",) and list(network.loss.parameters()):
        network.loss.requires_grad_(True)
    model = equilibrium(network, ep.ImplicitDifferentiation(ep.FixedSweeps(60), 1e-13))
    parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(OutputsOnly(model), (x.requires_grad_(), *parameters), fast_mode=False)


def test_gradcheck_of_the_loss():
    """By inputs, target, weights of examples, and parameters."""
    network = dense()
    x, _ = data(network, batch=2)
    model = equilibrium(network, ep.ImplicitDifferentiation(ep.FixedSweeps(60), 1e-13))
    names = list(dict(model.named_parameters()))

    def loss(x, target, weight, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x, target, weight))

    given = (x, torch.randn(2, CLASSES), torch.rand(2), *(p.detach().clone() for p in model.parameters()))
    assert torch.autograd.gradcheck(loss, tuple(each.requires_grad_() for each in given))
