"""A data set of images that was found and is not decoded yet, and the files in it that are not used."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eqprop.errors import InputError
from eqprop.tasks.text import explained, plain, short

JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"})
"""Names, in small letters, of what programs leave in folders of images."""
KEPT = 1000
"""Names of skipped files that are kept."""

Names = tuple[str, ...] | None
"""The names of classes in the order of the labels, where a file gives them."""


@dataclass(frozen=True)
class Side:
    """One side of a data set.

    Attributes:
        labels: of each image, as the data has them: whole numbers, names of classes, or what does not fit.
        names: the names of the classes by the file that gives or lacks them.
        contents: opens the encoded images, in this order.
        where: from an image's row to its name.
    """

    labels: Sequence[object]
    names: Mapping[str, Names]
    contents: Callable[[], Iterator[bytes]]
    where: Callable[[int], str]


@dataclass
class Skipped:
    """Files that are not used, with the reason of each.

    Attributes:
        reasons: by name, of the first ``KEPT``.
        more: the number of the others.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    more: int = 0

    def add(self, name: str, reason: str) -> None:
        if len(self.reasons) < KEPT:
            self.reasons[plain(name)] = reason
        else:
            self.more += 1

    def sorted(self) -> dict[str, str]:
        """The reasons, first of what may be missed."""
        return dict(sorted(self.reasons.items(), key=lambda each: each[1] in ("hidden", "of neither side")))


@dataclass(frozen=True)
class Found:
    """A data set.

    Attributes:
        kind, place: as in ``Manifest``.
        files: of each side, by name.
        side: opens a side.
        skipped: the files that are not used.
    """

    kind: str
    place: str
    files: Mapping[str, Mapping[str, Path]]
    side: Callable[[str], Side]
    skipped: Skipped = field(default_factory=Skipped)


@dataclass(frozen=True)
class Root:
    """A folder that is searched, of which nothing outside is read.

    Attributes:
        folder: without links.
        follow_links: whether links may lead out of it.
        skipped: where files that are not used are noted.
    """

    folder: Path
    follow_links: bool = False
    skipped: Skipped = field(default_factory=Skipped)

    def entries(self, name: str = "") -> list[str]:
        """The names in a folder in order, without hidden ones and those that programs leave."""
        with explained(f"{self._shown(name)} cannot be read ({{}}): change its permissions or its name.", OSError):
            children = sorted(os.listdir(self.folder / name))
        kept = []
        for child in children:
            if child.startswith(".") or child.lower() in JUNK:
                self.skipped.add(f"{name}/{child}" if name else child, "hidden" if child[0] == "." else "no image")
            else:
                kept.append(child)
        return kept

    def look(self, name: str) -> os.stat_result:
        """What lies at ``name``, or where a link there leads.

        Raises:
            InputError: it is a link that leads nowhere or, unless links are followed, out of the folder.
        """
        path = self.folder / name
        with explained(f"{self._shown(name)} cannot be read ({{}}): repair it or take it away.", OSError):
            if not self.follow_links and self.is_link(name) and not self.holds(target := os.path.realpath(path)):
                raise InputError(
                    f"{self._shown(name)} is a link out of the data folder, to {short(target)}: copy the data, or "
                    "allow such links by --follow_links true."
                )
            return path.stat()

    def is_link(self, name: str) -> bool:
        """Whether a link lies at ``name``. Raises InputError if this cannot be told."""
        with explained(f"{self._shown(name)} cannot be read ({{}}): repair it or take it away.", OSError):
            return stat.S_ISLNK(os.lstat(self.folder / name).st_mode)

    def is_folder(self, name: str) -> bool:
        """Whether a folder lies at ``name``. Raises as ``look`` does."""
        return stat.S_ISDIR(self.look(name).st_mode)

    def _shown(self, name: str) -> str:
        return short(name) if name else "the folder"

    def holds(self, path: str) -> bool:
        """Whether ``path``, without links, is the folder or in it."""
        return within(path, str(self.folder))


def within(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or in it; both without links."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def no_file(mode: int) -> str | None:
    """Why that which has this mode cannot be read as a file; ``None`` if it can."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"{kinds.get(stat.S_IFMT(mode), 'a device')}, no file"
