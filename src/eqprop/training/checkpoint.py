"""Checkpoints that a crash cannot damage, and that contain no code: safetensors for tensors, JSON for the rest.

``<name>.json`` names its tensor file. It is replaced last, in one step: if the process is killed, the checkpoint on
disk is completely the old one or completely the new one.
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

from eqprop.errors import InputError

FORMAT = 1
DAMAGED = "The checkpoint file {} is missing or damaged ({{}}): choose another checkpoint or start the run again."


def make_folder(folder: Path, exist_ok: bool = False) -> None:
    """Makes a folder and its parents. Raises InputError if this fails."""
    with explained(f"Cannot make the folder {str(folder)!r} ({{}}): --out names another.", OSError):
        folder.mkdir(parents=True, exist_ok=exist_ok)


def write_text_atomic(path: Path, text: str) -> None:
    """Replace the file at ``path`` by ``text`` (UTF-8) in one step. Raises OSError."""
    with _replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Replace the file at ``path`` by ``data`` in one step. Raises OSError."""
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


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
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(file) as temporary:
            temporary.touch()  # with the mode that the umask and the folder give; safetensors gives its own
            mode = temporary.stat().st_mode
            save_file(copies, temporary)
            temporary.chmod(stat.S_IMODE(mode))
        about = {"file": file.name, "bytes": file.stat().st_size, "sha256": _sha256(file)}
        write_text_atomic(path, json.dumps({"format": FORMAT, "tensors": about, "state": state}, indent=1))
    _delete_unreferenced(file, name)


def load(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state that ``save`` wrote.

    Raises InputError for a checkpoint that is missing, damaged, or written by a newer version.
    """
    path = _commit_file(folder, name)
    missing = f"There is no checkpoint {path}: name the folder and the checkpoint of a run that has saved one."
    with (
        explained(DAMAGED.format(path), OSError, ValueError, KeyError, TypeError),
        explained(missing, FileNotFoundError, NotADirectoryError),
    ):
        record = json.loads(path.read_text(encoding="utf-8"))
        newer = int(record["format"]) > FORMAT
        if not newer:
            about, state = record["tensors"], record["state"]
            file, written = path.with_name(about["file"]), (about["bytes"], about["sha256"])
    if newer:
        raise InputError(
            f"The checkpoint {path} has format {record['format']} and this version of eqprop reads {FORMAT}: "
            "upgrade eqprop."
        )
    with explained(DAMAGED.format(file), OSError, SafetensorError):
        if (file.stat().st_size, _sha256(file)) != written:
            raise OSError("its content is not what was saved")
        # Copied out of the mapped file, where tensors have unaligned addresses: kernels would round differently,
        # and a resumed run would differ in the last bit.
        return {key: tensor.clone() for key, tensor in load_file(file).items()}, state


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimiser as named tensors, and as JSON that refers to them.

    Raises InputError for a value that is neither a tensor nor plain data.
    """
    tensors: dict[str, Tensor] = {}
    state = _encode(optimizer.state_dict(), "optimizer", tensors)
    return tensors, {"kind": type(optimizer).__name__, "state": state}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Give ``optimizer`` the state that ``flatten_optimizer`` took. ``tensors`` may hold others too.

    Raises InputError when the state belongs to another kind of optimiser or to other parameters.
    """
    misfit = (
        f"The saved optimiser does not fit {type(optimizer).__name__} ({{}}): use the "
        "optimiser and the model of the checkpoint."
    )
    with explained(misfit, KeyError, TypeError, ValueError):
        if state["kind"] != type(optimizer).__name__:  # PyTorch would accept it, and fail in a later step
            raise ValueError(f"it is of {state['kind']}")
        optimizer.load_state_dict(_decode(state["state"], tensors))


def rng_tensors() -> dict[str, Tensor]:
    """The state of PyTorch's global generators, one uint8 tensor each: ``rng.cpu``, ``rng.cuda.0``, ..."""
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"rng.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_rng(tensors: Mapping[str, Tensor]) -> None:
    """Set the global generators that exist here to what ``rng_tensors`` took; other ``tensors`` are ignored.

    Raises InputError when ``rng.cpu`` is missing or is not such a state.
    """
    lost = "The checkpoint holds no state of the random generators ({}): start the run again."
    with explained(lost, KeyError, RuntimeError, TypeError):
        torch.set_rng_state(tensors["rng.cpu"])
        for device in range(torch.cuda.device_count()):
            if (key := f"rng.cuda.{device}") in tensors:
                torch.cuda.set_rng_state(tensors[key], device)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON that ``_decode`` inverts exactly; its tensors are added to ``tensors``."""
    match value:
        case Tensor():
            tensors[name] = value
            return {"tensor": name}
        case dict():
            return {"dict": [[key, _encode(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
        case list() | tuple():
            items = [_encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        case None | bool() | int() | float() | str():
            return value
    raise InputError(f"{name} is {value!r}: a checkpoint holds tensors and plain data: use another optimiser.")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"dict": items}:
            return {key: _decode(item, tensors) for key, item in items}
        case {"tuple": items}:
            return tuple(_decode(item, tensors) for item in items)
        case list():
            return [_decode(item, tensors) for item in value]
    return value


@contextlib.contextmanager
def explained(message: str, *kinds: type[Exception]) -> Iterator[None]:
    """Raises InputError with ``message`` for an error of these kinds; ``{}`` in it is the error's first line."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        raise InputError(message.replace("{}", first_line(error))) from error


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
