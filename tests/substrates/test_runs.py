"""Runs on a substrate: from the command line, resumed to the same bits, evaluated and checked on another."""

from pathlib import Path

import pytest
import torch
from interrupted import check_same_bits, without_pages

import eqprop as ep
from eqprop.cli import main
from eqprop.files import load
from eqprop.recipes import mnist

TRAIN = ["train", "mnist-ep", "--data", "digits", "--batch_size", "100", "--epochs", "2", "--width", "0.1"]
TRAIN += ["--train_images", "600", "--threads", "1", "--device", "cpu", "--precision", "32"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pages(monkeypatch)


@pytest.mark.parametrize(("substrate", "at"), [("noisy-weights", 3), ("noisy-reads", 8)])
def test_an_interrupted_run_ends_with_the_same_bits(monkeypatch, substrate, at):
    command = [*TRAIN, "--substrate", substrate]
    check_same_bits(monkeypatch, command, at)


def test_a_run_is_evaluated_and_checked_on_other_substrates(capsys):
    assert main([*TRAIN, "--substrate", "mismatch", "--out", "run"]) == 0

    def told(*command):
        capsys.readouterr()
        assert main([*command]) == 0
        return capsys.readouterr().out

    own = told("evaluate", "run")
    assert told("evaluate", "run", "--substrate", "mismatch") == own
    assert told("evaluate", "run", "--substrate", "ideal") != own
    assert main(["evaluate", "run", "--substrate", "mismach"]) == 2
    assert "did you mean 'mismatch'" in capsys.readouterr().err


CHIP = """
import eqprop as ep
from eqprop import substrates as s

class Rust(ep.energy.Substrate):
    def mounted(self, name, coupling, reading):
        return ep.energy.read_weights(coupling, lambda key, weight: 0.5 * weight)

chip = s.Together(Rust(), s.WeightSpread(0.1))
"""


def test_a_model_that_was_trained_on_a_substrate_of_ones_own_is_loaded_with_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "rusty.py").write_text(CHIP)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main([*TRAIN, "--substrate", "rusty.chip", "--out", "run"]) == 0
    loaded = ep.load("run").model.network.substrate
    assert isinstance(loaded, ep.substrates.Together)
    assert type(loaded.parts[0]).__name__ == "Rust"
    capsys.readouterr()
    assert main(["predict", "run"]) == 0
    assert capsys.readouterr().out.count("\n") == 361


def test_two_runs_in_one_process_draw_the_same(tmp_path):
    for name in ("one", "two"):
        assert main([*TRAIN, "--substrate", "noisy-reads", "--out", name]) == 0
    one, two = (load(Path(name), "last")[0] for name in ("one", "two"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_recipes_settle_phases_in_turn_where_weights_are_read_anew():
    options = {"data": "digits", "epochs": 1, "width": 0.1}
    assert mnist.mnist_ep(**options).model.estimator.stacked
    assert not mnist.mnist_ep(**options, substrate="noisy-weights").model.estimator.stacked
