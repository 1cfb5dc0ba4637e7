"""Runs of every kind, trained once, and their pages."""

import contextlib
import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from interrupted import without_curves

from eqprop.cli import main
from eqprop.files import sealed
from eqprop.training.loop import Trainer
from runs import kills

QUICK = ["--threads", "1", "--device", "cpu", "--precision", "32"]
TINY = [*QUICK, "--train_images", "60", "--width", "0.05", "--epochs", "2"]
COMMANDS = {
    "digits": ["digits", *TINY],
    "regression": ["table", "--data", "houses.csv", "--target", "price", "--epochs", "2", *QUICK],
    "hardware": [
        *("mnist-ep", "--data", "digits", "--width", "0.05", "--train_images", "60", "--epochs", "2", *QUICK),
        *("--write", "tiki-taka", "--substrate", "noisy-weights"),
    ],
    "classes": ["table", "--data", "houses.csv", "--target", "place", "--epochs", "2", *QUICK],
    "sequence": ["sequence", "--data", "moves.npz", "--epochs", "2", *QUICK],
    "loader": ["mine.py:loader", "--epochs", "1", *QUICK],
    "interrupted": ["digits", *TINY],
    "failed": ["diverging.py:diverging", *QUICK],
}
DIVERGING = """
import torch
from eqprop.recipes.small import digits


def diverging(epochs: int = 2):
    run = digits(epochs=epochs, width=0.05, train_images=60)
    steps = []
    def spoil(network):
        steps.append(1)
        if len(steps) > run.train.steps:
            with torch.no_grad():
                next(network.parameters()).fill_(float("nan"))
    run.constrain = spoil
    return run
"""


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with a run of each of ``COMMANDS``, each with its page, and the data and the cache that know of it."""
    folder, before = tmp_path_factory.mktemp("reported"), os.getcwd()
    kills.prepared(folder / "work")
    os.chdir(folder / "work")
    Path("diverging.py").write_text(DIVERGING)
    step, done = Trainer._step, []

    def interrupted(self, x, y):
        step(self, x, y)
        done.append(1)
        if len(done) == 3:
            signal.raise_signal(signal.SIGINT)

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        patch.setenv("EQPROP_CACHE", str(folder / "cache"))
        without_curves(patch)  # no page has these pictures
        for name, command in COMMANDS.items():
            with pytest.MonkeyPatch.context() as inner:
                if name == "interrupted":
                    inner.setattr(Trainer, "_step", interrupted)
                status = main(["train", *command, "--report_seconds", "20", "--out", name])
            assert status == {"interrupted": 130, "failed": 2}.get(name, 0), said.getvalue()
    os.chdir(before)
    return folder


@pytest.fixture
def work(runs, monkeypatch):
    """The folder with the runs, in which this test works."""
    monkeypatch.chdir(runs / "work")
    monkeypatch.setenv("EQPROP_CACHE", str(runs / "cache"))
    return runs / "work"


def changed(folder, **values):
    """Replaces values of a run's ``run.json``, as somebody with bad intentions may."""
    path = Path(folder, "run.json")
    held = json.loads(path.read_text())
    del held["sha256"]
    path.write_text(sealed({**held, **values}))


def pages(folder):
    return Path(folder, "report.html").read_text()


def image(shape=(6, 6), seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
