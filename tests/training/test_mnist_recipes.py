"""The rules' runs on one network: each builds from its options, and its steps lower the loss."""

import math

import pytest
import torch
from interrupted import without_pages

import eqprop as ep
from eqprop.cli import main
from eqprop.recipes import RECIPES, mnist

RULES = [recipe for recipe in RECIPES.values() if recipe.__module__ == mnist.__name__]
NAMES = [recipe.__name__ for recipe in RULES]


@pytest.mark.parametrize("recipe", RULES, ids=NAMES)
def test_steps_of_every_rule_lower_the_loss(recipe):
    torch.manual_seed(0)
    aligned = {"angle": 20.0} if recipe is mnist.mnist_kolen_pollack else {}  # which it takes long to bring about
    run = recipe(data="digits", batch_size=100, epochs=1, lr=3e-3, **aligned)
    assert RECIPES[recipe.__name__.replace("_", "-")] is recipe
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    (x, y), losses = next(run.train.epoch(0)), []
    for _ in range(20):
        run.optimizer.zero_grad()
        loss = run.model.loss(x, y)
        loss.backward()
        run.optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    for name, parameter in run.model.named_parameters():
        fixed = recipe is mnist.mnist_random_feedback and ".feedback." in name
        assert torch.equal(parameter, before[name]) == fixed, name


def test_all_rules_share_epochs_batches_and_initial_weights():
    runs = []
    for recipe in RULES:
        torch.manual_seed(0)
        runs.append(recipe(data="digits", seed=3))
    for run in runs:
        assert (run.epochs, run.train.batch_size, run.train.seed) == (5, 64, 3)
        assert torch.equal(run.train.examples.pixels, runs[0].train.examples.pixels)
        first, second = (each.model.network.terms["input_layer1"].map.weight for each in (run, runs[0]))
        assert torch.equal(first, second)


@pytest.mark.parametrize("angle", [0.0, 35.0, 90.0])
def test_feedback_starts_at_the_angle_that_is_asked_for(angle):
    run = mnist.mnist_asymmetric(data="digits", angle=angle, learn_feedback=False)
    assert run.model.estimator.teacher is ep.learning.corrected
    for term in run.model.network.terms.values():
        for _, up, down in term.pairs() if isinstance(term, ep.energy.SeparateFeedback) else ():
            cosine = float(torch.cosine_similarity(up.detach().flatten(), down.flatten(), 0))
            assert cosine == pytest.approx(math.cos(math.radians(angle)), abs=1e-5)
            assert float(down.norm()) == pytest.approx(float(up.detach().norm()), rel=1e-5)
            assert not down.requires_grad


def test_options_reach_the_estimator(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pages(monkeypatch)
    run = mnist.mnist_coupled(beta=0.4, feedback_gain=0.5, nudged_sweeps=3, data="digits")
    estimator = run.model.estimator
    assert estimator.nudging == ep.symmetric(0.4)
    assert estimator.teacher is ep.learning.clamp
    assert estimator.nudged.n == 3
    assert run.model.network.terms["layer1_layer2"].feedback_gain == 0.5
    options = ["--data", "digits", "--epochs", "1", "--feedback_gain", "0.2", "--out", "run", "--threads", "1"]
    assert main(["train", "mnist-chl", *options]) == 0
