"""Commands as other processes run them."""

import os
import subprocess
import sys

import pytest

QUICK = ["--epochs", "1", "--width", "0.25", "--threads", "1", "--device", "cpu"]
"""Options of a run of seconds."""
LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def environment(**more):
    """The present environment without what a launcher of the tests themselves may have set."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    kept = {name: value for name, value in kept.items() if not name.startswith(("SLURM_", "TORCHELASTIC_"))}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def eqprop(*arguments):
    """The command line of another process."""
    return [sys.executable, "-m", "eqprop", *map(str, arguments)]


def run(command, **options):
    """The ended process, with its output as text."""
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 110} | options
    return subprocess.run(command, **options)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test in a folder of its own, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQPROP_CACHE", str(tmp_path / "cache"))
