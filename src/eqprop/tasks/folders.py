"""Images in folders: ``train/<class>/`` and ``test/<class>/``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from eqprop.errors import InputError
from eqprop.tasks.found import Root, Side, no_file, within
from eqprop.tasks.pixels import is_image
from eqprop.tasks.text import explained, few, plain

LARGEST = 1 << 30
"""Bytes of an image file."""


def find_images(root: Root, side: str) -> dict[str, Path]:
    """The image files of the classes of a side by their names, which begin with ``side/class/``.

    Raises:
        InputError: it is not clear which folders are the classes, or a training class has no image.
    """
    found: dict[str, Path] = {}
    first: dict[str, str] = {}  # where each file, without links, was met first
    for child in root.entries(side):
        name = f"{side}/{child}"
        if not root.is_folder(name):
            root.skipped.add(name, "not in the folder of a class")
            continue
        images = {}
        for image, real in walk(root, name):
            if (known := first.setdefault(real, image)) == image:
                images[image] = root.folder / image
            elif known.split("/")[1] == child:
                root.skipped.add(image, f"the same file as {plain(known)}")
            else:
                raise InputError(
                    f"{plain(image)} and {plain(known)} are the same file: an image has one class, so take one away."
                )
        if images and not any(image.count("/") == 2 for image in images):
            inner = sorted({image.split("/")[2] for image in images})
            raise InputError(
                f"{plain(name)} has images only in its folders {few(map(plain, inner), 3)}: if these are the classes, "
                f"move them up into {side}/; if {plain(child)} is the class, move its images up into {plain(name)}/."
            )
        if not images and side == "train":
            inside = [each for each in root.skipped.reasons.items() if f"{each[0]}/".startswith(f"{plain(name)}/")]
            why = f" ({inside[0][0]}: {inside[0][1]})" if inside else ""
            raise InputError(f"{plain(name)} has no image{why}: add images, or take the folder away.")
        if not images:
            root.skipped.add(name, "a folder without images")
        found |= images
    return found


def walk(root: Root, name: str = "") -> Iterator[tuple[str, str]]:
    """The images in the folder ``name`` and in the folders in it, in order: the name and the path without links.

    Each folder is read once, whatever links lead to it; nothing but files is opened.
    """
    above, start = (os.path.realpath(root.folder / each) for each in (os.path.dirname(name), name))
    read: set[str] = set()
    pending = [(name, start, above if name else "")]
    while pending:
        name, real, above = pending.pop()
        mode = (about := root.look(name)).st_mode
        if not stat.S_ISDIR(mode):
            if not is_image(name):
                root.skipped.add(name, "no image")
            elif why := no_file(mode):
                root.skipped.add(name, why)
            elif about.st_size > LARGEST:
                raise InputError(f"{plain(name)} has {about.st_size:,} bytes: an image has {LARGEST:,} at most.")
            else:
                yield name, real
        elif real in read:
            root.skipped.add(name, "leads to a folder that is read already")
        elif within(above, real) or (read and within(start, real)):
            root.skipped.add(name, "leads to a folder that holds its own")
        else:
            read.add(real)
            children = []
            for child in root.entries(name):
                inner = f"{name}/{child}" if name else child
                target = os.path.realpath(root.folder / inner) if root.is_link(inner) else os.path.join(real, child)
                children.append((inner, target, real))
            pending += reversed(children)


def open_folder(files: dict[str, Path]) -> Side:
    """The images of a side; the label of each is the name of its class."""
    names = list(files)
    labels = [name.split("/")[1] for name in names]
    return Side(labels, {}, lambda: contents(files.items()), lambda row: plain(names[row]))


def contents(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """What each file holds."""
    for name, path in files:
        with explained(f"{plain(name)} cannot be read ({{}}): change its permissions, or take it away.", OSError):
            content = path.read_bytes()
        yield content
