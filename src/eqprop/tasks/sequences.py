"""Sequences of vectors, and arrays of any shape, from NumPy's files, safetensors and parquet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqprop.errors import InputError
from eqprop.tasks.arrays import Arrays, ArraySets
from eqprop.tasks.formats import Classes, Inputs, Outputs, Values
from eqprop.tasks.manifest import Manifest
from eqprop.tasks.readers import ARRAY_FILES, files_to_read, find_sides, parts, plain_file, read_arrays, shown
from eqprop.tasks.tables import EXACT, check_classes, check_varied, column_of, listed, numbered, standards
from eqprop.tasks.text import explained

SEQUENCE_FILES = (".npz", ".safetensors", ".parquet")
INPUTS, TARGET, LENGTHS = "inputs", "target", "lengths"
"""The names of the arrays, or columns, of a file."""


@dataclass(frozen=True)
class ArrayInputs(Inputs):
    """Arrays of one shape, as they are in files.

    Attributes:
        shape: of one example.
    """

    shape: tuple[int, ...]

    def read(self, path: Path) -> Iterator[tuple[str, np.ndarray]]:
        """The examples of .npy, .npz or .safetensors files: one of ``shape``, or (count, *shape).

        The array is the only one of its file, or has the name "inputs".

        Raises:
            InputError: there is no such file or array, its shape is another, or a value is not a finite number.
        """
        for file in files_to_read(Path(path), ARRAY_FILES):
            array = real(only_array(read_arrays(file), shown(file.name)), shown(file.name))
            if array.shape == self.shape:
                check_finite(array[None], file.name)
                yield file.name, array
            elif array.shape[1:] == self.shape and len(array):
                check_finite(array, file.name)
                for row, each in enumerate(array, 1):
                    yield f"{file.name}:{row}", each
            else:
                raise InputError(
                    f"The array of {shown(file.name)} is {array.shape}, and an example is {self.shape}: give one "
                    f"such, or {('count', *self.shape)}."
                )

    def prepare(self, raw: Sequence[Any]) -> Tensor:
        """The inputs, (len(raw), *shape), of arrays of ``shape``, in PyTorch's default precision.

        Raises:
            InputError: one has another shape, or holds a value that is not finite.
        """
        arrays = [real(np.asarray(each), f"Example {row + 1}") for row, each in enumerate(raw)]
        for row, each in enumerate(arrays):
            if each.shape != self.shape:
                raise InputError(f"Example {row + 1} is {each.shape}, and the training's are {self.shape}: resize it.")
        stacked = np.stack(arrays) if arrays else np.empty((0, *self.shape))
        check_finite(stacked, "the examples")
        return torch.from_numpy(stacked).to(torch.get_default_dtype())


@dataclass(frozen=True)
class SequenceInputs(Inputs):
    """How sequences become inputs: each feature is standardised, and shorter ones have zeros at the end.

    Attributes:
        steps, features: the shape of an example.
        means, stds: of each feature.
    """

    steps: int
    features: int
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def read(self, path: Path) -> Iterator[tuple[str, np.ndarray]]:
        """The sequences, (steps, features) each, of .npy, .npz, .safetensors or parquet files.

        A file holds one, (steps, features), or several as the training's does, of which a target is not read.

        Raises:
            InputError: there is no such file, or a sequence is longer, has other features, or a value is not finite.
        """
        for file in files_to_read(Path(path), (*ARRAY_FILES, ".parquet")):
            sequences = read_sequences(file, with_target=False).inputs
            self.check(sequences, shown(file.name))
            for row, each in enumerate(sequences, 1):
                yield (f"{file.name}:{row}" if len(sequences) > 1 else file.name), each

    def prepare(self, raw: Sequence[Any]) -> Tensor:
        """The inputs, (len(raw), steps, features), of arrays (steps or fewer, features).

        Raises:
            InputError: one does not fit.
        """
        arrays = [real(np.asarray(each), f"Example {row + 1}") for row, each in enumerate(raw)]
        self.check(arrays, "the examples")
        whole = np.zeros((len(arrays), self.steps, self.features))
        for row, each in enumerate(arrays):
            whole[row, : len(each)] = (each - np.array(self.means)) / np.array(self.stds)
        return torch.from_numpy(whole).to(torch.get_default_dtype())

    def check(self, sequences: Sequence[np.ndarray], title: str) -> None:
        """Raises InputError for a sequence that does not fit."""
        for row, each in enumerate(sequences, 1):
            if each.ndim != 2 or each.shape[1] != self.features or not len(each):
                raise InputError(
                    f"Sequence {row} of {title} is {each.shape}, and has to be (steps, {self.features}): resize it."
                )
            if len(each) > self.steps:
                raise InputError(
                    f"Sequence {row} of {title} has {len(each)} steps, more than the {self.steps} of the longest in "
                    "training: cut it."
                )
            check_finite(each[None], f"sequence {row} of {title}")


@dataclass(frozen=True, eq=False)
class Sequences:
    """What a file holds.

    Attributes:
        title: of the file, for errors.
        inputs: arrays (steps, features), float64.
        target: texts (count,), the names of classes; or values (count, k), float64.
        unread: names of what else the file holds.
    """

    title: str
    inputs: list[np.ndarray]
    target: np.ndarray
    unread: tuple[str, ...] = ()

    @property
    def classify(self) -> bool:
        return self.target.dtype == object

    def rows(self, rows: Tensor) -> Sequences:
        inputs = [self.inputs[row] for row in rows.tolist()]
        return Sequences(self.title, inputs, self.target[rows.numpy()], self.unread)

    def place(self, row: int) -> str:
        return f"sequence {row + 1} of {self.title}"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((len(self.inputs), self.classify, self.target.shape)).encode())
        for each in self.inputs:
            digest.update(f"{each.shape}".encode() + each.astype("<f8").tobytes())
        digest.update(repr(self.target.tolist()).encode() if self.classify else self.target.astype("<f8").tobytes())
        return digest.hexdigest()


def load_sequences(
    source: str | Path, test: float = 0.2, seed: int = 0, standardise: bool = True, follow_links: bool = False
) -> ArraySets:
    """Sequences of vectors for a classification or a regression.

    Sequences of unequal lengths have zeros at the end, after they are standardised, up to the longest of the training
    file, or of the only one; the inventory says so.

    Args:
        source: a folder with a train and a test file, .npz, .safetensors or .parquet; or one such file. It holds
            ``inputs``, (count, steps, features), and ``target``: whole numbers or texts (count,) for classes, or
            numbers with a fraction, (count,) or (count, k), for a regression; and where sequences have unequal
            lengths, those as ``lengths``, (count,). In parquet ``inputs`` is a column of lists of lists.
        test: the share of one file that is the test side.
        seed: of the rows of that share.
        standardise: each feature, by its mean and standard deviation over all steps of the training side.
        follow_links: also out of a folder.

    Returns:
        ``ArraySets``. The targets of a regression are standardised; ``outputs`` turns scores back.

    Raises:
        InputError: a file is missing or damaged; arrays are missing, of other shapes or kinds, or not finite; a test
            sequence is longer than all of training; or both files do not fit together.
    """
    files, skipped = find_sides(source, SEQUENCE_FILES, follow_links)
    sides = {side: read_sequences(file) for side, file in files.items()}
    known = next(iter(sides.values()))
    if "all" in sides:
        rows = parts(len(known.inputs), test, seed, known.title)
        sides = {side: known.rows(each) for side, each in zip(("train", "test"), rows, strict=True)}
    train, held = sides["train"], sides["test"]
    if (held.classify, held.target.shape[1:]) != (train.classify, train.target.shape[1:]):
        raise InputError(f"The target of {held.title} is of another kind or shape than that of {train.title}.")

    features = known.inputs[0].shape[1]
    whole = np.concatenate(train.inputs)
    plain = (0.0,) * features, (1.0,) * features
    columns = {f"feature {number}": whole[:, number] for number in range(features)}
    lengths = sorted({len(each) for each in known.inputs})
    form = SequenceInputs(lengths[-1], features, *(standards(columns) if standardise else plain))
    for each in sides.values():
        form.check(each.inputs, each.title)
    outputs: Outputs
    if known.classify:
        classes = tuple(sorted({*known.target.tolist()}, key=by_number))
        check_classes(known.title, TARGET, classes, len(known.inputs))
        outputs = Classes(classes)
        targets = {side: numbered(each.target, classes, TARGET, each.place) for side, each in sides.items()}
    else:
        count = train.target.shape[1]
        names = (TARGET,) if count == 1 else tuple(f"{TARGET}{number}" for number in range(1, count + 1))
        values = {name: train.target[:, i] for i, name in enumerate(names)}
        check_varied(values, train.title)
        outputs = Values(names, *standards(values))
        targets = {side: (each.target - np.array(outputs.mean)) / np.array(outputs.std) for side, each in sides.items()}
    arrays = {side: Arrays(form.prepare(each.inputs), torch.as_tensor(targets[side])) for side, each in sides.items()}
    shorter = f"sequences of {lengths[0]} to {lengths[-1]} steps have zeros at the end"
    notes = [shorter] if len(lengths) > 1 else []
    if not known.classify and (train.target == train.target.round()).all():
        notes.append("the target has whole numbers with a point, which are values: store integers for classes")
    if unread := sorted({name for each in sides.values() for name in each.unread}):
        notes.append(f"not read: {listed(unread)}")
    manifest = Manifest(
        kind="sequences",
        examples={side: len(each) for side, each in arrays.items()},
        fingerprints={side: each.fingerprint() for side, each in sides.items()},
        place=str(Path(source).expanduser().absolute()),
        form=f"{form.steps} steps of {form.features} features",
        classes=outputs.names if isinstance(outputs, Classes) else (),
        files=len(files),
        skipped=skipped,
        notes=tuple(notes),
    )
    return ArraySets(arrays["train"], arrays["test"], manifest, form, outputs)


def read_sequences(path: Path, with_target: bool = True) -> Sequences:
    """The sequences of a file, each without what only fills it up.

    Raises:
        InputError: it is damaged, or arrays are missing, do not fit together, or are not finite.
    """
    title = shown(path.name)
    if path.suffix.lower() == ".parquet":
        found = read_parquet(path, with_target)
        sequences = found[INPUTS]
    else:
        found = read_arrays(path)
        sequences = padded(only_array(found, title), found.get(LENGTHS), title)
    for row, each in enumerate(sequences):
        if each.ndim != 2 or 0 in each.shape or each.shape[1] != sequences[0].shape[1]:
            raise InputError(
                f"Sequence {row + 1} of {title} is {each.shape}, and the first {sequences[0].shape}: make all of "
                "(steps, features) with equal features, none of them 0."
            )
        check_finite(each[None], f"sequence {row + 1} of {title}")
    if not len(sequences):
        raise InputError(f"{title} holds no sequence: fill it.")
    target = np.zeros((len(sequences), 1))
    if with_target:
        if TARGET not in found:
            raise InputError(f"{title} has no {TARGET!r}: it has {listed(list(found))}.")
        target = targets_of(np.asarray(found[TARGET]), len(sequences), title)
    return Sequences(title, list(sequences), target, tuple(sorted(found.keys() - {INPUTS, TARGET, LENGTHS})))


def only_array(found: Mapping[str, np.ndarray], title: str) -> np.ndarray:
    """The array with the inputs. Raises InputError if there is none, or it is not clear which."""
    if INPUTS not in found and len(found) != 1:
        raise InputError(f"{title} has no array {INPUTS!r}: it has {listed(list(found)) or 'none'}.")
    return found[INPUTS] if INPUTS in found else next(iter(found.values()))


def real(array: np.ndarray, title: str) -> np.ndarray:
    """float64. Raises InputError unless the array has real numbers."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{title} is of {array.dtype}: give real numbers, all examples of one shape.")
    if array.dtype.kind in "iu" and array.size and max(int(array.max()), -int(array.min())) >= EXACT:
        raise InputError(f"{title} has whole numbers of 2**53 or more, which are not exact: rescale them.")
    return array.astype(np.float64)


