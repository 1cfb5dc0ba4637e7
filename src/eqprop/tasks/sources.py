"""Labelled images from folders, parquet files and the Hugging Face hub, read once and kept as bytes."""

from __future__ import annotations

import functools
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eqprop.errors import InputError
from eqprop.files import sha256
from eqprop.tasks import cache
from eqprop.tasks.classes import numbered
from eqprop.tasks.folders import find_images, open_folder
from eqprop.tasks.found import Found, Root, Side
from eqprop.tasks.hub import NAME, find_on_hub
from eqprop.tasks.images import Images, ImageSets
from eqprop.tasks.manifest import Manifest
from eqprop.tasks.parquet import find_shards, open_tables
from eqprop.tasks.pixels import decode, is_image, size_of
from eqprop.tasks.text import about, explained, few, plain, short

EMBEDDED = "digits"
SIDES = ("train", "test")
FOLDER = "image folder"
"""The kind of a data set of image files."""
FORMAT = 4
"""Of the cached entries."""
LAYOUTS = "train/<class>/ and test/<class>/ with images, or train.parquet and test.parquet (there or under data/)"


def load_images(source: str | Path, follow_links: bool = False) -> ImageSets:
    """The two sides of a data set of labelled images, and what was found.

    The classes are those that the data names. Decoded images are cached, see ``eqprop.tasks.cache``, under the content
    of their files.

    Args:
        source: one of

            - ``"digits"``, the set embedded in this package;
            - a folder of images, ``train/<class>/`` and ``test/<class>/``, which may have folders in them;
            - a folder with ``train.parquet`` and ``test.parquet``, or numbered parts of them, at its top or under
              ``data/``, as on the hub;
            - the name of a data set on the Hugging Face hub, ``owner/name`` or ``owner/name@revision``.
        follow_links: whether links in a folder may lead out of it.

    Raises:
        InputError: the source is missing or damaged, its sides do not fit together, or its images are not of one size
            and mode in 8 bits without transparency.
    """
    if isinstance(source, str) and source == EMBEDDED:
        found, loaded = _embedded()
        loaded = loaded._replace(tensors={name: tensor.clone() for name, tensor in loaded.tensors.items()})
    else:
        found = find(source, follow_links)
        with about(found.place):
            loaded = _cached(found)
    sides = {
        side: Images(loaded.tensors[f"{side}.pixels"], loaded.tensors[f"{side}.labels"], len(loaded.classes))
        for side in SIDES
    }
    manifest = Manifest(
        found.kind,
        {side: len(images) for side, images in sides.items()},
        loaded.fingerprints,
        found.place,
        f"{size_of(tuple(sides['train'].pixels.shape[1:]))}, 8 bits",
        loaded.classes,
        sum(map(len, found.files.values())),
        found.skipped.sorted(),
        loaded.notes,
        found.skipped.more,
    )
    return ImageSets(sides["train"], sides["test"], manifest)


# Where images come from


def find(source: str | Path, follow_links: bool) -> Found:
    """The data set in a folder, or on the hub. Raises InputError if there is none."""
    if not isinstance(source, str | os.PathLike) or not str(source):
        raise InputError(f"{source!r} is no data set: pass 'digits', a folder, or a name on the Hugging Face hub.")
    shown = short(source)
    unreadable = f"The folder {shown} cannot be read ({{}}): pass another with --data."
    with explained(unreadable, OSError, ValueError, RuntimeError):
        folder = Path(source).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            is_folder = stat.S_ISDIR(folder.stat().st_mode)
            folder = folder.resolve()
            if not is_folder:
                raise InputError(
                    f"{shown} is not a folder: pass the folder that holds the train and the test files, "
                    f"{short(folder.parent)}."
                )
            return find_in_folder(folder, follow_links)
    if isinstance(source, str) and NAME.fullmatch(source):
        return find_on_hub(source)
    raise InputError(
        f"There is no folder {shown}: pass 'digits', a folder, or a name on the Hugging Face hub such as "
        "'ylecun/mnist' with --data."
    )


def find_in_folder(folder: Path, follow_links: bool) -> Found:
    """The data set in a folder.

    Raises:
        InputError: there is none, more than one, or a side or a part is missing.
    """
    root = Root(folder, follow_links)
    with about(str(folder)):
        top = root.entries()
        inner = root.entries("data") if "data" in top and root.is_folder("data") else []
        shards = {
            place: {side: find_shards(root, place, entries, side) for side in SIDES}
            for place, entries in (("", top), ("data", inner))
        }
        images = {side: find_images(root, side) for side in SIDES if side in top and root.is_folder(side)}
        layouts = [files for files in (images, *shards.values()) if any(files.values())]
        if not layouts:
            first = next((f"{name}, {why}" for name, why in root.skipped.reasons.items()), few(map(plain, top), 3))
            raise InputError(f"the folder holds no data set ({first or 'it is empty'}): it needs {LAYOUTS}.")
        if len(layouts) > 1:
            examples = [plain(next(name for files in each.values() for name in files)) for each in layouts]
            raise InputError(f"the folder holds more than one data set ({few(examples)}): move one away.")
        (files,) = layouts
        for side in SIDES:
            if not files.get(side):
                raise InputError(f"there are no {side} images: the folder needs {LAYOUTS}.")
        used = {name.split("/")[0] for each in files.values() for name in each}
        for name in [*top, *(f"data/{each}" for each in inner if "data" in used)]:
            other = name not in used and not any(name in each for each in files.values())
            if other and (name.lower().endswith(".parquet") or is_image(name) or root.is_folder(name)):
                root.skipped.add(name, "of neither side")
    kind, opener = (FOLDER, open_folder) if files is images else ("parquet folder", open_tables)
    return Found(kind, str(folder), files, lambda side: opener(files[side]), root.skipped)


