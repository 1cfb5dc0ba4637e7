"""Constraints hold after every step, whatever the optimiser, and come back when a run resumes."""

import pytest
import torch
from lightning_fabric import Fabric

import eqprop as ep
from eqprop.files import load
from eqprop.recipes import RECIPES
from eqprop.substrates import WriteNoise
from eqprop.training.constraints import Clipped, Signs, dale
from eqprop.training.loop import Trainer
from eqprop.training.report import Report

WEIGHT = "couplings.layer1_layer2.map.weight"


def network():
    torch.manual_seed(0)
    return ep.chain((4,), [ep.DenseLayer(5), ep.DenseLayer(3)], ep.SquaredError)


def test_only_what_has_the_wrong_sign_moves():
    taught = network()
    before = {name: value.detach().clone() for name, value in taught.named_parameters()}
    signs = torch.tensor([1.0, -1.0, 0.0, 1.0, -1.0])
    keep = Signs({WEIGHT: signs, "couplings.layer1_bias.bias": torch.ones(())})
    keep(taught)
    for name, value in taught.named_parameters():
        if name == WEIGHT:
            expected = torch.where(before[name] * signs < 0, 0, before[name])
        elif name == "couplings.layer1_bias.bias":
            expected = before[name].clamp(min=0)
        else:
            expected = before[name]
        assert torch.equal(value, expected), name
        assert value.requires_grad
    assert (taught.get_parameter(WEIGHT) == 0).any()


@pytest.mark.parametrize(
    ("of", "says"),
    [({"weight": torch.ones(5)}, "no parameter 'weight'"), ({WEIGHT: torch.ones(4)}, "do not fit"),
     ({WEIGHT: torch.ones(2, 3, 5)}, "do not fit")],
)  # fmt: skip
def test_signs_that_do_not_fit_are_named(of, says):
    with pytest.raises(ep.InputError, match=says):
        Signs(of)(network())


def test_weights_are_clipped_at_a_multiple_of_their_root_mean_square():
    taught = network()
    frozen = "couplings.input_layer1.map.weight"
    taught.get_parameter(frozen).requires_grad_(False)
    before = {name: value.detach().clone() for name, value in taught.named_parameters()}
    limit = 1.2 * float(before[WEIGHT].square().mean().sqrt())
    assert float(before[WEIGHT].abs().max()) > limit
    Clipped(1.2)(taught)
    for name, value in taught.named_parameters():
        expected = before[name].clamp(-limit, limit) if name == WEIGHT else before[name]
        torch.testing.assert_close(value.detach(), expected, rtol=0, atol=1e-6 if name == WEIGHT else 0)


def test_biases_and_gains_of_convolutions_are_not_clipped():
    torch.manual_seed(0)
    taught = ep.chain((1, 8, 8), [ep.ConvLayer(4), ep.DenseLayer(3)], ep.SquaredError)
    ep.models.standardise_weights(taught)
    before = {name: value.detach().clone() for name, value in taught.named_parameters()}
    Clipped(0.5)(taught)
    for name, value in taught.named_parameters():
        assert torch.equal(value, before[name]) == (name.rpartition(".")[2] in ("bias", "gain")), name


def test_hardware_aware_training_by_options_of_recipes():
    """Noise on the weights in each step, and a clip beside the recipe's own constraint."""
    clipped = RECIPES["mnist-ep"](data="digits", epochs=1, substrate="noisy-writes", weight_clip=2.5)
    assert clipped.model.network.substrate == WriteNoise(0.05)
    assert RECIPES["mnist-ep"](data="digits", epochs=1).constrain is None
    both = RECIPES["mnist-predictive-dale"](data="digits", epochs=1, weight_clip=0.5)
    weight = both.model.network.get_parameter(WEIGHT)
    limit = 0.5 * float(weight.detach().square().mean().sqrt())
    with torch.no_grad():
        weight.neg_()
    both.constrain(both.model.network)
    assert 0 < float(weight.detach().abs().max()) <= limit * (1 + 1e-6)
    assert (weight == 0).any()


def test_dales_signs_depend_on_the_seed_alone():
    signs = dale(1000, 0.8, 3)
    torch.manual_seed(9)
    assert torch.equal(signs, dale(1000, 0.8, 3))
    assert not torch.equal(signs, dale(1000, 0.8, 4))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float((signs > 0).double().mean()) - 0.8) < 0.05
    assert dale(50, 1.0, 0).min() == 1
    assert dale(50, 0.0, 0).max() == -1
    with pytest.raises(ep.InputError, match="excitatory"):
        dale(5, 1.2, 0)


class Silent(Report):
    def epoch(self, history, epochs):
        pass


def trainer(folder, epochs):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    options = {"hidden": 20, "batch_size": 100, "sweeps": 30, "samples": 4, "train_images": 400}
    run = RECIPES["mnist-predictive-dale"](data="digits", epochs=epochs, **options)
    return Trainer(run, folder, Fabric(accelerator="cpu"), Silent())


def test_dales_law_holds_in_training_and_survives_a_resumption(tmp_path):
    signs = dale(20, 0.8, 0)
    assert 0 < int((signs < 0).sum()) < 20
    whole = trainer(tmp_path / "whole", 2)
    steps, constrain = [], whole.run.constrain

    def watched(taught):
        constrain(taught)
        steps.append(bool((taught.get_parameter(WEIGHT) * signs >= 0).all()))

    whole.run.constrain = watched
    assert whole.fit() == 0
    assert steps == [True] * 8
    assert trainer(tmp_path / "cut", 1).fit() == 0
    resumed = trainer(tmp_path / "cut", 2)
    resumed.restore()
    assert resumed.fit() == 0
    one, other = (load(tmp_path / name, "last")[0] for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert any(name.startswith("optimizer") for name in one)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    weight = one[f"model.network.{WEIGHT}"]
    assert weight[:, signs > 0].any()
    assert weight[:, signs < 0].any()
    assert bool((weight * signs >= 0).all())