def check_finite(array: np.ndarray, title: str) -> None:
    """Raises InputError for a value that is not finite. ``array``: (count, ...)"""
    if not np.isfinite(array).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        row = f"example {at[0] + 1} of " if len(array) > 1 else ""
        raise InputError(f"{row}{title} is not finite at {at[1:]}: leave it out.")


def padded(array: np.ndarray, lengths: np.ndarray | None, title: str) -> list[np.ndarray]:
    """The sequences, (steps, features) each, of an array (count, steps, features), or of a single one."""
    array = real(array, f"{INPUTS!r} of {title}")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or not array.size:
        raise InputError(f"{INPUTS!r} of {title} is {array.shape}: give (count, steps, features), none of them 0.")
    if lengths is None:
        return list(array)
    if lengths.shape != array.shape[:1] or lengths.dtype.kind not in "iu":
        raise InputError(f"{LENGTHS!r} of {title} is {lengths.dtype} {lengths.shape}: give a whole number a sequence.")
    if lengths.min() < 1 or lengths.max() > array.shape[1]:
        raise InputError(f"{LENGTHS!r} of {title} is {lengths.min()} to {lengths.max()}: give 1 to {array.shape[1]}.")
    return [each[:length] for each, length in zip(array, lengths.tolist(), strict=True)]


