"""A run knows its code, its data and its machine, and says what differs."""

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eqprop as ep
from eqprop.cli import main
from eqprop.files import load
from eqprop.runs import folder as folders
from eqprop.runs.lock import locked
from eqprop.training.loop import Trainer
from runs import kills

TINY = ["digits", "--epochs", "1", "--width", "0.1", "--threads", "1", "--precision", "32", "--report_seconds", "0"]
FEW = ["--train_images", "100"]
pytestmark = pytest.mark.usefixtures("quick")


def picture(path, seed, colour=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 40, (8, 8, 3), dtype=np.uint8)
    if colour is not None:
        values[..., colour] += 200
    Image.fromarray(values).save(path)


@pytest.fixture
def pets():
    """A folder of coloured images of two classes."""
    for side, count in (("train", 12), ("test", 6)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                picture(Path("pets") / side / name / f"{i}.png", 100 * label + i + 1000 * (side == "test"), 2 * label)
    return Path("pets")


@pytest.fixture
def trained(pets, capsys):
    command = ["train", *TINY, "--data", "pets", "--epochs", "2", "--batch_size", "8", "--out", "run"]
    assert main(command) == 0, capsys.readouterr().err
    capsys.readouterr()
    return Path("run")


def said(capsys, *command, status=0):
    assert main([*map(str, command)]) == status
    out = capsys.readouterr()
    assert "Traceback" not in out.out + out.err
    assert out.err.count("\n") == (status != 0)
    return out.err if status else out.out


def about(folder):
    return json.loads((folder / "run.json").read_text())


def test_all_that_a_run_holds(trained, capsys, monkeypatch):
    held = about(trained)
    assert held["format"] == folders.FORMAT
    assert held["manifest"]["classes"] == ["cat", "dog"]
    assert held["manifest"]["place"] == str(Path("pets").absolute())
    assert held["manifest"]["examples"] == {"train": 24, "test": 12}
    assert held["options"]["data"] == str(Path("pets").absolute())
    assert held["options"]["seed"] == 0
    assert held["session"]["threads"] == 1
    assert {"torch", "numpy", "eqprop"} <= held["versions"].keys()
    assert held["machine"]
    assert json.loads((trained / "config.json").read_text())["classes"] == ["cat", "dog"]
    monkeypatch.chdir("/")
    assert "test accuracy" in said(capsys, "evaluate", Path(held["directory"]) / trained)


def test_a_class_folder_that_was_renamed(trained, capsys):
    Path("pets/test/dog").rename("pets/test/canis")
    Path("pets/train/dog").rename("pets/train/canis")
    for command in (["evaluate", "run"], ["resume", "run"], ["predict", "run"], ["check", "run"]):
        error = said(capsys, *command, status=2)
        assert "'canis'" in error
        assert "'dog'" in error
        assert error == said(capsys, *command, "--accept-new-data", status=2), "no word makes a dog a cat"


@pytest.mark.parametrize("change", ["replaced", "fewer", "same times"])
def test_data_that_were_replaced(trained, capsys, change):
    file = Path("pets/train/cat/0.png")
    before = file.stat()
    if change == "fewer":
        file.unlink()
    else:
        picture(file, 5, 1)
    if change == "same times":
        import os

        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    error = said(capsys, "resume", "run", status=2)
    assert ("there are 23 train examples and were 24" if change == "fewer" else "the content of the 24 train") in error
    assert "test accuracy" in said(capsys, "evaluate", "run"), "the test side is what it was"
    assert "the run is in run" in said(capsys, "resume", "run", "--accept-new-data", "--epochs", "3")


def test_data_that_have_moved(trained, capsys):
    Path("pets").rename("animals")
    assert "pets" in said(capsys, "evaluate", "run", status=2)
    assert "test accuracy" in said(capsys, "evaluate", "run", "--data", "animals")
    said(capsys, "resume", "run", "--data", "animals", "--epochs", "3")
    assert about(trained)["options"]["data"] == str(Path("animals").absolute())
    said(capsys, "evaluate", "run")


def test_a_recipe_that_was_edited(capsys):
    kills.prepared(Path("mine"))
    Path("mine/beside.py").write_text("EPOCHS = 2\n")
    source = Path("mine/mine.py")
    source.write_text(source.read_text().replace("import random\n", "import random\nfrom beside import EPOCHS\n", 1))
    said(capsys, "train", "mine/mine.py:arrays", "--threads", "1", "--out", "run")
    assert sorted(path.name for path in Path("run/recipe").iterdir()) == ["beside.py", "mine.py"]
    before = said(capsys, "evaluate", "run")
    Path("mine/mine.py").write_text("raise SystemExit('edited')")
    assert said(capsys, "evaluate", "run") == before
    assert "has changed since the run was started: its kept copy is used" in said(capsys, "resume", "run")
    shutil.rmtree("mine")
    assert said(capsys, "evaluate", "run") == before
    Path("run/recipe/beside.py").write_text("EPOCHS = 3\n")
    assert "beside.py is not the recipe" in said(capsys, "evaluate", "run", status=2)


def test_run_json_that_was_changed_by_hand(trained, capsys):
    path = trained / "run.json"
    path.write_text(path.read_text().replace('"epochs": 2', '"epochs": 6'))
    assert "--epochs N" in said(capsys, "resume", "run", status=2)


def test_a_run_that_is_trained_longer(capsys):
    """Its learning rate is that of the longer schedule from there on."""
    said(capsys, "train", *TINY, *FEW, "--out", "longer")
    said(capsys, "resume", "longer", "--epochs", "4")
    assert about(Path("longer"))["options"]["epochs"] == 4
    rates = [row["lr_layer1"] for row in load(Path("longer"), "last")[1]["progress"]["history"]]
    said(capsys, "train", *TINY[:1], "--epochs", "4", *TINY[3:], *FEW, "--out", "whole")
    whole = [row["lr_layer1"] for row in load(Path("whole"), "last")[1]["progress"]["history"]]
    assert rates == pytest.approx(whole)
    assert "less than the run's 4" in said(capsys, "resume", "longer", "--epochs", "2", status=2)


def test_weights_to_start_from(capsys):
    said(capsys, "train", *TINY, *FEW, "--out", "first")
    said(capsys, "train", *TINY, *FEW, "--lr", "1e-12", "--from", "first", "--out", "second")
    first, second = (load(Path(name), "best")[0] for name in ("first", "second"))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first if name.startswith("model."))
    assert about(Path("second"))["start"] == str(Path("first").absolute())
    error = said(capsys, "train", *TINY, *FEW, "--width", "0.2", "--from", "first", "--out", "third", status=2)
    assert "input_layer1.map.weight is (3, 1, 3, 3), the network's (6, 1, 3, 3)" in error
    assert not Path("third").exists()
    model = ep.load("first")
    model.save_pretrained("saved")
    said(capsys, "train", *TINY, *FEW, "--from", "saved", "--out", "fourth")


