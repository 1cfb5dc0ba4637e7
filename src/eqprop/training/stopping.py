"""Signals that end a run: the first stops it after the present batch, a second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
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


Handler = Callable[[int, FrameType | None], Any]


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Within, ``handler`` receives the signals. Signals that are ignored stay so; only the main thread has handlers.

    A ``Stopped`` of the handler's ends the block even where Python or a library loses it: see ``_kept``.
    """
    before = {}
    raised: list[Stopped] = []

    def noted(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except Stopped as stop:
            raised.append(stop)
            raise

    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, noted)
    except ValueError:  # not the main thread
        before = {}
    try:
        with _kept(raised, noted) if before else contextlib.nullcontext():
            yield
    finally:
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _kept(raised: Sequence[Stopped], handler: Handler) -> Iterator[None]:
    """Within, no ``Stopped`` is lost.

    A handler may run anywhere. Python prints and drops what is raised in a destructor or in the callback of a weak
    reference: then the signal is sent again, a moment later. Compiled code may raise an error of its own in its place:
    then the block ends with the ``Stopped``.
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
    except Exception as error:
        if raised:
            raise raised[-1] from error
        raise
    finally:
        sys.unraisablehook = before


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
