"""Small data sets of images in the layouts that are read."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from eqprop.errors import InputError
from eqprop.tasks import Images, load_images

CHANNELS = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,)}


def picture(seed, size=(5, 4), mode="RGB"):
    """A random image of ``size`` (width, height); an alpha channel is opaque."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], *CHANNELS[mode]), dtype=np.uint8)
    if mode.endswith("A"):
        pixels[..., -1] = 255
    return Image.fromarray(pixels)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(image):
    """(channels, height, width)"""
    pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def write_table(path, pictures, labels, names=None, image="image", label="label", features=None, paths=None):
    """A parquet file as on the hub: ``names`` of the classes, or other ``features``, lie in its metadata."""
    rows = [each if isinstance(each, bytes | None) else encoded(each) for each in pictures]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    values = [{"bytes": row, "path": place} for row, place in zip(rows, paths or [None] * len(rows), strict=True)]
    table = pa.table({image: pa.array(values, kind), label: pa.array(labels)})
    if features is None:
        number = {"_type": "ClassLabel", "names": list(names)} if names else {"_type": "Value", "dtype": "int64"}
        features = {image: {"_type": "Image"}, label: number}
    about = features if isinstance(features, bytes) else json.dumps({"info": {"features": features}})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": about}), path)
    return path.parent


def write_sides(folder, train=None, test=None, **options):
    """Both files: for each a dictionary of what differs from two images of labels 0 and 1."""
    for side, own in {"train": train or {}, "test": test or {}}.items():
        rows = {"pictures": [picture(0), picture(1)], "labels": [0, 1]} | options | own
        write_table(folder / f"{side}.parquet", **rows)
    return folder


def write_tree(folder, *names, **extra):
    """An image, or the bytes given, at each name; without names ``cat`` and ``dog`` on both sides."""
    usual = [f"{side}/{name}/0.png" for side in ("train", "test") for name in ("cat", "dog")]
    files = dict.fromkeys(names or ([] if extra else usual))
    for seed, (name, content) in enumerate((files | extra).items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed)) if content is None else content)
    return folder


def fake(count=20, channels=1, size=6, classes=3):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % classes, classes)


def equal(one, other):
    """Whether two lists of batches are the same."""
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def said(source, **options):
    """The message with which a data set is refused: one line that can be printed."""
    with pytest.raises(InputError) as caught:
        load_images(source, **options)
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 1500, message
    return message
