"""Terminals of any encoding, streams that fail, and folders of any name end no run."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runs.conftest import TINY, environment, eqprop, run
from runs.refusals import answer

TRAIN = ["train", "digits", *TINY, "--epochs", "1"]
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX alone")


def test_a_terminal_of_another_encoding(work):
    done = run(eqprop("recipes"), env=environment(PYTHONIOENCODING="ascii"), text=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert len(done.stdout) > 100


@pytest.mark.parametrize(("encoding", "words"), [("cp437", ["recipes"]), ("gbk", ["train", "--help"])])
def test_terminals_of_any_encoding(starter, work, encoding, words):
    done = starter.done(*words, env=environment(PYTHONIOENCODING=encoding))
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert len(done.stdout) > 100


def test_names_that_a_terminal_cannot_show(starter, work):
    name = "données-数-\U0001f600"
    done = starter.done(*TRAIN, "--out", name, env=environment(PYTHONIOENCODING="ascii"))
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "the run is in donn?es-?-?" in done.stdout
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


def ended_well(done):
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert Path("run/summary.json").exists()
    assert not [path for path in Path("run").rglob("*") if path.suffix == ".json" and b"epoch 1/1" in path.read_bytes()]


@POSIX
@pytest.mark.parametrize("end", [pytest.param("> out 2>&-", marks=pytest.mark.long), "<&- >&- 2>&-"])
def test_training_in_closed_streams(work, end):
    words = " ".join([sys.executable, "-m", "eqprop", *TRAIN, "--out", "run"])
    ended_well(run(["bash", "-c", f"{words} {end}"]))


@contextlib.contextmanager
def closed_after(lines):
    """A pipe whose reader ends after some lines."""
    os.mkfifo("pipe")
    with subprocess.Popen(["head", f"-n{lines}", "pipe"], stdout=subprocess.DEVNULL) as reader:
        yield "pipe"
        assert reader.wait(timeout=60) == 0


@POSIX
def test_training_outlives_the_reader_of_a_pipe(starter, work):
    with closed_after(1) as pipe:
        ended_well(starter.done(*TRAIN, "--out", "run", out=pipe))


@POSIX
def test_training_outlives_a_full_disk(starter, work):
    ended_well(starter.done(*TRAIN, "--out", "run", out="/dev/full"))


@POSIX
@pytest.mark.parametrize("words", ["recipes >&-", "--version | true"])
def test_what_cannot_be_printed_is_no_error(work, words):
    done = run(["bash", "-c", f"set -o pipefail; {sys.executable} -m eqprop {words}"])
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@POSIX
def test_a_table_that_nobody_reads_is_no_error(starter, run_folder):
    with closed_after(0) as pipe:
        done = starter.done("predict", "run", out=pipe)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@POSIX
def test_help_that_cannot_be_printed_is_no_error(starter, work):
    done = starter.done("train", "--help", out="/dev/full")
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@POSIX
def test_prints_of_a_recipe_end_no_run(starter, work):
    """Also those of a user's own code."""
    Path("mine.py").write_text(
        "from eqprop.recipes.small import digits\n\n\ndef mine(epochs: int = 1):\n    print('x' * 100000, flush=True)\n"
        "    return digits(epochs=epochs, width=0.05, train_images=60)\n"
    )
    done = starter.done("train", "mine.py:mine", "--out", "run", out="/dev/full")
    assert done.returncode == 0, done.stderr
    assert Path("run/summary.json").exists()


def test_the_hint_about_tracebacks_is_true(work, monkeypatch):
    Path("mine.py").write_text("def run():\n    return 1 / 0\n")
    assert "EQPROP_TRACEBACK=1" in answer("train", "mine.py:run").err
    monkeypatch.setenv("EQPROP_TRACEBACK", "1")
    with pytest.raises(Exception, match="division") as caught:
        answer("train", "mine.py:run")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
