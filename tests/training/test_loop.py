"""A run leaves what it says, survives being killed, and stops with a reason."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from interrupted import without_pages
from lightning_fabric import Fabric

import eqprop as ep
from eqprop.cli import main
from eqprop.files import load
from eqprop.recipes import RECIPES
from eqprop.tasks import Batches, Images, Normalise
from eqprop.training.loop import Counts, Experiment, Trainer, evaluate
from eqprop.training.report import Report

RECIPE = """
import torch
import eqprop as ep
from eqprop.tasks import Batches, Crop, Images, Normalise
from eqprop.training.loop import Experiment


def noise(epochs: int = 3, lr: float = 0.05, beta: float = 0.5, seed: int = 0, gain: float = 1.0,
          by_batch: bool = False) -> Experiment:
    g = torch.Generator().manual_seed(1)
    images = Images(torch.randint(0, 256, (60, 1, 6, 6), generator=g, dtype=torch.uint8), torch.arange(60) % 3, 3)
    layers = [ep.ConvLayer(4, dropout=0.2), ep.DenseLayer(5)]
    network = ep.chain((1, 6, 6), layers, lambda n, s: ep.ReadoutCrossEntropy(n, s, 3), separate_feedback=True)
    for p in network.parameters():
        p.data *= gain
    sweeps = ep.FixedSweeps(5)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.learning.RandomSign(beta, seed), sweeps, sweeps,
                                                              ep.learning.kolen_pollack))
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9 if by_batch else 0.5)
    plain = Normalise((0.0,), (1.0,))
    train = Batches(images, 7, plain, (Crop(1),), seed)
    return Experiment(model, optimizer, train, Batches(images, 20, plain, shuffle=False),
               epochs, scheduler=scheduler, schedule_by_batch=by_batch)
"""

WILD = """
steps = []


def wild(phases, parameters):
    steps.append(1)
    found = ep.learning.kolen_pollack(phases, parameters)
    return (found[0] + float("nan"), *found[1:]) if len(steps) == 3 else found

