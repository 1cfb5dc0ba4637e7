"""What can go wrong, as a user meets it: every message names the thing, its value, and the way out."""


class EqpropError(Exception):
    """Base of the errors that this package raises on purpose. The command line prints them as one line."""


class InputError(EqpropError, ValueError):
    """Something handed in does not fit: a name, a shape, a path, a number."""


class NotSettledError(EqpropError, RuntimeError):
    """A network did not come to rest, or a value stopped being finite."""
