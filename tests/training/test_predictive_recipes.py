"""Recipes that take a while are each seen to take a step."""

import pytest
import torch
from PIL import Image

import eqprop as ep
from eqprop.recipes import RECIPES
from eqprop.recipes.predictive import Adagrad


@pytest.fixture
def folder(tmp_path):
    """Pictures of CIFAR-10's size."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 9), ("test", 2)):
        for kind in "ab":
            place = tmp_path / split / kind
            place.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(place / f"{i}.png")
    return tmp_path


SMALL = {"batch_size": 200, "sweeps": 20, "samples": 3, "epochs": 1, "data": "digits"}
STEPS = {
    "mnist-predictive": SMALL,
    "mnist-predictive-dale": SMALL,
    "cifar10-predictive": {"batch_size": 8, "learnt": 2, "sweeps": 6, "samples": [1, 3], "onset": 5},
}


@pytest.mark.parametrize("name", STEPS)
def test_a_recipe_takes_a_step(name, folder):
    torch.manual_seed(0)
    run = RECIPES[name](**({"data": str(folder)} | STEPS[name]))
    assert run.train.steps == len(run.train) // run.train.batch_size, "a smaller last batch cannot be predicted from"
    x, y = next(iter(run.train.epoch(0)))
    before, record = [p.detach().clone() for p in run.model.parameters()], ep.Record()
    run.model.loss(x, y, record=record).backward()
    run.optimizer.step()
    if run.constrain is not None:
        run.constrain(run.model.network)
    assert len(record.free.sweeps) == len(x)
    assert len(record.nudged.sweeps) == run.model.estimator.learnt
    for old, new in zip(before, run.model.parameters(), strict=True):
        assert torch.isfinite(new).all()
        assert not torch.equal(old, new)


@pytest.mark.parametrize(
    ("rule", "estimator"), [("ep", ep.EquilibriumPropagation), ("backpropagation", ep.Backpropagation)]
)
def test_other_rules_train_the_same_network(rule, estimator, folder):
    runs = []
    for each in ("predictive", rule):
        torch.manual_seed(0)
        runs.append(RECIPES["cifar10-predictive"](data=str(folder), rule=each, batch_size=8, learnt=2, width=0.1))
    assert isinstance(runs[1].model.estimator, estimator)
    ours, theirs = (run.model.network.state_dict() for run in runs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    x, y = next(iter(runs[1].train.epoch(0)))
    runs[1].model.loss(x, y).backward()
    assert all(p.grad.abs().max() > 0 for p in runs[1].model.parameters())


def test_adagrad_takes_torchs_steps_on_weights_and_plain_ones_on_biases():
    torch.manual_seed(0)
    ours, theirs = (ep.chain((3,), [ep.DenseLayer(4)]) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    weights, biases = ([p for p in theirs.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    optimizers = [
        Adagrad(ep.models.parameter_groups(ours, [0.1])),
        torch.optim.Adagrad(weights, 0.1, eps=1e-7),
        torch.optim.SGD(biases, 0.1),
    ]
    for _ in range(3):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("mnist-predictive-dale", {"depth": 2, "rates": [0.03, 0.02, 0.02]}, "--depth 2"),
        ("mnist-predictive", {"batch_size": 300, "learnt": 295}, "5 examples that are not learnt cannot fit 13"),
        ("mnist-predictive", {"batch_size": 300, "learnt": 301}, "does not hold 301 examples"),
    ],
)
def test_what_the_rule_cannot_do_is_refused_before_a_run_begins(name, options, says):
    with pytest.raises(ep.InputError, match=says):
        RECIPES[name](data="digits", **options)
