"""Names and errors of others in one printable line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from eqprop.errors import InputError

LONGEST = 400
"""Characters of an error's reason, and of a value in a message."""


def plain(text: object) -> str:
    """``text`` with an escape for each character that cannot be printed: a line break, a broken byte of a name."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


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


def reason(error: BaseException) -> str:
    """What ``error`` says, in one line."""
    said = error.strerror if isinstance(error, OSError) else None
    return short(" ".join((said or str(error)).split())) or type(error).__name__


@contextlib.contextmanager
def about(place: str) -> Iterator[None]:
    """Puts ``place`` before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{short(place)}: {error}") from error


@contextlib.contextmanager
def explained(message: str, *kinds: type[BaseException]) -> Iterator[None]:
    """Raises InputError with ``message`` for an error of these kinds; ``{}`` in it is the reason."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        raise InputError(message.replace("{}", reason(error))) from error
