"""What a model is given, and on which machine settings: shapes, kinds of numbers, devices without data, determinism."""

import warnings
from functools import partial

import pytest
import torch
from estimators import BATCH, CLASSES, conv, data, dense, equilibrium, gradients, learnt, readout, relative
from torch.nn import functional as F

import eqprop as ep

SETTLE = ep.FixedSweeps(9)


def images(shape=(3, 8, 8)):
    torch.manual_seed(0)
    return equilibrium(ep.chain(shape, [ep.DenseLayer(CLASSES)], ep.SquaredError), ep.ImplicitDifferentiation(SETTLE))


def calls(model, x):
    y = torch.arange(len(x)) % CLASSES
    return [lambda: model(x), lambda: model.loss(x, y), lambda: model.settle(x)]


@pytest.mark.parametrize(
    "shape",
    [(4, 8, 8, 3), (4, 8, 3, 8), (4, 3, 64), (4, 1, 192), (4, 192, 1), (4, 3, 8, 4), (4, 191), (3, 8, 8), (192,), (4,)],
    ids=str,
)
def test_a_shape_that_is_neither_exact_nor_flat_is_refused(shape):
    for call in calls(images(), torch.rand(shape)):
        with pytest.raises(ep.InputError, match=r"\(.*3, 8, 8\)"):
            call()


def test_the_exact_shape_and_the_flat_one_are_the_same():
    model, x = images(), torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(model(x), model(x.flatten(1)))
    flat = x.flatten(1).requires_grad_()
    (found,) = torch.autograd.grad(model(flat).sum(), flat)
    exact = x.clone().requires_grad_()
    (known,) = torch.autograd.grad(model(exact).sum(), exact)
    assert found.shape == flat.shape
    torch.testing.assert_close(found, known.flatten(1))


def test_memory_formats_and_strides_do_not_matter(setting):
    x, y = setting.data()
    strided = x.new_empty(*x.shape[:-1], 2 * x.shape[-1])[..., ::2]
    strided.copy_(x)
    model = setting.model()
    known = gradients(model.loss(x, y), model)
    model = setting.model()
    assert relative(gradients(model.loss(strided, y), model), known) < 1e-12
    at = strided.requires_grad_()
    (found,) = torch.autograd.grad(setting.model()(at).sum(), at)
    assert found.shape == x.shape


@pytest.mark.parametrize(
    ("network", "given"),
    [
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float16),
        (torch.float32, torch.complex64),
        (torch.float32, torch.int64),
        (torch.float32, torch.uint8),
        (torch.float32, torch.bool),
    ],
    ids=str,
)
def test_another_dtype_than_the_networks_is_refused(network, given):
    model = images().to(network)
    for call in calls(model, torch.zeros(4, 3, 8, 8).to(given)):
        with pytest.raises(ep.InputError, match=str(given)):
            call()


@pytest.mark.parametrize("make", [dense, readout], ids=["squared error", "cross-entropy"])
@pytest.mark.parametrize(
    "target",
    [
        torch.ones(BATCH, dtype=torch.bool),
        torch.ones(BATCH, CLASSES, dtype=torch.bool),
        torch.ones(BATCH, dtype=torch.int32),
        torch.ones(BATCH, dtype=torch.uint8),
        torch.ones(BATCH),
        torch.ones(BATCH, 1, dtype=torch.int64),
        torch.ones(BATCH + 1, dtype=torch.int64),
        torch.full((BATCH,), CLASSES),
        torch.full((BATCH,), -1),
        torch.full((BATCH,), -100),
        torch.ones(BATCH, CLASSES, dtype=torch.float32),
        torch.ones(BATCH, CLASSES + 1),
        torch.ones(BATCH, CLASSES, dtype=torch.complex128),
        [1] * BATCH,
        1,
        "cat",
    ],
    ids=lambda t: f"{tuple(t.shape)}-{t.dtype}-{t.flatten()[0].item()}" if isinstance(t, torch.Tensor) else str(t),
)
def test_a_target_that_does_not_fit_is_refused(make, target):
    model = equilibrium(make(), ep.ImplicitDifferentiation(SETTLE))
    x, _ = data(model.network)
    with pytest.raises(ep.InputError):
        model.loss(x, target)


