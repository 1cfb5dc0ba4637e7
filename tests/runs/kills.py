"""Runs that are killed at random moments, and resumed: the bits of a run that was left alone.

``python tests/runs/kills.py 200`` tries 200 moments; the tests try 10.
"""

import atexit
import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from eqprop.files import load

RECIPES = '''
import random

import numpy as np
import torch

import eqprop as ep
from eqprop.tasks import Arrays, Batches, Crop, Images, Normalise
from eqprop.training.loop import Experiment


def experiment(train, test, shape, loss, epochs, classes=3):
    layers = [ep.ConvLayer(3, dropout=0.2), ep.DenseLayer(5)] if len(shape) == 3 else [ep.DenseLayer(6, ep.tanh)]
    network = ep.chain(shape, layers, loss, separate_feedback=len(shape) == 3)
    sweeps = ep.FixedSweeps(4)
    rule = ep.learning.kolen_pollack if len(shape) == 3 else ep.contrastive
    nudging = ep.learning.RandomSign(0.5, 0) if len(shape) == 3 else ep.symmetric(0.5)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(nudging, sweeps, sweeps, rule), on_unsettled="ignore")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    return Experiment(model, optimizer, train, test, epochs, scheduler=scheduler)


def readout(node, shape):
    return ep.ReadoutCrossEntropy(node, shape, 3)


def images(epochs: int = 3, seed: int = 0):
    """Augmentation, dropout, random signs, separate feedback, a last batch that is smaller."""
    g = torch.Generator().manual_seed(1)
    data = Images(torch.randint(0, 256, (45, 1, 6, 6), generator=g, dtype=torch.uint8), torch.arange(45) % 3, 3)
    plain = Normalise((0.0,), (1.0,))
    train = Batches(data, 7, plain, (Crop(1),), seed)
    return experiment(train, Batches(data, 20, plain, shuffle=False), (1, 6, 6), readout, epochs)


class Jittered(torch.utils.data.Dataset):
    """A user's own data set, random in three ways."""

    def __len__(self):
        return 40

    def __getitem__(self, row):
        noise = 0.1 * (torch.randn(4) + float(np.random.rand()) + random.random())
        return torch.full((4,), row / 40) + noise, row % 3


def loader(epochs: int = 3, seed: int = 0, workers: int = 0):
    """A DataLoader of one's own."""
    train = torch.utils.data.DataLoader(Jittered(), batch_size=6, shuffle=True, num_workers=workers)
    return experiment(train, torch.utils.data.DataLoader(Jittered(), batch_size=20), (4,), readout, epochs)


def arrays(epochs: int = 3, seed: int = 0):
    """Regression on arrays."""
    x = np.linspace(-1, 1, 4 * 40).reshape(40, 4)
    y = np.stack([x.sum(1), x[:, 0]], 1)
    data = Arrays(x, y)
    loss = ep.SquaredError
    train, test = Batches(data, 6, seed=seed), Batches(data, 20, shuffle=False)
    layers = [ep.DenseLayer(5, ep.tanh), ep.DenseLayer(2, ep.identity)]
    network = ep.chain((4,), layers, loss)
    sweeps = ep.FixedSweeps(4)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.5), sweeps, sweeps))
    return Experiment(model, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9), train, test, epochs)
'''
TASKS = {name: ["mine.py:" + name] for name in ("images", "loader", "arrays")}
TASKS["table"] = ["table", "--data", "houses.csv", "--target", "price", "--epochs", "3"]
TASKS["sequence"] = ["sequence", "--data", "moves.npz", "--epochs", "3"]
LONG_ENOUGH = 60.0


LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def environment(**more):
    """The present environment without what a launcher of the tests themselves may have set."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    kept = {name: value for name, value in kept.items() if not name.startswith(("SLURM_", "TORCHELASTIC_"))}
    return kept | {"OMP_NUM_THREADS": "1"} | more


class Starter:
    """Starts commands quickly, as children of a process that has imported all."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("starter.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        self.place, self.count = tempfile.TemporaryDirectory(), 0
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, **asked):
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def begin(self, *words, **how):
        """Starts a command of eqprop. ``how``: see ``_start``."""
        return self._start({"arguments": [str(word) for word in words]}, **how)

    def begin_code(self, code, *argv, **how):
        """Starts code in Python. ``how``: see ``_start``."""
        return self._start({"code": code, "argv": [str(word) for word in argv]}, **how)

    def done(self, *words, **how):
        """A command of eqprop that has ended."""
        return self.begin(*words, **how).end()

    def done_code(self, code, *argv, **how):
        """Code in Python that has ended."""
        return self.begin_code(code, *argv, **how).end()

    def _start(self, what, folder=None, env=None, umask=None, out=None, err=None):
        self.count += 1
        names = [str(Path(self.place.name, f"{self.count}-{name}")) for name in ("out", "err")]
        out, err = out or names[0], err or names[1]
        if umask is None:
            umask = os.umask(0)
            os.umask(umask)
        pid = self.ask(
            **what, directory=str(folder or Path.cwd()), environment=env or environment(), umask=umask, out=str(out),
            err=str(err),
        )  # fmt: skip
        return Started(self, pid, Path(out), Path(err))

    def start(self, arguments, folder):
        """The process id of a command with its log in a folder."""
        return self.begin(*arguments, folder=folder, out=folder / "log", err=folder / "log").pid

    def wait(self, pid):
        return self.ask(wait=pid, seconds=LONG_ENOUGH)

    def run(self, arguments, folder):
        return self.wait(self.start(arguments, folder))

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.place.cleanup()


