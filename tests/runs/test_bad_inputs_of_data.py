"""Data that no recipe can train on are refused in one line, before a folder is made."""

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from runs.refusals import refused


def png(size=(8, 8), mode="L", value=0):
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, "PNG")
    return file.getvalue()


def bomb():
    """An image that says it has 10^10 pixels."""
    about = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return png()[:12] + about + struct.pack(">I", zlib.crc32(about)) + png()[33:]


def images():
    """A set of two classes in ``data``."""
    for side in ("train", "test"):
        for name in ("cat", "dog"):
            Path(f"data/{side}/{name}").mkdir(parents=True)
            for i in range(6):
                Path(f"data/{side}/{name}/{i}.png").write_bytes(png(value=i))


def rows(**columns):
    count = 6
    found = {
        "image": [{"bytes": png(value=i), "path": None} for i in range(count)],
        "label": [i % 2 for i in range(count)],
    }
    return pa.table({name: values for name, values in (found | columns).items() if values is not None})


def parquet(**columns):
    """A set of parquet files in ``data``; columns may be replaced in the training side."""
    Path("data").mkdir()
    pq.write_table(rows(), "data/test.parquet")
    pq.write_table(rows(**columns), "data/train.parquet")


def changed(make, change):
    def do():
        make()
        change()

    return do


def after(change):
    return changed(images, change)


FIRST = Path("data/train/cat/0.png")
IMAGES = {
    "no train": lambda: shutil.rmtree("data/train"),
    "no test": lambda: shutil.rmtree("data/test"),
    "no classes": lambda: (shutil.rmtree("data/train"), Path("data/train").mkdir()),
    "empty classes": lambda: [path.unlink() for path in Path("data").rglob("*.png")],
    "an empty class": lambda: Path("data/train/bird").mkdir(),
    "a class of the test side alone": lambda: shutil.copytree("data/test/cat", "data/test/bird"),
    "a class in other letters": lambda: Path("data/test/cat").rename("data/test/Cat"),
    "two classes in other letters": lambda: shutil.copytree("data/train/cat", "data/train/Cat"),
    "classes within": lambda: (Path("data/train/all").mkdir(), Path("data/train/cat").rename("data/train/all/cat")),
    "an empty image": lambda: FIRST.write_bytes(b""),
    "a text": lambda: FIRST.write_text("no image"),
    "a cut image": lambda: FIRST.write_bytes(png()[:40]),
    "a damaged image": lambda: FIRST.write_bytes(png()[:50] + b"\xff" * 20),
    "a large image": lambda: FIRST.write_bytes(png((9, 9))),
    "a colour image": lambda: FIRST.write_bytes(png(mode="RGB")),
    "a 16-bit image": lambda: Image.fromarray(np.full((8, 8), 300, np.uint16)).save(FIRST),
    "a clear image": lambda: FIRST.write_bytes(png(mode="RGBA")),
    "a bomb": lambda: FIRST.write_bytes(bomb()),
    "a link out": lambda: (FIRST.unlink(), FIRST.symlink_to("/etc/passwd")),
    "a link to a device": lambda: (FIRST.unlink(), FIRST.symlink_to("/dev/zero")),
    "a link to nothing": lambda: (FIRST.unlink(), FIRST.symlink_to("nothing")),
    "a link to itself": lambda: (FIRST.unlink(), FIRST.symlink_to("0.png")),
    "a class that is a link out": lambda: Path("data/train/bird").symlink_to("/etc"),
    "a class that is a link round": lambda: Path("data/train/bird").symlink_to("../.."),
    "parquet beside": lambda: pq.write_table(rows(), "data/train.parquet"),
    "a class name of control characters": lambda: Path("data/train/\x1b[31m").mkdir(),
    "a class name of no text": lambda: os.mkdir(b"data/train/\xff"),
}
PARQUET = {
    "no image column": {"image": None},
    "no label column": {"label": None},
    "two label columns": {"label": None, "a": list(range(6)), "b": list(range(6))},
    "labels of numbers with a point": {"label": [0.5] * 6},
    "labels that are missing": {"label": [0, None, 1, 0, 1, 0]},
    "negative labels": {"label": [-1] * 6},
    "labels with gaps": {"label": [0, 255, 0, 1, 0, 1]},
    "huge labels": {"label": [2**62] * 6},
    "labels of lists": {"label": [[0]] * 6},
    "images that are missing": {"image": [None] * 6},
    "images without bytes": {"image": [{"bytes": None, "path": "/etc/passwd"}] * 6},
    "images by path": {"image": [{"bytes": None, "path": "/dev/zero"}] * 6},
    "images of text": {"image": ["cat"] * 6},
    "images of numbers": {"image": list(range(6))},
    "damaged images": {"image": [{"bytes": b"x", "path": None}] * 6},
    "images of two sizes": {"image": [{"bytes": png((8 + i, 8)), "path": None} for i in range(6)]},
}
FILES = {
    "no parquet": lambda: Path("data/train.parquet").write_bytes(b"PAR1"),
    "an empty file": lambda: Path("data/train.parquet").write_bytes(b""),
    "a cut file": lambda: cut(Path("data/train.parquet")),
    "a damaged file": lambda: flip(Path("data/train.parquet")),
    "no rows": lambda: pq.write_table(rows().slice(0, 0), "data/train.parquet"),
    "a folder": lambda: (Path("data/train.parquet").unlink(), Path("data/train.parquet").mkdir()),
    "a pipe": lambda: (Path("data/train.parquet").unlink(), os.mkfifo("data/train.parquet")),
    "a link out": lambda: (Path("data/train.parquet").unlink(), Path("data/train.parquet").symlink_to("/dev/zero")),
    "no test": lambda: Path("data/test.parquet").unlink(),
    "a shard of two": lambda: Path("data/train.parquet").rename("data/train-00000-of-00002.parquet"),
    "a copy": lambda: shutil.copy("data/train.parquet", "data/train (1).parquet"),
    "an old one": lambda: shutil.copy("data/train.parquet", "data/train_old.parquet"),
    "deep metadata": lambda: described(b"[" * 100_000),
    "metadata that are none": lambda: described(b'{"info": {"features": 1}}'),
    "metadata of a number": lambda: described(b"1"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :: 7] = b"\xff" * len(data[len(data) // 2 :: 7])
    path.write_bytes(data)


def described(text):
    pq.write_table(rows(label=[5] * 6).replace_schema_metadata({b"huggingface": text}), "data/train.parquet")


DATA = {
    **{f"images, {name}": ("digits", after(change)) for name, change in IMAGES.items()},
    **{f"parquet, {name}": ("digits", lambda columns=columns: parquet(**columns)) for name, columns in PARQUET.items()},
    **{f"parquet, {name}": ("digits", changed(parquet, change)) for name, change in FILES.items()},
}
"""Name -> a recipe, and what makes its data in ``data``."""


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("name", DATA)
def test_data(work, name, command):
    recipe, make = DATA[name]
    make()
    refused([command, recipe, "--data", "data", "--epochs=1", "--width=.05", "--batch_size=4", "--out", "new"])
