"""Terminals of any encoding, streams that fail, and folders of any name end no run."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from runs.conftest import TINY, environment, eqprop, run
from runs.refusals import answer

TRAIN = ["train", "digits", *TINY, "--epochs", "1"]
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX alone")


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("ascii", ["recipes"]), ("cp437", ["recipes"]), ("gbk", ["train", "--help"])],
)
def test_terminals_of_any_encoding(work, encoding, words):
    done = run(eqprop(*words), env=environment(PYTHONIOENCODING=encoding), text=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert len(done.stdout) > 100


def test_names_that_a_terminal_cannot_show(work):
    name = "données-数-\U0001f600"
    done = run(eqprop(*TRAIN, "--out", name), env=environment(PYTHONIOENCODING="ascii"), text=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert Path(name, "summary.json").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(work, shell):
    found = answer("completion", shell)
    assert found.status == 0
    assert not found.err
    assert "cifar10" in found.out
    assert "free_sweeps" in found.out
    assert "trust_recipe" in found.out


NAMES = ("seed[1]", "[red]x[/red]", "a b", "$x^2$", "a*b?", "-dash", "'quote'", "a\tb", "%s{0}", ":smile:")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_folders_of_any_name(work, name):
    """What is printed can be typed again."""
    found = answer(*TRAIN, f"--out={name}")
    assert found.status == 0
    if name.isprintable():
        assert f"Curves: {name}/curves.png" in found.out
    assert Path(name, "curves.png").exists()
    again = answer(*TRAIN, f"--out={name}")
    assert again.status == 2
    words = re.search("`(eqprop resume .*)` continues", again.err)
    assert words
    if name.isprintable():
        assert shlex.split(words[1])[-1] == name


@POSIX
@pytest.mark.parametrize("end", ["| head -1", "> /dev/full", "> out 2>&-", "<&- >&- 2>&-"])
def test_training_outlives_its_terminal(work, end):
    words = " ".join([sys.executable, "-m", "eqprop", *TRAIN, "--out", "run"])
    done = run(["bash", "-c", f"set -o pipefail; {words} {end}"])
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert Path("run/summary.json").exists()
    assert not [path for path in Path("run").rglob("*") if path.suffix == ".json" and b"epoch 1/1" in path.read_bytes()]


@POSIX
@pytest.mark.parametrize("words", ["recipes >&-", "train --help > /dev/full", "predict run | true", "--version | true"])
def test_what_cannot_be_printed_is_no_error(run_folder, words):
    done = run(["bash", "-c", f"set -o pipefail; {sys.executable} -m eqprop {words}"])
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_prints_of_a_recipe_end_no_run(work):
    """Also those of a user's own code."""
    Path("mine.py").write_text(
        "from eqprop.recipes.small import digits\n\n\ndef mine(epochs: int = 1):\n    print('x' * 100000, flush=True)\n"
        "    return digits(epochs=epochs, width=0.05, train_images=60)\n"
    )
    command = f"{sys.executable} -m eqprop train mine.py:mine --out run > /dev/full"
    done = run(["bash", "-c", command])
    assert done.returncode == 0, done.stderr
    assert Path("run/summary.json").exists()


def test_the_hint_about_tracebacks_is_true(work, monkeypatch):
    Path("mine.py").write_text("def run():\n    return 1 / 0\n")
    assert "EQPROP_TRACEBACK=1" in answer("train", "mine.py:run").err
    monkeypatch.setenv("EQPROP_TRACEBACK", "1")
    with pytest.raises(Exception, match="division") as caught:
        answer("train", "mine.py:run")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
