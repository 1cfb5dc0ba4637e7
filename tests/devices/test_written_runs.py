"""Runs whose steps are pulses: they learn, resume to the same bits, and say what was written."""

import csv
import json
from pathlib import Path

import pytest
import torch
from interrupted import check_same_bits, without_pages

import eqprop as ep
from eqprop.cli import main
from eqprop.devices import DAY, METHODS, YEAR, PhaseChange, Table
from eqprop.energy.substrate import IDEAL
from eqprop.recipes import mnist
from eqprop.substrates import Aged

OPTIONS = {"data": "digits", "batch_size": 50, "epochs": 2}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pages(monkeypatch)


@pytest.mark.parametrize("write", METHODS)
def test_steps_of_every_method_lower_the_loss(write):
    torch.manual_seed(0)
    run = mnist.mnist_ep(**OPTIONS, width=0.2, write=write, write_to="idealised" if write == "sign" else "ecram")
    assert run.optimizer.param_groups[0]["lr"] == 0.01
    losses = []
    for epoch in range(2):
        for x, y in run.train.epoch(epoch):
            run.optimizer.zero_grad()
            loss = run.model.loss(x, y)
            loss.backward()
            run.optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert run.optimizer.metrics()["pulses_per_weight"] > 0


@pytest.mark.parametrize("rule", [mnist.mnist_backpropagation, mnist.mnist_random_feedback, mnist.mnist_continual])
def test_all_rules_write(rule):
    run = rule(**OPTIONS, write="mixed", write_to="capacitor")
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    x, y = next(run.train.epoch(0))
    for _ in range(2):
        run.model.loss(x, y).backward()
        run.optimizer.step()
    for name, parameter in run.model.named_parameters():
        fixed = rule is mnist.mnist_random_feedback and ".feedback." in name
        assert torch.equal(parameter, before[name]) == fixed, name


TRAIN = ["train", "mnist-ep", "--data", "digits", "--batch_size", "100", "--epochs", "2", "--width", "0.1"]
TRAIN += ["--train_images", "600", "--threads", "1", "--device", "cpu", "--precision", "32"]


RESUMED = {
    "pulses": ("reram-es", 3),
    "sign": ("capacitor", 5),
    "mixed": ("pcm", 7),
    "tiki-taka": ("reram-sb", 2),
    "chopped": ("ecram-oxide", 9),
    "agad": ("reram-array-om", 8),
}
"""Method -> its device, and the batch of two epochs of six after which the run is interrupted."""


@pytest.mark.parametrize("write", METHODS)
def test_an_interrupted_run_ends_with_the_same_bits(monkeypatch, write):
    to, at = RESUMED[write]
    command = [*TRAIN, "--write", write, "--write_to", to]
    check_same_bits(monkeypatch, command, at)


def test_a_run_says_what_was_written():
    assert main([*TRAIN, "--write", "tiki-taka", "--out", "run"]) == 0
    with open("run/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    summary = json.loads(Path("run/summary.json").read_text())
    for name in ("pulses_per_weight", "fast_pulses_per_weight", "dead_updates"):
        assert float(rows[-1][name]) == pytest.approx(summary[name])
    assert 0 < float(rows[0]["fast_pulses_per_weight"]) < float(rows[1]["fast_pulses_per_weight"])
    assert {"lr_weights", "lr_digital"} <= rows[0].keys()


def test_clean_weights_that_are_deployed_on_old_memory_are_mended_by_a_factor_or_in_situ():
    torch.manual_seed(0)
    run = mnist.mnist_ep(data="digits", epochs=3, width=0.25, batch_size=32)
    model, clean = run.model, run.model.network
    model.on_unsettled = "ignore"

    def train(epochs):
        for epoch in epochs:
            for x, y in run.train.epoch(epoch):
                run.optimizer.zero_grad()
                model.loss(x, y).backward()
                run.optimizer.step()

    @torch.no_grad()
    def accuracy(substrate):
        model.network = clean.on(substrate)
        return float(torch.cat([(model(x).argmax(1) == y).double() for x, y in run.test.epoch(0)]).mean())

    def aged(age, compensate=False):
        return Aged(PhaseChange(), age, compensate)

    train(range(3))
    best = accuracy(IDEAL)
    assert best > 0.9
    assert accuracy(aged(0.0)) > best - 0.04
    assert accuracy(aged(DAY)) < best - 0.1
    old = accuracy(aged(YEAR))
    assert old < best - 0.4
    assert accuracy(aged(YEAR, compensate=True)) > best - 0.1
    accuracy(aged(YEAR))  # where the network learns on
    train(range(3, 6))
    assert accuracy(aged(YEAR)) > old + 0.25


def measured(path, step=1.0):
    up = [10 + step * i for i in range(50)]
    path.write_text(
        "pulse,up,down\n" + "".join(f"{i},{a},{b}\n" for i, (a, b) in enumerate(zip(up, up[::-1], strict=True)))
    )


def test_a_measured_device_trains_and_is_found_from_elsewhere(tmp_path, monkeypatch):
    measured(Path("own.csv"))
    assert main([*TRAIN, "--write", "pulses", "--write_to", "own.csv", "--epochs", "1", "--out", "run"]) == 0
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert main(["resume", "../run", "--epochs", "2"]) == 0
    Path("../own.csv").write_text(Path("../own.csv").read_text().replace("49,59.0,10.0", "49,65.0,10.0"))
    assert main(["resume", "../run", "--epochs", "3"]) != 0, "another device"


def test_a_device_that_is_none_is_one_line(capsys):
    assert main([*TRAIN, "--write", "pulses", "--write_to", "ecrm"]) == 2
    assert "did you mean 'ecram'" in capsys.readouterr().err
    with pytest.raises(ep.InputError, match="nowhere"):
        Table.from_csv("nowhere.csv")
