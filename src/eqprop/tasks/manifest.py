"""What a data set was found to be: the inventory that a run keeps, and that later commands compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


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
    """

    kind: str
    examples: Mapping[str, int]
    fingerprints: Mapping[str, str]
    place: str = ""
    form: str = ""
    classes: Sequence[str] = ()
    files: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def line(self) -> str:
        """The inventory in one line."""
        count = ", ".join(f"{count:,} {side}" for side, count in self.examples.items())
        parts = [f"{self.kind} {self.place}".strip(), f"{count} examples"]
        parts += [f"{len(self.classes)} classes"] * bool(self.classes) + [self.form] * bool(self.form)
        parts += [f"{self.files:,} files"] * bool(self.files)
        if self.skipped:
            file, reason = next(iter(self.skipped.items()))
            more = f" and {len(self.skipped) - 1} more" if len(self.skipped) > 1 else ""
            parts.append(f"skipped {file!r} ({reason}){more}")
        return "; ".join([*parts, *self.notes])

    def differences(self, kept: Manifest, sides: Sequence[str] = ("train", "test")) -> list[str]:
        """What differs from the ``kept`` manifest of a run, for each side that matters; [] if nothing does.

        Where the data lies, and in how many files, makes no difference.
        """
        found = []
        if list(self.classes) != list(kept.classes):
            found.append(f"the classes are {_few(self.classes)} and were {_few(kept.classes)}")
        if self.form != kept.form:
            found.append(f"an example is {self.form or 'unknown'} and was {kept.form or 'unknown'}")
        for side in sides:
            now, then = self.examples.get(side), kept.examples.get(side)
            if now != then:
                found.append(f"there are {now} {side} examples and were {then}")
            elif self.fingerprints.get(side) != kept.fingerprints.get(side):
                found.append(f"the content of the {now} {side} examples is another")
        return found

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return f"[{shown}{', ...' if len(names) > 12 else ''}]"
