"""Labelled images in memory, stored as bytes, and images that a trained network is given."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from eqprop.errors import InputError
from eqprop.tasks.arrays import hash_of
from eqprop.tasks.batches import Draw, Examples
from eqprop.tasks.folders import contents, walk
from eqprop.tasks.formats import Inputs
from eqprop.tasks.found import Root
from eqprop.tasks.manifest import Manifest
from eqprop.tasks.parquet import open_table
from eqprop.tasks.pixels import decode, size_of
from eqprop.tasks.task import Pair
from eqprop.tasks.text import about, explained, plain, short
from eqprop.tasks.transforms import Normalise


@dataclass(frozen=True, eq=False)
class Images(Examples):
    """A set of labelled images.

    Attributes:
        pixels: (count, channels, height, width), uint8.
        labels: (count,), int64, each in ``0..classes - 1``.
        classes: the number of classes; some may not occur here.

    Raises:
        InputError: shapes, types or labels do not fit together.
    """

    pixels: Tensor
    labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or not self.pixels.numel():
            raise InputError(
                f"Pixels of shape {tuple(self.pixels.shape)} and type {self.pixels.dtype} are no images: "
                "give uint8 of (count, channels, height, width), none of them 0."
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise InputError(
                f"Labels of shape {tuple(self.labels.shape)} and type {self.labels.dtype} do not fit "
                f"{len(self.pixels)} images: give one int64 an image."
            )
        outside = ((self.labels < 0) | (self.labels >= self.classes)).nonzero()
        if len(outside):
            row = int(outside[0])
            raise InputError(
                f"Label {int(self.labels[row])} of row {row} is not in 0..{self.classes - 1}: give every "
                "image a class (some test sets on the hub come without labels, as -1)."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Images:
        """The same images in the memory of ``device``."""
        return Images(self.pixels.to(device), self.labels.to(device), self.classes)

    def read(self, draws: Iterable[Draw]) -> Iterator[Pair]:
        for draw in draws:
            rows = draw.rows.to(self.labels.device)
            yield self.pixels[rows], self.labels[rows]

    def subset(self, rows: Tensor) -> Self:
        rows = rows.to(self.labels.device)
        return type(self)(self.pixels[rows], self.labels[rows], self.classes)

    def fingerprint(self) -> str:
        return hash_of((self.pixels, self.labels))


@dataclass(frozen=True, eq=False)
class ImageSets:
    """Both sides of a data set of images.

    Attributes:
        train, test: the sides, of the same classes.
        manifest: the inventory of both.
    """

    train: Images
    test: Images
    manifest: Manifest


@dataclass(frozen=True)
class ImageInputs(Inputs):
    """Images for a network: files that Pillow can read, folders of them, or parquet files with a column of them.

    A raw input is the pixels of an image: uint8, (channels, height, width).

    Attributes:
        channels: 1 (grey) or 3 (red, green, blue).
        height, width: in pixels.
        mean, std: as in ``Normalise``, of the training.

    Raises:
        InputError: mean and std are not one each a channel.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._normalise.check(self.channels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def _normalise(self) -> Normalise:
        return Normalise(self.mean, self.std)

    def read(self, path: Path) -> Iterator[tuple[str, np.ndarray]]:
        """The name and the pixels of each image: of a file, of a parquet file's rows, or of a folder, in order.

        In folders, and folders in them, files that are no images are left out, and links that lead out are refused.

        Raises:
            InputError: there is no image, or one cannot be read exactly or is of another size or mode than in training.
        """
        encoded, where = self._opened(Path(path))
        row = -1
        for row, content in enumerate(encoded):
            name = where(row)
            try:
                pixels = decode(content).pixels
            except InputError as error:
                raise InputError(f"The image {name} {error}") from error
            self._check(pixels, name)
            yield name, pixels
        if row < 0:
            raise InputError(f"{short(path)} holds no image: give images, a folder of images, or a parquet file.")

    def _opened(self, path: Path) -> tuple[Iterator[bytes], Callable[[int], str]]:
        """The encoded images at ``path``, and the name of each row."""
        shown = short(path)
        with explained(f"{shown} cannot be read ({{}}): give a file or a folder that can be.", OSError, ValueError):
            mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            with about(shown):
                names = [name for name, _ in walk(Root(path.resolve()))]
            return contents((str(path / name), path / name) for name in names), lambda row: plain(path / names[row])
        if not stat.S_ISREG(mode):
            raise InputError(f"{shown} is neither a file nor a folder: give images, or a folder of images.")
        if path.suffix.lower() == ".parquet":
            table = open_table(path, str(path), labelled=False)
            return table.contents(), lambda row: f"{shown} row {row}"
        return contents([(str(path), path)]), lambda row: shown

    def prepare(self, raw: Sequence[Any]) -> Tensor:
        """The inputs of a batch, as in training.

        Args:
            raw: one array or more of pixels, uint8, (channels, height, width).

        Returns:
            float32, (len(raw), channels, height, width).
        """
        arrays = [np.asarray(each) for each in raw]
        for index, each in enumerate(arrays):
            self._check(each, f"{index} of the batch")
        if not arrays:
            raise InputError("A batch of no images has no inputs: give one or more.")
        return self._normalise(torch.from_numpy(np.stack(arrays)))

    def _check(self, pixels: np.ndarray, name: str) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3:
            raise InputError(f"The image {name} is {pixels.dtype} {pixels.shape}: give uint8 {self.shape}.")
        if pixels.shape != self.shape:
            is_size = size_of(pixels.shape) if len(pixels) in (1, 3) else pixels.shape
            raise InputError(
                f"The image {name} is {is_size} and the network takes {size_of(self.shape)}: resize or convert it."
            )
