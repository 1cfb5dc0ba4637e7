"""What was decoded once is stored, under the content of the files that it comes from."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from eqprop import files
from eqprop.errors import InputError
from eqprop.tasks.text import explained, short

LIMIT = 20_000_000_000
"""Bytes of all entries; the least recently used go first."""
PREFIX = "images-"

Entry = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and what else is known, as JSON."""


def cache_folder() -> Path | None:
    """The folder for what can be made again, which exists; ``None`` if no folder can be written.

    ``EQPROP_CACHE``, or else the first that can be written of ``XDG_CACHE_HOME/eqprop``, ``~/.cache/eqprop``, and a
    folder of the user's own among the temporary files.
    """
    if given := os.environ.get("EQPROP_CACHE"):
        return _made(Path(given))
    homes = [Path(home) for home in [os.environ.get("XDG_CACHE_HOME", "")] if os.path.isabs(home)]
    with contextlib.suppress(RuntimeError):  # the user has no entry in the list of users
        homes.append(Path.home() / ".cache")
    return next((made for home in homes if (made := _made(home / "eqprop"))), None) or _temporary()


def _made(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK | os.X_OK) else None
    except (OSError, ValueError):
        return None


def _temporary() -> Path | None:
    """A folder that no other user can read, nor has made: the place is open to all."""
    if not hasattr(os, "getuid"):
        return None
    try:
        folder = Path(tempfile.gettempdir()) / f"eqprop-{os.getuid()}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        about = folder.lstat()
    except OSError:
        return None
    own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077
    return folder if own and os.access(folder, os.W_OK | os.X_OK) else None


def hash_of_file(path: Path) -> str:
    """SHA-256 of the content. Raises InputError if it cannot be read."""
    with explained(f"The file {short(path)} cannot be read ({{}}).", OSError):
        return files.sha256_of(path)


def stored(key: str) -> Entry | None:
    """The entry of ``key``, or ``None`` if there is none that is whole."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        tensors, state = files.load(folder, PREFIX + key)
    except InputError:
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / f"{PREFIX}{key}.json")
    return tensors, state


def store(key: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Keep an entry, if there is a place: without one the next load is only slower."""
    if folder := cache_folder():
        with contextlib.suppress(InputError, OSError):
            files.save(folder, PREFIX + key, tensors, state)
            _evict(folder)


def _evict(folder: Path) -> None:
    """Delete the entries used longest ago, except the last, until all of them take at most ``LIMIT`` bytes."""
    entries = sorted(folder.glob(f"{PREFIX}*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for place, entry in enumerate(entries):
        files = [entry, *folder.glob(f"{entry.stem}-*")]
        total += sum(file.stat().st_size for file in files)
        if place and total > LIMIT:
            for file in files:
                file.unlink(missing_ok=True)
