"""The recipes for tables and sequences learn small tasks with their defaults, and train from the command line."""

import csv
import json

import numpy as np
import pytest
import torch
from interrupted import without_pages

import eqprop as ep
from eqprop.cli import main
from eqprop.learning.equilibrium import Record
from eqprop.recipes.general import sequence, table


def write_table(path, rows=400):
    rng = np.random.default_rng(0)
    x, town = rng.uniform(-1, 1, (rows, 5)), rng.integers(0, 3, rows)
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + x[:, 3] ** 2 / 2 - x[:, 4] + np.array([0, 1, -1])[town]
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["a", "b", "c", "d", "e", "town", "price"])
        lines.writerows([*values, ("Aue", "Bonn", "Ulm")[k], 100 + 50 * price]
                        for values, k, price in zip(x.tolist(), town, y.tolist(), strict=True))  # fmt: skip
    return path


def write_sequences(path, count=300):
    """Three frequencies of a rotation, from any phase."""
    rng = np.random.default_rng(0)
    target, phase = rng.integers(0, 3, count), rng.uniform(0, 2 * np.pi, (count, 1))
    angle = np.array([0.3, 0.7, 1.2])[target][:, None] * np.arange(12) + phase
    inputs = np.stack([np.sin(angle), np.cos(angle)], 2) + 0.2 * rng.normal(size=(count, 12, 2))
    np.savez(path, inputs=inputs, target=target)
    return path


@torch.no_grad()
def trained(run):
    """The scores and the targets of the test side after all epochs."""
    with torch.enable_grad():
        for number in range(run.epochs):
            for x, y in run.train.epoch(number):
                run.optimizer.zero_grad()
                run.model(x, y).backward()
                run.optimizer.step()
            run.scheduler.step()
    x, y = run.test.sample(len(run.test))
    record = Record()
    run.model.eval()(x, y, record=record)
    return record.scores, y


def test_a_small_regression_is_learnt_with_the_defaults(tmp_path):
    torch.manual_seed(0)
    scores, y = trained(table(data=str(write_table(tmp_path / "x.csv")), target="price"))
    assert 1 - float((scores - y).square().sum() / (y - y.mean()).square().sum()) > 0.9


def test_toy_sequences_are_classified_with_the_defaults(tmp_path):
    torch.manual_seed(0)
    scores, y = trained(sequence(data=str(write_sequences(tmp_path / "x.npz"))))
    assert float((scores.argmax(1) == y).double().mean()) > 0.9


def test_options_reach_the_network_and_the_data(tmp_path):
    file = str(write_table(tmp_path / "x.csv"))
    run = table(data=file, target="town", inputs=["a", "price"], hidden=7, layers=3, test_share=0.5, validation=0)
    network = run.model.network
    assert [node.units for node in network.free.values()] == [7, 7, 7]
    assert isinstance(network.loss, ep.ReadoutCrossEntropy)
    assert (network.loss.classes, len(run.train), len(run.test)) == (3, 200, 200)
    run = table(data=file, target=["price", "a"])
    assert run.outputs.header == ("price", "a")
    assert network.landscape(torch.zeros(1, 2))
    run = sequence(data=str(write_sequences(tmp_path / "x.npz")), layers=1)
    assert (run.model.network.nodes["input"].shape, len(run.model.network.free)) == ((12, 2), 1)


@pytest.mark.parametrize("task", ["regression", "classification", "sequences"])
def test_the_command_line_trains_evaluates_and_predicts(tmp_path, monkeypatch, capsys, task):
    monkeypatch.chdir(tmp_path)
    without_pages(monkeypatch)
    write_table(tmp_path / "x.csv", 60)
    write_sequences(tmp_path / "x.npz", 60)
    recipe = {
        "regression": ["table", "--data", "x.csv", "--target", "price", "--inputs", "[a, town]"],
        "classification": ["table", "--data", "x.csv", "--target", "town"],
        "sequences": ["sequence", "--data", "x.npz"],
    }[task]
    assert main(["train", *recipe, "--epochs", "2", "--out", "run", "--threads", "1", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert ("12 steps of 2 features" if task == "sequences" else "columns to") in said
    assert main(["evaluate", "run"]) == 0
    assert ("accuracy" in capsys.readouterr().out) == (task != "regression")
    assert main(["evaluate", "run", "--mirrored"]) == 2
    assert "are no images" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())
    assert main(["predict", "run", recipe[2]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 61
    header = lines[0].split(",")
    assert header[1:] == (["price"] if task == "regression" else ["class", "probability"])
    assert lines[1].startswith("x.")