"""


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A recipe whose runs have all their pages."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(RECIPE)
    return "mine.py:noise"


@pytest.fixture
def recipe(drawn, monkeypatch):
    without_pages(monkeypatch)
    return drawn


@pytest.mark.parametrize("by_batch", ["true"])
def test_killed_at_any_moment_resumes_to_the_same_bits(recipe, by_batch):
    """Augmentation, dropout, the random sign, Adam and the schedule all come back."""
    train = ["train", recipe, "--by_batch", by_batch, "--checkpoint_seconds", "0", "--precision", "bf16"]
    train += ["--report_seconds", "0", "--out"]
    assert main([*train, "whole"]) == 0
    command = [sys.executable, "-m", "eqprop.cli", *train, "killed"]
    commit = Path("killed/last.json")
    for wait in (1, 4):  # killed in the middle of an epoch, twice
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        seen, deadline = set(), time.monotonic() + 60
        while len(seen) < wait and process.poll() is None and time.monotonic() < deadline:
            if commit.exists():
                seen.add(commit.stat().st_mtime_ns)
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        command = [sys.executable, "-m", "eqprop.cli", "resume", "killed"]
    assert json.loads(commit.read_text())["state"]["progress"]["epoch"] < 3, "it was killed too late to tell"
    assert main(["resume", "killed"]) == 0
    whole, state = load(Path("whole"), "last")
    killed, resumed = load(Path("killed"), "last")
    assert whole.keys() == killed.keys()
    for name, value in whole.items():
        assert torch.equal(value, killed[name]), name
    for a, b in zip(state["progress"]["history"], resumed["progress"]["history"], strict=True):
        assert {k: v for k, v in a.items() if "second" not in k} == {k: v for k, v in b.items() if "second" not in k}


def test_a_schedule_may_step_after_each_batch(recipe):
    assert main(["train", recipe, "--out", "run", "--epochs", "2", "--lr", "0.01", "--by_batch", "true"]) == 0
    with open("run/metrics.csv") as file:
        rates = [float(row["lr_0"]) for row in csv.DictReader(file)]
    batches = -(-60 // 7)
    assert rates == pytest.approx([0.01 * 0.9 ** (batches - 1), 0.01 * 0.9 ** (2 * batches - 1)])


@pytest.mark.parametrize(
    "scheduler",
    ["CosineAnnealingLR(optimizer, epochs)", "OneCycleLR(optimizer, lr, epochs)"],
    ids=["cosine", "one cycle"],
)
def test_a_longer_run_has_its_own_schedule_from_there_on(recipe, scheduler):
    Path("mine.py").write_text(RECIPE.replace("StepLR(optimizer, 1, 0.9 if by_batch else 0.5)", scheduler))
    assert main(["train", recipe, "--out", "run", "--epochs", "2"]) == 0
    assert main(["resume", "run", "--epochs", "5"]) == 0
    assert main(["train", recipe, "--out", "long", "--epochs", "5"]) == 0
    rates = {}
    for name in ("run", "long"):
        with open(f"{name}/metrics.csv") as file:
            rates[name] = [float(row["lr_0"]) for row in csv.DictReader(file)]
    assert rates["run"][2:] == pytest.approx(rates["long"][2:])


def test_a_changed_recipe_is_told_and_its_copy_runs_from_any_folder(recipe, tmp_path, monkeypatch, capsys):
    Path("link.py").symlink_to("mine.py")
    assert main(["train", "link.py:noise", "--out", "run", "--epochs", "1"]) == 0
    Path("mine.py").write_text("raise SystemExit('not the copy')")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    assert main(["resume", "../run"]) == 0
    assert f"{tmp_path / 'mine.py'} has changed since" in capsys.readouterr().out


def test_a_run_folder_holds_all_that_was_promised(drawn, capsys):
    assert main(["train", drawn, "--out", "run", "--epochs", "2", "--lr", "0.01"]) == 0
    about = json.loads(Path("run/run.json").read_text())
    assert about["options"] == {"epochs": 2, "lr": 0.01, "beta": 0.5, "seed": 0, "gain": 1.0, "by_batch": False}
    assert about["versions"]["torch"]
    with open("run/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1.0", "2.0"]
    wanted = (
        "train_loss train_accuracy test_accuracy train_free_residual train_free_residual_worst examples_per_second "
    )
    wanted += "train_nudged_residual train_nudged_residual_worst train_free_sweeps lr_0 angle_layer1_layer2"
    assert set(wanted.split()) <= rows[0].keys()
    assert float(rows[1]["lr_0"]) == pytest.approx(0.005)
    assert Path("run/curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(Path("run/tensorboard").iterdir())
    assert not [p for p in Path("run").rglob("*") if p.suffix in (".pt", ".pkl")]
    capsys.readouterr()
    assert main(["evaluate", "run", "--checkpoint", "last"]) == 0
    accuracy = json.loads(Path("run/summary.json").read_text())["test_accuracy_last"]
    assert f"{100 * accuracy:.2f} %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "digitz"], "did you mean 'digits'"),
        (["train", "--bta", "1"], "--bta"),
        (["train", "--beta", "much"], "beta"),
        (["train", "--beta", "0", "--out", "new"], "beta 0"),
        (["train", "--epochs", "0", "--out", "new"], "epochs must be int >= 1, not 0"),
        (["train", "--data", "nowhere", "--out", "new"], "nowhere"),
        (["train", "cifar10-ce-symmetric", "--data", "digits", "--out", "new"], "is for 3 channels"),
        (
            ["train", "cifar10-ce-symmetric", "--data", "digits", "--mean", "[0.0]", "--std", "[1.0]", "--out", "new"],
            "does not fit",
        ),
        (["train", "nofile.py:run"], "nofile.py"),
        (["train", "mine.py:nose"], "mine.py:noise"),
        (["train", "--out", "taken"], "exists"),
        (["train", "--device", "warp", "--out", "new"], "warp"),
        (["train", "--out", "taken/precious/new"], "Cannot make the folder 'taken/precious/new'"),
        (["resume", "nowhere"], "nowhere"),
        (["evaluate", "taken"], "taken"),
        (["fly"], "fly"),
    ],
)
def test_bad_input_is_one_line_and_status_2(recipe, capsys, arguments, says):
    Path("taken").mkdir()
    Path("taken/precious").write_text("mine")
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err + said.out
    assert not Path("new").exists()
    assert Path("taken/precious").read_text() == "mine"


def test_a_loss_that_is_not_finite_stops_the_run_with_the_layer(recipe, capsys):
    assert main(["train", recipe, "--out", "run", "--gain", "1e39"]) == 2
    said = capsys.readouterr().err
    assert "node 'layer" in said
    assert "Lower the learning rates" in said


def test_a_network_that_does_not_settle_stops_the_run(recipe, capsys):
    assert main(["train", recipe, "--out", "run", "--residual_limit", "1e-9", "--precision", "32"]) == 2
    said = capsys.readouterr().err
    assert "does not settle" in said
    assert "'layer" in said
    assert "residual_limit" in said


def test_damaged_checkpoint_is_named(recipe, capsys):
    assert main(["train", recipe, "--out", "run", "--epochs", "1"]) == 0
    Path("run/best.json").write_text("{")
    assert main(["evaluate", "run"]) == 2
    assert "best.json" in capsys.readouterr().err


def test_precision_is_chosen_once_and_recorded(recipe, monkeypatch):
    """``auto`` takes 16 bits where the machine is faster at them and the estimator stands them."""
    for fast, estimator, precision in (
        (True, "displacements", "bf16"),
        (False, "displacements", "32"),
        (True, "states", "32"),
    ):
        Path("mine.py").write_text(
            RECIPE.replace("ep.learning.kolen_pollack", f"ep.learning.kolen_pollack, ep.learning.forms.{estimator}")
        )
        monkeypatch.setattr("eqprop.cli.training.faster_in_16_bits", lambda device, fast=fast: fast)
        out = f"{estimator}{fast}"
        assert main(["train", recipe, "--out", out, "--epochs", "1"]) == 0
        assert json.loads(Path(f"{out}/run.json").read_text())["session"]["precision"] == precision
    half, full = (load(Path(out), "last")[0] for out in ("displacementsTrue", "displacementsFalse"))
    for name in (name for name in full if name.endswith(".weight")):
        assert half[name].dtype == torch.float32
        assert 0 < float((half[name] - full[name]).abs().max()) < 0.3


def test_16_bits_are_those_of_messages_alone(recipe, monkeypatch):
    """In training as in evaluation: states, and what is computed of them, keep the data's precision."""
    kinds, of = [], Counts.of

    def watch(loss, record):
        states = [settled.state for settled in (record.free, record.nudged) if settled is not None]
        kinds.append({value.dtype for state in states for value in state.values()} | {loss.dtype})
        return of(loss, record)

    monkeypatch.setattr(Counts, "of", watch)
    assert main(["train", recipe, "--out", "run", "--epochs", "1", "--precision", "bf16"]) == 0
    assert len(kinds) > 9
    assert all(kind == {torch.float32} for kind in kinds)


