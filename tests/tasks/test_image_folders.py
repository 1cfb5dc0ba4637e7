"""Images in folders: which files are a class's, and that no other is read."""

import os
import socket

import numpy as np
import pytest
from pictures import encoded, picture, pixels_of, said, write_tree

from eqprop.tasks import load_images
from eqprop.tasks.found import KEPT

ALL = [f"{side}/{name}/0.png" for side in ("train", "test") for name in ("cat", "dog")]


def labels(data):
    return data.train.labels.tolist(), data.test.labels.tolist()


def test_classes_are_the_folders_of_the_training_side_in_order(tmp_path):
    folder = tmp_path / "odd [name] * é"
    write_tree(folder, "train/b/1.png", "train/a/0.PNG", "train/c/x.JpEg", "test/c/0.tif", "test/a/1.bmp")
    data = load_images(folder)
    assert labels(data) == ([0, 1, 2], [0, 2])
    assert data.train.classes == data.test.classes == 3
    assert np.array_equal(data.train.pixels[0], pixels_of(picture(1)))
    assert tuple(data.manifest.classes) == ("a", "b", "c")
    assert data.manifest.notes == ("no test image of class 'b'",)


def test_one_class_is_nothing_to_learn(tmp_path):
    write_tree(tmp_path, "train/cat/0.png", "test/cat/0.png")
    assert "there is one class, 'cat': give at least two" in said(tmp_path)


def test_copies_of_an_image_in_another_class_are_told(tmp_path):
    write_tree(tmp_path, *ALL, **{f"train/{name}.png": encoded(picture(7)) for name in ("cat/1", "cat/2", "dog/3")})
    assert "1 train files have the content of files of another class, the first is train/dog/3.png" in [
        *load_images(tmp_path).manifest.notes
    ]


def test_nested_folders_belong_to_their_class(tmp_path):
    write_tree(tmp_path, *ALL, "train/cat/more/1.png", "train/cat/more/deep/2.png", "test/dog/x y/3.png")
    data = load_images(tmp_path)
    assert labels(data) == ([0, 0, 0, 1], [0, 1, 1])
    assert data.manifest.files == 7


SKIPPED = {
    "train/cat/metadata.csv": "no image",
    "train/cat/notes.txt": "no image",
    "train/cat/picture.heic": "no image",
    "train/cat/Thumbs.db": "no image",
    "train/cat/.hidden.png": "hidden",
    "train/.ipynb_checkpoints/a.png": "hidden",
    "train/__MACOSX/a.png": "no image",
    "train/loose.png": "not in the folder of a class",
    "test/labels.csv": "not in the folder of a class",
    "validation/cat/0.png": "of neither side",
    ".git/config": "hidden",
}


def test_other_files_are_skipped_with_a_reason(tmp_path):
    write_tree(tmp_path, *ALL, *SKIPPED)
    (tmp_path / "test" / "empty").mkdir()
    data = load_images(tmp_path)
    assert labels(data) == ([0, 1], [0, 1])
    folders = {".ipynb_checkpoints", "__MACOSX", "validation", ".git"}
    expected = {
        name.rsplit("/", 1)[0].removesuffix("/cat") if set(name.split("/")) & folders else name: reason
        for name, reason in SKIPPED.items()
    }
    assert data.manifest.skipped == expected | {"test/empty": "a folder without images"}


def test_the_names_of_many_skipped_files_are_counted(tmp_path):
    write_tree(tmp_path, *ALL)
    for number in range(KEPT + 7):
        (tmp_path / "train" / "cat" / f"{number}.txt").touch()
    manifest = load_images(tmp_path).manifest
    assert (len(manifest.skipped), manifest.more_skipped) == (KEPT, 7)
    assert f"and {KEPT + 6:,} more" in manifest.line()


# What is refused: files beside ``ALL`` -> the message


