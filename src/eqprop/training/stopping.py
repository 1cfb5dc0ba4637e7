"""Signals that end a run: the first stops it after the present batch, a second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Ctrl-C; schedulers and containers; a closed terminal; SLURM before a time limit."""
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
ASKED = "eqprop: stopping after this batch, and saving; again to stop now\n"


class Stopped(BaseException):
    """A signal ended the process at once. ``status``: the exit status, 128 + its number."""

    def __init__(self, number: int):
        super().__init__(number)
        self.status = 128 + number


class Stop:
    """Whether a signal has asked to stop: ``number`` is the signal's, 0 before."""

    number: int = 0


def at_once(number: int, frame: FrameType | None) -> None:
    """A handler that ends what runs with ``Stopped``."""
    raise Stopped(number)


@contextlib.contextmanager
def _raised_again(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Within, a ``Stopped`` that Python drops is raised again, a moment later.

    Python drops what is raised in a destructor or in the callback of a weak reference, and a handler may run there.
    """
    before = sys.unraisablehook

    def again(number: int) -> None:
        if signal.getsignal(number) is handler:
            os.kill(os.getpid(), number)

    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, Stopped):
            later = threading.Timer(0.01, again, [unraisable.exc_value.status - 128])
            later.daemon = True
            later.start()
        else:
            before(unraisable)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Within, ``handler`` receives the signals. Signals that are ignored stay so; only the main thread has handlers."""
    before = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    except ValueError:  # not the main thread
        before = {}
    try:
        with _raised_again(handler):
            yield
    finally:
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)


@contextlib.contextmanager
def after_this_batch(say: bool = True) -> Iterator[Stop]:
    """The first signal is noted, and said on the standard error stream if ``say``; a second raises ``Stopped``."""
    stop = Stop()

    def notice(number: int, frame: FrameType | None) -> None:
        if stop.number:
            raise Stopped(number)
        stop.number = number
        if say:
            with contextlib.suppress(OSError):
                os.write(2, ASKED.encode())  # not print: a handler may run in the middle of one

    with handled(notice):
        yield stop
