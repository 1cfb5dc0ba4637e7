"""Numbers as pictures: PNG with a palette, so that many fit into a page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from eqprop.report.blocks import Picture

EMPTY = 255
"""The index of the palette that is transparent."""
LEVELS = 254
LARGEST = 64
"""Pixels of a side of an input's picture."""
MAPS, SIDE, SOME = 16, 16, 4
"""The largest number of maps that are drawn, and of pixels of a side of each; how many of both if there is less."""


@cache
def palette(diverging: bool) -> bytes:
    """256 colours of three bytes: from dark to light, or from blue by white to red."""
    from matplotlib import colormaps

    colours = colormaps["RdBu_r" if diverging else "viridis"](torch.linspace(0, 1, LEVELS + 1).numpy(), bytes=True)
    return bytes(colours[:, :3].tobytes()) + b"\xff\xff\xff"


def encoded(levels: Tensor, diverging: bool) -> bytes:
    """A PNG of levels, (height, width) uint8 of the palette; ``EMPTY`` is transparent."""
    from PIL import Image

    image = Image.frombytes("P", (levels.shape[1], levels.shape[0]), levels.contiguous().numpy().tobytes())
    image.putpalette(palette(diverging))
    file = io.BytesIO()
    image.save(file, "PNG", transparency=EMPTY, optimize=True)
    return file.getvalue()


def quantised(values: Tensor, low: float, high: float) -> Tensor:
    """Values between ``low`` and ``high`` as levels, uint8; those that are not finite are transparent."""
    span = high - low
    levels = ((values.double() - low) / (span if span > 0 else 1) * LEVELS).round()
    known = levels.isfinite()
    return torch.where(known, levels.nan_to_num(0).clamp(0, LEVELS), EMPTY).to(torch.uint8)


def arrangement(shape: Sequence[int], pixels: int) -> str:
    """How units of a shape are drawn, in words.

    Args:
        shape: of one example's units.
        pixels: that the picture may have.
    """
    if len(shape) == 3:
        maps, side = maps_of(shape, pixels)
        some = f"the first {maps} of {shape[0]} maps" if maps < shape[0] else f"{shape[0]} map{'s' * (shape[0] > 1)}"
        return f"{some} of {shape[1]}x{shape[2]}" + (f", averaged to {side} pixels" if side < max(shape[1:]) else "")
    if len(shape) == 2:
        return f"{shape[0]} rows of {shape[1]}"
    count = math.prod(shape)
    shown = min(count, pixels)
    return f"the first {shown} of {count} units" if shown < count else f"{count} unit{'s' * (count > 1)}"


def maps_of(shape: Sequence[int], pixels: int) -> tuple[int, int]:
    """The number of maps that are drawn, and the pixels of a side of each."""
    maps, side = min(shape[0], MAPS), min(max(shape[1:]), SIDE)
    while maps * (side + 1) ** 2 > pixels and (maps > 1 or side > 1):
        if maps > SOME or (side <= SOME and maps > 1):
            maps -= 1
        else:
            side -= 1
    return maps, side


def frames_of(values: Tensor, pixels: int) -> Tensor:
    """Units as a picture each, (frames, height, width); gaps are NaN.

    Args:
        values: (frames, *shape).
        pixels: that a picture may have.
    """
    values = values.double()
    if values.ndim == 4:
        maps, side = maps_of(values.shape[1:], pixels)
        values = values[:, :maps]
        if max(values.shape[2:]) > side:
            height, width = (max(1, round(n * side / max(values.shape[2:]))) for n in values.shape[2:])
            values = F.adaptive_avg_pool2d(values, (height, width))
        return grid(values)
    if values.ndim == 3:
        while values.shape[1] * values.shape[2] > pixels:
            axis = 1 if values.shape[1] >= values.shape[2] else 2
            values = values.narrow(axis, 0, max(1, values.shape[axis] // 2))
        return values
    flat = values.flatten(1)[:, :pixels]
    columns = math.ceil(math.sqrt(flat.shape[1]))
    rows = math.ceil(flat.shape[1] / columns)
    empty = flat.new_full((len(flat), rows * columns - flat.shape[1]), math.nan)
    return torch.cat([flat, empty], 1).view(len(flat), rows, columns)


def grid(tiles: Tensor) -> Tensor:
    """Tiles, (frames, count, height, width), side by side with gaps of NaN: (frames, height, width)."""
    frames, count, height, width = tiles.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    framed = F.pad(tiles, (0, 1, 0, 1), value=math.nan)
    missing = framed.new_full((frames, rows * columns - count, height + 1, width + 1), math.nan)
    whole = torch.cat([framed, missing], 1).view(frames, rows, columns, height + 1, width + 1)
    return whole.permute(0, 1, 3, 2, 4).reshape(frames, rows * (height + 1), columns * (width + 1))[:, :-1, :-1]


def films(values: Tensor, counts: Sequence[int], pixels: int, alts: Sequence[str], signed: bool) -> list[Picture]:
    """Pictures of one scale, which their captions tell, each with a frame for each state below each other.

    Args:
        values: (frames, *shape), of a layer.
        counts: the frames of each picture; their sum is that of ``values``.
        pixels: of a frame, at most.
        alts: what each shows.
        signed: whether 0 is in the middle of the scale, also where no value is negative.
    """
    frames = frames_of(values, pixels)
    known = frames[frames.isfinite()]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    diverging = signed or low < 0
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    elif low == high:
        low = 0.0
    size = int(frames.shape[2]), int(frames.shape[1])
    caption = f"{low:.3g} to {high:.3g}"
    return [
        Picture(
            encoded(quantised(part, low, high).flatten(0, 1), diverging),
            size,
            f"{alt}; colours from {caption}",
            caption,
            len(part),
        )
        for part, alt in zip(frames.split(list(counts)), alts, strict=True)
    ]


def photograph(pixels: Tensor, alt: str, caption: str = "") -> Picture:
    """The picture of an input.

    Args:
        pixels: (channels, height, width) or (height, width); uint8, or of any range, which is then stretched.
        alt: what it shows.
        caption: below it.
    """
    from PIL import Image

    image = pixels if pixels.ndim == 3 else pixels[None]
    if image.dtype != torch.uint8:
        image = image.double().nan_to_num(0, 0, 0)
        low, high = float(image.min()), float(image.max())
        image = ((image - low) / (high - low if high > low else 1) * 255).round().to(torch.uint8)
    if len(image) not in (1, 3):
        image = image[:1]
    array = image.permute(1, 2, 0).contiguous().cpu().numpy()
    made = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    if max(made.size) > LARGEST:
        made.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    made.save(file, "PNG", optimize=True)
    return Picture(file.getvalue(), made.size, alt, caption)


def is_picture(x: object) -> bool:
    """Whether inputs, (batch, ...), can be shown as pictures."""
    if not isinstance(x, Tensor):
        return False
    return (x.ndim == 4 and x.shape[1] in (1, 3) and min(x.shape[2:]) > 1) or (x.ndim == 3 and min(x.shape[1:]) > 1)
