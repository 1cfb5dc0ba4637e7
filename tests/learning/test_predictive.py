"""The predictive rule against a plain re-telling of it, its predictor against least squares, and both as they learn."""

from pathlib import Path

import pytest
import torch
from networks import dense, relative, shrunk
from torch.nn import functional as F

import eqprop as ep
from eqprop.recipes import RECIPES
from eqprop.tasks import load_images

pytestmark = pytest.mark.usefixtures("double")

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
SIGMOID = ep.energy.Sigmoid(slope=1, centre=0)
LEAKY = ep.settling.Leaky(0.1)


def images(source, count):
    """(count, pixels) in [0, 1], and labels."""
    whole = load_images(source).train
    chosen = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:count]
    return whole.pixels[chosen].flatten(1).to(torch.get_default_dtype()) / 255, whole.labels[chosen]


def mlp(inputs, hidden):
    torch.manual_seed(0)
    network = ep.chain((inputs,), [ep.DenseLayer(hidden, SIGMOID), ep.DenseLayer(10, SIGMOID)], ep.SquaredError)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(-0.5, 1)
            else:
                parameter.uniform_(0, (6 / parameter.numel()) ** 0.5)
    return network


def luczak(predictor, learnt=10, onset=13, **more):
    """The settings of the multi-layer perceptron."""
    free, taught = ep.FixedSweeps(120, LEAKY), ep.FixedSweeps(120 - onset, LEAKY)
    return ep.learning.PredictiveLearning(free, taught, onset, learnt, predictor, **more)


def update(network, estimator, x, y, weight=None):
    model = ep.Equilibrium(network, estimator)
    found = torch.autograd.grad(model.loss(x, y, weight), list(network.parameters()))
    return dict(zip((name for name, _ in network.named_parameters()), found, strict=True))


def regression(samples, values, learnt, low):
    """Column by column, by singular values: what the first ``learnt`` rows of ``values`` should be."""
    found = []
    for j in range(values.shape[1]):
        rows = torch.stack([torch.ones_like(values[:, j]), *(s[:, j] for s in samples)], 1)
        fit = torch.linalg.lstsq(rows[learnt:], values[learnt:, j, None], driver="gelsd").solution
        found.append((rows[:learnt] @ fit)[:, 0])
    return torch.stack(found, 1).clamp(min=low)


