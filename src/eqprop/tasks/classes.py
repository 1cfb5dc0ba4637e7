"""From the labels of both sides of a data set to numbers, and the names of the classes compared."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eqprop.errors import InputError
from eqprop.tasks.found import Names, Side
from eqprop.tasks.text import few, plain, quoted, short

SPELLING = "differ only in capitals, spaces or Unicode form"


class Numbered(NamedTuple):
    """Labels as numbers.

    Attributes:
        classes: their names, in the order of the numbers.
        labels: of each side.
        notes: the classes of which a side has no image.
    """

    classes: tuple[str, ...]
    labels: dict[str, list[int]]
    notes: list[str]


def numbered(sides: Mapping[str, Side]) -> Numbered:
    """The labels of both sides in numbers of the same classes.

    The classes are those that the files name; else the labels of the training side, if they are names, in order; else
    the numbers from 0 to its largest label.

    Raises:
        InputError: the files name other classes, a label fits none, or a class is spelled in two ways.
    """
    for name, side in sides.items():
        if not side.labels:
            raise InputError(f"there are no images on the {name} side: add some.")
    classes = agreed({file: names for side in sides.values() for file, names in side.names.items()})
    if classes is not None:
        _check_names(classes)
        labels = {name: _numbers(side, len(classes)) for name, side in sides.items()}
    elif isinstance(sides["train"].labels[0], str):
        words = {name: _words(side) for name, side in sides.items()}
        classes = tuple(sorted(set(words["train"])))
        _check_names(classes)
        _check_spelling(classes, words["test"], sides["test"])
        number = {name: number for number, name in enumerate(classes)}
        labels = {name: [number[word] for word in each] for name, each in words.items()}
    else:
        labels = {"train": _numbers(sides["train"])}
        used = set(labels["train"])
        if (gap := next(each for each in itertools.count() if each not in used)) <= max(used):
            raise InputError(
                f"no train image has label {gap} and the largest label is {max(used)}: number the classes 0, 1, 2 and "
                "so on without a gap, or name them (a ClassLabel, or names as labels)."
            )
        labels["test"] = _numbers(sides["test"], gap)
        classes = tuple(map(str, range(gap)))
    notes = []
    for name, numbers in labels.items():
        there = set(numbers)
        if absent := [each for label, each in enumerate(classes) if label not in there]:
            notes.append(f"no {name} image of class {few(absent, 3)}")
    return Numbered(classes, labels, notes)


def agreed(names: Mapping[str, Names]) -> Names:
    """The names of classes that all files give; ``None`` if none gives any.

    Raises:
        InputError: two files differ, in names or in their order.
    """
    files = list(names)
    for file in files[1:]:
        one, other = names[files[0]], names[file]
        if one == other:
            continue
        pair = f"{plain(files[0])} and {plain(file)}"
        if one is None or other is None:
            bare = plain(files[0] if one is None else file)
            raise InputError(f"of {pair} {bare} does not name its classes: write both with the same ClassLabel.")
        for label, (here, there) in enumerate(itertools.zip_longest(one, other)):
            if here != there:
                words = [quoted(each) if each is not None else "no class" for each in (here, there)]
                raise InputError(
                    f"{pair} name other classes: label {label} is {words[0]} in the first and {words[1]} in the "
                    "second: write them with the same names in the same order."
                )
    return names[files[0]] if files else None


def alike(name: str) -> str:
    """What two spellings of a class have in common."""
    return "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def spelled_alike(names: Sequence[str]) -> tuple[str, ...]:
    """The first two names that differ only in spelling; () if there are none."""
    known: dict[str, str] = {}
    for name in names:
        twin = known.setdefault(alike(name), name)
        if twin != name and len(name) > 1:  # single letters may be classes in capitals and small
            return twin, name
    return ()


def _check_names(classes: Sequence[str]) -> None:
    """Raises InputError for names that are there twice or hold what cannot be printed."""
    seen = set()
    for name in classes:
        if name in seen:
            raise InputError(f"two classes are named {quoted(name)}: give each a name of its own.")
        seen.add(name)
        if not name.strip() or any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in name):
            raise InputError(f"the class name {quoted(name)} is empty or cannot be shown: rename the class.")


def _check_spelling(classes: Sequence[str], test: Sequence[str], side: Side) -> None:
    """Raises InputError for two training classes that are spelled alike, and for a test class that is no other."""
    if twins := spelled_alike(classes):
        raise InputError(f"the classes {quoted(twins[0])} and {quoted(twins[1])} {SPELLING}: give them one name.")
    known = {alike(name): name for name in classes}
    there = set(classes)
    for row, name in enumerate(test):
        if name not in there:
            twin = known.get(alike(name), "")
            close = f"; {quoted(name)} and {quoted(twin)} {SPELLING}" if twin else ""
            raise InputError(
                f"class {quoted(name)} of the image {side.where(row)} is only on the test side{close}: the "
                f"training side has {few(classes)}; rename the class, or take it away."
            )


def _numbers(side: Side, count: int | None = None) -> list[int]:
    """The labels, if each is a whole number of 0 or more, less than ``count``."""
    found = []
    for row, label in enumerate(side.labels):
        if isinstance(label, bool) or not isinstance(label, int):
            raise InputError(
                f"label {short(repr(label))} of the image {side.where(row)} is not a whole number: number the "
                "classes from 0."
            )
        if label < 0 or (count is not None and label >= count):
            last = "" if count is None else count - 1
            raise InputError(
                f"Label {short(label)} of the image {side.where(row)} is not in 0..{last}: give every image a class "
                "of the train side (some test sets on the hub come without labels, as -1)."
            )
        found.append(label)
    return found


def _words(side: Side) -> list[str]:
    """The labels, if each is a string."""
    found = []
    for row, label in enumerate(side.labels):
        if not isinstance(label, str):
            raise InputError(
                f"label {short(repr(label))} of the image {side.where(row)} is no name, as others are: name all "
                "classes, or number all."
            )
        found.append(label)
    return found
