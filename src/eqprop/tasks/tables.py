"""Tables: columns of a CSV or a parquet file as the inputs and the target of a classification or a regression.

``pyarrow`` is imported in the functions that need it.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from eqprop.errors import InputError
from eqprop.tasks.arrays import Arrays, ArraySets
from eqprop.tasks.classes import SPELLING, spelled_alike
from eqprop.tasks.formats import Classes, Inputs, Outputs, Values
from eqprop.tasks.manifest import Manifest
from eqprop.tasks.readers import files_to_read, find_sides, parts, plain_file, shown
from eqprop.tasks.text import explained

TableKind = Literal["auto", "classification", "regression"]
ColumnKind = Literal["number", "truth", "text"]
Column = np.ndarray
"""The values of a column, (rows,): float64 of numbers, 0 and 1 of truth values, or ``str`` objects."""
Place = Callable[[int], str]
"""What a row is called in an error."""

TABLE_FILES = (".csv", ".tsv", ".parquet")
DELIMITERS = (",", ";", "\t")
CATEGORIES = 100
"""The largest number of different texts in an input column."""
MISSING = ("", "NA", "N/A", "#N/A", "n/a", "<NA>", "nan", "NaN", "-nan", "-NaN", "NULL", "null", "#NULL!", "NaT")
TRUTHS = {"true": 1.0, "false": 0.0}
INDEX = ("", "__index_level_0__")
"""How pandas names the column of an index without a name, in CSV and in parquet."""

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
BLANK = re.compile(r"([ \t]*[\r\n])*")
"""Lines with nothing in them."""
CODE = re.compile(r"0\d+")
COMMA = re.compile(r"\s*[+-]?\d+(,\d+)+(\.\d*)?\s*")
DATE = re.compile(
    r"(\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{2,4})([T ].*)?"
    r"|\d\d?:\d\d(:\d\d(\.\d+)?)?( ?[AP]M)?"
    r"|(?=.*\d)([A-Z]{3,9},? )?(\d{1,4}[-/ .,]+)*(JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)[A-Z]*[-/ .,]+\d.*",
    re.IGNORECASE,
)
"""Dates and times of day."""
MARKED = re.compile(
    r"[+\-\u2212(]? ?['$\u20ac\u00a3\u00a5]? ?[+\-\u2212]?"
    r"(0x[\da-f]+|\d{1,3}([., _'\u2019\u00a0\u202f]\d{3})+([.,]\d+)?|\d+([.,]\d*)?)"
    r"[ \u00a0\u202f]?[%\u2030$\u20ac\u00a3\u00a5]?\)?",
    re.IGNORECASE,
)
"""Numbers with a currency, per cent, an apostrophe, spaces in them, a longer minus sign, or in base 16."""
EXACT = 2**53
"""Whole numbers below this are exact in float64."""


@dataclass(frozen=True)
class TableInputs(Inputs):
    """How rows of a table become inputs: numbers are standardised, and a text is one of its column's categories.

    Attributes:
        columns: names of the columns that are read.
        kinds: of each: "number", "truth" (true or false, as 1 or 0) or "text".
        means, stds: of each; 0 and 1 for texts.
        categories: of each the texts, each of which has an input that is 1 for it and else 0; () for numbers.
    """

    columns: tuple[str, ...]
    kinds: tuple[ColumnKind, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]
    categories: tuple[tuple[str, ...], ...]

    @property
    def width(self) -> int:
        """The number of inputs."""
        return sum(len(names) or 1 for names in self.categories)

    def read(self, path: Path) -> Iterator[tuple[str, Mapping[str, float | str]]]:
        """The rows of a CSV or parquet file, or of those in a folder: ("file.csv:1", column -> value), and so on.

        Other columns than the training's inputs are not looked at.

        Raises:
            InputError: there is no such file; a column is missing, or of another kind; a value is missing, not finite,
                or a text that the training did not have.
        """
        for file in files_to_read(Path(path), TABLE_FILES):
            sheet = open_sheet(file)
            sheet.require(self.columns)
            held = [sheet.values(name, kind) for name, kind in zip(self.columns, self.kinds, strict=True)]
            self.encode(held, sheet.place)
            for row, values in enumerate(zip(*(column.tolist() for column in held), strict=True), 1):
                yield f"{file.name}:{row}", dict(zip(self.columns, values, strict=True))

    def prepare(self, raw: Sequence[Mapping[str, Any]]) -> Tensor:
        """The inputs, (len(raw), width), of mappings from columns to values.

        Raises:
            InputError: a column is missing, a value is of another kind, not finite, or an unknown text.
        """
        held = []
        for name, kind in zip(self.columns, self.kinds, strict=True):
            for row, each in enumerate(raw):
                there: Any = each.get(name)
                fits = isinstance(there, str) if kind == "text" else isinstance(there, int | float | np.number)
                if not fits or (kind != "text" and not np.isfinite(float(there))):
                    wanted = "a text" if kind == "text" else "a finite number"
                    raise InputError(f"example {row + 1}, column {shown(name)}: {shown(there)} is not {wanted}.")
            held.append(column_of([each[name] for each in raw], kind))
        return self.encode(held, lambda row: f"example {row + 1}")

    def encode(self, held: Sequence[Column], place: Place) -> Tensor:
        """(rows, width) in the default precision, of the values of each column."""
        parts = []
        for name, kind, mean, std, known, values in zip(
            self.columns, self.kinds, self.means, self.stds, self.categories, held, strict=True
        ):
            if kind != "text":
                parts.append(((values - mean) / std)[:, None])
                continue
            parts.append(np.eye(len(known))[numbered(values, known, name, place)])
        return torch.from_numpy(np.concatenate(parts, 1)).to(torch.get_default_dtype())


def load_table(
    source: str | Path,
    target: str | Sequence[str],
    inputs: Sequence[str] = (),
    kind: TableKind = "auto",
    test: float = 0.2,
    seed: int = 0,
    follow_links: bool = False,
) -> ArraySets:
    """A table for a classification or a regression.

    Numbers are standardised by the mean and the standard deviation of the training side. A column of texts has an input
    for each of its values, sorted: those of the training file, or of the only file.

    Args:
        source: a folder with train.csv and test.csv (or .tsv, .parquet), or one such file. CSV: UTF-8 with a header,
            separated by commas, semicolons or tabs.
        target: the column to predict; or several, of numbers, for a regression.
        inputs: the columns to predict from; default: all others.
        kind: "classification" or "regression". "auto": the first for texts and truth values, the second for numbers
            with a fraction; for whole numbers it must be said.
        test: the share of the rows of one file that is the test side.
        seed: of the rows of that share.
        follow_links: also out of a folder.

    Returns:
        ``ArraySets``. The targets of a regression are standardised too; ``outputs`` turns scores back.

    Raises:
        InputError: the file is missing or damaged; a column is missing, or is of dates, lists or more than 100 texts; a
            value is missing or not finite; both files do not fit together; or the kind does not fit the target.
    """
    if kind not in get_args(TableKind):
        raise InputError(f"kind {shown(kind)}: choose from {', '.join(get_args(TableKind))}.")
    targets = (target,) if isinstance(target, str) else tuple(target)
    files, skipped = find_sides(source, TABLE_FILES, follow_links)
    sheets = {side: open_sheet(file) for side, file in files.items()}
    first = next(iter(sheets.values()))
    columns = chosen(first, targets, inputs)
    for each in sheets.values():
        each.require((*targets, *columns))
        if not inputs and (more := sorted({*each.names} - {*first.names})):
            raise InputError(
                f"{each.title} has columns that {first.title} has not, {listed(more)}: name the inputs, or make the "
                "columns equal."
            )
    kinds = {name: first.kind(name) for name in (*targets, *columns)}
    for name in columns:
        check_categories(first, name, kinds[name])
    classify = kind_of_task(first, targets, kinds, kind) == "classification"
    sides = {side: Side.of(sheet, kinds, targets if classify else ()) for side, sheet in sheets.items()}
    known = next(iter(sides.values()))  # the side whose texts may occur: of one file all, of two the training's
    if "all" in sides:
        rows = parts(first.rows, test, seed, first.title)
        sides = {side: known.rows(each.numpy()) for side, each in zip(("train", "test"), rows, strict=True)}
    train = sides["train"].columns

    form = TableInputs(
        columns,
        tuple(kinds[name] for name in columns),
        *standards({name: None if kinds[name] == "text" else train[name] for name in columns}),
        tuple(known.texts(name) if kinds[name] == "text" else () for name in columns),
    )
    outputs: Outputs
    if classify:
        classes = known.texts(targets[0])
        check_classes(first.title, targets[0], classes, first.rows)
        outputs = Classes(classes)
    else:
        check_varied({name: train[name] for name in targets}, first.title)
        classes, outputs = (), Values(targets, *standards({name: train[name] for name in targets}))
    held = {
        name: Arrays(
            form.encode([side.columns[each] for each in columns], side.place), targets_of(side, outputs, targets)
        )
        for name, side in sides.items()
    }
    manifest = Manifest(
        kind="table",
        examples={name: len(each) for name, each in held.items()},
        fingerprints={name: hash_of_columns(side.columns) for name, side in sides.items()},
        place=str(Path(source).expanduser().absolute()),
        form=f"{len(columns)} columns to {form.width} inputs, target {listed(targets)}",
        classes=classes,
        files=len(files),
        skipped=skipped,
        notes=notes_on(sides, {name: kinds[name] for name in columns}, targets[0] if classify else None),
    )
    return ArraySets(held["train"], held["test"], manifest, form, outputs)


@dataclass(frozen=True)
class Side:
    """The training or the test side of a table: the values of each column that is used."""

    columns: Mapping[str, Column]
    place: Place

    @classmethod
    def of(cls, sheet: Sheet, kinds: Mapping[str, ColumnKind], classes: Sequence[str]) -> Side:
        """All rows of a sheet; the columns in ``classes`` as texts."""
        columns = {name: sheet.values(name, kind) for name, kind in kinds.items()}
        for name in classes:
            if sheet.codes(name):
                columns[name] = sheet.values(name, "text")
            elif kinds[name] != "text":
                columns[name] = column_of([label(value, kinds[name]) for value in columns[name].tolist()], "text")
        return cls(columns, sheet.place)

    def rows(self, rows: np.ndarray) -> Side:
        return Side({name: each[rows] for name, each in self.columns.items()}, lambda row: self.place(int(rows[row])))

    def texts(self, name: str) -> tuple[str, ...]:
        """The different texts of a column: sorted, as numbers if all are."""
        found = sorted({*self.columns[name].tolist()})
        return tuple(sorted(found, key=float) if all(map(NUMBER.fullmatch, found)) else found)


def targets_of(side: Side, outputs: Outputs, targets: Sequence[str]) -> np.ndarray:
    """Labels (rows,), or standardised values (rows, targets)."""
    if isinstance(outputs, Classes):
        return numbered(side.columns[targets[0]], outputs.names, targets[0], side.place)
    assert isinstance(outputs, Values)
    values = np.stack([side.columns[name] for name in targets], 1)
    return (values - np.array(outputs.mean)) / np.array(outputs.std)


def notes_on(sides: Mapping[str, Side], kinds: Mapping[str, ColumnKind], target: str | None) -> list[str]:
    """Texts that occur on the test side only or are spelled alike, constant columns, and classes without a test row."""
    train, test = (sides[side].columns for side in ("train", "test"))
    notes = []
    for name, kind in kinds.items():
        if kind == "text" and (twins := spelled_alike(sorted({*train[name].tolist()}))):
            notes.append(f"{listed(twins)} in column {shown(name)} {SPELLING}")
        if kind != "text" and train[name].min() == train[name].max():
            notes.append(f"column {shown(name)} has one value on the training side")
    classes = () if target is None else (target,)
    for name in (*(name for name, kind in kinds.items() if kind == "text"), *classes):
        more = sorted({*test[name].tolist()} - {*train[name].tolist()})
        notes += [f"column {shown(name)} has {listed(more)} on the test side only"] if more else []
    for name in classes:
        lost = sorted({*train[name].tolist()} - {*test[name].tolist()})
        notes += [f"no test example has the class {listed(lost)}"] if lost else []
    return notes


# Files


@dataclass(frozen=True)
class Sheet:
    """A table in a file.

    Attributes:
        path: of the file.
        names: of its columns.
        rows: how many.
        column: name -> a ``pyarrow.ChunkedArray``.
        texts: whether all columns hold texts, as those of CSV do.
    """

    path: Path
    names: tuple[str, ...]
    rows: int
    column: Callable[[str], Any]
    texts: bool

    @cached_property
    def title(self) -> str:
        return shown(self.path.name)

    def place(self, row: int) -> str:
        """A row in an error; the first after the header is 1."""
        return f"row {row + 1} of {self.title}"

    def require(self, names: Sequence[str]) -> None:
        """Raises InputError if one of the columns is not there."""
        for name in names:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"did you mean {shown(near[0])}? " if near else ""
                raise InputError(f"{self.title} has no column {shown(name)}: {hint}it has {listed(self.names)}.")

    def kind(self, name: str) -> ColumnKind:
        """Raises InputError for a column that is neither of numbers, truth values nor texts."""
        import pyarrow as pa

        column = self.column(name)
        if self.texts:
            trimmed = self._trimmed(name, column)
            if floats(trimmed) is not None:
                return "number"
            different = trimmed.unique().to_pylist()
            if {each.lower() for each in different} <= {*TRUTHS}:
                return "truth"
            self._check_texts(name, trimmed, different)
            return "text"
        of = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_boolean(of):
            return "truth"
        if pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of):
            return "number"
        if pa.types.is_string(of) or pa.types.is_large_string(of) or str(of) == "string_view":
            trimmed = self._trimmed(name, column.cast("string"))
            self._check_texts(name, trimmed, trimmed.unique().to_pylist())
            return "text"
        if pa.types.is_null(of):
            raise InputError(f"{self.title}, column {shown(name)} is empty: leave it out, by naming the inputs.")
        raise InputError(
            f"{self.title}, column {shown(name)} is of {shown(str(of))[1:-1]}, neither numbers nor texts: make numbers "
            "of it (of a date e.g. days), or leave it out, by naming the inputs."
        )

    def whole(self, name: str) -> bool:
        """Whether a column of numbers has whole ones only, also if they are written as 1.0."""
        values = self.values(name, "number")
        return bool((values == values.round()).all())

    def codes(self, name: str) -> bool:
        """Whether a column has texts of digits of which one begins with 0, as 007: they are names, no amounts."""
        return self.texts and any(CODE.fullmatch(each.strip()) for each in self.column(name).unique().to_pylist())

    def values(self, name: str, kind: ColumnKind) -> Column:
        """The values of a column that has to be of this kind.

        Raises:
            InputError: it is of another; or a value is missing, or not finite: names the row.
        """
        column = self.column(name)
        if self.texts:
            trimmed = self._trimmed(name, column)
            if kind == "text":
                return column_of(trimmed.to_pylist(), kind)
            found = floats(trimmed) if kind == "number" else None
            if found is None:
                found = np.empty(self.rows)
                for row, each in enumerate(trimmed.to_pylist()):
                    value = TRUTHS.get(each.lower()) if kind == "truth" else None
                    if kind == "number" and NUMBER.fullmatch(each):
                        value = float(each)
                    if value is None:
                        wanted = "number" if kind == "number" else "truth value"
                        self._refuse(row, name, f"{shown(each)} is no {wanted}, as others in this column")
                    found[row] = value
        else:
            there = self.kind(name)
            if there != kind:
                raise InputError(f"{self.title}, column {shown(name)} is of kind {there}, and was of {kind}: mend it.")
            if column.null_count:
                self._refuse(int(column.is_null().to_numpy().argmax()), name, "the value is missing")
            if kind == "text":
                return column_of(self._trimmed(name, column.cast("string")).to_pylist(), kind)
            found = column.cast("float64", safe=False).to_numpy()
        if not np.isfinite(found).all():
            row = int((~np.isfinite(found)).argmax())
            self._refuse(row, name, f"{shown(float(found[row]))} is not finite")
        if kind == "number" and np.abs(found).max() >= EXACT:
            self._check_exact(name, column, found)
        return found

    def _check_exact(self, name: str, column: Any, found: Column) -> None:
        """Raises InputError for a whole number that float64 rounds: an identity, which is no amount."""
        for row in np.flatnonzero(np.abs(found) >= EXACT).tolist():
            value = column[row].as_py()
            if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
                value = int(value)
            if isinstance(value, int) and int(found[row]) != value:
                raise InputError(
                    f"{self.place(row)}, column {shown(name)}: {shown(value)} is too large to be exact: leave the "
                    "column out, by naming the inputs, or write it with fewer digits."
                )

    def _refuse(self, row: int, name: str, why: str) -> None:
        raise InputError(f"{self.place(row)}, column {shown(name)}: {why}: correct it, or leave the row out.")

    def _trimmed(self, name: str, column: Any) -> Any:
        """A column of texts without spaces around them. Raises InputError if one is missing."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if column.null_count:
            self._refuse(pc.index(column.is_null(), True).as_py(), name, "the value is missing")
        trimmed = pc.utf8_trim_whitespace(column)
        missing = pc.is_in(trimmed, value_set=pa.array(MISSING))
        if pc.any(missing).as_py():
            row = pc.index(missing, True).as_py()
            self._refuse(row, name, f"the value is missing ({shown(trimmed[row].as_py())})")
        return trimmed

    def _check_texts(self, name: str, column: Any, different: list[str]) -> None:
        """Raises InputError for texts that are meant as something else."""
        numbers = [each for each in different if NUMBER.fullmatch(each)]
        where = f"{self.title}, column {shown(name)}"
        if all(map(DATE.fullmatch, different)):
            raise InputError(
                f"{where} has dates or times, e.g. {shown(different[0])}: make numbers of them, e.g. days, or leave "
                "the column out, by naming the inputs."
            )
        if len(numbers) == len(different):  # texts in parquet
            raise InputError(
                f"{where} has numbers that are stored as texts, e.g. {shown(different[0])}: store numbers."
            )
        if all(COMMA.fullmatch(each) or NUMBER.fullmatch(each) for each in different):
            comma = next(each for each in different if not NUMBER.fullmatch(each))
            raise InputError(f"{where} has numbers with a comma, e.g. {shown(comma)}: write 1.5, and 1000.")
        if all(MARKED.fullmatch(each) or NUMBER.fullmatch(each) for each in different):
            marked = next(each for each in different if not NUMBER.fullmatch(each))
            raise InputError(
                f"{where} has numbers with other signs, e.g. {shown(marked)}: write digits alone, as -1.5."
            )
        if 2 * len(numbers) > len(different):
            row = next(i for i, each in enumerate(column.to_pylist()) if not NUMBER.fullmatch(each))
            self._refuse(row, name, f"{shown(column[row].as_py())} is no number, as most others in this column")