def test_a_gradient_that_is_not_finite_never_reaches_a_weight(recipe, capsys):
    """The loss and the states may be finite all the same."""
    source = RECIPE.replace("ep.learning.kolen_pollack", "wild").replace("\ndef noise", WILD + "\ndef noise")
    Path("mine.py").write_text(source)
    assert main(["train", recipe, "--out", "run", "--checkpoint_seconds", "0", "--precision", "32"]) == 2
    said = capsys.readouterr().err
    assert "batch 3" in said
    assert "gradients that are not finite: network.couplings." in said
    tensors, state = load(Path("run"), "last")
    assert state["progress"]["index"] == 2
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())


def test_evaluate_settles_as_far_as_asked(recipe, capsys):
    assert main(["train", recipe, "--out", "run", "--epochs", "1", "--precision", "32"]) == 0
    capsys.readouterr()
    for options, sweeps, residual in (([], 5, 1e-6), (["--settled", "1e-2"], 2, 1e-2)):
        assert main(["evaluate", "run", *options]) == 0
        words = capsys.readouterr().out.split("residual ")[1].split()
        assert float(words[0]) <= residual
        assert int(words[2]) == sweeps
    assert main(["evaluate", "run", "--precision", "7"]) == 2
    assert main(["evaluate", "run", "--mirrored"]) == 0
    assert "with mirror images" in capsys.readouterr().out


