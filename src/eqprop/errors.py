"""Errors. Every message names the thing, its value, and what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

LONGEST = 400
"""Characters of an error's reason."""


class EqpropError(Exception):
    """The base of this package's errors. The command line prints them as one line."""


class InputError(EqpropError, ValueError):
    """An argument does not fit: a name, a shape, a path, a number.

    Attributes:
        argument: the name of the parameter that it was given for, and its value; ``None``: it is no single one.
    """

    argument: tuple[str, Any] | None = None


class NotSettledError(EqpropError, RuntimeError):
    """A network did not settle, or a value is not finite."""


class NotSettledWarning(UserWarning):
    """A phase ended before the network settled; the gradient may be wrong."""


class DeadUpdatesWarning(UserWarning):
    """Most updates of weights in devices are below half a pulse."""


@contextlib.contextmanager
def needing_extra(what: str) -> Iterator[None]:
    """A context in which a package that is not installed is an InputError that says how to install it.

    Args:
        what: needs the package; the beginning of the message.

    Raises:
        InputError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "eqprop":
            raise
        raise InputError(
            f"{what} needs the package {package!r}: install it with `pip install 'eqprop[cli]'`."
        ) from error


@contextlib.contextmanager
def explained(message: str, *kinds: type[BaseException], wrap: bool = False) -> Iterator[None]:
    """A context in which errors of these kinds become InputErrors.

    Args:
        message: theirs; ``{}`` in it is the error's text, in one line.
        kinds: of errors.
        wrap: whether this includes InputErrors, which are explained already.

    Raises:
        InputError: an error of these kinds was raised.
    """
    try:
        yield
    except kinds as error:
        if isinstance(error, InputError) and not wrap:
            raise
        raise InputError(message.replace("{}", one_line(error))) from error


def one_line(error: BaseException) -> str:
    """The text of an error in one line, its first ``LONGEST`` characters.

    Args:
        error: any; of an OSError it is the reason alone.
    """
    try:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    except Exception:  # a class of a user's own
        text = ""
    line = plain(" ".join(re.sub(r"<class '([\w.]+)'>", r"\1", text).split())) or type(error).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def plain(text: object) -> str:
    """The text with an escape for each character that cannot be printed.

    Args:
        text: any; a line break or a broken byte of a name, for example, cannot be printed.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