def open_sheet(path: Path) -> Sheet:
    """A CSV or parquet file.

    Raises:
        InputError: it is damaged or empty, has no rows, or two columns of one name.
    """
    plain_file(path)
    names, rows, column, texts = read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{shown(path.name)} has two columns {shown(twice[0])}: rename one.")
    if not rows:
        raise InputError(f"{shown(path.name)} has a header and no row: fill it.")
    if len(names) < 2:
        raise InputError(f"{shown(path.name)} has only the column {listed(names)}: separate columns by , ; or a tab.")
    return Sheet(path, tuple(names), rows, column, texts)


def read_parquet(path: Path) -> tuple[list[str], int, Callable[[str], Any], bool]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = f"{shown(str(path))} cannot be read as parquet ({{}}): write it again."
    with explained(broken, Exception):
        file = pq.ParquetFile(pa.OSFile(os.fspath(path)))
        names, rows = list(file.schema_arrow.names), file.metadata.num_rows

    def column(name: str) -> Any:
        with explained(broken, Exception):
            table = file.read(columns=[name])
            found = table.column(table.schema.get_field_index(name))
            return found.cast(found.type.value_type) if pa.types.is_dictionary(found.type) else found

    return names, rows, column, False


def read_csv(path: Path) -> tuple[list[str], int, Callable[[str], Any], bool]:
    """All columns as texts, so that errors can quote them."""
    import pyarrow as pa
    import pyarrow.csv as reader

    title = shown(str(path))
    with explained(f"{title} cannot be read ({{}}): check its permissions.", OSError):
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise InputError(f"{title} is empty: give a table with a header.")
    if b"\0" in data:
        raise InputError(f"{title} is no text of UTF-8: save it as CSV in UTF-8.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"Line {line} of {title} is not UTF-8 (byte 0x{data[error.start]:02x}): save it as CSV in UTF-8."
        ) from None
    text = text[BLANK.match(text).end() :]  # type: ignore[union-attr]
    data = text.encode()
    delimiter = delimiter_of(text, title)
    check_quotes(text, delimiter, title)
    with explained(f"The header of {title} cannot be read ({{}}): check its quotes.", csv.Error, StopIteration):
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        names = [name.strip() for name in next(line for line in lines if line)]

    wrong: list[reader.InvalidRow] = []

    def refuse(row: reader.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    numbers = [str(i) for i in range(len(names))]  # names may be equal
    with explained(f"{title} cannot be read as CSV ({{}}): check its quotes and separators.", Exception):
        table = reader.read_csv(
            pa.BufferReader(data),
            reader.ReadOptions(
                column_names=numbers,
                skip_rows_after_names=1,
                use_threads=False,
                block_size=min(max(len(data), 1 << 20) + 1, 1 << 30),
            ),
            reader.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse),
            reader.ConvertOptions(column_types=dict.fromkeys(numbers, pa.string()), strings_can_be_null=False),
        )
    for row in wrong[:1]:
        raise InputError(
            f"Row {row.number - 1} of {title} has {row.actual_columns} columns, and the header {row.expected_columns}: "
            "correct it, or quote a text that has a separator or a quote."
        )
    return names, table.num_rows, lambda name: table.column(names.index(name)), True