def test_evaluation_leaves_the_model_as_it_was():
    images = Images(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64), 2)
    network = ep.chain((1, 4, 4), [ep.DenseLayer(2)], ep.SquaredError)
    free = ep.FixedSweeps(2)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), free, free)).train()
    row = evaluate(model, Batches(images, 2, Normalise((0.0,), (1.0,)), shuffle=False), Fabric())
    assert model.training
    assert 0 <= row["accuracy"] <= 1
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_grows_is_reported_once_with_what_to_change(recipe, capsys):
    """A diverged network may have a finite loss, and would train on without learning."""
    words = "The loss grows: it was"
    sane = ["train", recipe, "--precision", "32", "--epochs", "2", "--out"]
    assert main([*sane, "sane"]) == 0
    assert words not in capsys.readouterr().out
    assert main([*sane, "grown", "--lr", "300", "--epochs", "3"]) == 0
    said = capsys.readouterr().out
    assert said.count(words) == 1
    assert "Lower the learning rate or beta, or clip the gradient" in said
    assert load(Path("grown"), "last")[1]["progress"]["first_loss"] == pytest.approx(1.1, rel=0.3)


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_a_gradient_is_clipped_to_the_norm_asked_for(tmp_path, clip):
    moved = {}
    for limit in (0.0, clip):
        torch.manual_seed(0)
        run = RECIPES["digits"](epochs=1, lr=1.0, gradient_clip=limit, train_images=32)
        before = torch.cat([each.detach().flatten() for each in run.model.parameters()])
        (folder := tmp_path / str(limit)).mkdir()
        Trainer(run, folder, Fabric(), Report()).fit()
        moved[limit] = torch.cat([each.detach().flatten() for each in run.model.parameters()]) - before
    if clip == 1e-3:
        assert moved[clip].norm().item() == pytest.approx(1e-3, rel=1e-3), "one step at rate 1"
        torch.testing.assert_close(moved[clip] / moved[clip].norm(), moved[0.0] / moved[0.0].norm(), atol=1e-4, rtol=0)
    else:
        assert torch.equal(moved[clip], moved[0.0])


def test_mirrored_evaluation_takes_the_mean_probabilities_of_both_images():
    torch.manual_seed(0)
    images = Images(torch.randint(256, (400, 1, 4, 4), dtype=torch.uint8), torch.randint(3, (400,)), 3)
    network = ep.chain((1, 4, 4), [ep.DenseLayer(4, ep.tanh)], partial(ep.ReadoutCrossEntropy, classes=3))
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), ep.FixedSweeps(5), ep.FixedSweeps(2)))
    with torch.no_grad():
        network.loss.readout.weight.mul_(20)
    x, y = images.pixels / 255, images.labels
    with torch.no_grad():
        each = [model(view).softmax(1) for view in (x, x.flip(-1))]
    right = float(((each[0] + each[1]).argmax(1) == y).float().mean())
    assert right != pytest.approx(float((each[0].argmax(1) == y).float().mean())), "else the test would show nothing"
    batches = Batches(images, 16, Normalise((0.0,), (1.0,)), shuffle=False)
    rows = [evaluate(model, batches, Fabric(), mirrored=mirrored) for mirrored in (False, True)]
    assert rows[1]["accuracy"] == pytest.approx(right)
    assert {name for name in rows[0] if rows[0][name] != rows[1][name]} <= {"accuracy", "top_5_accuracy"}

    class Margin(ep.CrossEntropy):
        def probabilities(self, scores):
            return None

    network.loss = Margin("layer1", (4,))
    with pytest.raises(ep.InputError, match="no probabilities"):
        evaluate(model, batches, Fabric(), {}, mirrored=True)


def test_the_image_size_is_checked_before_anything_is_trained():
    images = Images(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64), 2)
    network = ep.chain((1, 8, 8), [ep.DenseLayer(2)], ep.SquaredError)
    free = ep.FixedSweeps(2)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), free, free))
    batches = Batches(images, 2, Normalise((0.0,), (1.0,)))
    with pytest.raises(ep.InputError, match="takes"):
        Experiment(model, torch.optim.SGD(model.parameters(), 0.1), batches, batches, 1)


def test_every_recipe_states_itself():
    assert set(RECIPES) >= {"digits", "mnist-dense", "mnist-conv", "cifar10-small", "cifar10-ce-symmetric"}
    assert all((recipe.__doc__ or "").strip() for recipe in RECIPES.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_option_of_every_recipe_has_help(name, capsys):
    with pytest.raises(SystemExit):
        main(["train", name, "--help"])
    said = capsys.readouterr().out
    assert "--batch_size BATCH_SIZE\n                        examples a step. (type: int" in said
    assert not re.findall(r"--[\w+]+ \S+\s+\(type", said)
