"""What a data set was found to be: the inventory that a run keeps, and that later commands compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Self, get_type_hints

from eqprop.checks import Natural, test_of
from eqprop.errors import InputError
from eqprop.tasks.text import few, plain, short


@dataclass(frozen=True)
class Manifest:
    """The inventory of a data set.

    Attributes:
        kind: of data set, e.g. "image folder".
        place: its absolute path, or its name; "" if it is made in a program.
        examples: the number of examples of each side, "train" and "test".
        fingerprints: a hash of the content of each side, which another copy of the same data shares.
        form: of an example, e.g. "8x8 L, 8 bits".
        classes: their names, in the order of the labels; () if there are none.
        files: the number of files used.
        skipped: files that were not used -> the reason.
        notes: what a reader should know, e.g. a class of which the test side has no example.
        more_skipped: the number of files that were not used beyond those in ``skipped``.
    """

    kind: str
    examples: Mapping[str, Natural]
    fingerprints: Mapping[str, str]
    place: str = ""
    form: str = ""
    classes: Sequence[str] = ()
    files: Natural = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    more_skipped: Natural = 0

    def line(self) -> str:
        """The inventory in one line of characters that can be printed."""
        count = ", ".join(f"{count:,} {side}" for side, count in self.examples.items())
        parts = [f"{self.kind} {self.place}".strip(), f"{count} examples"]
        parts += [f"{len(self.classes)} classes"] * bool(self.classes) + [self.form] * bool(self.form)
        parts += [f"{self.files:,} file{'s' * (self.files > 1)}"] * bool(self.files)
        if self.skipped:
            file, reason = next(iter(self.skipped.items()))
            rest = len(self.skipped) - 1 + self.more_skipped
            parts.append(f"skipped {file} ({reason}){f' and {rest:,} more' * bool(rest)}")
        same = {self.fingerprints.get(side, side) for side in ("train", "test")}
        parts += ["the test side is a copy of the train side"] * (len(same) == 1)
        return plain("; ".join([*parts, *self.notes]))

    def differences(self, kept: Manifest, sides: Sequence[str] = ("train", "test")) -> list[str]:
        """What differs from the ``kept`` manifest of a run, for each side that matters; [] if nothing does.

        Where the data lies, and in how many files, makes no difference.
        """
        found = []
        renamed = list(self.classes) != list(kept.classes)
        if renamed:
            found.append(f"the classes are [{few(self.classes, 12)}] and were [{few(kept.classes, 12)}]")
        if self.form != kept.form:
            found.append(f"an example is {self.form or 'unknown'} and was {kept.form or 'unknown'}")
        for side in sides:
            now, then = self.examples.get(side), kept.examples.get(side)
            if now != then:
                found.append(f"there are {now} {side} examples and were {then}")
            elif self.fingerprints.get(side) != kept.fingerprints.get(side) and not renamed:
                found.append(f"the content of the {now} {side} examples is another")
        return found

    def as_dict(self) -> dict[str, Any]:
        """The manifest as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: object) -> Self:
        """The manifest that ``as_dict`` gave.

        Args:
            record: as JSON gives it.

        Raises:
            InputError: it is not one.
        """
        if not isinstance(record, Mapping):
            raise InputError(f"The inventory of the data is {type(record).__name__}, no JSON object: it is damaged.")
        known = {each.name: each for each in fields(cls)}
        needed = {name for name, each in known.items() if each.default is each.default_factory is MISSING}
        if wrong := sorted(map(str, needed - set(record) | set(record) - set(known))):
            raise InputError(f"The inventory of the data lacks or should not have {few(wrong)}: it is damaged.")
        kinds = get_type_hints(cls, include_extras=True)
        for name, value in record.items():
            if not test_of(kinds[name])(value):
                raise InputError(f"{name} of the inventory of the data is {short(repr(value))}: it is damaged.")
        values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in record.items()}
        return cls(**values)