def check_quotes(text: str, delimiter: str, title: str) -> None:
    """Raises InputError for a quote that does not end where its value does: it would join values or rows."""
    if '"' not in text:
        return
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begun = 1  # the line on which a row begins
    try:
        for _ in lines:
            begun = lines.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{title} has a row from line {begun} on whose quotes do not fit ({error}): end each quoted value with one "
            'quote, and write "" for a quote in it.'
        ) from None


def delimiter_of(text: str, title: str) -> str:
    """The separator by which the first lines have the same number of columns, more than one.

    Raises:
        InputError: there is none, or more than one.
    """
    with explained(f"{title} cannot be read as CSV ({{}}): check its quotes.", csv.Error):
        lines = {
            each: [len(line) for line in islice(csv.reader(io.StringIO(text, newline=""), delimiter=each), 20) if line]
            for each in DELIMITERS
        }
    fit = [each for each, found in lines.items() if len({*found}) == 1 and found[0] > 1]
    fit = fit or [each for each, found in lines.items() if found and found[0] > 1]
    if not fit:
        head = text.splitlines()[0]
        raise InputError(f"{title} has one column, {shown(head)}: separate columns by , ; or a tab.")
    if len(fit) > 1:
        raise InputError(f"{title} may be separated by {' or '.join(map(repr, fit))}: use one, and quote texts.")
    return fit[0]


