"""Sources of labelled images, what is common to all of them, and the images that a trained network is given."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded, fake, picture, pixels_of, said, write_sides, write_table, write_tree
from PIL import Image

from eqprop.errors import InputError
from eqprop.tasks import ImageInputs, Images, Normalise, load_images

# Sources


def test_the_embedded_digits_are_those_of_scikit_learn():
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    data = load_images("digits")
    train, test = data.train, data.test
    assert (train.pixels.shape, test.pixels.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert train.classes == test.classes == 10
    ours = torch.cat([train.pixels, test.pixels]).flatten(1)
    theirs = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, ours.numpy())) == sorted(map(bytes, theirs))
    assert all(torch.bincount(test.labels) >= 34)


def test_the_embedded_digits_have_a_name_and_no_cache(cache):
    manifest = load_images("digits").manifest
    assert (manifest.kind, manifest.place) == ("embedded", "digits")
    assert manifest.line() == "embedded digits; 1,437 train, 360 test examples; 10 classes; 8x8 L, 8 bits; 2 files"
    assert list(manifest.classes) == [str(number) for number in range(10)]
    assert not cache.exists()


def test_a_local_load_prints_nothing_and_asks_no_network(tmp_path, capfd, monkeypatch):
    write_sides(tmp_path)
    environment = os.environ.copy()
    capfd.readouterr()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("asked the network"))
    load_images(tmp_path)
    assert os.environ.copy() == environment
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "missing", [("datasets", "pyarrow", "PIL", "huggingface_hub"), ("datasets", "huggingface_hub")]
)
def test_the_package_is_imported_without_libraries_of_images(missing):
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in missing)
    use = "" if "PIL" in missing else "assert len(eqprop.tasks.load_images('digits').test) == 360\n"
    program = f"import sys\n{blocked}import eqprop, eqprop.tasks\n{use}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


BAD_SOURCES = {
    "nowhere": "There is no folder nowhere",
    "mnist-without-owner": "ylecun/mnist",
    "": "no data set",
    "x" * 5000: "File name too long",
    "a/" * 3000: "File name too long",
    "nul\0": "null",
    "two\nlines": r"two\nlines",
    "~nobody-here/x": "home",
    7: "7 is no data set",
    None: "None is no data set",
}


@pytest.mark.parametrize("source", BAD_SOURCES, ids=lambda source: str(source)[:20].encode("unicode_escape").decode())
def test_what_is_no_source(source):
    assert BAD_SOURCES[source] in said(source)


def test_a_file_an_empty_folder_and_a_folder_of_something_else(tmp_path):
    file = write_sides(tmp_path / "set") / "train.parquet"
    assert f"pass the folder that holds the train and the test files, {file.parent}" in said(file)
    (tmp_path / "empty").mkdir()
    assert "it is empty" in said(tmp_path / "empty")
    assert "train.parquet and test.parquet" in said(Path(__file__).parent)


@pytest.mark.parametrize("lost", ["train", "test"])
@pytest.mark.parametrize("write", [write_sides, write_tree])
def test_a_side_that_is_missing(tmp_path, write, lost):
    write(tmp_path)
    for path in tmp_path.glob(f"{lost}*"):
        path.rename(tmp_path / f"was-{path.name}")
    assert f"there are no {lost} images" in said(tmp_path)


def test_two_layouts_in_a_folder(tmp_path):
    write_tree(write_sides(tmp_path / "one"))
    message = said(tmp_path / "one")
    assert all(name in message for name in ["train.parquet", "train/cat/0.png", "more than one"])
    write_sides(write_sides(tmp_path / "two") / "data")
    assert all(name in said(tmp_path / "two") for name in ["'train.parquet'", "'data/train.parquet'"])


def test_an_unused_folder_of_a_side_is_no_second_layout(tmp_path):
    write_sides(tmp_path)
    (tmp_path / "train").mkdir()
    assert load_images(tmp_path).manifest.skipped == {"train": "of neither side"}


# The manifest of a load


def test_the_manifest_of_a_folder(tmp_path):
    folder = write_tree(tmp_path / "pets")
    write_tree(folder, "val/cat/0.png", "loose.png", **{"train/cat/metadata.csv": b"a,b", "README.md": b"pets"})
    images = load_images(folder)
    manifest = images.manifest
    assert (manifest.kind, manifest.place) == ("image folder", str(folder))
    assert (manifest.examples, manifest.files) == ({"train": 2, "test": 2}, 4)
    assert (tuple(manifest.classes), manifest.form) == (("cat", "dog"), "5x4 RGB, 8 bits")
    assert manifest.skipped == {
        "train/cat/metadata.csv": "no image",
        "val": "of neither side",
        "loose.png": "of neither side",
    }
    assert manifest.line() == (
        f"image folder {folder}; 2 train, 2 test examples; 2 classes; 5x4 RGB, 8 bits; 4 files; "
        "skipped train/cat/metadata.csv (no image) and 2 more"
    )


def test_fingerprints_are_of_pixels_labels_and_names(tmp_path):
    def fingerprints(name, write=write_tree, **options):
        return load_images(write(tmp_path / name, **options)).manifest.fingerprints

    first = fingerprints("first")
    assert fingerprints("copy") == first
    assert first["train"] != first["test"]
    (tmp_path / "copy" / "test" / "dog" / "0.png").write_bytes(encoded(picture(9)))
    changed = load_images(tmp_path / "copy").manifest.fingerprints
    assert (changed["train"], changed["test"] == first["test"]) == (first["train"], False)
    named = fingerprints("named", write_sides, names=("cat", "dog"))
    assert fingerprints("renamed", write_sides, names=("cat", "wolf"))["train"] != named["train"]
    assert fingerprints("swapped", write_sides, names=("cat", "dog"), labels=[1, 0])["train"] != named["train"]


def test_a_copy_of_training_files_on_the_test_side_is_told(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "test" / "cat" / "again.png").write_bytes((tmp_path / "train" / "cat" / "0.png").read_bytes())
    for _ in range(2):
        (note,) = load_images(tmp_path).manifest.notes
        assert note == "1 test files have the content of training files, the first is test/cat/again.png"


# What is given to a trained network

INPUTS = ImageInputs(3, 4, 5, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def test_images_are_prepared_as_in_training(tmp_path):
    folder = write_tree(tmp_path / "set")
    data = load_images(folder)
    read = list(INPUTS.read(folder))
    assert [name for name, _ in read] == [
        str(folder / side / name / "0.png") for side in ("test", "train") for name in ("cat", "dog")
    ]
    expected = Normalise(INPUTS.mean, INPUTS.std)(torch.cat([data.test.pixels, data.train.pixels]))
    assert torch.equal(INPUTS.prepare([pixels for _, pixels in read]), expected)


def test_files_folders_and_tables_are_read(tmp_path):
    write_tree(tmp_path, "b.png", "a/deep/er/0.JPG", **{"notes.txt": b"", ".hidden.png": b"", "Thumbs.db": b""})
    assert [Path(name).name for name, _ in INPUTS.read(tmp_path)] == ["0.JPG", "b.png"]
    ((name, pixels),) = INPUTS.read(tmp_path / "b.png")
    assert name == str(tmp_path / "b.png")
    assert np.array_equal(pixels, pixels_of(Image.open(tmp_path / "b.png")))
    write_table(tmp_path / "rows.parquet", [picture(7), picture(8)], ["?", "?"], label="other")
    rows = list(INPUTS.read(tmp_path / "rows.parquet"))
    assert [name for name, _ in rows] == [f"{tmp_path}/rows.parquet row {row}" for row in range(2)]
    assert np.array_equal(rows[1][1], pixels_of(picture(8)))
    os.symlink(tmp_path / "b.png", tmp_path / "link.png")
    assert len(list(INPUTS.read(tmp_path / "link.png"))) == 1


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("big.png", encoded(picture(0, (6, 4))), "is 6x4 RGB and the network takes 5x4 RGB"),
        ("grey.png", encoded(picture(0, mode="L")), "is 5x4 L and the network takes 5x4 RGB"),
        ("broken.png", b"nothing", "cannot be decoded"),
        ("deep.png", encoded(Image.fromarray(np.full((4, 5), 999, np.uint16))), "8 bits"),
        ("new\nline.png", b"", r"new\nline.png"),
        ("other.parquet", b"PAR1", "other.parquet"),
        ("a/b.txt", b"", "holds no image"),
    ],
)
def test_what_a_network_cannot_take_is_named(tmp_path, name, content, why):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    given = path.parent if path.suffix == ".txt" else path
    with pytest.raises(InputError) as caught:
        list(INPUTS.read(given))
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_pipe_and_what_is_not_there_are_no_input(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, why in [
        (tmp_path / "pipe.png", "neither"),
        (tmp_path / "no.png", "No such file"),
        (tmp_path, "no image"),
    ]:
        with pytest.raises(InputError, match=why):
            list(INPUTS.read(path))


@pytest.mark.parametrize(
    "raw", [[], [np.zeros((3, 4, 5))], [np.zeros((4, 5), np.uint8)], [np.zeros((3, 5, 4), np.uint8)]]
)
def test_raw_inputs_that_do_not_fit(raw):
    with pytest.raises(InputError):
        INPUTS.prepare(raw)


def test_inputs_have_a_mean_for_each_channel_and_come_back_from_lists():
    with pytest.raises(InputError):
        ImageInputs(1, 4, 5, (0.1, 0.2), (1.0, 1.0))
    assert ImageInputs(3, 4, 5, list(INPUTS.mean), list(INPUTS.std)) == INPUTS


# In memory


def test_labels_beyond_the_named_classes():
    with pytest.raises(InputError, match=r"Label 2 of row 1 is not in 0\.\.1"):
        Images(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.tensor([0, 2]), 2)


def test_parts_and_copies_keep_the_classes():
    images = fake(9, classes=5)
    assert images.subset(torch.tensor([2, 0])).labels.tolist() == [2, 0]
    assert images.take(3, 0).classes == images.split(0.5, 0)[1].classes == images.to("cpu").classes == 5
    assert images.fingerprint() == fake(9, classes=5).fingerprint() != fake(8, classes=5).fingerprint()
