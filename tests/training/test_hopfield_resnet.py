"""Hopfield-ResNet13: its graph is the published one, and its estimators find the gradient."""

import pytest
import torch

import eqprop as ep
from eqprop.recipes import RECIPES
from eqprop.recipes.hopfield_resnet import Nudged
from eqprop.settling import ConjugateGradients

NAMES = ("cifar10-hopfield-resnet13", "cifar10-hopfield-resnet13-fast")


def network(size=32, **options):
    torch.manual_seed(0)
    options = Nudged(data="unused", **options)
    return options.network((3, size, size), 10, options.sized)


def test_it_has_the_published_tensors_and_edges():
    found = network()
    weights = {name: tuple(p.shape) for name, p in found.named_parameters() if name.endswith("map.weight")}
    assert list(weights.values()) == [
        *((128, 3, 3, 3), (128, 128, 3, 3), (128, 3, 1, 1), (256, 128, 3, 3), (256, 256, 3, 3), (256, 128, 1, 1)),
        *((512, 256, 3, 3), (512, 512, 3, 3), (512, 256, 1, 1), (512, 512, 3, 3), (512, 512, 3, 3), (512, 512, 1, 1)),
        (10, 2048),
    ]
    assert [node.shape for node in found.free.values()] == [
        *((128, 32, 32), (128, 16, 16), (256, 16, 16), (256, 8, 8), (512, 8, 8), (512, 4, 4), (512, 4, 4)),
        *((512, 2, 2), (10,)),
    ]
    gains = [0.6, 0.6, 0.7] * 4 + [0.8]
    for (name, parameter), gain in zip(
        ((n, p) for n, p in found.named_parameters() if n.endswith("map.weight")), gains, strict=True
    ):
        assert float(parameter.detach().abs().max() * parameter[0].numel() ** 0.5) == pytest.approx(gain, rel=0.02), (
            name
        )


def test_its_estimators_come_to_the_exact_gradient():
    taught = network(16, width=0.05).double()
    x, y = 0.3 * torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.arange(2)
    rest = ep.UntilConverged(1e-11, 2000)
    exact = gradient(taught, ep.ImplicitDifferentiation(rest, 1e-9), x, y)
    small = ep.EquilibriumPropagation(ep.symmetric(1e-4), rest, rest)
    for estimator in (ep.InfinitesimalNudge(rest, ConjugateGradients(400, 1e-10)), small):
        for found, expected in zip(gradient(taught, estimator, x, y), exact, strict=True):
            assert float((found - expected).norm() / expected.norm()) < 1e-3


def gradient(taught, estimator, x, y):
    weights = [each for each in taught.parameters() if each.ndim == 4]
    return torch.autograd.grad(ep.Equilibrium(taught, estimator, "ignore").loss(x, y), weights)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_the_digits(name):
    torch.manual_seed(0)
    short = {} if name.endswith("fast") else {"free_sweeps": 20, "nudged_sweeps": 10}
    options = {"data": "digits", "mean": (0.3,), "std": (0.9,), "width": 0.1, "epochs": 1, "batch_size": 20}
    run = RECIPES[name](**options, **short)
    assert run.gradient_clip == 1
    losses = []
    for x, y in list(run.train.epoch(0))[:30]:
        loss = run.model.loss(x, y)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_other_depths_and_gains_are_refused():
    for depth in (3, 8, 12):
        with pytest.raises(ep.InputError, match=f"--depth {depth}"):
            network(depth=depth)
    with pytest.raises(ep.InputError, match="--gains has 2"):
        network(gains=(1.0, 1.0))
