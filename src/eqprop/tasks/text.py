"""Names and errors of others in one printable line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from eqprop.errors import LONGEST, InputError, explained as explained, plain as plain


def short(text: object) -> str:
    """The beginning of ``plain(text)``."""
    line = plain(text)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def quoted(name: object) -> str:
    """A name in a message."""
    return f"'{short(name)}'"


def few(names: Iterable[object], most: int = 5) -> str:
    """The first of ``names``, quoted, and how many more there are."""
    shown = [quoted(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


@contextlib.contextmanager
def about(place: str) -> Iterator[None]:
    """Puts ``place`` before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{short(place)}: {error}") from error