def test_a_run_from_weights_that_is_killed_in_its_first_epoch_goes_on_from_them(capsys, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt  # without a checkpoint, as a kill

    said(capsys, "train", *TINY, *FEW, "--out", "first")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", killed)
        said(capsys, "train", *TINY, *FEW, "--lr", "1e-12", "--from", "first", "--out", "second", status=130)
    said(capsys, "resume", "second")
    first, second = (load(Path(name), "best")[0] for name in ("first", "second"))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first if name.startswith("model."))
    for path in Path("second").glob("last*"):
        path.unlink()
    (Path("second") / "metrics.csv").unlink()
    assert "ended before it kept the weights of" in said(capsys, "resume", "second", status=2)


def test_other_versions_machines_and_threads(trained, capsys, monkeypatch):
    monkeypatch.setattr(folders, "versions", lambda: {"torch": "9.9"})
    monkeypatch.setattr(folders, "machine", lambda device: "another one")
    shown = said(capsys, "resume", "run")
    assert "torch 9.9 (was " in shown
    assert "Another machine than the run's, so the bits may differ: another one" in shown
    assert torch.get_num_threads() == 1, "the run's own number of threads"


def test_a_checkpoint_of_another_run(trained, capsys):
    said(capsys, "train", *TINY, "--data", "pets", "--epochs", "2", "--seed", "1", "--out", "other")
    for path in Path("other").glob("last*"):
        shutil.copy(path, trained / path.name)
    for command in ("resume", "evaluate"):
        options = ["--checkpoint", "last"] if command == "evaluate" else []
        assert "belongs to another run" in said(capsys, command, "run", *options, status=2)


LOCKED = """
import time
from pathlib import Path
from eqprop.runs.lock import locked

with locked(Path("run")):
    Path("ready").touch()
    while Path("ready").exists():
        time.sleep(0.01)
"""


def test_a_second_process_is_refused(starter, trained, capsys):
    done = []
    with starter.begin_code(LOCKED) as other:
        while not Path("ready").exists() and other.poll() is None:
            time.sleep(0.01)
        error = said(capsys, "resume", "run", status=2)
        assert f"is being trained by process {other.pid} on " in error
        Path("ready").unlink()
        assert other.end().returncode == 0, other.stderr
    with locked(Path("run")):
        done.append(1)
    assert done


def test_two_runs_in_the_same_second(capsys, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "20261126-120000")
    for _ in range(3):
        said(capsys, "train", *TINY, *FEW)
    names = sorted(path.name for path in Path("runs").iterdir())
    assert names == [f"digits-20261126-120000{end}" for end in ("", "-2", "-3")]


