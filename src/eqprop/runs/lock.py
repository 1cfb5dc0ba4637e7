"""A lock on a folder, which ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from eqprop.errors import InputError
from eqprop.files import explained

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, no other process has ``folder``.

    Raises:
        InputError: another process has it, or the folder cannot be written.
    """
    unwritable = f"Cannot lock the run's folder {str(folder)!r} ({{}}): make it writable."
    with explained(unwritable, OSError):
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        if fcntl is not None:
            try:
                # A record lock: unlike those of flock(2), children of this process do not inherit it.
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                raise InputError(
                    f"The run {str(folder)!r} is being trained by {holder or 'another process'}: wait for it, or "
                    "stop it first."
                ) from error
        with explained(f"Cannot write {folder / NAME} ({{}}): make room.", OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)  # so that nobody takes a later process of this number for the holder
    finally:
        os.close(descriptor)


def holder(folder: Path) -> str:
    """The process of this machine that has ``folder``, as text; "" if there is none.

    It looks for the process without touching the lock: a process that closes the file of its own lock loses it. So the
    process that has the lock must not ask.
    """
    path = folder / NAME
    with contextlib.suppress(OSError, ValueError):
        if fcntl is None or not path.is_file() or path.is_symlink():
            return ""
        text = path.read_bytes()[:200].decode(errors="replace").strip()
        process, _, host = text.removeprefix("process ").partition(" on ")
        if host == socket.gethostname():
            with contextlib.suppress(PermissionError):  # of another user: it is there
                os.kill(int(process), 0)  # only asks
            return text
    return ""
