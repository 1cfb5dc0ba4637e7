"""Images in parquet files: which files are a side, what labels mean, and that nothing outside the file is read."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, strategies as st
from pictures import encoded, picture, pixels_of, said, write_sides, write_table

from eqprop.errors import InputError
from eqprop.tasks import load_images
from eqprop.tasks.parquet import ordered_shards


@pytest.mark.parametrize("inner", ["", "data"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_shards_are_read_in_order(tmp_path, inner, mode):
    folder = tmp_path / "odd [name] *"
    pictures = [picture(seed, mode=mode) for seed in range(4)]
    write_table(folder / inner / "train-00000-of-00002.parquet", pictures[:2], [0, 1])
    write_table(folder / inner / "train-00001-of-00002.parquet", pictures[2:3], [1])
    write_table(folder / inner / "test.parquet", pictures[3:], [0])
    data = load_images(folder)
    assert np.array_equal(data.train.pixels, np.stack([pixels_of(each) for each in pictures[:3]]))
    assert (data.train.labels.tolist(), data.train.classes) == ([0, 1, 1], 2)
    assert (data.manifest.kind, data.manifest.files) == ("parquet folder", 3)
    assert data.manifest.notes == ("no test image of class '1'",)


def test_what_datasets_writes_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    for side, seeds in {"train": [0, 1], "test": [2, 3]}.items():
        rows = {"image": [picture(seed) for seed in seeds], "label": ["dog", "cat"]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{side}.parquet")
    data = load_images(tmp_path)
    assert data.test.labels.tolist() == [1, 0]
    assert tuple(data.manifest.classes) == ("cat", "dog")
    assert np.array_equal(data.test.pixels[1], pixels_of(picture(3)))


# Which files

SHARDS = [
    ["train.parquet"],
    ["train-00000-of-00001.parquet"],
    ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
    ["train-00000-of-00002-0123abcd.parquet", "train-00001-of-00002-4567ef.parquet"],
    ["train-1-of-2.parquet", "train-2-of-2.parquet"],
    [f"train-{number}.parquet" for number in range(12)],
    [f"train_{number:02}.parquet" for number in range(1, 4)],
    ["train.0.parquet", "train.1.PARQUET"],
]


@pytest.mark.parametrize("names", SHARDS, ids=lambda names: names[0])
@given(data=st.data())
def test_whole_sets_of_shards_are_put_in_order(names, data):
    assert ordered_shards(data.draw(st.permutations(names)), "train") == names
    if len(names) > 2:  # of two the first could be all
        lost = data.draw(st.sampled_from(names[:-1]))
        if lost != names[0]:
            with pytest.raises(InputError, match="is not beside"):
                ordered_shards([name for name in names if name != lost], "train")


OTHER_FILES = {
    "one shard is missing": (["train-00000-of-00002.parquet"], "shard 1 of the train side"),
    "the first shard is missing": (["train-00001-of-00002.parquet"], "shard 2 of the train side"),
    "a middle shard is missing": (["train-0.parquet", "train-2.parquet"], "shard 1 of the train side"),
    "the first numbers are missing": (["train-5.parquet", "train-6.parquet"], "shard 1 of the train side"),
    "a copy": (["train.parquet", "train (1).parquet"], "train (1).parquet beside 'train.parquet'"),
    "an old one": (["train.parquet", "train_old.parquet"], "train_old.parquet"),
    "another name alone": (["training.parquet"], "training.parquet"),
    "a name and shards": (["train.parquet", "train-0.parquet"], "train.parquet"),
    "capitals": (["Train.parquet", "train.parquet"], "Train.parquet"),
    "a shard twice": (["train-00000-of-00001-ab.parquet", "train-00000-of-00001-cd.parquet"], "shard 0 twice"),
    "a number twice": (["train-0.parquet", "train-00.parquet"], "shard 0 twice"),
    "two counts": (["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"], "two copies"),
    "two marks": (["train-0.parquet", "train_1.parquet"], "two copies"),
    "a number and a count": (["train-0.parquet", "train-00000-of-00001.parquet"], "two copies"),
    "too many shards": ([f"train-{number}-of-2.parquet" for number in range(3)], "train-2-of-2.parquet is more than"),
    "no shards": (["train-0-of-0.parquet"], "more than the 0 shards"),
    "a huge count": (["train-0-of-99999999999999999999.parquet"], "shard 1 of the train side"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_files_that_may_be_left_out_or_taken_twice_are_refused(tmp_path, name):
    files, message = OTHER_FILES[name]
    write_sides(tmp_path)
    (tmp_path / "train.parquet").rename(tmp_path / "content")
    for file in files:
        (tmp_path / file).write_bytes((tmp_path / "content").read_bytes())
    assert message in said(tmp_path)


def test_other_parquet_files_are_told(tmp_path):
    write_table(write_sides(tmp_path) / "validation.parquet", [picture(0)], [0])
    assert load_images(tmp_path).manifest.skipped == {"validation.parquet": "of neither side"}


@pytest.mark.parametrize("side", ["train", "test"])
def test_pipes_folders_and_links_in_the_place_of_a_file(tmp_path, side):
    path = write_sides(tmp_path / "set") / f"{side}.parquet"
    path.rename(tmp_path / "moved.parquet")
    os.mkfifo(path)
    assert f"{path.name} is a pipe" in said(tmp_path / "set")
    path.unlink()
    path.mkdir()
    assert f"{path.name} is a folder" in said(tmp_path / "set")
    path.rmdir()
    os.symlink("/dev/zero", path)
    assert f"{path.name} is a link out of" in said(tmp_path / "set")
    assert f"{path.name} is a device" in said(tmp_path / "set", follow_links=True)
    path.unlink()
    os.symlink("../moved.parquet", path)
    assert "follow_links" in said(tmp_path / "set")
    assert len(load_images(tmp_path / "set", follow_links=True).train) == 2


# What labels mean


def feature(names):
    return {"image": {"_type": "Image"}, "label": names}


PETS = {"names": ("cat", "dog")}
WORDS = {"labels": ["dog", "cat"]}

LABELS = {
    "named": (PETS, PETS, ("cat", "dog"), [0, 1]),
    "numbers": ({"labels": [1, 0]}, {}, ("0", "1"), [1, 0]),
    "words": (WORDS, {"labels": ["cat", "dog"]}, ("cat", "dog"), [1, 0]),
    "unsigned": ({"labels": pa.array([1, 0], pa.uint64())}, {}, ("0", "1"), [1, 0]),
    "words in a dictionary": (
        {"labels": pa.array(["b", "a"]).dictionary_encode()},
        {"labels": ["a", "b"]},
        ("a", "b"),
        [1, 0],
    ),
    "a count of classes": (
        {"features": feature({"_type": "ClassLabel", "num_classes": 3})},
        {"features": feature({"_type": "ClassLabel", "num_classes": 3})},
        ("0", "1", "2"),
        [0, 1],
    ),
    "a description without columns": ({"features": {}}, {"features": {}}, ("0", "1"), [0, 1]),
    "a name without images": ({"names": ("a", "b", "c")}, {"names": ("a", "b", "c")}, ("a", "b", "c"), [0, 1]),
    "capital letters": ({"names": ("a", "A")}, {"names": ("a", "A")}, ("a", "A"), [0, 1]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_and_class_names(tmp_path, name):
    train, test, classes, labels = LABELS[name]
    data = load_images(write_sides(tmp_path, train, test))
    assert tuple(data.manifest.classes) == classes
    assert data.train.labels.tolist() == labels
    assert data.train.classes == data.test.classes == len(classes)


def test_columns_without_types_are_found_by_name(tmp_path):
    for side, labels in {"train": [0, 1], "test": [1, 0]}.items():
        rows = {"img": [encoded(picture(seed)) for seed in range(2)], "fine_label": labels, "row": [7, 8]}
        pyarrow.parquet.write_table(pa.table(rows), tmp_path / f"{side}.parquet")
    images = load_images(tmp_path).test
    assert np.array_equal(images.pixels[1], pixels_of(picture(1)))
    assert images.labels.tolist() == [1, 0]


THREE = {"pictures": [picture(seed) for seed in range(3)]}

MISFITS = {
    "another order": (PETS, {"names": ("dog", "cat")}, ["label 0 is 'cat' in the first and 'dog' in the second"]),
    "another spelling": (PETS, {"names": ("cat", "Dog")}, ["label 1 is 'dog'", "'Dog'"]),
    "another number of names": (PETS, {"names": ("cat", "dog", "owl")}, ["label 2 is no class", "'owl'"]),
    "names on one side": (PETS, {}, ["test.parquet does not name its classes"]),
    "names on the other side": ({}, PETS, ["train.parquet does not name its classes"]),
    "a gap": (THREE | {"labels": [0, 1, 255]}, {}, ["no train image has label 2", "255"]),
    "not from 0": ({"labels": [1, 2]}, {}, ["no train image has label 0"]),
    "a huge gap": ({"labels": pa.array([0, 2**64 - 1], pa.uint64())}, {}, ["no train image has label 1"]),
    "an unknown test label": ({}, {"labels": [2, 0]}, ["Label 2 of the image of row 0 of test.parquet", "0..1"]),
    "no label": ({}, {"labels": [0, -1]}, ["Label -1 of the image of row 1 of test.parquet", "hub"]),
    "beyond the names": (PETS | {"labels": [0, 2]}, PETS, ["Label 2 of the image of row 1 of train.parquet", "0..1"]),
    "negative": ({"labels": [0, -4]}, {}, ["Label -4 of the image of row 1 of train.parquet"]),
    "null": ({"labels": [0, None]}, {}, ["None of the image of row 1 of train.parquet"]),
    "fractions": ({"labels": [0.0, 1.0]}, {}, ["0.0", "not a whole number"]),
    "truths": ({"labels": [True, False]}, {}, ["True", "not a whole number"]),
    "lists": ({"labels": [[0], [1]]}, {}, ["[0]", "not a whole number"]),
    "words and numbers": (WORDS, {}, ["label 0 of the image of row 0 of test.parquet is no name"]),
    "words without one": ({"labels": ["a", None]}, WORDS, ["None of the image of row 1"]),
    "a word of the test side": (WORDS, {"labels": ["cat", "Dog "]}, ["'Dog '", "only on the test side", "capitals"]),
    "words spelled alike": ({"labels": ["dog", "Dog"]}, WORDS, ["'Dog' and 'dog' differ only in"]),
    "an empty word": ({"labels": ["", "dog"]}, WORDS, ["is empty or cannot be shown"]),
    "a name twice": ({"names": ("a", "a")}, {"names": ("a", "a")}, ["two classes are named 'a'"]),
    "a name of two lines": ({"names": ("a\nb", "c")}, {"names": ("a\nb", "c")}, [r"'a\nb'"]),
    "names that are none": (
        {"features": feature({"_type": "ClassLabel", "names": [1, 2]})},
        {},
        ["its class names are [1, 2]", "train.parquet"],
    ),
    "a count that is none": (
        {"features": feature({"_type": "ClassLabel", "num_classes": -1})},
        {},
        ["its class names are None", "train.parquet"],
    ),
    "columns of other names": ({"label": "species"}, {}, ["'image', 'species'", "train.parquet"]),
    "no rows": ({}, {"pictures": [], "labels": pa.array([], pa.int64())}, ["no images on the test side"]),
}


@pytest.mark.parametrize("name", MISFITS)
def test_labels_that_do_not_fit(tmp_path, name):
    train, test, parts = MISFITS[name]
    message = said(write_sides(tmp_path, train, test))
    assert not [part for part in [*parts, str(tmp_path)] if part not in message], message


def test_shards_that_name_other_classes(tmp_path):
    write_sides(tmp_path, **PETS)
    (tmp_path / "train.parquet").rename(tmp_path / "train-0.parquet")
    write_table(tmp_path / "train-1.parquet", [picture(0)], [0], ("dog", "cat"))
    assert "train-0.parquet and train-1.parquet name other classes" in said(tmp_path)


def test_a_row_far_down_is_named_by_its_file(tmp_path):
    write_sides(tmp_path)
    (tmp_path / "train.parquet").rename(tmp_path / "train-0.parquet")
    count = 1002
    write_table(tmp_path / "train-1.parquet", [encoded(picture(0))] * count, [0] * (count - 1) + [None])
    assert "row 1001 of train-1.parquet" in said(tmp_path)
    write_table(tmp_path / "train-1.parquet", [encoded(picture(0))] * (count - 1) + [b"?"], [0] * count)
    assert "the image of row 1001 of train-1.parquet cannot be decoded" in said(tmp_path)


# What a stranger's file may say


def test_files_that_a_row_names_are_not_opened(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(picture(3)))
    os.mkfifo(tmp_path / "pipe")
    for place in [str(secret), "/dev/zero", str(tmp_path / "pipe"), "../secret.png", "http://localhost/a.png"]:
        write_sides(tmp_path / "set", {"pictures": [picture(0), None], "paths": [None, place]})
        message = said(tmp_path / "set")
        assert all(part in message for part in ["row 1 of train.parquet", place, "store the images themselves"])
    write_sides(tmp_path / "set", {"paths": [str(secret), "/dev/zero"]})
    assert np.array_equal(load_images(tmp_path / "set").train.pixels[0], pixels_of(picture(0))), "only a name"
    write_sides(tmp_path / "set", {"pictures": [picture(0), None]})
    assert "the image of row 1 of train.parquet is missing" in said(tmp_path / "set")


@pytest.mark.parametrize(
    "values", [["/dev/zero", "b.png"], [[1, 2], [3, 4]], [1, 2], [{"path": "/dev/zero"}, {"path": "b.png"}]]
)
def test_columns_that_hold_no_images(tmp_path, values):
    write_sides(tmp_path)
    pyarrow.parquet.write_table(pa.table({"image": values, "label": [0, 1]}), tmp_path / "train.parquet")
    assert "train.parquet: its column 'image' holds" in said(tmp_path)


DESCRIPTIONS = {
    "deep": b"[" * 200_000,
    "deep objects": b'{"info":' * 100_000,
    "no json": b"{",
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "features in a list": json.dumps({"info": {"features": [1]}}).encode(),
    "info in a list": json.dumps({"info": [1]}).encode(),
    "a long number": b'{"info": ' + b"9" * 10_000 + b"}",
    "very long": b'{"info": "' + b"x" * (17 << 20) + b'"}',
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_descriptions_that_are_damaged(tmp_path, name):
    write_sides(tmp_path, {"features": DESCRIPTIONS[name]})
    assert "train.parquet: the description of its columns" in said(tmp_path)


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view", "dictionary"])
def test_columns_of_bytes_of_any_kind(tmp_path, kind):
    write_sides(tmp_path)
    rows = pa.array([encoded(picture(seed)) for seed in range(2)])
    rows = rows.dictionary_encode() if kind == "dictionary" else rows.cast(getattr(pa, kind)())
    pyarrow.parquet.write_table(pa.table({"image": rows, "label": [0, 1]}), tmp_path / "train.parquet")
    assert np.array_equal(load_images(tmp_path).train.pixels[1], pixels_of(picture(1)))


def test_two_columns_of_one_name(tmp_path):
    write_sides(tmp_path)
    column = pa.array([encoded(picture(0))])
    table = pa.Table.from_arrays([column, column, pa.array([0])], names=["image", "image", "label"])
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    assert "two columns are named 'image'" in said(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 300, -30])
def test_a_truncated_file(tmp_path, keep, capfd):
    nine = {"pictures": [picture(seed) for seed in range(9)], "labels": [0, 1, 0] * 3}
    file = write_sides(tmp_path, nine) / "train.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    assert "train.parquet cannot be read" in said(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("start", [4, 300, 900])
def test_a_damaged_middle_of_a_file(tmp_path, start):
    nine = {"pictures": [picture(seed) for seed in range(9)], "labels": [0, 1, 0] * 3}
    file = write_sides(tmp_path, nine) / "train.parquet"
    content = bytearray(file.read_bytes())
    content[start : start + 200] = b"\xff" * 200
    file.write_bytes(content)
    assert "train.parquet" in said(tmp_path)
