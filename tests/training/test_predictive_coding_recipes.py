"""The recipes of predictive coding: the published settings, and that the digits are learnt in seconds."""

import json
import sys
from pathlib import Path

import pytest
import torch
from test_weak_feedback_recipes import trained

import eqprop as ep
from eqprop.cli import main
from eqprop.diagnostics.check import OWN
from eqprop.energy import Activated, CrossEntropy, SquaredError, Wire
from eqprop.recipes import RECIPES
from eqprop.recipes.predictive_coding import Vgg5, Vgg5CrossEntropy, Vgg10, digits_pc, vgg
from eqprop.settling import ForwardPass, error_pass

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
from pictures import picture, write_sides

PUBLISHED = {
    Vgg5: (0.02, 0.04, 3e-4, 16, 100),
    Vgg5CrossEntropy: (0.02, 0.01, 3e-4, 64, 100),
    Vgg10: (0.05, 0.02, 2e-4, 256, 50),
}
"""Options -> beta, learning rate, decay, batch, epochs (arXiv 2606.03584)."""


@pytest.mark.parametrize("options", PUBLISHED)
def test_settings_are_the_published_ones(options):
    found = options()
    assert (found.beta, found.lr, found.weight_decay, found.batch_size, found.epochs) == PUBLISHED[options]
    network = ep.models.predictive_chain((3, 32, 32), [*vgg(4), ep.DenseLayer(10, ep.identity)], SquaredError)
    optimizer, schedule = found.optimise(network, 2)
    assert optimizer.defaults["nesterov"]
    assert optimizer.defaults["momentum"] == 0.9
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(2):
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([found.lr, (found.lr + 1e-6) / 2, 1e-6])
    assert found.estimator == ep.EquilibriumPropagation(
        ep.symmetric(found.beta), ForwardPass(), ep.FixedSweeps(1, error_pass)
    )


@pytest.mark.parametrize("name", ["digits-pc", "cifar10-pc-vgg5", "cifar10-pc-vgg5-ce", "cifar10-pc-vgg10"])
def test_each_is_a_recipe(name):
    assert RECIPES[name].__doc__


def test_a_plan_of_convolutions_is_the_network_it_names():
    layers = vgg(128, 256, "P", 512, "P", 512, "P", 512, "P")
    network = ep.models.predictive_chain((3, 32, 32), [*layers, ep.DenseLayer(10, ep.identity)], SquaredError)
    assert [node.shape for node in network.nodes.values()] == [
        (3, 32, 32), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4), (512, 2, 2), (10,),
    ]  # fmt: skip
    assert all(node.unit == Wire() for node in network.free.values())


def test_options_set_the_network():
    run = digits_pc(width=0.5, depth=4, gain=1.0, passes=3)
    network = run.model.network
    assert [node.shape for node in network.free.values()] == [(16, 8, 8), (32, 4, 4), (32, 4, 4), (32, 4, 4), (10,)]
    assert isinstance(network.loss, CrossEntropy)
    assert run.model.estimator.nudged.n == 3
    for gain in (1.0, 2.0):
        first = digits_pc(gain=gain).model.network.terms["input_layer1"].module
        assert isinstance(first, Activated)
        assert float(first.map.weight.detach().abs().max()) == pytest.approx(gain / 3, rel=0.02)


def test_the_rule_is_chosen_and_all_give_one_gradient_at_small_nudges():
    of_one_sign = digits_pc(rule="random-sign").model.estimator
    assert (of_one_sign.nudging.beta, of_one_sign.nudged) == (0.02, ep.FixedSweeps(1, error_pass))
    assert isinstance(of_one_sign.nudging, ep.learning.RandomSign)
    assert isinstance(digits_pc(rule="backpropagation").model.estimator, ep.Backpropagation)
    gradients = []
    for rule in ("centred", "random-sign", "backpropagation"):
        torch.manual_seed(0)
        run = digits_pc(rule=rule, epochs=1, beta=0.001)
        x, y = run.train.sample(32)
        run.model.loss(x, y).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in run.model.parameters()]))
    for estimate in gradients[:2]:
        assert float(torch.cosine_similarity(estimate, gradients[2], dim=0)) > 0.999


@pytest.mark.parametrize("depth", [pytest.param(2, marks=pytest.mark.long), 6])
def test_digits_are_learnt(depth):
    torch.manual_seed(0)
    assert trained(digits_pc(epochs=4, depth=depth), 160) > 0.93


def test_check_compares_it_with_the_exact_gradient_which_is_backpropagations(tmp_path, capsys):
    command = ["check", "digits-pc", "--width", "0.25", "--images", "2", "--train_images", "60", "--pictures", "false"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "no gradient" not in capsys.readouterr().out
    rows = json.loads((tmp_path / "check.json").read_text())["comparison"]["rows"]
    found = {name: [row["cosine"] for row in rows if row["estimator"] == name] for name in (OWN, "truncated BPTT 1")}
    assert min(found[OWN]) > 0.99
    assert min(found["truncated BPTT 1"]) > 1 - 1e-6


@pytest.mark.parametrize("rule", ["centred", "backpropagation"])
@pytest.mark.parametrize("name", ["cifar10-pc-vgg5", "cifar10-pc-vgg5-ce", "cifar10-pc-vgg10"])
def test_the_first_steps_do_not_diverge(tmp_path, name, rule):
    """At the recipe's own rate and initial weights, on noise of the size of CIFAR-10."""
    sides = {"pictures": [picture(seed, (32, 32)) for seed in range(80)], "labels": [row % 10 for row in range(80)]}
    data = write_sides(tmp_path, sides, sides, names=[f"class {row}" for row in range(10)])
    torch.manual_seed(0)
    run, losses = RECIPES[name](data=str(data), width=0.125, rule=rule, batch_size=8), []
    for x, y in run.train.epoch(0):
        loss = run.model.loss(x, y)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        losses.append(loss.item())
    assert len(losses) == 10
    assert max(losses) < 10 * losses[0]


def test_a_layer_with_dropout_is_refused():
    with pytest.raises(ep.InputError, match="dropout"):
        ep.models.predictive_chain((4,), [ep.DenseLayer(3, ep.tanh, 0.5), ep.DenseLayer(2, ep.identity)])
    with pytest.raises(ep.InputError, match="at least one"):
        ep.models.predictive_chain((4,), [])


def test_signs_are_drawn_from_the_seed_of_the_run():
    def signs(seed):
        nudging = Vgg5(rule="random-sign", seed=seed).estimator.nudging
        return [nudging.draw().betas for _ in range(12)]

    assert signs(0) == signs(0) != signs(1)