def test_a_folder_appears_whole_or_not_at_all(capsys, monkeypatch):
    """Killed at any file operation of making it."""
    import os

    class Killed(BaseException):
        pass

    rename = os.rename

    def killed(*_):
        raise Killed

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(Killed):
        main(["train", *TINY, *FEW, "--out", "run"])
    assert not Path("run").exists()
    monkeypatch.setattr(os, "rename", rename)
    said(capsys, "train", *TINY, *FEW, "--out", "run")
    assert [path.name for path in Path().iterdir() if path.name.endswith(".tmp")] == [], "leftovers are removed"
    Path("empty").mkdir()
    said(capsys, "train", *TINY, *FEW, "--out", "empty")


@pytest.mark.parametrize("fate", ["deleted", "moved"])
def test_a_folder_that_goes_while_the_run_trains(fate, capsys):
    def go():
        while not Path("run/last.json").exists():
            time.sleep(0.005)
        Path("run").rename("elsewhere")
        if fate == "deleted":
            shutil.rmtree("elsewhere")

    thread = threading.Thread(target=go)
    thread.start()
    command = ["train", *TINY[:1], "--epochs", "2000", *TINY[3:], *FEW, "--checkpoint_seconds", "0", "--out", "run"]
    error = said(capsys, *command, status=2)
    thread.join()
    assert "run" in error
    assert not Path("run").exists()
    if fate == "moved":
        assert load(Path("elsewhere"), "last")


@pytest.mark.parametrize("name", ["curves.png", "tensorboard", "metrics.csv", "model.safetensors"])
def test_a_report_that_cannot_be_written_never_ends_a_run(name, capsys, monkeypatch):
    from eqprop.training import report

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    targets = {
        "curves.png": (report, "write_curves"),
        "metrics.csv": (report, "write_csv"),
        "tensorboard": (report.Files, "_to_tensorboard"),
        "model.safetensors": (ep.Pretrained, "save_into"),
    }
    monkeypatch.setattr(*targets[name], full)
    shown = said(capsys, "train", *TINY, *FEW, "--out", "run")
    assert shown.count(f"{name} cannot be written (No space left on device); the run goes on.") == 1
    assert Path("run/summary.json").exists()


def test_one_event_file_a_process(trained):
    assert len(list((trained / "tensorboard").iterdir())) == 1


def test_reports_of_an_epoch_whose_checkpoint_was_the_last_thing_written(trained, capsys):
    (trained / "metrics.csv").unlink()
    (trained / ".metrics.csv.0123abcd.tmp").write_text("half")
    said(capsys, "resume", "run")
    assert len((trained / "metrics.csv").read_text().splitlines()) == 3
    assert not list(trained.glob(".*.tmp"))


def test_a_run_in_one_line_of_python(starter, trained, capsys):
    out = said(capsys, "predict", "run", "pets/test/dog/0.png", "pets/test/cat")
    lines = out.splitlines()
    assert lines[0] == "example,class,probability"
    assert len(lines) == 8
    code = "import eqprop; m = eqprop.load('run'); print(m.predict([r for _, r in m.inputs.read(__import__('pathlib')"
    code += ".Path('pets/test/dog/0.png'))]))"
    done = starter.done_code(code)
    (name, probability), *_ = eval(done.stdout)
    said(capsys, "predict", "run", "pets/test/dog/0.png", "--out", "one.csv")
    assert Path("one.csv").read_text().splitlines()[1].split(",")[1:] == [name, repr(probability)]


def test_names_in_pictures_and_shells(quick, capsys):
    """Rich's markup, matplotlib's mathematics, globs and quotes."""
    quick.undo()
    for name in ("runs/exp[seed1]", "a $x$ b$", "it's", "*?[!]", "日本語"):
        shown = said(capsys, "train", *TINY, *FEW, "--out", name)
        assert f"the run is in {name}" in shown
        assert f"Curves: {name}/curves.png" in shown
    from eqprop.runs.folder import quoted

    assert quoted("runs/my run") == "'runs/my run'"


def test_a_time_left_in_long_steps(capsys, monkeypatch):
    from eqprop.cli import terminal

    monkeypatch.setattr(terminal, "FIRST", 0.0)
    monkeypatch.setattr(terminal, "EVERY", 0.0)
    shown = said(capsys, "train", *TINY, *FEW, "--out", "run")
    assert "epoch 1/1: batch 1, 1 sweeps in 0 s" in shown
    assert "s a batch, " in shown
    assert "left in this epoch" in shown


def test_an_option_that_a_run_does_not_say_takes_no_new_default(trained, capsys, monkeypatch):
    about, _ = folders.read(trained)
    older = {name: value for name, value in about.options.items() if name != "weight_clip"}
    folders.write(trained, replace(about, options=older))
    resumed = ["resume", trained, "--epochs", "3", "--report_seconds", "0"]
    assert "does not say weight_clip" in said(capsys, *resumed, status=2)
    monkeypatch.setitem(folders.OPTIONS_LATER[""], "weight_clip", 2.5)
    said(capsys, *resumed)
    assert folders.read(trained)[0].options["weight_clip"] == 2.5
