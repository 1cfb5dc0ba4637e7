"""PyTorch data sets and loaders as tasks: the same bits for any number of workers, and errors that name the row."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import eqprop as ep
from eqprop.tasks import Arrays, Batches, Draw
from eqprop.tasks.datasets import DatasetExamples, as_task

COUNT = 23


class Noisy(Dataset):
    """Rows with random numbers of three generators."""

    def __len__(self):
        return COUNT

    def __getitem__(self, row):
        drawn = [float(torch.rand(())), np.random.random(), random.random()]
        return np.array([row, *drawn]), row % 3


class Plain(Noisy):
    def __getitem__(self, row):
        return torch.full((2,), float(row)), row % 3


class Named(Noisy):
    def __getitem__(self, row):
        return {"left": torch.ones(2) * row, "right": np.ones(3), "label": row % 2}


class Broken(Plain):
    def __init__(self, how):
        self.how = how

    def __getitem__(self, row):
        x, y = super().__getitem__(row)
        return self.how(x, y) if row == 7 else (x, y)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


class Endless(Dataset):
    def __getitem__(self, row):
        return row


def same(a, b):
    pairs = list(zip(a, b, strict=True))
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


def test_bits_do_not_depend_on_workers_processes_or_a_resume():
    alone, ahead = (Batches(DatasetExamples(Noisy(), workers=workers), 4, seed=3) for workers in (0, 2))
    epoch = list(alone.epoch(2))
    assert same(epoch, ahead.epoch(2))
    assert same(epoch[3:], ahead.epoch(2, 3))
    assert not same(epoch, alone.epoch(3))
    assert sorted(int(x) for each, _ in epoch for x in each[:, 0]) == list(range(COUNT))
    shares = [list(ahead.epoch(2, rank=rank, world=2)) for rank in (0, 1)]
    for (x, y), (x0, y0), (x1, y1) in zip(epoch, *shares, strict=True):
        assert torch.equal(x, torch.cat([x0, x1]))
        assert torch.equal(y, torch.cat([y0, y1]))
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert torch.equal(alone.sample(5)[0], ahead.sample(5)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_generators_of_the_program_are_as_before(workers):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = float(torch.rand(())), np.random.random(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    threads = torch.get_num_threads()
    examples = DatasetExamples(Noisy(), workers=workers)
    next(Batches(examples, 4).epoch(0))
    examples.fingerprint()
    assert (float(torch.rand(())), np.random.random(), random.random()) == expected
    assert torch.get_num_threads() == threads


def test_a_part_keeps_the_draws_of_the_whole():
    whole = DatasetExamples(Noisy())
    part = whole.subset(torch.tensor([4, 9, 2])).subset(torch.tensor([2, 0]))
    assert len(part) == 2
    (x, _), (y, _) = next(part.read([draw([0, 1])])), next(whole.read([draw([2, 4])]))
    assert torch.equal(x, y)
    assert len(whole.split(0.3, 0)[1]) == COUNT - 7


def draw(rows):
    return Draw(torch.tensor(rows), 0, 0)


def test_items_may_be_mappings_and_collate_may_pad():
    x, y = next(DatasetExamples(Named()).read([draw([1, 2])]))
    assert x["left"].tolist() == [[1, 1], [2, 2]]
    assert x["right"].dtype == torch.float32
    assert y.tolist() == [1, 0]
    ragged = [(torch.ones(n), float(n)) for n in (1, 3, 2)]

    def padded(items):
        longest = max(len(x) for x, _ in items)
        rows = [torch.cat([x, torch.zeros(longest - len(x))]) for x, _ in items]
        return torch.stack(rows), torch.tensor([[y] for _, y in items])

    x, y = next(DatasetExamples(ragged, padded).read([draw([0, 1])]))
    assert x.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert y.tolist() == [[1], [3]]
    with pytest.raises(ep.InputError, match=r"Rows \[0, 1\] of the data set do not make a batch \(RuntimeError: stack"):
        next(DatasetExamples(ragged).read([draw([0, 1])]))


def fails(x, y):
    raise ValueError("no such file\nand more")


BROKEN = {
    "error": (
        fails,
        r"Row 7 of the data set fails \(ValueError: no such file and more at test_datasets.py:\d+\): mend",
    ),
    "nan": (lambda x, y: (x * float("nan"), y), "inputs of example 7 is not finite"),
    "nan target": (lambda x, y: (x, float("nan")), "target of example 7 is not finite"),
    "negative": (lambda x, y: (x, -1), "target of example 7 is the negative label -1"),
    "shape": (lambda x, y: (x[:1], y), "do not make a batch"),
    "text": (lambda x, y: ("x", y), "do not make a batch"),
    "three": (lambda x, y: (x, y, y), "do not make a batch"),
    "none": (lambda x, y: None, "do not make a batch"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_a_data_set_name_the_row_in_one_line(case, workers):
    how, said = BROKEN[case]
    examples = DatasetExamples(Broken(how), workers=workers)
    batches = examples.read([draw([1, 2]), draw([3, 7]), draw([8])])
    assert len(next(batches)[1]) == 2
    with pytest.raises(ep.InputError, match=said) as error:
        next(batches)
    assert "\n" not in str(error.value)


FORMS = {
    "three parts": ([(1, 2, 3)] * 4, "an item is 3 parts"),
    "one number": ([1.0] * 4, "an item is a Tensor"),
    "no target": ([{"a": 1.0, "b": 2}] * 4, r"names \['a', 'b'\] do not tell"),
    "two targets": ([{"y": 1.0, "label": 2}] * 4, "do not tell"),
    "a text target": ([(1.0, "cat")] * 4, "must be an array"),
    "complex": ([(torch.ones(2) * 1j, 1)] * 4, "of real numbers"),
}


@pytest.mark.parametrize("case", FORMS)
def test_items_of_another_form_are_refused(case):
    items, said = FORMS[case]
    with pytest.raises(ep.InputError, match=said):
        next(DatasetExamples(items).read([draw([0, 1])]))


def test_a_batch_of_another_length_is_refused():
    with pytest.raises(ep.InputError, match="a batch of 2 rows has inputs and targets of lengths \\[1\\]"):
        next(DatasetExamples(Plain(), lambda items: (torch.ones(1, 2), torch.zeros(1))).read([draw([0, 1])]))


REFUSED = {
    "stream": (lambda: DatasetExamples(Stream()), "has no position to resume at"),
    "no items": (lambda: DatasetExamples(3), "has no position to resume at"),
    "no length": (lambda: DatasetExamples(Endless()), "does not tell its length"),
    "empty": (lambda: DatasetExamples([]), "holds no example"),
    "no rows": (lambda: DatasetExamples(Plain()).subset(torch.tensor([], dtype=torch.int64)), "holds no example"),
    "collate": (lambda: DatasetExamples(Plain(), 3), "collate is a int"),
    "workers": (lambda: DatasetExamples(Plain(), workers=-1), "workers -1"),
    "half a worker": (lambda: DatasetExamples(Plain(), workers=0.5), "workers 0.5"),
    "option": (lambda: DatasetExamples(Plain(), loader={"shuffle": True}), "'shuffle'"),
    "value of option": (
        lambda: list(DatasetExamples(Plain(), workers=1, loader={"prefetch_factor": -1}).read([draw([0])] * 2)),
        "cannot start",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_resumed_or_read_is_refused(case):
    make, said = REFUSED[case]
    with pytest.raises(ep.InputError, match=said) as error:
        make()
    assert "\n" not in str(error.value)


class Dies(Plain):
    def __getitem__(self, row):
        os._exit(3)


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(ep.InputError, match="A worker of the data set ended"):
        list(DatasetExamples(Dies(), workers=1).read([draw([0]), draw([1])]))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_to_all_processes_leaves_the_workers_at_work_and_an_abandoned_epoch_leaves_none():
    before = {*multiprocessing.active_children()}
    task = Batches(DatasetExamples(Plain(), workers=2), 2)
    batches = task.epoch(0)
    next(batches)
    for worker in {*multiprocessing.active_children()} - before:
        deadline = time.monotonic() + 30  # it leaves the group as soon as it runs
        while os.getpgid(worker.pid) == os.getpgrp() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.getpgid(worker.pid) != os.getpgrp()
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert len(list(batches)) == task.steps - 1
    next(task.epoch(1))
    assert {*multiprocessing.active_children()} == before


def test_options_reach_the_workers():
    examples = DatasetExamples(Worker(), workers=1, loader={"worker_init_fn": start, "prefetch_factor": 3})
    assert next(examples.read([draw([0])]))[0].item() == 1


STARTED = []


def start(number):
    STARTED.append(number)


class Worker(Plain):
    def __getitem__(self, row):
        return float(len(STARTED)), 0


FRESH = """
import sys
sys.path.insert(0, {folder!r})
from test_datasets import *
print(DatasetExamples(Noisy()).fingerprint(), DatasetExamples(Plain()).fingerprint())
"""


class Unseeded(Noisy):
    def __getitem__(self, row):
        return np.random.default_rng().random(4), row % 3


def test_a_fingerprint_is_the_same_in_another_process_and_tells_content():
    noisy, plain = DatasetExamples(Noisy()).fingerprint(), DatasetExamples(Plain()).fingerprint()
    code = FRESH.format(folder=str(Path(__file__).parent))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [noisy, plain]
    assert noisy != plain
    assert DatasetExamples(Plain(), workers=2).fingerprint() == plain
    assert DatasetExamples(Plain()).subset(torch.arange(5)).fingerprint() != plain
    assert DatasetExamples(Unseeded()).fingerprint() == DatasetExamples(Unseeded()).fingerprint()


def test_the_fingerprint_of_tensors_is_of_all_of_them():
    x, y = torch.rand(100, 3), torch.arange(100)
    whole = DatasetExamples(TensorDataset(x, y))
    changed = x.clone()
    changed[50, 1] += 1e-3
    assert whole.fingerprint() != DatasetExamples(TensorDataset(changed, y)).fingerprint()
    assert whole.fingerprint() == Arrays(x, y).fingerprint()
    rows = [3, 50, 7]
    part = DatasetExamples(Subset(Subset(TensorDataset(x, y), range(1, 90)), [i - 1 for i in rows]))
    assert part.fingerprint() == whole.subset(torch.tensor(rows)).fingerprint()
    assert part.subset(torch.tensor([1])).fingerprint() == Arrays(x[50:51], y[50:51]).fingerprint()


# As tasks


def test_a_loader_is_a_task_with_its_settings():
    shuffled = as_task(DataLoader(Plain(), 4, shuffle=True, drop_last=True, num_workers=2, timeout=60), "train", 5)
    assert isinstance(shuffled, Batches)
    assert (shuffled.batch_size, shuffled.shuffle, shuffled.keep_last, shuffled.seed) == (4, True, False, 5)
    assert shuffled.examples.workers == 2
    assert shuffled.examples.loader["timeout"] == 60
    assert len(list(shuffled.epoch(0))) == 5
    ordered = as_task(DataLoader(Plain(), 4, collate_fn=halves), "train")
    assert (ordered.shuffle, ordered.steps) == (False, 6)
    assert next(ordered.epoch(0))[0][:, 0].tolist() == [0, 0.5, 1, 1.5]
    assert as_task(ordered, "test") is ordered


def halves(items):
    return torch.stack([x / 2 for x, _ in items]), torch.tensor([y for _, y in items])


def test_pairs_examples_and_data_sets_need_a_batch_size():
    x, y = torch.rand(6, 2), torch.arange(6)
    for value in ((x, y), Arrays(x, y), TensorDataset(x, y), [(a, b) for a, b in zip(x, y, strict=True)]):
        task = as_task(value, "train", 0, batch_size=3)
        assert (task.steps, task.shuffle) == (2, True)
        assert not as_task(value, "test", batch_size=3).shuffle
        with pytest.raises(ep.InputError, match=r"^validation: \w+ has no batch size"):
            as_task(value, "validation")


class OwnLoader(DataLoader):
    def __iter__(self):
        return iter([])


X = torch.rand(COUNT, 2)
NO_TASKS = {
    "weighted": (lambda: DataLoader(Plain(), 4, sampler=WeightedRandomSampler([1.0] * COUNT, 9)), "WeightedRandom"),
    "subset": (lambda: DataLoader(Plain(), 4, sampler=SubsetRandomSampler([1, 2])), "torch.utils.data.Subset"),
    "replacement": (lambda: DataLoader(Plain(), 4, sampler=RandomSampler(X, replacement=True)), "each row once"),
    "fewer": (lambda: DataLoader(Plain(), 4, sampler=RandomSampler(X, num_samples=5)), "each row once"),
    "batches": (lambda: DataLoader(Plain(), batch_sampler=[[1], [2]]), "leave batch_sampler out"),
    "no batches": (lambda: DataLoader(Plain(), batch_size=None), "a batch_size"),
    "stream": (lambda: DataLoader(Stream(), 4), "no position to resume at"),
    "own loader": (lambda: OwnLoader(Plain(), 4), "derive a class from Task"),
    "large batches": (lambda: DataLoader(Plain(), 100, drop_last=True), "leaves no batch"),
    "tensor": (lambda: X, "Tensor is no task"),
    "array": (lambda: X.numpy(), "ndarray is no task"),
    "none": (lambda: None, "NoneType is no task"),
    "text": (lambda: "data", "str is no task"),
    "triple": (lambda: (X, X, X), "tuple is no task"),
    "generator": (lambda: (x for x in X), "generator is no task"),
    "number": (lambda: 3, "int is no task"),
    "raw stream": (lambda: Stream(), "no position to resume at"),
    "lengths": (lambda: (X, X[:2]), "lengths"),
}


@pytest.mark.parametrize("case", NO_TASKS)
def test_what_is_no_task_is_refused_with_the_way_out(case):
    make, said = NO_TASKS[case]
    with pytest.raises(ep.InputError, match=said) as error:
        as_task(make(), "train", 0, batch_size=4)
    assert str(error.value).startswith("train: ")
    assert "\n" not in str(error.value)