# Columns


def column_of(values: Sequence[Any], kind: ColumnKind) -> Column:
    if kind != "text":
        return np.array([float(each) for each in values], np.float64)
    found = np.empty(len(values), object)
    found[:] = values
    return found


def floats(texts: Any) -> Column | None:
    """The numbers in a column of texts, or ``None`` if one of them is none."""
    import pyarrow as pa

    try:
        found = texts.cast("float64").to_numpy()
    except pa.ArrowInvalid:  # also for +1
        different = texts.unique().to_pylist()
        if not all(NUMBER.fullmatch(each) for each in different):
            return None
        return np.array([float(each) for each in texts.to_pylist()])
    return found if np.isfinite(found).all() or all(map(NUMBER.fullmatch, texts.unique().to_pylist())) else None


def numbered(values: Column, known: Sequence[str], name: str, place: Place) -> np.ndarray:
    """The position of each text in ``known``, (rows,) int64. Raises InputError for one that is not there."""
    numbers = {text: number for number, text in enumerate(known)}
    found = np.array([numbers.get(each, -1) for each in values.tolist()], np.int64)
    if len(found) and found.min() < 0:
        row = int(found.argmin())
        raise InputError(
            f"{place(row)}, column {shown(name)}: {shown(values[row])} does not occur in the training table, which has "
            f"{listed(known)}: correct it, or leave the row out."
        )
    return found


