"""Images in parquet files, as on the Hugging Face hub: rows of an encoded image and a label."""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eqprop.errors import InputError
from eqprop.tasks.found import Names, Root, Side, no_file
from eqprop.tasks.text import explained, few, plain, quoted, short

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
LONGEST = 16 << 20
"""Bytes of the description of the columns."""
ROWS = 256
"""Rows that are read at once."""


# Which files are a side


def find_shards(root: Root, inner: str, entries: Sequence[str], side: str) -> dict[str, Path]:
    """The parquet files of a side among the ``entries`` of the folder ``inner``, by name, in order.

    Raises:
        InputError: a shard is missing, there twice, or a name is not one of a side's file.
    """
    names = [name for name in entries if name.lower().startswith(side) and name.lower().endswith(".parquet")]
    found = {}
    for name in ordered_shards(names, side):
        full = f"{inner}/{name}" if inner else name
        if why := no_file(root.look(full).st_mode):
            raise InputError(f"{plain(full)} is {why}: put the data itself there.")
        found[full] = root.folder / full
    return found


def ordered_shards(names: Sequence[str], side: str) -> list[str]:
    """The names in the order of their numbers.

    Accepted are ``train.parquet``; ``train-00000-of-00002.parquet`` and so on; ``train-0.parquet`` and so on, from 0
    or 1, also with ``_`` or ``.``.

    Raises:
        InputError: there are others, or a shard is missing or there twice.
    """
    if [name.lower() for name in names] == [f"{side}.parquet"]:
        return list(names)
    shards: dict[tuple[str, str], dict[int, str]] = {}
    for name in names:
        of_count = re.fullmatch(rf"{side}-(\d+)-of-(\d+)(?:-\w+)?\.parquet", name, re.I | re.A)
        counted = re.fullmatch(rf"{side}([-_.])(\d+)\.parquet", name, re.I | re.A)
        if of_count:
            number, family = int(of_count[1]), ("of", str(int(of_count[2])))
        elif counted:
            number, family = int(counted[2]), (counted[1], "")
        else:
            beside = f" beside {few([plain(each) for each in names if each != name], 2)}" if len(names) > 1 else ""
            raise InputError(
                f"{plain(name)}{beside} may be the {side} side or not: name its files {side}.parquet, or "
                f"{side}-00000-of-00002.parquet and so on, and move or rename the others."
            )
        if (twin := shards.setdefault(family, {}).setdefault(number, name)) != name:
            raise InputError(f"{twin} and {name} are shard {number} twice: take one away.")
    if len(shards) > 1:
        one, other, *_ = (next(iter(family.values())) for family in shards.values())
        raise InputError(f"{one} and {other} belong to two copies of the {side} side: take one copy away.")
    for (kind, count), by_number in shards.items():
        first = 0 if 0 in by_number else 1
        last = first + int(count) - 1 if kind == "of" else max(by_number)
        missing = next((number for number in range(first, last + 1) if number not in by_number), None)
        if missing is not None:
            raise InputError(
                f"shard {missing} of the {side} side, which ends with {last}, is not beside "
                f"{few(by_number.values(), 2)}: fetch the missing files."
            )
        if (highest := max(by_number)) > last:
            raise InputError(f"{by_number[highest]} is more than the {count} shards of its name: take it away.")
        return [by_number[number] for number in sorted(by_number)]
    return []


# What is in a file


@dataclass(frozen=True)
class Table:
    """A parquet file with a column of encoded images.

    Attributes:
        path, name: of the file.
        rows: their number.
        image, label: the names of the columns.
        names: of the classes, if the file gives them.
    """

    path: Path
    name: str
    rows: int
    image: str
    label: str
    names: Names

    def labels(self) -> list[object]:
        """The label of each row, as it is."""
        found: list[object] = []
        with _reading(self.name) as pyarrow:
            file = pyarrow.ParquetFile(self.path)
            for batch in file.iter_batches(batch_size=1 << 16, columns=[self.label]):
                found += batch.column(self.label).to_pylist()
        return found

    def contents(self) -> Iterator[bytes]:
        """The encoded image of each row.

        Raises:
            InputError: the file is damaged, or does not hold an image itself.
        """
        row = 0
        with _reading(self.name) as pyarrow:
            file = pyarrow.ParquetFile(self.path)
            for batch in file.iter_batches(batch_size=ROWS, columns=[self.image]):
                for value in batch.column(self.image).to_pylist():
                    yield embedded(value, self.where(row))
                    row += 1

    def where(self, row: int) -> str:
        return f"of row {row} of {plain(self.name)}"