REFUSED = {
    "only folders": (["train/owl/red/0.png", "train/owl/blue/1.png"], "train/owl has images only in its folders"),
    "only folders on the test side": (["test/cat/a/0.png"], "test/cat has images only in its folders 'a'"),
    "an empty class": (["train/owl/"], "train/owl has no image: add images"),
    "a class of other files": (["train/owl/0.heic"], "train/owl has no image (train/owl/0.heic: no image)"),
    "a test class": (["test/owl/0.png"], "class 'owl' of the image test/owl/0.png is only on the test side"),
    "capitals": (["test/Cat/0.png"], "'Cat' and 'cat' differ only in capitals"),
    "a space": (["test/cat /0.png"], "'cat ' and 'cat' differ only in capitals, spaces"),
    "training capitals": (["train/DOG/0.png"], "the classes 'DOG' and 'dog' differ only in capitals"),
    "full width": (["train/ｄｏｇ/0.png"], "differ only in capitals, spaces or Unicode form"),
    "a control character": (["train/o\nwl/0.png"], r"the class name 'o\nwl'"),
    "no unicode": (["train/o\udcffwl/0.png"], r"the class name 'o\udcffwl'"),
    "an image of another kind": (["train/cat/\x1b[31m.png"], r"train/cat/\x1b[31m.png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_ambiguous_is_refused(tmp_path, name):
    files, message = REFUSED[name]
    write_tree(tmp_path, *ALL)
    if name == "only folders on the test side":
        (tmp_path / "test" / "cat" / "0.png").unlink()
    for file in files:
        if file.endswith("/"):
            (tmp_path / file).mkdir(parents=True)
        else:
            write_tree(tmp_path, **{file: b"no image" if "\x1b" in file else encoded(picture(5))})
    assert message in said(tmp_path)


def test_unicode_forms_of_a_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_tree(tmp_path, f"train/{composed}/0.png", f"test/{decomposed}/0.png")
    assert "Unicode form" in said(tmp_path)


def test_letters_may_be_classes_in_capitals_and_small(tmp_path):
    write_tree(tmp_path, *(f"{side}/{letter}/0.png" for side in ("train", "test") for letter in "Aa"))
    assert tuple(load_images(tmp_path).manifest.classes) == ("A", "a")


def test_strange_file_names_are_read_and_shown_escaped(tmp_path):
    names = ["train/cat/new\nline.png", "train/cat/\udcff.png", "train/cat/[bold].png", f"train/cat/{'x' * 250}.png"]
    write_tree(tmp_path, *ALL, *names, **{"train/cat/\x07.txt": b""})
    data = load_images(tmp_path)
    assert len(data.train) == 6
    assert data.manifest.skipped == {r"train/cat/\x07.txt": "no image"}
    assert data.manifest.line().isprintable()
    assert load_images(tmp_path).manifest == data.manifest, "also from the cache"


# Links


def link(tmp_path, name, target):
    path = tmp_path / "set" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, path)


@pytest.fixture
def linked(tmp_path):
    write_tree(tmp_path / "set", *ALL)
    write_tree(tmp_path / "outside", "pool/8.png", "pool/9.png", "pool/.hidden")
    return tmp_path / "set"


INSIDE = {
    "a file": ("train/cat/l.png", "../../pool/1.png", 4),
    "a folder in a class": ("train/cat/l", "../../pool", 5),
    "a class": ("train/owl", "../pool", 5),
    "a chain": ("train/owl", "../chain", 5),
    "itself through others": ("pool/back", "../train/cat", 3),
    "its own folder": ("train/cat/l", ".", 3),
    "the folder above": ("train/cat/l", "..", 3),
    "the data set": ("train/cat/l", "../..", 3),
    "a file of the class": ("train/cat/l.png", "0.png", 3),
}


@pytest.mark.parametrize("name", INSIDE)
def test_links_inside_are_followed_once(tmp_path, linked, name):
    place, target, count = INSIDE[name]
    write_tree(linked, "pool/1.png", "pool/deep/2.png", "train/cat/own.png")
    os.symlink("pool", linked / "chain")
    link(tmp_path, place, target)
    if name == "itself through others":
        os.symlink("../../pool", linked / "train" / "cat" / "go")
        count = 5
    data = load_images(linked)
    assert len(data.train) == count
    assert len(data.test) == 2
    skips = [reason for reason in data.manifest.skipped.values() if "leads" in reason or "same file" in reason]
    assert len(skips) == (count == 3 or name == "itself through others")


def test_one_file_in_two_classes(tmp_path, linked):
    link(tmp_path, "train/dog/l.png", "../cat/0.png")
    assert "train/dog/l.png and train/cat/0.png are the same file" in said(linked)


def test_many_links_to_many_folders_end(tmp_path, linked):
    for number in range(30):
        for which in "ab":
            link(tmp_path, f"pool/{number}/{which}", f"../{number + 1}")
    write_tree(linked, "pool/30/0.png")
    link(tmp_path, "train/cat/l", "../../pool/0")
    assert len(load_images(linked).train) == 3


OUTSIDE = {
    "a file": ("train/cat/l.png", "pool/8.png", 3),
    "a folder": ("train/cat/l", "pool", 4),
    "a class": ("train/owl", "pool", 4),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_out_are_followed_if_asked_to(tmp_path, linked, name):
    place, target, count = OUTSIDE[name]
    link(tmp_path, place, tmp_path / "outside" / target)
    message = said(linked)
    assert all(part in message for part in [place, str(tmp_path / "outside"), "follow_links"])
    assert len(load_images(linked, follow_links=True).train) == count


def test_a_side_that_is_a_link(tmp_path, linked):
    (linked / "train").rename(tmp_path / "train")
    link(tmp_path, "train", tmp_path / "train")
    assert "follow_links" in said(linked)
    assert len(load_images(linked, follow_links=True).train) == 2
    os.symlink(linked, tmp_path / "entry")
    assert load_images(tmp_path / "entry", follow_links=True).manifest.place == str(linked), "the folder may be a link"


def test_the_data_set_as_a_class(tmp_path, linked):
    link(tmp_path, "train/owl", "..")
    assert "train/owl has no image (train/owl: leads to a folder that holds its own)" in said(linked)


@pytest.mark.parametrize("target", ["nowhere.png", "l.png"])
def test_links_that_lead_nowhere(tmp_path, linked, target):
    link(tmp_path, "train/cat/l.png", target)
    assert "train/cat/l.png cannot be read" in said(linked)


# What is no file, or cannot be read


def test_pipes_and_sockets_are_not_opened(tmp_path, monkeypatch):
    write_tree(tmp_path, *ALL)
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.png")
    monkeypatch.chdir(tmp_path / "train" / "dog")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        os.symlink("/dev/zero", tmp_path / "test" / "cat" / "zero.png")
        assert "zero.png" in said(tmp_path)
        data = load_images(tmp_path, follow_links=True)
    assert data.manifest.skipped == {
        "train/cat/pipe.png": "a pipe, no file",
        "train/dog/socket.png": "a socket, no file",
        "test/cat/zero.png": "a device, no file",
    }


@pytest.mark.parametrize("call", ["listdir", "lstat", "open", "stat"])
def test_permissions(tmp_path, monkeypatch, call):
    write_tree(tmp_path, *ALL)
    owner = os if call in ("listdir", "lstat") else type(tmp_path)
    place = "train/dog" if call == "listdir" else "train/dog/0.png"
    true = getattr(owner, call)

    def refuse(path, *args, **kwargs):
        if os.fspath(path).endswith(place):
            raise PermissionError(13, "Permission denied", str(path))
        return true(path, *args, **kwargs)

    monkeypatch.setattr(owner, call, refuse)
    assert f"{place} cannot be read (Permission denied)" in said(tmp_path)


def test_folders_too_deep_for_a_path(tmp_path):
    write_tree(tmp_path, *ALL)
    here = os.getcwd()
    try:
        os.chdir(tmp_path / "train" / "cat")
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
    finally:
        os.chdir(here)
    assert "File name too long" in said(tmp_path)