def test_the_update_is_the_papers():
    """Its loops, written out: two runs from zero, the target in the output's place from step 13 on, the local rule."""
    (x, y), u = images("digits", 60), 7
    network = mlp(64, 12)
    up, b, over, c = (p.detach() for p in network.parameters())
    target = F.one_hot(y, 10).double()

    def run(x, teacher=None):
        h, o, passed = x.new_zeros(len(x), 12), x.new_zeros(len(x), 10), []
        for step in range(120):
            taught = teacher is not None and step >= 13
            o = teacher if taught else o
            h, o = h + 0.1 * ((x @ up.T + o @ over + b).sigmoid() - h), o + 0.1 * ((h @ over.T + c).sigmoid() - o)
            o = teacher if taught else o
            passed.append((h, o))
        return passed

    free, (h, o) = run(x), run(x[:u], target[:u])[-1]
    expected = [regression([free[k][i] for k in (0, 3, 9)], free[-1][i], u, 0.0) for i in range(2)]
    hidden, output = h - expected[0], o - expected[1]
    wanted = (-hidden.T @ x[:u] / u, -hidden.mean(0), -output.T @ h / u, -output.mean(0))
    found = update(network, luczak(ep.learning.LeastSquares((1, 4, 10), 0.0), u), x, y)
    for (name, value), answer in zip(found.items(), wanted, strict=True):
        assert relative(value, answer) < 1e-6, name


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5)])
@pytest.mark.parametrize("samples", [1, 5])
def test_the_predictor_is_ordinary_least_squares(shape, samples):
    path = [torch.rand(30, *shape) for _ in range(samples + 1)]
    if len(shape) == 3:
        path = [state.contiguous(memory_format=torch.channels_last) for state in path]
    predictor = ep.learning.LeastSquares(tuple(range(1, samples + 1)))
    found = predictor([{"a": state} for state in path[:-1]], {"a": path[-1]}, 4)["a"]
    flat = [state.flatten(1) for state in path]
    expected = regression(flat[:-1], flat[-1], 4, -torch.inf).view(4, *shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    low, high = 0.3, 0.6
    clipped = ep.learning.LeastSquares(predictor.samples, low, high)([{"a": s} for s in path[:-1]], {"a": path[-1]}, 4)[
        "a"
    ]
    torch.testing.assert_close(clipped, found.clamp(low, high))
    assert bool((clipped != found).any())


def test_a_prediction_does_not_look_at_what_it_predicts():
    path = [torch.rand(30, 6) for _ in range(4)]
    hidden = path[-1].clone()
    hidden[:5] = torch.nan
    predictor = ep.learning.LeastSquares((1, 2, 3))
    first, second = (predictor([{"a": s} for s in path[:-1]], {"a": end}, 5)["a"] for end in (path[-1], hidden))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_units_that_do_not_move_or_move_alike_are_predicted(dtype):
    """No samples to tell apart: silent, saturated, and many times sampled units."""
    generator = torch.Generator().manual_seed(0)
    end = torch.rand(40, 5, generator=generator).to(dtype)
    still = [torch.zeros_like(end), torch.full_like(end, 0.3), end * 0 + 0.7]
    slow = [end * (1 - 0.999**k) for k in range(1, 13)]
    for path, tolerance in (([*still, still[-1]], 1e-6), ([*slow, end], 1e-4), ([*slow, *slow[-1:] * 3, end], 1e-4)):
        samples = [{"a": state} for state in path[:-1]]
        found = ep.learning.LeastSquares(tuple(range(1, len(path))))(samples, {"a": path[-1]}, 10)["a"]
        assert found.dtype == dtype
        torch.testing.assert_close(found, path[-1][:10], rtol=0, atol=tolerance)


@pytest.mark.parametrize("make", [lambda: dense(loss=ep.SquaredError), lambda: conv_squared()], ids=["dense", "conv"])
def test_all_steps_up_to_the_last_reproduce_the_free_state(make):
    network = make()
    (x, y), record = batch(network, 40), ep.Record()
    free, taught = ep.FixedSweeps(15, LEAKY), ep.FixedSweeps(10, LEAKY)
    settings = {"onset": 5, "learnt": 6}
    every = ep.learning.LeastSquares(tuple(range(1, 16)))
    ep.Equilibrium(network, ep.learning.PredictiveLearning(free, taught, **settings, predictor=every)).loss(
        x, y, None, record
    )
    with torch.no_grad():
        scene, passed = network.landscape(x), []
        for k in range(1, 16):
            passed.append(ep.FixedSweeps(k, LEAKY)(scene, scene.zeros()).state)
    for node, value in every(passed, record.free.state, 6).items():
        torch.testing.assert_close(value, record.free.state[node][:6], rtol=0, atol=1e-12)
    found, true = (
        update(network, ep.learning.PredictiveLearning(free, taught, **settings, predictor=p), x, y)
        for p in (every, ep.learning.FreeStateBaseline())
    )
    for name, value in true.items():
        assert relative(found[name], value) < 1e-9, name


def conv_squared():
    layers = [ep.ConvLayer(3, activation=ep.tanh), ep.ConvLayer(4, pool=None, activation=SIGMOID)]
    return shrunk(ep.chain((2, 6, 6), [*layers, ep.DenseLayer(5, ep.tanh)], ep.SquaredError))


def batch(network, size):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(size, *network.nodes["input"].shape, generator=generator, dtype=torch.float64)
    return x, torch.arange(size) % network.nodes[network.output].units


@pytest.mark.parametrize("make", [lambda: dense(loss=ep.SquaredError), lambda: conv_squared()], ids=["dense", "conv"])
@pytest.mark.parametrize("teacher", [ep.learning.clamp, ep.learning.soft_clamp, ep.learning.force])
@pytest.mark.parametrize("rule", [ep.learning.clamped_presynaptic, ep.contrastive])
def test_with_the_true_free_state_it_is_the_one_sided_contrast(make, teacher, rule):
    """All learnt, and the teacher coming at rest: contrastive Hebbian learning and its delta form; weights too."""
    network, settle = make(), ep.FixedSweeps(300)
    x, y = batch(network, 6)
    weight, beta = torch.linspace(0.5, 1.5, 6), 0.3
    predictive = ep.learning.PredictiveLearning(
        settle, settle, 300, 6, ep.learning.FreeStateBaseline(), teacher, beta, rule
    )
    two = ep.EquilibriumPropagation(ep.one_sided(beta), settle, settle, rule, ep.learning.forms.states, teacher)
    found, expected = (update(network, estimator, x, y, weight) for estimator in (predictive, two))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_examples_that_are_not_learnt_give_no_gradient():
    network = dense(loss=ep.SquaredError)
    x, y = batch(network, 30)
    estimator = ep.learning.PredictiveLearning(
        ep.FixedSweeps(40, LEAKY), ep.FixedSweeps(30, LEAKY), 9, 4, ep.learning.LeastSquares((2, 8))
    )
    x.requires_grad_()
    record = ep.Record()
    ep.Equilibrium(network, estimator).loss(x, y, record=record).backward()
    assert bool(x.grad[:4].abs().sum(1).all())
    assert not x.grad[4:].any()
    assert len(record.free.sweeps) == len(record.scores) == 30
    assert len(record.nudged.sweeps) == 4
    other, weight = y.clone(), torch.ones(30)
    other[4:], weight[4:] = 0, torch.nan
    first, second = (update(network, estimator, x.detach(), *more) for more in ((y,), (other, weight)))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def trained(network, x, y, updates):
    """Made with the true free state, by Adagrad."""
    optimizer = torch.optim.Adagrad(network.parameters(), lr=0.03)
    model = ep.Equilibrium(network, luczak(ep.learning.FreeStateBaseline()))
    for chosen in torch.randint(len(x), (updates, 10), generator=torch.Generator().manual_seed(0)):
        optimizer.zero_grad()
        model.loss(x[chosen], y[chosen]).backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("source", ["digits", pytest.param("mnist", marks=pytest.mark.long)])
def test_twelve_samples_predict_the_update(source):
    """Cosine to the update made with the true free state, in single precision, at first and after some training."""
    if source == "mnist" and not MNIST.exists():
        pytest.skip("shared/data/mnist is not beside this checkout")
    torch.set_default_dtype(torch.float32)
    x, y = images(MNIST if source == "mnist" else source, 1400)
    network = mlp(x.shape[1], 100)
    for updates in (0, 240):
        trained(network, x, y, updates)
        true = update(network, luczak(ep.learning.FreeStateBaseline()), x[:500], y[:500])
        cosines = {}
        for samples in (1, 12):
            predictor = ep.learning.LeastSquares(tuple(range(1, samples + 1)), 0.0)
            found = update(network, luczak(predictor), x[:500], y[:500])
            cosines[samples] = [
                F.cosine_similarity(found[n].flatten(), t.flatten(), dim=0).item() for n, t in true.items()
            ]
        assert min(cosines[12]) > 0.999, (updates, cosines)
    assert min(cosines[1]) < 0.99, "one sample should not do: is the free state that of the prediction?"


def test_it_learns_the_digits():
    torch.set_default_dtype(torch.float32)
    run = RECIPES["mnist-predictive"](data="digits", hidden=50, batch_size=60, learnt=30, rates=(0.1, 0.1))
    x, y = (torch.cat(parts) for parts in zip(*run.test.epoch(0), strict=True))
    errors = []
    for epoch in range(5):
        learn(run, epoch)
        with torch.no_grad():
            errors.append(100 * float((run.model(x).argmax(1) != y).double().mean()))
    assert errors[0] > 60
    assert errors[-1] < 20  # measured: 8.9 % after 8 epochs


def learn(run, epoch):
    for x, y in run.train.epoch(epoch):
        run.optimizer.zero_grad()
        run.model.loss(x, y).backward()
        run.optimizer.step()


@pytest.mark.long
@pytest.mark.skipif(not MNIST.exists(), reason="shared/data/mnist is not beside this checkout")
def test_mnist_error_after_50_and_100_epochs():
    """About 40 minutes on one core."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    run = RECIPES["mnist-predictive"](data=str(MNIST), epochs=100)
    errors = []
    for epoch in range(100):
        learn(run, epoch)
        with torch.no_grad():
            wrong = sum(int((run.model(x).argmax(1) != y).sum()) for x, y in run.test.epoch(0))
        errors.append(100 * wrong / len(run.test.images))
    assert errors[49] < 6
    assert errors[99] < 4.5


def test_bad_settings_are_named():
    free = ep.FixedSweeps(20, LEAKY)
    for more, says in (
        ({"onset": 21}, "onset: .* no moment 21"),
        ({"onset": -1}, "no moment -1"),
        ({"predictor": ep.learning.LeastSquares((1, 30))}, "samples: .* no moment 30"),
        ({"learnt": 0}, "learnt 0"),
        ({"beta": 0.0}, "beta 0"),
    ):
        with pytest.raises(ep.InputError, match=says):
            ep.learning.PredictiveLearning(
                free, free, **({"onset": 5, "learnt": 2, "predictor": ep.learning.FreeStateBaseline()} | more)
            )
    for samples in ((), (2, 1), (1, 1)):
        with pytest.raises(ep.InputError, match="samples"):
            ep.learning.LeastSquares(samples)
    network = dense(loss=ep.SquaredError)
    x, y = batch(network, 16)
    for learnt, predictor, says in (
        (3, ep.learning.LeastSquares(), "13 examples .* 13 coefficients"),
        (17, ep.learning.FreeStateBaseline(), "17"),
    ):
        with pytest.raises(ep.InputError, match=says):
            update(network, ep.learning.PredictiveLearning(free, free, 5, learnt, predictor), x, y)
    update(network, ep.learning.PredictiveLearning(free, free, 5, 2), x, y)  # one more than there are coefficients


class Doubled(ep.energy.Substrate):
    def measured(self, state, reading):
        return {node: 2 * value for node, value in state.items()}


class EarlyNoise(ep.energy.Substrate):
    """Noise on the moments before rest alone."""

    def measured(self, state, reading):
        return {n: v + 0.1 * torch.randn_like(v) if reading < -1 else v for n, v in state.items()}


def test_a_unit_predicts_what_is_measured_of_it_and_each_state_is_measured_once():
    network = mlp(6, 8)
    x, y = batch(network, 40)
    estimator = ep.learning.PredictiveLearning(
        ep.FixedSweeps(40, LEAKY), ep.FixedSweeps(30, LEAKY), 9, 6, ep.learning.LeastSquares((2, 8))
    )
    plain, doubled, noisy = (
        update(network.on(each), estimator, x, y) for each in (network.substrate, Doubled(), EarlyNoise())
    )
    for name, value in plain.items():  # a weight is a product of a state and a displacement, or of data and one
        torch.testing.assert_close(doubled[name], (4 if "layer1_layer2" in name else 2) * value, rtol=1e-9, atol=1e-12)
        assert relative(noisy[name], value) > 1e-3
