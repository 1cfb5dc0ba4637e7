"""Files of tables and arrays: found and opened so that nothing is executed, and nothing but plain files is read."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch

from eqprop.draws import generator_for
from eqprop.errors import InputError
from eqprop.tasks.text import explained

SIDES = ("train", "test")
ARRAY_FILES = (".npz", ".npy", ".safetensors")


def shown(value: object) -> str:
    """A name or a value from a file, for a message of one line."""
    return shorten(repr(value), 80, placeholder=" ...'")


def plain_file(path: Path, within: Path | None = None) -> Path:
    """``path``, if it is a file.

    Args:
        path: of the file.
        within: the folder that a link may not leave; ``None``: a link may lead anywhere.

    Raises:
        InputError: it is missing, a folder, a pipe or a device, or a link out of the folder.
    """
    with explained(f"There is no file {shown(str(path))} ({{}}): check the path.", OSError, ValueError):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InputError(f"{shown(str(path))} is {kind}, not a file: give the path of a file.")
    if within is not None and not path.resolve().is_relative_to(within.resolve()):
        raise InputError(
            f"{shown(str(path))} is a link out of its folder, to {shown(str(path.resolve()))}: copy the file there, or "
            "allow it with --follow_links true."
        )
    return path


def find_sides(
    source: str | Path, suffixes: Sequence[str], follow_links: bool = False
) -> tuple[dict[str, Path], dict[str, str]]:
    """The files of a data set, and those that are not used -> why.

    Args:
        source: a file, which is then the only one, under the name "all"; or a folder with a file for "train" and one
            for "test".
        suffixes: of the files that can be read, e.g. (".csv", ".parquet").
        follow_links: also out of the folder.

    Raises:
        InputError: there are none, or several for one side.
    """
    path = Path(source).expanduser()
    names = ", ".join(suffixes)
    if not is_folder(path):
        if plain_file(path).suffix.lower() not in suffixes:
            raise InputError(f"{shown(str(path))} is no file of the kinds {names}: convert it.")
        return {"all": path}, {}
    files = folder_files(path)
    found = {side: [f for f in files if f.stem == side and f.suffix.lower() in suffixes] for side in SIDES}
    for side, each in found.items():
        if len(each) != 1:
            there = ", ".join(shown(f.name) for f in (each or files)[:8]) or "nothing"
            raise InputError(
                f"The folder {shown(str(path))} needs one {side} file, {side}{f' or {side}'.join(suffixes)}; it has "
                f"{there}."
            )
    sides = {side: plain_file(each[0], None if follow_links else path) for side, each in found.items()}
    return sides, {file.name: "neither train nor test" for file in files if file not in sides.values()}


def is_folder(path: Path) -> bool:
    """Raises InputError for a path that the system refuses."""
    with explained(f"The path {shown(str(path))} cannot be read ({{}}): check it.", OSError, ValueError):
        return path.is_dir()


def folder_files(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden entries. Raises InputError if it cannot be listed."""
    with explained(f"The folder {shown(str(folder))} cannot be read ({{}}): check its permissions.", OSError):
        return sorted(each for each in folder.iterdir() if not each.name.startswith("."))


def files_to_read(path: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The file itself, or the files of these kinds in a folder. Raises InputError if there is none."""
    if not is_folder(path):
        if plain_file(path).suffix.lower() not in suffixes:
            raise InputError(f"{shown(str(path))} is no file of the kinds {', '.join(suffixes)}: convert it.")
        yield path
        return
    files = [file for file in folder_files(path) if file.suffix.lower() in suffixes]
    if not files:
        raise InputError(f"The folder {shown(str(path))} has no file of the kinds {', '.join(suffixes)}.")
    yield from (plain_file(file, path) for file in files)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``, ``.npy`` (named "") or ``.safetensors`` file; no pickle is read.

    Raises:
        InputError: the file is damaged, of another kind, or holds something else than arrays of numbers or texts.
    """
    plain_file(path)
    broken = f"{shown(str(path))} cannot be read ({{}}): write it again, as arrays of numbers of one shape."
    with explained(broken, Exception):  # NumPy, zipfile, zlib and safetensors have many kinds for damaged files
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
            return {k: (t.float() if t.dtype == torch.bfloat16 else t).clone().numpy() for k, t in tensors.items()}
        with path.open("rb") as file:
            head = file.read(6)
            if not head.startswith((b"PK", b"\x93NUMPY")):
                raise ValueError("it does not begin as a file of NumPy's")
            file.seek(0)
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"": found}
            return {str(name): np.asarray(found[name]) for name in found.files}


def parts(count: int, share: float, seed: int, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of the training and the test side of one file, (n,) int64 each, drawn from ``seed``.

    Raises:
        InputError: a side would be empty.
    """
    test = round(share * count) if 0 < share < 1 else 0
    if not 0 < test < count:
        raise InputError(
            f"A test share of {share} of the {count} examples of {what} leaves one side empty: choose one between 0 "
            "and 1, or give a folder with a train and a test file."
        )
    order = torch.randperm(count, generator=generator_for("test", seed))
    return order[test:].sort().values, order[:test].sort().values
