"""The first milliseconds of a command, before the slow imports: signals and ``--version``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def is_command() -> bool:
    """Whether this process runs the command line: as ``eqprop``, or as ``python -m eqprop``."""
    first = sys.argv[0] if sys.argv else ""
    if first == "-m":  # while Python looks for the module, it has no other name
        words = sys.orig_argv
        return "-m" in words and words[words.index("-m") + 1 :][:1] in (["eqprop"], ["eqprop.cli"])
    return os.path.basename(first) in ("eqprop", "eqprop.exe")


def begin() -> None:
    """Ends quietly at a signal until ``eqprop.cli.main`` takes over; answers ``--version`` at once."""
    words = sys.orig_argv[1:]
    if words and words[-1] == "--version":
        from importlib.metadata import version

        print(f"eqprop {version('eqprop')}", flush=True)
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
