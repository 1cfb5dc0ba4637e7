"""The modelled cost of a run: by hand, of the whole run after a resume, and of all processes together."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from interrupted import check_same_bits, without_curves

from eqprop.cli import main
from eqprop.diagnostics.check import cost_of_a_step
from eqprop.errors import InputError
from eqprop.physics import CostTable, cost_report, modelled_cost
from eqprop.recipes import mnist
from eqprop.training.cost import tally_of_mean_step, tally_of_run
from runs.kills import shared_starter

TRAIN = ["train", "mnist-ep", "--data", "digits", "--batch_size", "100", "--epochs", "2", "--width", "0.1"]
TRAIN += ["--train_images", "600", "--threads", "1", "--device", "cpu", "--report_seconds", "0"]
EXAMPLES, STEPS = 540, 6
"""Of an epoch, without the tenth that is held out."""
HIDDEN = 26 + 26
CELLS = 64 * 26 + 26 * 26 + 26 * 10 + HIDDEN + 10


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test in a folder of its own, without curves."""
    monkeypatch.chdir(tmp_path)
    without_curves(monkeypatch)


def costs(folder):
    summary = json.loads(Path(folder, "summary.json").read_text())
    return {name.removeprefix("modelled_"): each for name, each in summary.items() if name.startswith("modelled_")}


def test_a_run_by_hand(capsys):
    assert main([*TRAIN, "--substrate", "mismatch", "--out", "run"]) == 0
    text = capsys.readouterr().out
    found, weights, units = costs("run"), CELLS, HIDDEN + 10
    assert found["cells"] == weights
    assert found["phases"] == found["readings"] == 2 * EXAMPLES * 3
    assert found["cell_operations"] == weights * 2 * EXAMPLES * (10 + 2 * 6)
    assert found["conversions"] == units * found["readings"]
    assert found["nudge_conversions"] == 2 * EXAMPLES * 2 * 10
    assert found["pulses"] == found["pulse_slots"] == 0
    assert found["energy_joules"] == pytest.approx(weights * found["phases"] * 1e-6 * 0.01 * 1e-6)
    assert found["time_seconds"] == pytest.approx(found["phases"] * (1e-6 + 250e-9))
    assert found["cost"] in text
    assert found["cost"].startswith("modelled energy")


def test_a_resumed_run_tells_of_the_whole_run(monkeypatch):
    check_same_bits(monkeypatch, [*TRAIN, "--substrate", "noisy-weights", "--write", "agad"], 8)
    assert costs("whole") == costs("cut")
    assert costs("whole")["pulses"] > 0
    assert main(["resume", "cut", "--epochs", "3"]) == 0
    assert costs("cut")["phases"] == 1.5 * costs("whole")["phases"]
    assert costs("cut")["pulses"] > costs("whole")["pulses"]


def test_several_processes_count_as_one():
    options = ["--write", "mixed", "--precision", "64"]
    assert main([*TRAIN, *options, "--out", "one"]) == 0
    done = shared_starter().done(*TRAIN, *options, "--processes", "2", "--out", "two")
    assert done.returncode == 0, done.stderr
    assert costs("one") == costs("two")
    assert done.stdout.count("modelled energy") == 1


def test_a_step_of_a_written_run_has_the_mean_of_its_pulses(capsys):
    assert main([*TRAIN, "--write", "pulses", "--out", "run"]) == 0
    whole = costs("run")
    assert whole["pulses"] > 0
    capsys.readouterr()
    assert main(["check", "run", "--checkpoint", "last", "--pictures", "false", "--images", "4"]) == 0
    found = json.loads(Path("run/check/check.json").read_text())["modelled_cost"]
    assert found["modelled_pulses"] == round(whole["pulses"] / (2 * STEPS))
    assert found["modelled_phases"] == 100 * 3
    assert found["modelled_cell_operations"] == found["modelled_cells"] * 100 * (10 + 2 * 6)
    told = " ".join(capsys.readouterr().out.split())
    assert f"A training step of 100 examples on a machine: {found['modelled_cost']} (the mean of 12 steps)" in told


def test_before_a_step_no_pulse_is_known():
    said = []
    run = mnist.mnist_ep(data="digits", epochs=1, write="pulses")
    found = cost_of_a_step(SimpleNamespace(say=said.append), run, CostTable(conductance=2e-6))
    assert found["modelled_pulses"] == 0
    assert found == cost_report(tally_of_mean_step(run), CostTable(conductance=2e-6))
    assert said[0].endswith("(none is known: check a trained run)")


def test_what_is_not_counted_is_said(capsys):
    recipe = ["mnist-backpropagation", *TRAIN[2:]]
    assert main(["train", *recipe, "--write", "mixed", "--epochs", "1", "--out", "run"]) == 0
    assert costs("run") == {"cost": "not modelled: " + REASON}
    assert REASON in capsys.readouterr().out
    experiment = mnist.mnist_backpropagation(data="digits", epochs=1)
    with pytest.raises(InputError, match=REASON):  # which `eqprop check` shows as what it leaves out
        cost_of_a_step(SimpleNamespace(say=None), experiment, None)


REASON = "No nudged state was read in this step: the cost is modelled for estimators that read them."


def test_an_ordinary_run_says_nothing_of_machines(capsys):
    assert main([*TRAIN, "--epochs", "1", "--out", "run"]) == 0
    assert costs("run") == {}
    assert "modelled" not in capsys.readouterr().out


def test_from_python_with_a_table_of_ones_own():
    experiment = mnist.mnist_ep(data="digits", batch_size=50, epochs=1, substrate="converters")
    tally = tally_of_mean_step(experiment)
    assert (tally.phases, tally.pulses) == (50 * 3, 0)
    row = {"seconds": 2.0, "examples_per_second": 250.0, "train_free_sweeps": 7.0, "train_nudged_sweeps": 2.5}
    whole = tally_of_run(experiment, [row, {**row, "train_free_sweeps": 5.0}], processes=2)
    assert whole.phases == 2 * 500 * 3
    assert whole.cell_operations == tally.cells * 500 * (7 + 5 + 2 * 2 * 2.5)
    sweeping = CostTable(mac=1e-14, analogue_to_digital=1e-12, digital_to_analogue=1e-12)
    assert modelled_cost(whole, sweeping).cells == pytest.approx(1e-14 * whole.cell_operations)
