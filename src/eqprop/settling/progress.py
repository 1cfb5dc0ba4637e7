"""Signs of life from long phases: what listens hears of each sweep. Nothing that is computed depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[], None]] = []


def swept() -> None:
    """A solver tells that it has made a sweep."""
    for listener in _listeners:
        listener()


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """Within, ``listener`` is called after each sweep of any solver of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
