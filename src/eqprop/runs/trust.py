"""What this user has made on this machine: files whose content may name code to run and data to read."""

from __future__ import annotations

import contextlib
from pathlib import Path

from eqprop.files import sha256
from eqprop.tasks.cache import cache_folder


def trust(content: bytes) -> None:
    """Remembers that this user has made a file of this content."""
    if (folder := _folder()) is not None:
        with contextlib.suppress(OSError):  # it is then asked for
            folder.mkdir(parents=True, exist_ok=True)
            (folder / sha256(content)).touch()


def trusted(content: bytes) -> bool:
    """Whether this user has made a file of this content."""
    folder = _folder()
    with contextlib.suppress(OSError):
        return folder is not None and (folder / sha256(content)).is_file()
    return False


def _folder() -> Path | None:
    cache = cache_folder()
    return None if cache is None else cache / "made-here"
