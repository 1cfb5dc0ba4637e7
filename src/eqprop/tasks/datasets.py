"""PyTorch data sets and loaders as tasks."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from eqprop.draws import seed_of
from eqprop.errors import InputError
from eqprop.files import sha256
from eqprop.tasks.arrays import Arrays, as_tensors, hash_of
from eqprop.tasks.batches import Batches, Draw, Examples
from eqprop.tasks.task import Pair, Task
from eqprop.tasks.text import explained, short

Collate = Callable[[list[Any]], Any]
"""Items of a data set -> a batch: (inputs, target), or a mapping that names the target."""

TARGETS = ("target", "label", "labels", "y")
"""The names of a target in an item that is a mapping."""
LOOKED_AT = 16
OF_LOADER = ("prefetch_factor", "timeout", "worker_init_fn", "multiprocessing_context")


@dataclass(frozen=True, eq=False)
class DatasetExamples(Examples):
    """Any map-style PyTorch data set, read as it is needed.

    An item is (input, target), or a mapping in which one name is "target", "label", "labels" or "y" and the others are
    the input, or the inputs of clamped nodes. Floating-point numbers get PyTorch's default precision.

    Random numbers that the data set draws for an item, from the global generators of PyTorch (on the CPU), NumPy and
    ``random``, depend on the seed, the epoch and the row alone: not on the number of workers or processes, nor on a
    resume; those generators are then set back. Generators of its own are its own matter.

    Args:
        dataset: has ``__len__`` and ``__getitem__``.
        collate: makes a batch from a list of items; default: PyTorch's ``default_collate``.
        workers: processes that read ahead; 0: none.
        rows: (count,) int64, those that are examples here; default: all.
        loader: further options of PyTorch's ``DataLoader`` for the workers: prefetch_factor, timeout, worker_init_fn
            or multiprocessing_context.

    Raises:
        InputError: the data set is iterable, has no length, or is empty; or an option does not fit. When read: an item
            fails, is of another form, or holds a value that is not finite.
    """

    dataset: Any
    collate: Collate | None = None
    workers: int = 0
    rows: Tensor | None = None
    loader: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind = type(self.dataset).__name__
        if isinstance(self.dataset, IterableDataset) or not hasattr(self.dataset, "__getitem__"):
            raise InputError(
                f"{kind} is an iterable data set, which has no position to resume at and no rows to shuffle: give a "
                "map-style one, with __len__ and __getitem__ (a stream: store its examples first)."
            )
        count = _length(self.dataset)
        if count is None:
            raise InputError(f"{kind} does not tell its length, without which an epoch has no end: give it __len__.")
        if not count or (self.rows is not None and not len(self.rows)):
            raise InputError(f"{kind} holds no example: check where it looks for them.")
        if self.collate is not None and not callable(self.collate):
            raise InputError(f"collate is a {type(self.collate).__name__}: give a function of a list of items.")
        if not isinstance(self.workers, int) or self.workers < 0:
            raise InputError(f"workers {self.workers!r} is no number of processes: give 0 or more.")
        if unknown := sorted(set(self.loader) - {*OF_LOADER}):
            raise InputError(f"{unknown} are no options of the workers: choose from {', '.join(OF_LOADER)}.")

    def __len__(self) -> int:
        return len(self.dataset) if self.rows is None else len(self.rows)

    def read(self, draws: Iterable[Draw]) -> Iterator[Pair]:
        draws = iter(draws)
        first = list(islice(draws, 2))
        alone = len(first) < 2 and "worker_init_fn" not in self.loader  # a worker's start takes longer than a batch
        found = None
        batches = self._start(chain(first, draws), 0 if alone else self.workers)
        try:
            while True:
                with explained("A worker of the data set ended ({}): give more memory, or take fewer.", RuntimeError):
                    found = next(batches, None)
                if isinstance(found, InputError):
                    raise found
                if found is None:
                    return
                yield found
        finally:
            del batches, found  # ends the workers now: an error's traceback would keep them

    def _start(self, draws: Iterable[Draw], workers: int) -> Iterator[Any]:
        options = dict(self.loader) if workers else {}
        starts = partial(_start_worker, options.pop("worker_init_fn", None))
        with explained("The workers of the data set cannot start ({}).", Exception):  # a wrong option, or no pickle
            return iter(
                DataLoader(
                    _Reader(self.dataset, self.collate or default_collate),
                    sampler=self._keys(draws),
                    batch_size=None,
                    collate_fn=_same,
                    num_workers=workers,
                    worker_init_fn=starts,
                    generator=torch.Generator(),  # else its iterator would draw from the global one
                    **options,
                )
            )

    def _keys(self, draws: Iterable[Draw]) -> Iterator[tuple[list[int], int, int]]:
        for draw in draws:
            rows = draw.rows if self.rows is None else self.rows[draw.rows]
            yield rows.tolist(), draw.seed, draw.epoch

    def subset(self, rows: Tensor) -> Self:
        rows = rows.cpu()
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def fingerprint(self) -> str:
        """A hash of the tensors of a ``TensorDataset``; of another data set, of its length and of up to 16 examples.

        These are spread evenly, and read with a fixed seed. Where a data set gives other values each time, as its
        random numbers are its own, only their shapes and types count.
        """
        tensors = _tensors_of(self.dataset, self.rows)
        if tensors is not None:
            return hash_of(tensors)
        last = len(self) - 1
        rows = sorted({round(i * last / (LOOKED_AT - 1)) for i in range(LOOKED_AT)})
        draws = [Draw(torch.tensor([row]), 0, 0) for row in rows]
        seen, again = ([hash_of(each) for each in self.read(draws)] for _ in range(2))
        if seen != again:
            seen = [hash_of(tree_map(torch.zeros_like, each)) for each in self.read(draws)]
        return sha256(f"{len(self)} {seen}".encode())


@dataclass(frozen=True)
class _Reader(Dataset[Any]):
    """A map-style data set of whole draws, for PyTorch's ``DataLoader``: (rows, seed, epoch) -> a pair, or an error.

    An error is returned, as ``DataLoader`` would make many lines of one that is raised.
    """

    dataset: Any
    collate: Collate

    def __getitem__(self, key: tuple[list[int], int, int]) -> Pair | InputError:
        rows, seed, epoch = key
        items = []
        with generators_restored():
            for row in rows:
                set_generators("item", seed, epoch, row)
                try:
                    items.append(self.dataset[row])
                except Exception as error:  # whatever a user's code raises
                    return _named(error, f"Row {row} of the data set fails ({{}}): mend it, or leave the row out.")
            set_generators("batch", seed, epoch, *rows)
            shown = f"{rows[:6]}"[:-1] + (", ...]" if len(rows) > 6 else "]")
            try:
                return pair(self.collate(items), rows)
            except InputError as error:
                return InputError(f"Rows {shown} of the data set: {error}")
            except Exception as error:
                return _named(error, f"Rows {shown} of the data set do not make a batch ({{}}): give collate_fn.")


def pair(batch: Any, rows: Sequence[int]) -> Pair:
    """(inputs, target) of a collated batch of the ``rows``.

    Raises:
        InputError: it is no pair, nor a mapping with one target; has another length; or a value is not finite.
    """
    if isinstance(batch, Mapping):
        named = [name for name in batch if name in TARGETS]
        if len(named) != 1 or len(batch) < 2:
            raise InputError(f"the names {list(batch)} do not tell inputs and target: call one of them 'target'.")
        others = {name: each for name, each in batch.items() if name != named[0]}
        batch = next(iter(others.values())) if len(others) == 1 else others, batch[named[0]]
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        there = f"{len(batch)} parts" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
        raise InputError(f"an item is {there}, not (input, target): return a pair, or give a collate_fn that does.")
    x, y = as_tensors(batch[0], "inputs", rows), as_tensors(_tuples(batch[1]), "target", rows)
    lengths = {len(each) for each in tree_leaves((x, y))}
    if lengths != {len(rows)}:
        raise InputError(f"a batch of {len(rows)} rows has inputs and targets of lengths {sorted(lengths)}.")
    return x, y


def as_task(value: Any, side: str = "train", seed: int = 0, batch_size: int | None = None) -> Task:
    """The task of what a user gives as a side of an experiment.

    Args:
        value: a ``Task``, which is returned as it is; or a PyTorch ``DataLoader`` over a map-style data set, of which
            the batch size, collate_fn, workers, drop_last and whether it shuffles are taken; or, with ``batch_size``,
            a pair (inputs, target) of arrays or tensors, ``Examples``, or a map-style data set.
        side: "train", "validation" or "test": for errors, and "train" is shuffled where a loader does not say.
        seed: of the order of each epoch.
        batch_size: of what has none itself.

    Raises:
        InputError: it is none of these, or a loader that cannot resume: of an iterable data set, or with a sampler of
            its own.
    """
    try:
        if isinstance(value, Task):
            return value
        if isinstance(value, DataLoader):
            return _of_loader(value, seed)
        examples = _examples(value)
        if batch_size is None:
            raise InputError(f"{type(value).__name__} has no batch size: give eqprop.tasks.Batches(examples, 64).")
        return Batches(examples, batch_size, seed=seed, shuffle=side == "train")
    except InputError as error:
        raise InputError(f"{side}: {error}") from error


def _examples(value: Any) -> Examples:
    if isinstance(value, Examples):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return Arrays(*value)
    plain = isinstance(value, Tensor | np.ndarray | str | bytes | Mapping | tuple)
    if isinstance(value, Dataset) or (hasattr(value, "__getitem__") and not plain):
        return DatasetExamples(value)
    raise InputError(
        f"{type(value).__name__} is no task: give eqprop.tasks.Batches, a DataLoader of a map-style data set, or a "
        "pair (inputs, target)."
    )


def _of_loader(loader: DataLoader[Any], seed: int) -> Batches:
    """The batches of a loader, in an order of our own, which can resume."""
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise InputError(f"{type(loader).__name__} makes batches in a way of its own: derive a class from Task.")
    if isinstance(loader.dataset, IterableDataset):
        DatasetExamples(loader.dataset)
    if loader.batch_size is None:
        way = "leave batch_sampler out" if loader.batch_sampler is not None else "give the DataLoader a batch_size"
        raise InputError(f"this DataLoader's batches are not drawn from its rows in order or at random: {way}.")
    sampler = loader.sampler
    shuffle = type(sampler) is RandomSampler
    if type(sampler) is RandomSampler and (sampler.replacement or sampler.num_samples != _length(loader.dataset)):
        raise InputError("its RandomSampler does not draw each row once: use shuffle=True.")
    if not shuffle and type(sampler) is not SequentialSampler:
        raise InputError(
            f"its {type(sampler).__name__} has an order that cannot be resumed: use shuffle=True, on a "
            "torch.utils.data.Subset for some rows only (a batch is shared among processes without a sampler); for "
            "weighted rows repeat them, or derive a class from Task."
        )
    options = {name: getattr(loader, name, None) for name in OF_LOADER if loader.num_workers}
    examples = DatasetExamples(
        loader.dataset,
        None if loader.collate_fn is default_collate else loader.collate_fn,
        loader.num_workers,
        loader={name: each for name, each in options.items() if each is not None},
    )
    return Batches(examples, loader.batch_size, seed=seed, shuffle=shuffle, keep_last=not loader.drop_last)


# Random numbers of a user's code


@contextlib.contextmanager
def generators_restored() -> Iterator[None]:
    """Sets the global generators of the CPU back at the end; one thread within, as workers of ``DataLoader`` have."""
    threads, of_torch = torch.get_num_threads(), torch.get_rng_state()
    of_numpy, of_python = np.random.get_state(), random.getstate()
    torch.set_num_threads(1)  # sums of many numbers are rounded differently by several threads
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def set_generators(*key: str | int) -> None:
    """Seeds the global generators of the CPU by ``key``."""
    seed = seed_of(*key)
    torch.default_generator.manual_seed(seed - 2**63)  # torch.manual_seed would change those of accelerators too
    np.random.seed(seed % 2**32)
    random.seed(seed)


# Helpers


def _start_worker(start: Callable[[int], None] | None, number: int) -> None:
    # The main process ends the workers when its batch is done: a signal to its group, as a terminal sends, is not for
    # them, and one that a scheduler sends to every process has to come twice.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _once)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if start is not None:
        start(number)


def _once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


def _named(error: Exception, message: str) -> InputError:
    """An InputError with the kind, the words and the place of a user's error for ``{}``."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if len(frames) > 1 else ""
    said = " ".join(str(error).split())  # with the name of a file that is missing
    named = InputError(message.replace("{}", f"{type(error).__name__}: {short(said)}{place}"))
    named.__cause__ = error
    return named


def _same(value: Any) -> Any:
    return value


def _tuples(value: Any) -> Any:
    """Lists as tuples: ``default_collate`` makes lists of the parts of a target."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError, AttributeError):
        return None


def _tensors_of(dataset: Any, rows: Tensor | None) -> tuple[Tensor, ...] | None:
    """The rows of a ``TensorDataset``, or of a subset of one; ``None`` for another data set."""
    while type(dataset) is Subset:
        indices = torch.as_tensor(dataset.indices)
        dataset, rows = dataset.dataset, indices if rows is None else indices[rows]
    if type(dataset) is not TensorDataset:
        return None
    return dataset.tensors if rows is None else tuple(each[rows] for each in dataset.tensors)