# From files to tensors


class Loaded(NamedTuple):
    """What is cached.

    Attributes:
        tensors: ``side.pixels`` and ``side.labels`` of each side.
        classes: their names.
        fingerprints: of the sides.
        notes: for the manifest.
    """

    tensors: dict[str, Tensor]
    classes: tuple[str, ...]
    fingerprints: dict[str, str]
    notes: tuple[str, ...]


@functools.cache
def _embedded() -> tuple[Found, Loaded]:
    """The embedded data set, decoded once in a process."""
    found = find_in_folder(Path(__file__).parent.parent / "datasets" / EMBEDDED, False)
    found = replace(found, kind="embedded", place=EMBEDDED)
    return found, _decoded(found)


def _cached(found: Found) -> Loaded:
    """The decoded images, from the cache if they are there."""
    if not all(found.files.values()):  # nowhere on the disk
        return _decoded(found)
    hashes = _hashes(found)
    identity = json.dumps([FORMAT, found.kind, hashes])
    key = sha256(identity.encode("utf-8", "surrogateescape"))[:32]
    if entry := cache.stored(key):
        tensors, state = entry
        with suppress(KeyError, TypeError):
            tensors = {f"{side}.{part}": tensors[f"{side}.{part}"] for side in SIDES for part in ("pixels", "labels")}
            return Loaded(tensors, tuple(state["classes"]), dict(state["fingerprints"]), tuple(state["notes"]))
    loaded = _decoded(found)
    if _hashes(found) != hashes:
        raise InputError("the files changed while they were read: wait until they are complete, and start again.")
    copies = set(hashes["train"].values())
    if twice := [name for name, digest in hashes["test"].items() if digest in copies]:
        note = f"{len(twice):,} test files have the content of training files, the first is {plain(twice[0])}"
        loaded = loaded._replace(notes=(*loaded.notes, note))
    if found.kind == FOLDER and (twins := in_two_classes(hashes["train"])):
        note = f"{len(twins):,} train files have the content of files of another class, the first is {plain(twins[0])}"
        loaded = loaded._replace(notes=(*loaded.notes, note))
    cache.store(key, loaded.tensors, {name: value for name, value in loaded._asdict().items() if name != "tensors"})
    return loaded


def in_two_classes(hashes: Mapping[str, str]) -> list[str]:
    """The names, side/class/..., of files whose content was seen before in another class."""
    first: dict[str, str] = {}
    label = {name: name.split("/")[1] for name in hashes}
    return [name for name, digest in hashes.items() if label[first.setdefault(digest, name)] != label[name]]


def _hashes(found: Found) -> dict[str, dict[str, str]]:
    return {
        side: {name: cache.hash_of_file(path) for name, path in files.items()} for side, files in found.files.items()
    }


def _decoded(found: Found) -> Loaded:
    sides = {side: found.side(side) for side in SIDES}
    classes, labels, notes = numbered(sides)
    stack = Stack()
    tensors: dict[str, Tensor] = {}
    for name, side in sides.items():
        tensors[f"{name}.pixels"] = stack.decode(side)
        tensors[f"{name}.labels"] = torch.tensor(labels[name], dtype=torch.int64)
    if len(classes) < 2:
        raise InputError(f"there is one class, {few(classes)}: give at least two.")
    fingerprints = {}
    for name in SIDES:
        images = Images(tensors[f"{name}.pixels"], tensors[f"{name}.labels"], len(classes))
        content = json.dumps([images.fingerprint(), classes])
        fingerprints[name] = sha256(content.encode())
    return Loaded(tensors, classes, fingerprints, (*notes, *stack.notes()))


class Stack:
    """Images of one size and mode, of both sides."""

    def __init__(self) -> None:
        self._first: tuple[str, tuple[int, ...]] | None = None
        self._turned = 0
        self._opaque = 0

    def decode(self, side: Side) -> Tensor:
        """(count, channels, height, width), uint8. Raises InputError for an image that differs from the others."""
        count = len(side.labels)
        stacked, row = np.empty(0, np.uint8), -1
        for row, content in enumerate(side.contents()):
            try:
                pixels, turned, opaque = decode(content)
            except InputError as error:
                raise InputError(f"the image {side.where(row)} {error}") from error
            if self._first is None:
                self._first = side.where(row), pixels.shape
            first, shape = self._first
            if pixels.shape != shape:
                raise InputError(
                    f"the image {side.where(row)} is {size_of(pixels.shape)}, and the first, {first}, is "
                    f"{size_of(shape)}: convert all images to one size and mode."
                )
            if row == 0:
                what = f"{count:,} images of {size_of(shape)} need {count * pixels.nbytes / 1e9:.1f} GB of memory"
                with explained(f"{what} ({{}}): take fewer or smaller ones.", MemoryError, ValueError):
                    stacked = np.empty((count, *shape), np.uint8)
            if row < count:
                stacked[row] = pixels
            self._turned += turned
            self._opaque += opaque
        if row + 1 != count:
            raise InputError(f"there are {count:,} labels and {row + 1:,} images: fetch the files again.")
        return torch.from_numpy(stacked)

    def notes(self) -> list[str]:
        """What was done to images."""
        turned = f"{self._turned:,} images turned as their EXIF orientation says"
        opaque = f"{self._opaque:,} images had an alpha channel, opaque everywhere, which is left out"
        return [turned] * bool(self._turned) + [opaque] * bool(self._opaque)
