"""A run that is killed at any moment is resumed to the same bits."""

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runs import kills
from runs.conftest import environment, eqprop

TRIALS = int(os.environ.get("EQPROP_KILLS", "10"))


@pytest.fixture(scope="module")
def references():
    return {}


@pytest.mark.parametrize("number", range(TRIALS))
def test_killed_at_a_random_moment(starter, references, tmp_path_factory, tmp_path, number):
    task = list(kills.TASKS)[number % len(kills.TASKS)]
    if task not in references:
        references[task] = kills.whole(starter, task, tmp_path_factory.mktemp("whole"))
    kills.trial(starter, task, tmp_path, number, *references[task])


def test_two_processes_killed(starter, tmp_path):
    """The first one is killed, and the other ends by itself; then both are asked to stop."""
    whole, folder = (kills.prepared(tmp_path / name) for name in ("whole", "killed"))
    command = [*kills.train("images"), "--processes", "2"]
    assert starter.done(*command, folder=whole).returncode == 0
    checkpoint = folder / "run" / "last.json"
    for number, begin in ((signal.SIGKILL, command), (signal.SIGTERM, ["resume", "run"]), (None, ["resume", "run"])):
        seen = checkpoint.exists() and checkpoint.read_bytes()
        pipe = tmp_path / f"pipe-{number}"
        os.mkfifo(pipe)
        with ThreadPoolExecutor(1) as reader, starter.begin(*begin, folder=folder, out=pipe, err=pipe) as process:
            everything = reader.submit(pipe.read_text)
            if number:
                wait_until(lambda seen=seen: checkpoint.exists() and checkpoint.read_bytes() != seen, process)
                process.send_signal(number)
            process.end()
            said = everything.result(timeout=kills.LONG_ENOUGH)  # the pipe ends with the last of the processes
        assert "Traceback" not in said, said
        assert process.returncode in ((0, -number, 128 + number) if number else (0,)), said
    kills.same_bits(whole / "run", folder / "run")


def wait_until(reached, process=None):
    """Waits until something is reached, or the process has ended."""
    deadline = time.monotonic() + kills.LONG_ENOUGH
    while not reached() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, "nothing has happened"
        time.sleep(0.005)


def test_a_signal_says_what_it_does_and_a_second_one_stops_now(starter, tmp_path):
    folder = kills.prepared(tmp_path / "run")
    (folder / "mine.py").write_text(kills.RECIPES.replace("ep.FixedSweeps(4)", "ep.FixedSweeps(200000)"))
    command = [*kills.train("images"), "--epochs", "1000"]
    for signals, status in (([signal.SIGINT] * 2, 130), ([signal.SIGTERM] * 2, 143)):
        with starter.begin(*command, folder=folder) as process:
            wait_until(lambda process=process: "\ndata:" in process.stdout, process)
            time.sleep(0.5)
            for number in signals:
                process.send_signal(number)
                time.sleep(0.2)
            process.end()
        assert process.returncode == status, process.stderr
        assert "stopping after this batch" in process.stderr
        assert "again to stop now" in process.stderr
        assert "Traceback" not in process.stderr + process.stdout
        for path in Path(folder).glob("run"):
            path.rename(folder / f"was-{status}")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_one_signal_saves(starter, tmp_path, number, status):
    folder = kills.prepared(tmp_path / "run")
    with starter.begin(*kills.train("images"), "--epochs", "100000", folder=folder) as process:
        wait_until((folder / "run" / "last.json").exists, process)
        process.send_signal(number)
        process.end()
    assert process.returncode == status, process.stderr
    assert "eqprop resume run" in process.stdout
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "moment"),
    [
        (["recipes"], 0.3),
        (["train"], 1.5),
        *(pytest.param(*case, marks=pytest.mark.long) for case in (
            (["recipes"], 1.5), (["train"], 0.3), (["check", "digits"], 0.3), (["check", "digits"], 1.5),
        )),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else str(given),
)  # fmt: skip
def test_a_signal_at_any_other_moment_is_one_line(tmp_path, moment, command):
    with subprocess.Popen(
        eqprop(*command), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130), err
    assert err.count("\n") <= 1, err
    assert "Traceback" not in out
