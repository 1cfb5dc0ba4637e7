"""Labelled images in memory, stored as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from eqprop.errors import InputError
from eqprop.tasks.arrays import hash_of
from eqprop.tasks.batches import Draw, Examples
from eqprop.tasks.manifest import Manifest
from eqprop.tasks.task import Pair


@dataclass(frozen=True, eq=False)
class Images(Examples):
    """A set of labelled images. Raises InputError for shapes, types or labels that do not fit together.

    Attributes:
        pixels: (count, channels, height, width), uint8.
        labels: (count,), int64, each in ``0..classes - 1``.
        classes: the number of classes; some may not occur here.
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
    """Both sides of a data set of images, and its inventory."""

    train: Images
    test: Images
    manifest: Manifest
