"""However its processes are started, a run records what one process records."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from eqprop.cli import main
from eqprop.files import load
from runs.conftest import QUICK, environment, eqprop, run

RECIPE = """
import torch
from eqprop.recipes.small import digits


def dropped(epochs: int = 1, seed: int = 0, by_batch: bool = True):
    from functools import partial
    from eqprop.models import ConvLayer
    from eqprop.recipes import small
    from eqprop.tasks import load_images

    class Dropped(small.Digits):
        schedule_by_batch = by_batch

        @property
        def layers(self):
            return [ConvLayer(4, pool=None, dropout=0.3), ConvLayer(8, dropout=0.2)]

    # 131 images in batches of 32: the last has 3, which two processes cannot share equally
    options = Dropped(epochs=epochs, seed=seed, train_images=131, validation=0.0, choose_by_test=True)
    return options.run(partial(small.convolutions, layers=options.layers), options.estimator)
"""


@pytest.fixture(scope="module")
def one(starter, tmp_path_factory):
    """What one process records of the default recipe."""
    return recorded_by_one(starter, tmp_path_factory.mktemp("one"), "digits", *QUICK)


def recorded_by_one(starter, folder, recipe, *options):
    done = starter.done("train", recipe, *options, "--precision", "64", "--out", folder / "run", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def same(one, two):
    """Every recorded number, but for times, to 1e-5; in 64 bits the order of sums does not matter."""
    rows = [list(csv.DictReader((folder / "metrics.csv").read_text().splitlines())) for folder in (one, two)]
    assert len(rows[0]) == len(rows[1])
    for a, b in zip(*rows, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if "second" not in name:
                assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-5, abs=1e-9), name
    first, second = (load(folder, "last")[0] for folder in (one, two))
    for name, value in first.items():
        if name.startswith(("model.", "totals.", "rng.", "generator.")):
            torch.testing.assert_close(value, second[name], rtol=1e-5, atol=1e-9, msg=name)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (one, two)]
    for name, value in summaries[0].items():
        wanted = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
        assert name == "seconds" or summaries[1][name] == wanted, name


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def torchrun(*options):
    return [sys.executable, "-m", "torch.distributed.run", *map(str, options)]


FEW = ["--width", "0.1", "--train_images", "100"]
COMMAND = ["-m", "eqprop", "train", "digits", *QUICK, "--precision", "64", "--out", "two"]


def test_own_processes(one):
    done = run(eqprop(*COMMAND[2:], "--processes", 2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the run is in two") == 1, "only the first process prints"
    assert "stride" not in done.stderr
    same(one, Path("two"))


@pytest.mark.long
def test_torchrun(one):
    done = run([*torchrun("--nproc_per_node", 2, "--master_port", free_port()), *COMMAND])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the run is in two") == 1
    same(one, Path("two"))


@pytest.mark.long
def test_two_agents_as_two_nodes(one):
    agents = [
        subprocess.Popen(
            [*torchrun("--nnodes", 2, "--node_rank", rank, "--nproc_per_node", 1, "--rdzv_backend", "c10d",
                       "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "two-nodes"), *COMMAND],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for port in [free_port()] for rank in range(2)
    ]  # fmt: skip
    said = [agent.communicate(timeout=110)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    same(one, Path("two"))


def test_srun(one, starter):
    """The environment that srun gives to two tasks on one node."""
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_NODELIST": "127.0.0.1",
           "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train", "SLURM_NODEID": "0",
           "MASTER_PORT": str(free_port())}  # fmt: skip
    tasks = [
        starter.begin(*COMMAND[2:], env=environment(**job, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)))
        for rank in range(2)
    ]
    said = [task.end().stdout + task.stderr for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "".join(said).count("the run is in two") == 1
    same(one, Path("two"))


@pytest.mark.parametrize(
    "stray",
    [
        {"LOCAL_RANK": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "17"},
        {"LOCAL_RANK": "3", "RANK": "7", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere.invalid"},
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "ENVIRONMENT": "BATCH"},
    ],
    ids=lambda variables: "-".join(variables),
)
def test_one_process_inside_an_allocation_or_with_stray_variables(starter, stray):
    done = starter.done("train", *QUICK, *FEW, "--out", "run", env=environment(**stray))
    assert done.returncode == 0, done.stderr
    assert Path("run/summary.json").exists()


def test_dropout_schedules_and_unequal_shares(starter, tmp_path):
    Path("mine.py").write_text(RECIPE)
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "mine.py").write_text(RECIPE)
    options = ["mine.py:dropped", "--threads", "1", "--device", "cpu"]
    first = recorded_by_one(starter, folder, *options)
    done = starter.done("train", *options, "--precision", "64", "--processes", 2, "--out", "two")
    assert done.returncode == 0, done.stderr
    same(first, Path("two"))


def test_a_killed_worker_under_max_restarts(one):
    """The agent starts both workers again, and the run goes on from its checkpoint without being asked."""
    launch = torchrun("--nproc_per_node", 2, "--max-restarts", 2, "--master_port", free_port())
    command = [*launch, *COMMAND, "--checkpoint_seconds", "0"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
        deadline = time.monotonic() + 80
        while not Path("two/last.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = children(p.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        said = p.communicate(timeout=110)[0]
    assert p.returncode == 0, said
    assert said.count("the run is in two") == 2, "begun, and continued"
    same(one, Path("two"))


def test_a_requeued_job_continues_its_own_run_only(starter):
    job = {"SLURM_JOB_ID": "99"}
    command = ["train", *QUICK, *FEW]
    assert starter.done(*command, env=environment(**job)).returncode == 0
    (folder,) = Path("runs").iterdir()
    again = starter.done(*command, env=environment(**job, SLURM_RESTART_COUNT="1"))
    assert again.returncode == 0, again.stderr
    assert list(Path("runs").iterdir()) == [folder], "the same run"
    other = starter.done(*command, "--seed", "1", env=environment(**job, SLURM_RESTART_COUNT="1"))
    assert other.returncode == 0
    assert len(list(Path("runs").iterdir())) == 2


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_processes_and_launcher_that_disagree(monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2",
                        "LOCAL_WORLD_SIZE": "2"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert main(["train", "--processes", "3", "--out", "run"]) == 2
    assert "torchrun has started 2" in capsys.readouterr().err
    monkeypatch.delenv("WORLD_SIZE")
    assert main(["train", "--out", "run"]) == 2
    assert "WORLD_SIZE" in capsys.readouterr().err
    assert not Path("run").exists()