def open_table(path: Path, name: str, labelled: bool = True) -> Table:
    """The columns of a file; ``labelled``: one of them must hold labels.

    Raises:
        InputError: it is damaged, or it cannot be told which columns hold the images and the labels.
    """
    with _reading(name) as pyarrow:
        file = pyarrow.ParquetFile(path)
        schema, rows = file.schema_arrow, file.metadata.num_rows
        features = _features((schema.metadata or {}).get(b"huggingface"))
        image = column(schema.names, features, "Image", IMAGE_NAMES)
        label = column(schema.names, features, "ClassLabel", LABEL_NAMES) if labelled else ""
        if any(schema.names.count(each) > 1 for each in (image, label)):
            raise InputError(f"two columns are named {quoted(image)} or {quoted(label)}: rename one.")
        if not _encoded(schema.field(image).type):
            kind = short(schema.field(image).type)
            raise InputError(f"its column {quoted(image)} holds {kind}: give the bytes of image files.")
        return Table(path, name, rows, image, label, class_names(features.get(label)))


def open_tables(files: Mapping[str, Path]) -> Side:
    """A side that lies in several files, one after another."""
    tables = [open_table(path, name) for name, path in files.items()]
    labels = [label for table in tables for label in table.labels()]
    starts = [0, *itertools.accumulate(table.rows for table in tables)]

    def where(row: int) -> str:
        place = bisect.bisect_right(starts, row, hi=len(tables)) - 1
        return tables[place].where(row - starts[place])

    return Side(
        labels,
        {table.name: table.names for table in tables},
        lambda: itertools.chain.from_iterable(table.contents() for table in tables),
        where,
    )


def column(columns: Sequence[str], features: Mapping[str, Any], kind: str, usual: Sequence[str]) -> str:
    """The column of the type ``kind``; if there are several or none, the first of the ``usual`` names.

    Raises:
        InputError: there is none.
    """
    typed = [each for each in columns if isinstance(about := features.get(each), dict) and about.get("_type") == kind]
    if len(typed) == 1:
        return typed[0]
    for name in usual:
        if name in (typed or columns):
            return name
    listed = few(columns, 10)
    raise InputError(f"which column holds the {usual[0]}s cannot be told from {listed}: name it {usual[0]!r}.")


def class_names(feature: object) -> Names:
    """The names that a ``ClassLabel`` of ``datasets`` gives; ``None`` if ``feature`` is none.

    Raises:
        InputError: they are no names.
    """
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names, count = feature.get("names"), feature.get("num_classes")
    if names is None and isinstance(count, int) and 0 < count < 1 << 20:
        return tuple(map(str, range(count)))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"its class names are {short(names)}: write the file again with a list of names.")
    return tuple(names)


def embedded(value: object, where: str) -> bytes:
    """The bytes of an image's value. Raises InputError if it only names a file: it may be any file."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    path = value.get("path") if isinstance(value, dict) else None
    if path:
        raise InputError(
            f"the image {where} is not in the file, which names {short(path)} instead: store the images themselves "
            "(in datasets: Image(), with bytes)."
        )
    raise InputError(f"the image {where} is missing: leave the row out.")


def _encoded(kind: Any) -> bool:
    """Whether values of this type of pyarrow may be encoded images."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _encoded(kind.field(index).type)
    if pa.types.is_dictionary(kind):
        return _encoded(kind.value_type)
    return str(kind) in ("binary", "large_binary", "binary_view", "null")


def _features(description: bytes | None) -> Mapping[str, Any]:
    """The columns as ``datasets`` describes them in a file."""
    if description is None:
        return {}
    if len(description) > LONGEST:
        raise InputError(f"the description of its columns has {len(description):,} bytes: {LONGEST:,} are read.")
    damaged = "the description of its columns is damaged ({}): write the file again."
    with explained(damaged, ValueError, RecursionError, TypeError, AttributeError):
        features = json.loads(description).get("info", {}).get("features", {})
        if not isinstance(features, dict):
            raise TypeError(f"features are {type(features).__name__}")
        return features


@contextmanager
def _reading(name: str) -> Iterator[Any]:
    """Gives ``pyarrow.parquet``, and names the file in the errors of reading it."""
    import pyarrow
    import pyarrow.parquet

    broken = f"{plain(name)} cannot be read ({{}}): fetch it again."
    try:
        with explained(broken, OSError, ValueError, TypeError, KeyError, MemoryError, pyarrow.lib.ArrowException):
            yield pyarrow.parquet
    except InputError as error:
        known = plain(name) in str(error)
        raise error if known else InputError(f"{plain(name)}: {error}") from error
