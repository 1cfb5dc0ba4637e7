"""Files that a crash cannot damage, and that contain no code: safetensors for tensors, JSON for the rest.

``<name>.json`` names its tensor file. It is replaced last, in one step: if the process is killed, what is on disk is
completely the old state or completely the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from eqprop.errors import InputError, explained as explained, one_line as one_line

FORMAT = 2
DAMAGED = "The checkpoint file {} is missing or damaged ({{}}): choose another checkpoint or start the run again."


def make_folder(folder: Path, exist_ok: bool = False) -> None:
    """Makes a folder and its parents. Raises InputError if this fails."""
    with explained(f"Cannot make the folder {str(folder)!r} ({{}}): --out names another.", OSError):
        folder.mkdir(parents=True, exist_ok=exist_ok)


def write_text_atomic(path: Path, text: str) -> None:
    """Replace the file at ``path`` by ``text`` (UTF-8) in one step. Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Replace the file at ``path`` by ``data`` in one step. Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def sealed(content: Mapping[str, Any]) -> str:
    """``content`` as JSON with a checksum, which ``unsealed`` compares."""
    return json.dumps({"sha256": _seal(content), **content}, indent=1)


def unsealed(text: bytes, path: Path, newest: int) -> dict[str, Any]:
    """The content that ``sealed`` wrote.

    Args:
        text: of the file.
        path: of the file, for messages.
        newest: the newest "format" of such a file that is understood.

    Raises:
        InputError: it is damaged, was changed by hand, or has another format.
    """
    damaged = f"{path} is damaged ({{}}): restore it, or train again."
    with explained(damaged, ValueError, RecursionError):
        content = json.loads(text.decode())
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (it holds a {type(content).__name__}): restore it, or train again.")
    found = content.get("format")
    if type(found) is int and found > newest:
        raise InputError(f"{path} has format {found} and this version of eqprop reads {newest}: upgrade eqprop.")
    if type(found) is not int or found != newest:
        raise InputError(f"{path} is not of format {newest}, but an older version's, or damaged: train again.")
    if content.pop("sha256", None) != _seal(content):
        raise InputError(
            f"{path} is damaged, or was changed by hand: restore it; `eqprop resume RUN --epochs N` trains longer."
        )
    return content


def _seal(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())


def sha256(content: bytes) -> str:
    """The SHA-256 of ``content``, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular(path: Path) -> bytes:
    """The content of a file. Raises InputError if it cannot be read, or is a pipe, a device or a folder."""
    with explained(f"Cannot read {path} ({{}}): restore it.", OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is not a regular file: restore it.")
        return path.read_bytes()


def save(folder: Path, name: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write the checkpoint ``name`` in ``folder``, replacing the one before.

    Tensors may be on any device, of any strides, and may share memory. ``state`` is loaded as JSON gives it: tuples
    as lists, keys as strings. Raises InputError if ``state`` is not JSON, or if the files cannot be written; the
    checkpoint before is then still valid.
    """
    path = _commit_file(folder, name)
    with explained(f"The state of the checkpoint {path} is not JSON: {{}}.", TypeError, ValueError):
        json.dumps(state)
    # A copy of each: safetensors refuses tensors that share memory or are not contiguous.
    copies = {
        key: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, tensor in tensors.items()
    }
    file = path.with_name(f"{name}-{secrets.token_hex(8)}.safetensors")
    unwritten = f"Cannot write the checkpoint {path} ({{}}): make room, or choose a folder that can be written."
    with explained(unwritten, OSError, SafetensorError):  # safetensors reports a full disk in its own way
        with replacing(file) as temporary:
            temporary.touch()  # with the mode that the umask and the folder give; safetensors gives its own
            mode = temporary.stat().st_mode
            save_file(copies, temporary)
            temporary.chmod(stat.S_IMODE(mode))
        about = {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)}
        write_text_atomic(path, sealed({"format": FORMAT, "tensors": about, "state": state}))
    _delete_unreferenced(file, name)


def load(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state that ``save`` wrote.

    Raises InputError for a checkpoint that is missing, damaged, or written by a newer version.
    """
    path = _commit_file(folder, name)
    missing = f"There is no checkpoint {path}: name the folder and the checkpoint of a run that has saved one."
    if not os.path.lexists(path):
        raise InputError(missing)
    record = unsealed(read_regular(path), path, FORMAT)
    with explained(DAMAGED.format(path), KeyError, TypeError, ValueError, wrap=True):
        about, state = record["tensors"], record["state"]
        file, written = path.with_name(about["file"]), (about["bytes"], about["sha256"])
        if not isinstance(state, dict) or file.parent != path.parent:
            raise ValueError("it names no state of its own")
    with explained(DAMAGED.format(file), OSError, SafetensorError, ValueError, wrap=True):
        if not stat.S_ISREG(file.stat().st_mode) or (file.stat().st_size, sha256_of(file)) != written:
            raise OSError("its content is not what was saved")
        # Copied out of the mapped file, where tensors have unaligned addresses: kernels would round differently,
        # and a resumed run would differ in the last bit.
        return {key: tensor.clone() for key, tensor in load_file(file).items()}, state


def load_state(folder: Path, name: str) -> dict[str, Any]:
    """The state of a checkpoint that ``save`` wrote, without its tensors. Raises InputError as ``load`` does."""
    path = _commit_file(folder, name)
    state = unsealed(read_regular(path), path, FORMAT).get("state")
    if not isinstance(state, dict):
        raise InputError(f"{path} is damaged (it holds no state): choose another checkpoint.")
    return state


def refuse_others(path: Path, begins: bytes) -> None:
    """Raises OSError unless a file can be at ``path``, and one that is there begins in this way.

    So a result replaces an earlier one, and nothing else that a user has.
    """
    if not path.parent.is_dir():
        raise OSError("there is no such folder")
    if os.path.lexists(path) and not path.is_file():
        raise OSError("it is no file")
    if path.exists():
        with path.open("rb") as file:
            head = file.read(len(begins))
        if head and head.lower() != begins.lower():
            raise OSError("it is a file of another kind, which would be lost")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which replaces ``path`` when it is on the disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if hasattr(os, "O_DIRECTORY"):  # on Windows a folder cannot be opened to be flushed
        _flush(path.parent, os.O_RDONLY)


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _commit_file(folder: Path, name: str) -> Path:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"The checkpoint name {name!r} must be letters, digits, '_', '-' and '.'.")
    return Path(folder) / f"{name}.json"


def _delete_unreferenced(kept: Path, name: str) -> None:
    """Remove the files of earlier saves of this name, finished or killed; files of other names stay."""
    of_name = re.escape(name)
    stale = re.compile(
        rf"{of_name}-[0-9a-f]{{16}}\.safetensors"
        rf"|\.{of_name}(-[0-9a-f]{{16}}\.safetensors|\.json)\.[0-9a-f]{{8}}\.tmp"
    )
    for path in kept.parent.iterdir():
        if path != kept and stale.fullmatch(path.name):
            with contextlib.suppress(OSError):  # the new checkpoint is complete: an old file costs only space
                path.unlink()