@pytest.mark.parametrize(
    "weight",
    [
        torch.ones(BATCH + 1),
        torch.ones(BATCH, 1),
        torch.ones(()),
        torch.ones(BATCH, dtype=torch.complex128),
        [1.0] * BATCH,
        2.0,
    ],
    ids=lambda w: f"{tuple(w.shape)}-{w.dtype}" if isinstance(w, torch.Tensor) else str(w),
)
def test_a_weight_that_does_not_fit_is_refused(weight):
    model = equilibrium(dense(), ep.ImplicitDifferentiation(SETTLE))
    x, y = data(model.network)
    with pytest.raises(ep.InputError, match="weight"):
        model.loss(x, y, weight)


@pytest.mark.parametrize("given", [None, "a", 1.0, [[0.0] * 6], {"input": 3}])
def test_what_is_no_tensor_is_refused(given):
    model = equilibrium(dense(), ep.ImplicitDifferentiation(SETTLE))
    with pytest.raises(ep.InputError):
        model(given)


def test_no_example_is_refused():
    model = equilibrium(dense(), ep.ImplicitDifferentiation(SETTLE))
    with pytest.raises(ep.InputError, match="no example"):
        model(torch.zeros(0, 6))


def test_the_meta_device_builds_every_loss():
    losses = (
        ep.SquaredError,
        ep.energy.BinaryCrossEntropy,
        ep.CrossEntropy,
        partial(ep.ReadoutCrossEntropy, classes=3),
    )
    for loss in losses:
        with torch.device("meta"):
            network = ep.chain((6,), [ep.DenseLayer(5, ep.sigmoid), ep.DenseLayer(CLASSES, ep.sigmoid)], loss)
        assert all(parameter.is_meta for parameter in network.parameters())
        network.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        model = equilibrium(network, ep.ImplicitDifferentiation(SETTLE))
        model.loss(torch.rand(2, 6), torch.tensor([0, 1])).backward()


def test_a_binary_cross_entropy_still_asks_for_units_in_its_range():
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ep.InputError, match=r"\[0, 1\]"):
            ep.chain((6,), [ep.DenseLayer(CLASSES, ep.tanh)], ep.energy.BinaryCrossEntropy)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("pool", [ep.MaxPool(2), ep.MaxPool(3, 2), ep.AveragePool(2), ep.energy.SoftPool(2)], ids=str)
def test_deterministic_algorithms_change_nothing(pool):
    """``torch.use_deterministic_algorithms(True)``: predictions and gradients, in both forms and by autograd."""
    x, y = data(conv())
    estimators = [
        ep.EquilibriumPropagation(ep.symmetric(0.2), SETTLE, SETTLE),
        ep.EquilibriumPropagation(ep.symmetric(0.2), SETTLE, SETTLE, form=ep.learning.forms.states),
        ep.ImplicitDifferentiation(SETTLE),
        ep.BackpropagationThroughTime(SETTLE, 4),
        ep.Backpropagation(),
        ep.learning.DualPropagation(0.1),
        ep.InfinitesimalNudge(SETTLE),
    ]

    def found(estimator):
        model = equilibrium(conv(pool), estimator)
        with torch.no_grad():
            output = model(x)
        return output, gradients(model.loss(x, y), model), gradients(F.cross_entropy(model(x), y), model)

    free = [found(estimator) for estimator in estimators]
    torch.use_deterministic_algorithms(True)
    try:
        held = [found(estimator) for estimator in estimators]
    finally:
        torch.use_deterministic_algorithms(False)
    for before, after in zip(free, held, strict=True):
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a, b)


def test_every_estimator_is_deterministic(setting, deterministic):
    """Without a warning, and the same twice."""
    x, y = setting.data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (gradients(model.loss(x, y), model) for model in (setting.model(), setting.model()))
    assert torch.equal(first, second)
    assert len(learnt(setting.model())) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_states_keep_the_networks_precision_under_autocast(dtype):
    """Whatever the data come in: messages alone have 16 bits there."""
    network = ep.chain((6,), [ep.DenseLayer(5, ep.tanh), ep.DenseLayer(4, ep.tanh)], ep.SquaredError).float()
    model = equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.5), SETTLE, SETTLE))
    record = ep.Record()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(torch.rand(3, 6).to(dtype), torch.arange(3), record=record)
    loss.backward()
    assert {value.dtype for value in record.free.state.values()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}
