"""Deep convolutional networks with weak feedback: same first weights for both rules, and a gradient near the exact."""

import pytest
import torch
from torch.nn import functional as F

import eqprop as ep
from eqprop.recipes import RECIPES
from eqprop.recipes.deep import CifarDeep
from eqprop.recipes.setting import weak

SMALL = {"data": "digits", "mean": (0.3,), "std": (0.4,), "width": 0.1, "epochs": 1, "batch_size": 32, "cutout": 0}


DEEP = ("cifar10-deep", "cifar10-deep-backpropagation")


def made(name, **options):
    torch.manual_seed(0)
    return RECIPES[name](**SMALL | options)


@pytest.mark.parametrize("standardise", [True, False])
def test_both_rules_begin_with_the_same_weights(standardise):
    one, other = (made(name, standardise=standardise) for name in DEEP)
    assert isinstance(other.model.estimator, ep.Backpropagation)
    for (name, first), (_, second) in zip(one.model.named_parameters(), other.model.named_parameters(), strict=True):
        assert torch.equal(first, second), name


def test_the_gradient_of_trained_weights_is_near_the_exact_one():
    run = made("cifar10-deep", width=0.3, lr=0.02, epochs=3)
    losses = []
    for epoch in range(run.epochs):
        for x, y in run.train.epoch(epoch):
            loss = run.model.loss(x, y)
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            run.scheduler.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    x, y = run.train.sample(40)
    network = run.model.network.double()
    exact = gradient(network, ep.ImplicitDifferentiation(ep.UntilConverged(1e-10, 200)), x.double(), y)
    for estimator, least in ((run.model.estimator, 0.99), (weak(6, 4), 0.9999)):
        found = gradient(network, estimator, x.double(), y)
        assert (
            min(F.cosine_similarity(a.flatten(), b.flatten(), 0).item() for a, b in zip(found, exact, strict=True))
            > least
        )


def gradient(network, estimator, x, y):
    weights = [each for each in network.parameters() if each.ndim > 1]
    return torch.autograd.grad(ep.Equilibrium(network, estimator, "ignore").loss(x, y), weights)


def test_squares_are_cut_out_of_the_images_that_are_trained_on():
    whole, cut = made("cifar10-deep"), made("cifar10-deep", cutout=3)
    (x, _), (y, _) = (next(iter(run.train.epoch(0))) for run in (whole, cut))
    holes = (y == 0).all(1)
    assert torch.equal(y, x.masked_fill(holes[:, None], 0))
    assert holes.flatten(1).sum(1).max() == 9
    assert cut.test.augment == ()
    with pytest.raises(ep.InputError, match="--cutout"):
        made("cifar10-deep", cutout=8)


def test_decay_is_of_all_but_the_bias_of_the_read_out_and_the_rate_ends_near_0():
    run = made("cifar10-deep")
    decays = {id(each): group["weight_decay"] for group in run.optimizer.param_groups for each in group["params"]}
    without = [name for name, each in run.model.network.named_parameters() if not decays[id(each)]]
    assert without == ["loss.readout.bias"]
    rates = []
    for _ in range(run.train.steps * run.epochs):
        rates.append(run.optimizer.param_groups[0]["lr"])
        run.optimizer.step()
        run.scheduler.step()
    assert max(rates) == pytest.approx(0.2, rel=0.05)
    assert rates[-1] < 0.02


@pytest.mark.parametrize(("rise", "steps"), [(0.2, 5), (0.5, 2), (0.1, 10), (0.2, 1), (0.0, 3), (0.99, 3)])
def test_every_share_of_steps_gives_a_schedule_of_every_length(rise, steps):
    network = made("cifar10-deep").model.network
    optimizer, schedule = CifarDeep(rise=rise).optimise(network, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert 0 < max(rates) <= 0.2 * (1 + 1e-9)
    assert min(rates) >= 0
    with pytest.raises(ep.InputError, match="rise"):
        CifarDeep(rise=1.0)
