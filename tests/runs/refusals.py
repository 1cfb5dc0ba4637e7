"""What every refusal must be: a status, one line that names the thing, and nothing changed."""

import contextlib
import io
import os
import re
import shutil
import signal
import stat
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from eqprop.cli import main

LONG = "n" * 300
"""More than a file's name may have."""
HUGE = "9" * 40
"""More than any integer of a machine."""
ODD = (
    *("", " ", "a", "None", "[", "]", "{", "[1", "{a: 1}", "[[1]]", "!!python/name:os.system", "&a [*a]", "1 2"),
    *("$(id)", "`id`", "; ls", "| cat", "a*", "[a-z]", "?", "~", "[red]x[/red]", "$x^2$", "%s", "{}", "{0}"),
    *(
        "\x1b[31m",
        "\a",
        "1\n2",
        "\r",
        "\t",
        "\u202e1",
        "é",
        "数",
        "\U0001f600",
        "\0",
        "1\0",
        "'",
        '"',
        "\\",
        "#",
        "- 1",
    ),
)
"""Words that are no number of any kind."""
FEW_ODD = ("", "a", "[1", "{a: 1}", "$(id)", "*", "\x1b[31m", "1\n2", "\0")
NO_NUMBERS = (
    *FEW_ODD,
    "nan",
    ".nan",
    "NaN",
    "inf",
    ".inf",
    "1e400",
    "-1e400",
    "[1]",
    "0x",
    "1.2.3",
    "1e",
    "true",
    "null",
)
NOT_COUNTS = ("0", "-1", "1.5", HUGE, f"-{HUGE}")
OF_OTHERS = ("PYTEST_", "TORCHINDUCTOR_", "PYTORCH_")
"""Variables that pytest and PyTorch set, some of them as they are imported."""


@dataclass
class Answer:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str


class Slow(BaseException):
    """The command did not end in time."""


def snapshot(folder):
    """Everything in a folder: path -> kind, mode, size, content and time of change."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place, name)
            about = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(about.st_mode) and os.access(path, os.R_OK) else b""
            found[str(path)] = about.st_mode, about.st_mtime_ns if not path.is_dir() else 0, content
    return found


def state():
    """What a command must leave as it was, as others may follow in the same process."""
    return {
        "type": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "environment": {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHERS)},
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "warnings": list(warnings.filters),
        "recursion": sys.getrecursionlimit(),
        "streams": [sys.stdout, sys.stderr],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
    }


def answer(*arguments, seconds=30):
    """Runs a command in this process."""

    def late(number, frame):
        raise Slow(f"{arguments} still runs after {seconds} s")

    before, handler = state(), signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([str(each) for each in arguments])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    after = state()
    for what, value in before.items():
        assert after[what] == value, f"{what} is changed"
    return Answer(status, out.getvalue(), err.getvalue())


def check_line(said, *says):
    """One line that names each of ``says`` and no trace of a program."""
    assert re.fullmatch(r"eqprop: [^\n]+\n", said), said
    for each in says:
        assert each in said, said
    assert "Traceback" not in said
    assert all(character.isprintable() for character in said[:-1]), repr(said)
    for raw in ("<class ", "typing.", "Parser key", "object at 0x", "Errors:"):
        assert raw not in said, said


def refused(arguments, *says, status=2, seconds=30, top=None):
    """Asserts that a command is refused, and returns its line."""
    top = top or Path.cwd().parent
    before = snapshot(top)
    begun = time.monotonic()
    found = answer(*arguments, seconds=seconds)
    said = found.out + found.err
    assert found.status == status, (found.status, said[:2000])
    assert time.monotonic() - begun < seconds
    check_line(found.err, *says)
    assert not found.out, found.out
    after = snapshot(top)
    changed = [each for each in {*before, *after} if before.get(each) != after.get(each) and not aside(each, top)]
    assert not changed, changed
    return found.err


def aside(path, top):
    """Whether a path is in the cache, which data that were read may fill, or is a lock, which names its last holder."""
    return Path(path).is_relative_to(top / "cache") or Path(path).name == ".lock"


def copied(source, target):
    """A copy of a run, for a test to damage."""
    shutil.copytree(source, target, symlinks=True)
    return target


def named(case):
    """An identity for a case, from its words."""
    words = " ".join(map(str, case)) if isinstance(case, list | tuple) else str(case)
    return ascii(words)[1:-1][:70].replace("::", ":")
