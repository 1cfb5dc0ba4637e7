"""Signals, users without a home or an entry, the umask, and the names of the program."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runs.conftest import TINY, environment, eqprop, run
from runs.refusals import answer

TRAIN = ["train", "digits", *TINY, "--epochs", "1"]
LONG = ["--epochs", "1000", "--threads", "1"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX alone")


RECIPE = """
import os
import time
from pathlib import Path
from eqprop.recipes.small import digits


def mine(epochs: int = 1):
    if wait := os.environ.get("WAIT"):
        Path(wait).touch()
        time.sleep(60)
    return digits(epochs=epochs, width=0.05, train_images=60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("command", ["train", "evaluate", "check"])
def test_a_signal_is_one_line(starter, work, command, number):
    """While an experiment is built: in start-up for one command, in the middle of another."""
    Path("mine.py").write_text(RECIPE)
    if command == "evaluate":
        assert answer("train", "mine.py:mine", "--report_seconds", "0", "--out", "run").status == 0
    words = [command, "run" if command == "evaluate" else "mine.py:mine"]
    ready = work.parent / "ready"
    with starter.begin(*words, env=environment(WAIT=str(ready))) as process:
        while not ready.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        said = process.end().stdout, process.stderr
    assert process.returncode == 128 + number, said
    assert said == ("", "eqprop: interrupted.\n")


@pytest.mark.parametrize("wait", [0.1, 1.0])
def test_a_signal_to_a_program_that_starts(work, wait):
    with started("train", "--out", "new") as process:
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    if process.returncode == 128 + signal.SIGINT:
        assert said[1].count("\n") == 1
    else:
        assert process.returncode == -signal.SIGINT, said  # Python itself was still starting


def started(*words, **more):
    pipe = subprocess.PIPE
    return subprocess.Popen(eqprop(*words), env=environment(**more), stdout=pipe, stderr=pipe, text=True)


def test_a_terminated_run_saves_and_says_how_to_go_on(starter, work):
    with starter.begin("train", *LONG, "--out", "run", "--checkpoint_seconds", "0") as process:
        deadline = time.monotonic() + 60
        while not Path("run/last.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        said = process.end().stdout, process.stderr
    assert process.returncode == 143, said
    assert said[1].count("\n") == 1
    assert "eqprop resume run" in said[0]


def homeless(**more):
    """An environment without places for caches."""
    found = environment(**more)
    for name in ("EQPROP_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "USER", "LOGNAME"):
        found.pop(name, None)
    if "HOME" not in more:
        found.pop("HOME", None)
    return found


@pytest.mark.parametrize("home", [pytest.param(None, marks=pytest.mark.long), "/proc"], ids=str)
def test_no_home(work, home):
    done = run(eqprop(*TRAIN, "--out", "run"), env=homeless(**({} if home is None else {"HOME": home})))
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.skipif(os.name == "posix" and os.getuid() != 0, reason="only root may become another user")
def test_a_user_without_an_entry(work, tmp_path):
    import pwd

    known = {each.pw_uid for each in pwd.getpwall()}
    number = next(each for each in range(40_000, 50_000) if each not in known)
    if not all(place.stat().st_mode & stat.S_IXOTH for place in (*Path(sys.executable).parents, *tmp_path.parents)):
        pytest.skip("Python or the folder of the tests is closed to others")
    for place in (tmp_path, work):
        os.chown(place, number, number)

    def become():
        os.setgid(number)
        os.setuid(number)

    done = run(eqprop(*TRAIN, "--out", "run"), env=homeless(), preexec_fn=become)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_all_files_have_the_mode_of_the_umask(starter, work):
    done = starter.done(*TRAIN, "--out", "runs/deep/run", umask=0o027)
    assert done.returncode == 0, done.stderr
    found = {str(each): oct(stat.S_IMODE(each.stat().st_mode)) for each in (Path("runs"), *Path("runs").rglob("*"))}
    assert found == {name: oct(0o750 if Path(name).is_dir() else 0o640) for name in found}


@pytest.mark.parametrize(("module", "words", "status"), [("eqprop", ["fly"], 2), ("eqprop.cli", ["recipes"], 0)])
def test_modules(work, module, words, status):
    done = run([sys.executable, "-m", module, *words])
    assert done.returncode == status
    assert done.stderr.count("\n") == (status == 2)
    assert bool(done.stdout) == (status == 0)
