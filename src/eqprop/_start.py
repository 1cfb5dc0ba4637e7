"""The first and the last milliseconds of a command: signals, and ``--version`` before the slow imports."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_taken: list[int] = []
"""The signals that ``begin`` has handled, in a process that runs the command line."""


def is_command() -> bool:
    """Whether this process runs the command line: as ``eqprop``, or as ``python -m eqprop`` or a module of it."""
    first = sys.argv[0] if sys.argv else ""
    if first == "-m":  # while Python looks for the module, it has no other name
        words = sys.orig_argv
        return "-m" in words and words[words.index("-m") + 1 :][:1] in (["eqprop"], ["eqprop.cli"], ["eqprop.__main__"])
    return os.path.basename(first) in ("eqprop", "eqprop.exe")


def open_streams() -> None:
    """Opens standard streams that are closed: else the next files of the process would take their places."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def begin() -> None:
    """Ends quietly at a signal until ``eqprop.cli.main`` takes over; answers ``--version`` at once."""
    open_streams()
    words = sys.orig_argv[1:]
    if words and words[-1] == "--version":
        from eqprop._version import __version__

        with contextlib.suppress(OSError):
            os.write(1, f"eqprop {__version__}\n".encode())
        os._exit(0)

    def quit_quietly(number: int, frame: FrameType | None) -> Any:
        with contextlib.suppress(OSError):
            os.write(2, b"eqprop: interrupted.\n")
        os._exit(128 + number)

    with contextlib.suppress(ValueError):  # not the main thread
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, quit_quietly)
                _taken.append(number)


def end() -> None:
    """Ignores signals from now on: the command is over, and Python would end by them while it ends."""
    for number in _taken:
        signal.signal(number, signal.SIG_IGN)