def label(value: float, kind: ColumnKind) -> str:
    """The name of a class. Raises InputError for a number that is not exact."""
    if abs(value) >= EXACT:
        raise InputError(f"A class of the number {value:.0f} is too large to be exact: write texts.")
    return str(bool(value)) if kind == "truth" else str(int(value)) if value == int(value) else repr(value)


def standards(columns: Mapping[str, Column | None]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of each column: 1 for a constant one; 0 and 1 for ``None``."""
    found = []
    for name, column in columns.items():
        mean, std = 0.0, 1.0
        if column is not None:
            with np.errstate(all="ignore"):
                mean, std = float(column.mean()), float(column.std())
            if column.min() == column.max():  # whose std need not be rounded to 0
                mean, std = float(column[0]), 1.0
            if not 0 < std < np.inf or not np.isfinite(mean):
                raise InputError(f"The values of column {shown(name)} differ too much or too little: rescale them.")
        found.append((mean, std))
    return tuple(mean for mean, _ in found), tuple(std for _, std in found)


def chosen(sheet: Sheet, targets: tuple[str, ...], inputs: Sequence[str]) -> tuple[str, ...]:
    """The columns to predict from. Raises InputError if they, or the targets, cannot be."""
    if not targets or isinstance(inputs, str) or not all(isinstance(each, str) for each in (*targets, *inputs)):
        raise InputError(f"target {shown(targets)}, inputs {shown(inputs)}: give names of columns.")
    sheet.require((*targets, *inputs))
    columns = tuple(inputs) or tuple(name for name in sheet.names if name not in targets)
    for each in (*targets, *columns):
        if (*targets, *columns).count(each) > 1:
            raise InputError(f"Column {shown(each)} is named twice, in the target or the inputs: name it once.")
        if each in INDEX and not inputs:
            raise InputError(
                f"{sheet.title} has a column {shown(each)} without a name, such as pandas writes for an index: remove "
                "it, or name the inputs."
            )
    if not columns:
        raise InputError(f"{sheet.title} has no column beside the target: add one to predict from.")
    return columns


def check_categories(sheet: Sheet, name: str, kind: ColumnKind) -> None:
    """Raises InputError for an input column with too many texts."""
    if kind == "text" and (count := len(sheet.column(name).unique())) > CATEGORIES:
        raise InputError(
            f"{sheet.title}, column {shown(name)} has {count} different texts, e.g. "
            f"{shown(sheet.column(name)[0].as_py())}, more than {CATEGORIES}: leave it out, by naming the inputs, or "
            "make fewer of them."
        )


def check_classes(title: str, name: str, classes: Sequence[str], rows: int) -> None:
    """Raises InputError unless the classes can be learnt."""
    if len(classes) < 2:
        raise InputError(f"{title}, {shown(name)} has one class, {listed(classes)}: give at least two.")
    if not all(each.strip() for each in classes):
        raise InputError(f"{title}, {shown(name)} has a class without a name, '': name it, or leave it out.")
    if twins := spelled_alike(classes):
        raise InputError(
            f"{title}, {shown(name)} has the classes {listed(twins)}, which {SPELLING}: give them one name."
        )
    if len(classes) > max(CATEGORIES, rows // 2):
        raise InputError(
            f"{title}, {shown(name)} has {len(classes)} different values in {rows} rows, which are no classes: choose "
            "another target, or for numbers a regression."
        )


def check_varied(targets: Mapping[str, Column], title: str) -> None:
    """Raises InputError for a target of a regression with the same value in all training rows."""
    for name, values in targets.items():
        if values.min() == values.max():
            raise InputError(
                f"{title}, {shown(name)} is {values[0]:g} in all training rows: there is nothing to learn, choose "
                "another target."
            )


def kind_of_task(sheet: Sheet, targets: tuple[str, ...], kinds: Mapping[str, ColumnKind], kind: TableKind) -> TableKind:
    """What the targets are for. Raises InputError if they do not fit ``kind``, or it has to be said."""
    texts = [name for name in targets if kinds[name] == "text"]
    if len(targets) > 1:
        if kind == "classification" or texts:
            raise InputError(
                f"A classification has one target, not {listed(targets)}: choose one, or columns of numbers."
            )
        return "regression"
    (name,) = targets
    if kind == "regression" and texts:
        example = shown(sheet.column(name)[0].as_py())
        raise InputError(f"A regression needs numbers, and column {shown(name)} has texts, e.g. {example}.")
    if kind == "classification" and kinds[name] == "number":
        values = sheet.values(name, "number")
        if not (values == values.round()).all():
            fraction = float(values[values != values.round()][0])
            raise InputError(
                f"A classification needs texts or whole numbers, and column {shown(name)} has {fraction:g}: choose "
                "kind regression."
            )
    if kind != "auto":
        return kind
    if kinds[name] == "number" and sheet.whole(name):
        raise InputError(
            f"Column {shown(name)} has whole numbers, which may be classes or amounts: choose kind classification or "
            "regression."
        )
    return "regression" if kinds[name] == "number" else "classification"


def hash_of_columns(columns: Mapping[str, Column]) -> str:
    """SHA-256 of the names and values of columns: equal for CSV and parquet."""
    digest = hashlib.sha256()
    for name, values in columns.items():
        texts = values.dtype == object
        digest.update(json.dumps([name, len(values), texts]).encode())
        digest.update(json.dumps(values.tolist()).encode() if texts else values.astype("<f8").tobytes())
    return digest.hexdigest()


def listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