def targets_of(target: np.ndarray, count: int, title: str) -> np.ndarray:
    """Names of classes (count,), or values (count, k). Raises InputError if they are neither."""
    if len(target.shape) == 0 or len(target) != count:
        raise InputError(f"{TARGET!r} of {title} is {target.shape}: give one to each of the {count} sequences.")
    if target.ndim == 1 and (target.dtype.kind in "biuU" or all(isinstance(each, str) for each in target.tolist())):
        return column_of([str(each) for each in target.tolist()], "text")
    if target.dtype.kind != "f" or target.ndim > 2 or 0 in target.shape:
        raise InputError(
            f"{TARGET!r} of {title} is {target.dtype} {target.shape}: give whole numbers or texts {(count,)} for "
            f"classes, or numbers with a fraction, {(count,)} or (count, k)."
        )
    values = target.astype(np.float64).reshape(count, -1)
    check_finite(values, f"{TARGET!r} of {title}")
    return values


def by_number(name: str) -> tuple[float, str]:
    try:
        return float(name), ""
    except ValueError:
        return math.inf, name


def read_parquet(path: Path, with_target: bool) -> dict[str, Any]:
    """The columns: inputs as arrays (steps, features), and the target."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain_file(path)
    title = shown(path.name)
    with explained(f"{title} cannot be read as parquet ({{}}): write it again.", Exception):
        file = pq.ParquetFile(pa.OSFile(str(path)))
        names = list(file.schema_arrow.names)
    for name in (INPUTS, TARGET)[: 1 + with_target]:
        if names.count(name) != 1:
            raise InputError(f"{title} has no column {name!r}, or two: it has {listed(names)}.")
    with explained(f"{title} cannot be read as parquet ({{}}): write it again.", Exception):
        table = file.read(columns=[INPUTS, TARGET][: 1 + with_target])
        outer = table.column(INPUTS).combine_chunks()
    kind = outer.type
    if not is_list(kind) or not is_list(kind.value_type) or is_list(kind.value_type.value_type):
        raise InputError(
            f"Column {INPUTS!r} of {title} is of {shown(str(kind))[1:-1]}: give lists of lists of numbers."
        )
    inner = outer.flatten()
    numbers = inner.flatten()
    for level in (outer, inner, numbers, *(table.column(TARGET).chunks if with_target else ())):
        if level.null_count:
            raise InputError(f"{title} has missing values: fill them in, or leave the sequences out.")
    steps, widths = lengths_of(outer), lengths_of(inner)
    if len(widths) and widths.min() != widths.max():
        raise InputError(f"{title} has vectors of {widths.min()} to {widths.max()} features: make them equal.")
    values = real(numbers.to_numpy(zero_copy_only=False), f"{INPUTS!r} of {title}")
    width = int(widths[0]) if len(widths) else 0
    vectors = values.reshape(len(widths), width)
    found: dict[str, Any] = dict.fromkeys(names)
    found |= {INPUTS: np.split(vectors, np.cumsum(steps)[:-1]) if len(steps) else []}
    if with_target:
        target = table.column(TARGET)
        if is_list(target.type):
            rows = target.to_pylist()
            if len({len(each) for each in rows}) > 1:
                raise InputError(f"{TARGET!r} of {title} has lists of unequal lengths: make them equal.")
            found[TARGET] = np.array(rows, np.float64 if pa.types.is_floating(target.type.value_type) else None)
        else:
            found[TARGET] = target.to_numpy()
    return found


def is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def lengths_of(lists: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.list_value_length(lists).to_numpy(zero_copy_only=False)
