"""From an encoded image to bytes: exactly what it shows, or a refusal."""

from __future__ import annotations

import os
import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eqprop.errors import InputError, needing_extra, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")
"""Of Pillow's formats those that keep to pixels: none starts another program."""
ENDINGS = frozenset(
    "apng bmp dib gif j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx pbm pfm pgm png pnm ppm tif tiff webp".split()  # noqa: SIM905
)
"""The last parts of the names of image files, in small letters."""
ORIENTATION = 0x0112
"""The number of the EXIF tag."""
DEEP = "holds values that 8 bits do not: convert all images to 8 bits, with the range that you choose."
SEEN = "is transparent in parts, and a network has no background: draw all images on one (in Pillow: alpha_composite)."


class Decoded(NamedTuple):
    """An image.

    Attributes:
        pixels: (channels, height, width), uint8, of 1 channel (grey) or 3 (red, green, blue).
        turned: whether its EXIF orientation turned or mirrored it.
        opaque: whether it had an alpha channel, in which every value is opaque.
    """

    pixels: np.ndarray
    turned: bool
    opaque: bool


def decode(content: bytes) -> Decoded:
    """The image encoded in ``content``.

    Raises:
        InputError: it is damaged, or cannot be shown exactly in 8 bits of grey or of red, green and blue. The message
            continues the image's name.
    """
    with needing_extra("Reading images"):
        from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _shown(content)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        known = f"it is none of {', '.join(FORMATS)}" if content else "it is empty"
        raise InputError(f"cannot be decoded ({known}): replace it or leave it out.") from error
    except Exception as error:  # Pillow raises many kinds of exceptions for damaged files
        raise InputError(f"cannot be decoded ({one_line(error)}): replace it or leave it out.") from error


def _shown(content: bytes) -> Decoded:
    import io

    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise InputError(f"has {frames} frames: store each that you want as an image of its own.")
        if picture.mode.startswith(("I", "F")) or _bits(picture, content) > 8:
            raise InputError(DEEP)
        grey = picture.mode in ("1", "L", "LA", "La")
        if not grey and picture.mode not in ("P", "PA", "RGB", "RGBA", "RGBa"):
            raise InputError(f"has mode {picture.mode}: convert all images to grey (L) or RGB.")
        turned = picture.getexif().get(ORIENTATION, 1) in range(2, 9)
        picture.load()
        transparent = (
            picture.mode in ("LA", "La", "PA", "RGBA", "RGBa")
            or "transparency" in picture.info
            or (picture.palette is not None and picture.palette.mode.endswith("A"))
        )
        if transparent:
            # A transparent grey of fewer bits is given in these, and Pillow compares it with 8.
            coarse = picture.format == "PNG" and content[24] < 8 and grey
            alpha = np.asarray(picture.convert("LA" if grey else "RGBA"))[..., -1]
            if coarse or int(alpha.min()) < 255:
                raise InputError(SEEN)
            picture.info.pop("transparency", None)
        upright: Image.Image = ImageOps.exif_transpose(picture)
        if transparent:
            pixels = np.asarray(upright.convert("LA" if grey else "RGBA"))[..., :-1]
        else:
            pixels = np.asarray(upright.convert("L" if grey else "RGB"))
    channels_last = pixels[..., None] if pixels.ndim == 2 else pixels
    return Decoded(channels_last.transpose(2, 0, 1), turned, transparent)


def _bits(picture: Image, content: bytes) -> int:
    """Bits of a channel as stored, 32 if signed: of a colour's 16 bits Pillow keeps the upper 8 without a word."""
    match picture.format:
        case "PNG":
            return content[24]
        case "TIFF":
            tags = getattr(picture, "tag_v2", {})
            bits, kinds = tags.get(258, 1), tags.get(339, 1)  # BitsPerSample, SampleFormat: 2 signed, 3 floating point
            signed = {2, 3} & set(kinds if isinstance(kinds, tuple) else [kinds])
            return 32 if signed else max(bits if isinstance(bits, tuple) else [bits])
        case "PPM":
            numbers = re.sub(rb"#[^\r\n]*", b" ", content[: 1 << 16]).split(maxsplit=4)
            bitmap = numbers[0] in (b"P1", b"P4")
            return 1 if bitmap else int(numbers[3]).bit_length() if numbers[3].isdigit() else 32
        case "JPEG2000":
            size = content.index(b"\xff\x4f\xff\x51") + 40  # the number of components, then 3 bytes of each
            count = int.from_bytes(content[size : size + 2], "big")
            return max(1 + (content[size + 2 + 3 * index] & 0x7F) for index in range(count))
    return 8


def is_image(name: str) -> bool:
    """Whether a file of this name should be an image."""
    return os.path.splitext(name)[1][1:].lower() in ENDINGS


def size_of(shape: tuple[int, ...]) -> str:
    """(channels, height, width) in words: ``"8x6 L"`` is 8 wide."""
    channels, height, width = shape
    return f"{width}x{height} {'L' if channels == 1 else 'RGB'}"
