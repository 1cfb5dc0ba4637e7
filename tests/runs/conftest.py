"""Commands as other processes run them, and a run that is trained once."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runs.kills import environment, shared_starter

QUICK = ["--epochs", "1", "--width", "0.25", "--threads", "1", "--device", "cpu"]
"""Options of a run of seconds."""


def eqprop(*arguments):
    """The command line of another process."""
    return [sys.executable, "-m", "eqprop", *map(str, arguments)]


def run(command, **options):
    """The ended process, with its output as text."""
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 110} | options
    return subprocess.run(command, **options)


@pytest.fixture(scope="session")
def starter():
    """Starts commands as children of a process that has imported everything."""
    return shared_starter()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test in a folder of its own, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQPROP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, beside the cache."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def places(work, monkeypatch):
    """Paths of all kinds, and a hub without data sets."""
    monkeypatch.setattr("eqprop.tasks.sources.NAME", re.compile("(?!)"))
    Path("file").write_text("mine")
    Path("mine.py").write_text("def run():\n    raise ValueError\n")
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/precious").write_text("mine")
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    os.mkfifo("pipe")
    Path("closed").mkdir()
    Path("closed").chmod(0)
    yield work
    Path("closed").chmod(0o700)


TINY = ["--train_images", "60", "--width", "0.05", "--threads", "1", "--device", "cpu", "--precision", "32"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with the run ``run`` of a recipe, two of three epochs long, and the cache that knows of it."""
    from eqprop.cli import main

    folder, before = tmp_path_factory.mktemp("trained"), os.getcwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("EQPROP_CACHE", str(folder / "cache"))
        assert main(["train", "digits", *TINY, "--epochs", "2", "--out", "run"]) == 0
    os.chdir(before)
    return folder


@pytest.fixture
def quick():
    """Runs without curves: patches that a test may undo."""
    from interrupted import without_curves

    with pytest.MonkeyPatch.context() as patch:
        without_curves(patch)
        yield patch


@pytest.fixture
def run_folder(trained, work, monkeypatch):
    """A copy of a trained run, which this user has made."""
    shutil.copytree(trained / "run", work / "run")
    shutil.copytree(trained / "cache", work.parent / "cache")
    return Path("run")
