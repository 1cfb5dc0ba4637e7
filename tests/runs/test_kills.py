"""A run that is killed at any moment is resumed to the same bits."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runs import kills
from runs.conftest import environment, eqprop, run

TRIALS = int(os.environ.get("EQPROP_KILLS", "20"))


@pytest.fixture(scope="module")
def starter():
    found = kills.Starter()
    yield found
    found.close()


@pytest.fixture(scope="module")
def references(starter, tmp_path_factory):
    return {}


@pytest.mark.parametrize("number", range(TRIALS))
def test_killed_at_a_random_moment(starter, references, tmp_path_factory, tmp_path, number):
    task = list(kills.TASKS)[number % len(kills.TASKS)]
    if task not in references:
        references[task] = kills.whole(starter, task, tmp_path_factory.mktemp("whole"))
    kills.trial(starter, task, tmp_path, number, *references[task])


def test_two_processes_killed(tmp_path):
    """The first one is killed, and the other ends by itself; then both are asked to stop."""
    whole, folder = (kills.prepared(tmp_path / name) for name in ("whole", "killed"))
    command = [*kills.train("images"), "--processes", "2"]
    assert run(eqprop(*command), cwd=whole).returncode == 0
    checkpoint = folder / "run" / "last.json"
    for number, begin in ((signal.SIGKILL, command), (signal.SIGTERM, ["resume", "run"]), (None, ["resume", "run"])):
        with subprocess.Popen(
            eqprop(*begin), cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            seen, deadline = checkpoint.exists() and checkpoint.read_bytes(), time.monotonic() + 60
            while number and process.poll() is None and time.monotonic() < deadline:
                if checkpoint.exists() and checkpoint.read_bytes() != seen:
                    process.send_signal(number)
                    break
                time.sleep(0.005)
            said = process.communicate(timeout=80)[0]
        assert "Traceback" not in said, said
        assert process.returncode in ((0, -number, 128 + number) if number else (0,)), said
    kills.same_bits(whole / "run", folder / "run")


def test_a_signal_says_what_it_does_and_a_second_one_stops_now(tmp_path):
    folder = kills.prepared(tmp_path / "run")
    (folder / "mine.py").write_text(kills.RECIPES.replace("ep.FixedSweeps(4)", "ep.FixedSweeps(200000)"))
    command = eqprop(*kills.train("images"), "--epochs", "1000")
    for signals, status in (([signal.SIGINT] * 2, 130), ([signal.SIGTERM] * 2, 143)):
        with subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout:
                if line.startswith("data:"):
                    break
            time.sleep(0.5)
            for number in signals:
                process.send_signal(number)
                time.sleep(0.2)
            out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert "stopping after this batch" in err
        assert "again to stop now" in err
        assert "Traceback" not in err + out
        for path in Path(folder).glob("run"):
            path.rename(folder / f"was-{status}")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_one_signal_saves(tmp_path, number, status):
    folder = kills.prepared(tmp_path / "run")
    with subprocess.Popen(
        eqprop(*kills.train("images"), "--epochs", "100000"), cwd=folder, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (folder / "run" / "last.json").exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "eqprop resume run" in out
    assert err.count("\n") == 1


@pytest.mark.parametrize("moment", [0.3, 1.5])
@pytest.mark.parametrize("command", [["recipes"], ["check", "digits"], ["train"]], ids=lambda command: command[0])
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
