"""Pixels are what the image shows, or the image is refused: nothing is altered in silence."""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import encoded, picture, pixels_of, said, write_tree
from PIL import Image, TiffImagePlugin

from eqprop.errors import InputError
from eqprop.tasks import load_images
from eqprop.tasks.pixels import decode

RGB = picture(0)
GREY = picture(0, mode="L")
DEEP = np.full((4, 5), 40000, np.uint16)


def png(width, height, depth, colour, rows, *chunks):
    """A PNG of any depth and colour type; ``chunks`` (name, content) come before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def animation(kind, **options):
    frames = [picture(seed) for seed in range(2)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def palette(image=RGB):
    return image.convert("P", palette=Image.Palette.ADAPTIVE)


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def tiff(image, **tags):
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[int(tag[1:])] = value
    return encoded(image, "TIFF", tiffinfo=directory)


def deep_jpeg2000(components):
    """A colour image that says that it has 16 bits; Pillow writes only grey of so many."""
    content = bytearray(encoded(RGB, "JPEG2000", no_jp2=True))
    for index in range(components):
        content[42 + 3 * index] = 15
    return bytes(content)


SAME = {
    "grey": (encoded(GREY), GREY),
    "colours": (encoded(RGB), RGB),
    "one bit": (encoded(GREY.convert("1")), GREY.convert("1").convert("L")),
    "two bits": (png(4, 1, 2, 0, [b"\x1b"]), Image.fromarray(np.uint8([[0, 85, 170, 255]]))),
    "palette": (encoded(palette()), palette().convert("RGB")),
    "bmp": (encoded(RGB, "BMP"), RGB),
    "ppm": (encoded(RGB, "PPM"), RGB),
    "ppm with a comment": (b"P5 # 65535\n2 1 # 9\n255\n\x07\x09", Image.fromarray(np.uint8([[7, 9]]))),
    "pbm": (b"P4\n8 1\n\x0f", Image.fromarray(np.uint8([[255] * 4 + [0] * 4]))),
    "gif": (encoded(palette(), "GIF"), palette().convert("RGB")),
    "webp": (encoded(RGB, "WEBP", lossless=True), RGB),
    "tiff": (encoded(RGB, "TIFF"), RGB),
    "grey tiff": (encoded(GREY, "TIFF"), GREY),
    "compressed tiff": (encoded(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "jpeg 2000": (encoded(RGB, "JPEG2000", irreversible=False), RGB),
    "opaque": (encoded(picture(0, mode="RGBA")), picture(0, mode="RGBA").convert("RGB")),
    "opaque grey": (encoded(picture(0, mode="LA")), picture(0, mode="LA").convert("L")),
    "opaque tiff": (encoded(picture(0, mode="RGBA"), "TIFF"), picture(0, mode="RGBA").convert("RGB")),
    "opaque palette": (encoded(palette(), transparency=b"\xff" * 3), palette().convert("RGB")),
    "a transparent colour that is nowhere": (
        encoded(Image.new("RGB", (2, 2), "red"), transparency=(1, 2, 3)),
        Image.new("RGB", (2, 2), "red"),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_pixels_are_those_of_the_image(name):
    content, shown = SAME[name]
    pixels, turned, opaque = decode(content)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, pixels_of(shown))
    assert not turned
    assert opaque == ("opaque" in name or "transparent" in name)


def test_a_jpeg_is_decoded_as_pillow_does():
    content = encoded(RGB, "JPEG")
    assert np.array_equal(decode(content).pixels, pixels_of(Image.open(io.BytesIO(content))))


TRANSPARENT = picture(0, mode="RGBA")
TRANSPARENT.putpixel((2, 1), (1, 2, 3, 254))
TRANSPARENT_GREY = picture(0, mode="LA")
TRANSPARENT_GREY.putpixel((2, 1), (1, 0))
MPO = io.BytesIO()
RGB.save(MPO, "MPO", save_all=True, append_images=[picture(1)])

REFUSED = {
    "16-bit grey": (encoded(Image.fromarray(DEEP)), "8 bits"),
    "16-bit colours": (png(1, 1, 16, 2, [b"\0\x01\0\x02\0\x03"]), "8 bits"),
    "16-bit colours and alpha": (png(1, 1, 16, 6, [b"\0\x01\0\x02\0\x03\xff\xff"]), "8 bits"),
    "16-bit grey and alpha": (png(1, 1, 16, 4, [b"\0\x01\xff\xff"]), "8 bits"),
    "16-bit tiff": (encoded(Image.fromarray(DEEP), "TIFF"), "8 bits"),
    "32-bit tiff": (encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), "8 bits"),
    "float tiff": (encoded(Image.fromarray(DEEP.astype(np.float32)), "TIFF"), "8 bits"),
    "signed tiff": (tiff(GREY, t339=2), "8 bits"),
    "16-bit pgm": (b"P5\n1 1\n65535\n\x01\x02", "8 bits"),
    "16-bit ppm": (b"P6\n1 1\n65535\n\x01\x02\x01\x02\x01\x02", "8 bits"),
    "12-bit ppm": (b"P6\n1 1 # 255\n4095\n\x01\x02\x01\x02\x01\x02", "8 bits"),
    "16-bit text ppm": (b"P3\n1 1\n1023\n1000 3 4\n", "8 bits"),
    "float pfm": (b"Pf\n1 1\n-1.0\n\0\0\0\0", "8 bits"),
    "16-bit jpeg 2000": (encoded(Image.fromarray(DEEP), "JPEG2000"), "8 bits"),
    "16-bit colour jpeg 2000": (deep_jpeg2000(3), "8 bits"),
    "one colour of 16 bits in jpeg 2000": (deep_jpeg2000(1), "8 bits"),
    "alpha": (encoded(TRANSPARENT), "transparent"),
    "grey and alpha": (encoded(TRANSPARENT_GREY), "transparent"),
    "webp with alpha": (encoded(TRANSPARENT, "WEBP", lossless=True), "transparent"),
    "tiff with alpha": (encoded(TRANSPARENT, "TIFF"), "transparent"),
    "a palette with alpha": (encoded(palette(), transparency=b"\xff\0"), "transparent"),
    "a transparent colour": (encoded(Image.new("RGB", (2, 2), "red"), transparency=(255, 0, 0)), "transparent"),
    "a transparent grey": (encoded(Image.new("L", (2, 2), 7), transparency=7), "transparent"),
    "a transparent gif": (encoded(Image.new("P", (2, 2), 1), "GIF", transparency=1), "transparent"),
    "a transparent grey of two bits": (png(4, 1, 2, 0, [b"\x1b"], (b"tRNS", b"\0\x03")), "transparent"),
    "a transparent grey of one bit": (png(8, 1, 1, 0, [b"\x1b"], (b"tRNS", b"\0\x01")), "transparent"),
    "an animated gif": (animation("GIF"), "2 frames"),
    "an animated webp": (animation("WEBP", lossless=True), "2 frames"),
    "an animated png": (animation("PNG"), "2 frames"),
    "a tiff of pages": (animation("TIFF"), "2 frames"),
    "two pictures in a jpeg": (MPO.getvalue(), "2 frames"),
    "cmyk": (encoded(RGB.convert("CMYK"), "JPEG"), "CMYK"),
    "cmyk tiff": (encoded(RGB.convert("CMYK"), "TIFF"), "CMYK"),
    "lab tiff": (encoded(RGB.convert("LAB"), "TIFF"), "LAB"),
    "another format": (encoded(RGB, "TGA"), "none of PNG"),
    "a drawing": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "none of PNG"),
    "nothing": (b"", "empty"),
    "text": (b"not an image", "none of PNG"),
    "half a png": (encoded(RGB)[:-40], "cannot be decoded"),
    "half a jpeg": (encoded(picture(0, (60, 60)), "JPEG")[:1500], "cannot be decoded"),
    "a bomb": (png(10000, 10000, 8, 0, [b"\0"]), "exceeds limit of 89478485 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_8_bits_do_not_show_is_refused(name, recwarn):
    content, why = REFUSED[name]
    with pytest.raises(InputError) as caught:
        decode(content)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()
    assert " at 0x" not in str(caught.value)
    assert not recwarn.list


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b"\0" * 20, lambda b: b[:60] + b"x" * 40])
def test_a_damaged_file_is_named(tmp_path, damage):
    write_tree(tmp_path, "train/a/0.png", "test/a/0.png", **{"train/a/broken.png": damage(encoded(picture(1)))})
    assert "the image train/a/broken.png cannot be decoded" in said(tmp_path)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_images_are_turned_as_their_orientation_says(kind, number):
    ways = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(RGB, kind, exif=oriented(number), **options)
    plain = Image.open(io.BytesIO(encoded(RGB, kind, **options))).convert("RGB")
    shown = plain.transpose(Image.Transpose(ways[number])) if number > 1 else plain
    pixels, turned, _ = decode(content)
    assert np.array_equal(pixels, pixels_of(shown))
    assert turned == (number > 1)


def test_what_was_done_is_in_the_manifest(tmp_path):
    square = picture(3, (4, 4))
    files = {
        "train/a/1.png": encoded(square, exif=oriented(6)),
        "train/a/2.png": encoded(square, exif=oriented(1)),
        "train/a/3.png": encoded(picture(0, (4, 4), "RGBA")),
        "train/b/0.png": encoded(picture(1, (4, 4), "RGB")),
        "test/a/4.png": encoded(square, exif=oriented(3)),
        "test/b/0.png": encoded(picture(2, (4, 4), "RGB")),
    }
    images = load_images(write_tree(tmp_path, **files))
    turned, opaque = images.manifest.notes
    assert turned.startswith("2 images turned")
    assert opaque.startswith("1 images had an alpha channel")
    assert images.manifest.form == "4x4 RGB, 8 bits"
    assert turned in images.manifest.line()


@pytest.mark.parametrize(("size", "mode", "named"), [((6, 4), "RGB", "6x4 RGB"), ((5, 4), "L", "5x4 L")])
@pytest.mark.parametrize("side", ["train", "test"])
def test_images_that_differ(tmp_path, side, size, mode, named):
    write_tree(tmp_path)
    (tmp_path / side / "dog" / "1.png").write_bytes(encoded(picture(1, size, mode)))
    message = said(tmp_path)
    assert all(part in message for part in [f"{side}/dog/1.png is {named}", "train/cat/0.png, is 5x4 RGB"])


def test_a_bomb_and_too_many_bytes_are_named(tmp_path):
    write_tree(tmp_path, "train/a/0.png", "test/a/0.png", **{"train/a/1.png": REFUSED["a bomb"][0]})
    assert "train/a/1.png" in said(tmp_path)
    with (tmp_path / "train" / "a" / "1.png").open("wb") as file:
        file.truncate((1 << 30) + 1)  # takes no room
    assert "train/a/1.png has 1,073,741,825 bytes" in said(tmp_path)
