"""The command line: ``eqprop train | resume | evaluate | predict | check | report | compare | ...``."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from eqprop._start import end, open_streams
from eqprop.errors import EqpropError, InputError, needing_extra, one_line, plain
from eqprop.training.stopping import Stopped, at_once, handled

USAGE = """usage: eqprop COMMAND ...

  train [RECIPE] [--option value ...]   train; without a recipe, on the embedded handwritten digits
  resume RUN [--epochs N]               continue an interrupted run, to the same bits; or train a run longer
  evaluate RUN [--checkpoint last]      test metrics of a run's best (or last) weights; --settled 1e-4: fully settled
  predict RUN [PATH ...]                CSV with an answer for each example in the files (default: the run's test set)
  check [RUN or RECIPE]                 compare its gradients with the exact one: tables and pictures
  report RUN [--live]                   a page about a run: RUN/report.html; --live: served to this machine
  compare RUN RUN ...                   a page that compares runs: curves, settings, significance over seeds
  reproduce [RESULT]                    run a published result from end to end; without a name, list them
  recipes                               list the recipes
  completion SHELL                      a script that completes these words in bash, zsh or tcsh

RECIPE is a name, or your own as file.py:function. `eqprop train RECIPE --help` lists its options.
Signals: the first Ctrl-C or SIGTERM saves and stops after the present batch (status 130, 143)."""

COMMANDS = {
    "train": "training:train",
    "resume": "training:resume",
    "evaluate": "using:evaluate",
    "predict": "using:predict",
    "check": "using:check",
    "report": "reporting:report",
    "compare": "reporting:compare",
    "reproduce": "reproducing:reproduce",
    "recipes": "using:recipes",
    "completion": "parsing:completion",
}
WRONG = 2
"""The exit status for input that cannot be used."""
LONGEST = 1200
"""Characters of a message."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: of the command line; default: the process's own.

    Returns:
        The exit status: 0; 2 for an error, which is told in one line; 128 + n for a run that signal n has stopped.
    """
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    open_streams()
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # terminals of any encoding
    sys.stdout, sys.stderr = map(Surviving, streams)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of homes that cannot be written
    torch = sys.modules.get("torch")
    before = (torch.get_default_dtype(), torch.get_num_threads()) if torch else None
    try:
        with handled(at_once), warnings.catch_warnings():
            warnings.showwarning = warned  # type: ignore[assignment]
            return _run(command, rest)
    except (Stopped, KeyboardInterrupt) as stop:
        tell("interrupted.")
        return stop.status if isinstance(stop, Stopped) else 130
    except EqpropError as error:
        if os.environ.get("EQPROP_TRACEBACK"):
            raise
        return wrong(str(error))
    except OSError as error:
        place = repr(str(error.filename)) if error.filename else "a file"
        return wrong(f"Cannot use {place} ({error.strerror or error}): name another place, or make room and access.")
    except (Exception, RecursionError) as error:
        if os.environ.get("EQPROP_TRACEBACK"):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return wrong(
            f"{type(error).__name__}: {one_line(error)} ({os.path.basename(frame.filename)}, line {frame.lineno}; "
            "EQPROP_TRACEBACK=1 shows all of it)"
        )
    finally:
        if torch and before:  # a command may have set others
            torch.set_default_dtype(before[0])
            torch.set_num_threads(before[1])
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        end()


def _run(command: str, arguments: list[str]) -> int:
    if command in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if command == "--version":
        from eqprop._version import __version__

        print(f"eqprop {__version__}")
        return 0
    if command not in COMMANDS:
        raise InputError(f"There is no command {command!r}: use one of {', '.join(COMMANDS)}.")
    module, function = COMMANDS[command].split(":")
    with needing_extra("The command line"):
        found = getattr(importlib.import_module(f"eqprop.cli.{module}"), function)
    status: int = found(arguments)
    return status


def wrong(text: str) -> int:
    """Tells of an error, in one line, without the middle of a long one. Returns its exit status."""
    line = " ".join(text.split())
    tell(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}")
    return WRONG


def warned(message: Warning | str, *_: object) -> None:
    """Prints a warning as ``tell`` does, in place of Python's two lines with a place in the code."""
    tell(f"warning: {one_line(message) if isinstance(message, Warning) else message}")


def tell(text: str) -> None:
    """Prints a line to the standard error stream, with the rank of a process that is not the first."""
    rank = next((os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), "0")
    shown = plain(text)
    with contextlib.suppress(OSError, ValueError):
        print(f"eqprop: {shown}" if rank == "0" else f"eqprop (process {rank}): {shown}", file=sys.stderr, flush=True)


class Surviving:
    """A text stream of which a failure (a closed pipe, a full disk) is no error: what follows is not printed."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._tried(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._tried(self.stream.flush)

    def _tried(self, do: Callable[[], Any]) -> None:
        try:
            do()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.stream.fileno())  # so that Python can end quietly
                os.close(null)