class Started:
    """A process of a starter, much as ``subprocess.Popen`` shows one. As a context, it ends with all of its own."""

    def __init__(self, starter, pid, out, err):
        self.starter, self.pid, self.out, self.err = starter, pid, out, err
        self.returncode = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.end()

    def poll(self):
        if self.returncode is None:
            self.returncode = self.starter.ask(poll=self.pid)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def stdout(self):
        return self.out.read_text(errors="replace") if self.out.is_file() else ""

    @property
    def stderr(self):
        return self.err.read_text(errors="replace") if self.err.is_file() else ""

    def end(self):
        """Waits until the process has ended."""
        if self.returncode is None:
            self.returncode = self.starter.wait(self.pid)
        return self


@functools.cache
def shared_starter():
    """The starter of this process, for all tests."""
    found = Starter()
    atexit.register(found.close)
    return found


def train(task):
    return ["train", *TASKS[task], "--checkpoint_seconds", "0", "--precision", "32", "--threads", "1", "--out", "run"]


def prepared(folder):
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(RECIPES)
    (folder / "houses.csv").write_text("\n".join(houses()))
    np.savez(folder / "moves.npz", **moves())
    return folder


def houses():
    """The lines of a table: numbers, a category, and a price that depends on them."""
    rng = np.random.default_rng(0)
    rows = ["size,rooms,place,price"]
    for _ in range(60):
        size, rooms, place = rng.normal(), rng.integers(1, 5), rng.choice(["town", "sea"])
        rows.append(f"{size:.4f},{rooms},{place},{size + 0.3 * rooms + (place == 'sea'):.4f}")
    return rows


def moves():
    """Sequences of vectors of two classes."""
    target = np.arange(60) % 2
    return {"inputs": np.random.default_rng(0).normal(size=(60, 7, 3)) + target[:, None, None], "target": target}


def whole(starter, task, place):
    """The folder of a run that was left alone, and its seconds."""
    folder = prepared(place / f"whole-{task}")
    began = time.monotonic()
    status = starter.run(train(task), folder)
    assert status == 0, (folder / "log").read_text()
    return folder / "run", time.monotonic() - began


def same_bits(one, other):
    """Whether two runs have the same weights, optimiser, generators, sums and history, but for times."""
    (first, state), (second, resumed) = load(one, "last"), load(other, "last")
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    histories = [
        [{name: value for name, value in row.items() if "second" not in name} for row in each["progress"]["history"]]
        for each in (state, resumed)
    ]
    assert histories[0] == histories[1]
    assert (other / "summary.json").exists()
    assert not list(other.glob(".*.tmp")), "nothing half-written stays"
    rows = (other / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + len(histories[0]), "no epoch is missing from the report"


def trial(starter, task, place, number, reference, seconds):
    """Kills a run at up to three random moments, and resumes it."""
    rng = random.Random(number)
    folder = prepared(place / f"trial-{number}")
    killed = 0
    for _ in range(rng.randint(1, 3)):
        command = ["resume", "run"] if (folder / "run").exists() else train(task)
        pid = starter.start(command, folder)
        time.sleep(rng.random() * seconds)
        number_of_signal = rng.choice([signal.SIGKILL, signal.SIGTERM])
        os.kill(pid, number_of_signal)
        status = starter.wait(pid)
        killed += status != 0
        # -SIGTERM: it came before the command began, or after it ended
        ended = (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)
        assert status in ended, (status, (folder / "log").read_text())
    command = ["resume", "run"] if (folder / "run").exists() else train(task)
    first, second = starter.start(command, folder), None
    if command[0] == "resume" and rng.random() < 0.5:  # two resumptions at once: one of them trains
        second = starter.start(command, folder)
    statuses = [starter.wait(pid) for pid in (first, second) if pid is not None]
    log = (folder / "log").read_text()
    assert "Traceback" not in log, log
    assert statuses.count(0) >= 1, (statuses, log)
    assert all(status in (0, 2) for status in statuses), (statuses, log)
    assert 2 not in statuses or "is being trained by" in log
    same_bits(reference, folder / "run")
    return killed


def main(count, place):
    starter = Starter()
    references = {task: whole(starter, task, place) for task in TASKS}
    killed = 0
    try:
        for number in range(count):
            task = list(TASKS)[number % len(TASKS)]
            killed += trial(starter, task, place, number, *references[task])
            print(f"\r{number + 1} of {count} runs, {killed} kills", end="", flush=True)
    finally:
        starter.close()
    print(f"\n{killed} kills in {count} runs: all resumed to the same bits.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, Path(scratch))
