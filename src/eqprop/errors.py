"""Errors. Every message names the thing, its value, and what to do."""

from typing import Any


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
