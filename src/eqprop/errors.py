"""Errors. Every message names the thing, its value, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class EqpropError(Exception):
    """The base of this package's errors. The command line prints them as one line."""


class InputError(EqpropError, ValueError):
    """An argument does not fit: a name, a shape, a path, a number."""


class NotSettledError(EqpropError, RuntimeError):
    """A network did not settle, or a value is not finite."""


class NotSettledWarning(UserWarning):
    """A phase ended before the network settled; the gradient may be wrong."""


class DeadUpdatesWarning(UserWarning):
    """Most updates of weights in devices are below half a pulse."""


@contextlib.contextmanager
def needing_extra(what: str) -> Iterator[None]:
    """Within, a package that is not installed is an InputError that says how to install it.

    Args:
        what: needs it; the beginning of the message.
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
