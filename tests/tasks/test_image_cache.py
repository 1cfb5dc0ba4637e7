"""Decoded images are cached under the content of their files, wherever a folder can be written."""

import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, equal, picture, pixels_of, said, write_sides, write_tree

from eqprop.tasks import cache as module, cache_folder, load_images, sources

WRITERS = [write_sides, write_tree]


@pytest.fixture(params=WRITERS)
def small(tmp_path, request):
    return request.param(tmp_path / "set")


def decodes(monkeypatch, allowed):
    true = sources.decode
    monkeypatch.setattr(sources, "decode", true if allowed else lambda *_: pytest.fail("decoded again"))


def same(one, other):
    pairs = [[(each.train.pixels, each.train.labels), (each.test.pixels, each.test.labels)] for each in (one, other)]
    return equal(*pairs) and one.train.classes == other.train.classes and one.manifest == other.manifest


def test_a_second_load_decodes_nothing(small, monkeypatch):
    first = load_images(small)
    decodes(monkeypatch, False)
    assert same(load_images(small), first)


def test_a_copy_elsewhere_with_other_times_is_known(small, tmp_path, monkeypatch):
    first = load_images(small)
    small.rename(tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*"):
        os.utime(path, (1, 1))
    decodes(monkeypatch, False)
    moved = load_images(tmp_path / "moved")
    assert moved.manifest.place != first.manifest.place
    assert not moved.manifest.differences(first.manifest)


def test_content_counts_and_not_size_and_time(tmp_path):
    folder = write_tree(tmp_path)
    path = folder / "train" / "cat" / "0.png"
    for seed in (10, 11):
        content = encoded(picture(seed))
        path.write_bytes(content + b"\0" * (500 - len(content)))
        os.utime(path, (1000, 1000))
        assert np.array_equal(load_images(folder).train.pixels[0], pixels_of(picture(seed)))


def test_a_renamed_class_and_a_moved_image_are_no_old_entry(tmp_path):
    folder = write_tree(tmp_path)
    load_images(folder)
    for side in ("train", "test"):
        (folder / side / "cat").rename(folder / side / "owl")
    renamed = load_images(folder)
    assert tuple(renamed.manifest.classes) == ("dog", "owl")
    assert renamed.train.labels.tolist() == [0, 1]


def test_an_ignored_file_is_told_also_from_the_cache(small, monkeypatch):
    load_images(small)
    (small / "train.old").mkdir()
    decodes(monkeypatch, False)
    assert load_images(small).manifest.skipped == {"train.old": "of neither side"}


def test_files_that_change_while_they_are_read(small, monkeypatch):
    victim = next(path for path in sorted(small.rglob("*")) if path.is_file())
    true = sources.decode

    def change(content):
        with victim.open("ab") as file:
            file.write(b"x")
        return true(content)

    monkeypatch.setattr(sources, "decode", change)
    message = said(small)
    assert "changed while they were read" in message or "cannot be read" in message


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-7], lambda b: b"junk" * 99, lambda b: b[:-1] + b"\1"])
@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_a_damaged_entry_is_written_again(small, cache, damage, kind, monkeypatch):
    first = load_images(small)
    (file,) = cache.glob(f"*.{kind}")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert same(load_images(small), first)
    (rewritten,) = cache.glob(f"*.{kind}")
    decodes(monkeypatch, False)
    assert same(load_images(small), first)
    assert abs(rewritten.stat().st_size - len(whole)) <= 8


def test_entries_used_longest_ago_are_deleted(tmp_path, cache, monkeypatch):
    def write(name, seed):
        files = {"train/a/0.png": encoded(picture(seed)), "train/b/0.png": encoded(picture(8))}
        files["test/a/0.png"] = encoded(picture(9))
        return write_tree(tmp_path / name, **files)

    folders = [write(str(number), number) for number in range(3)]
    entries = []
    for age, folder in enumerate(folders):
        load_images(folder)
        (new,) = set(cache.glob("*.json")) - set(entries)
        os.utime(new, (1000 + age, 1000 + age))
        entries.append(new)
    size = sum(path.stat().st_size for path in cache.iterdir()) // 3
    load_images(folders[0])  # used now
    monkeypatch.setattr(module, "LIMIT", round(2.5 * size))
    load_images(write("new", 8))
    left = set(cache.glob("*.json"))
    assert entries[0] in left
    assert not {entries[1], entries[2]} & left
    assert len(list(cache.glob("*.safetensors"))) == len(left) == 2


# Where


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """Nothing is said of where the cache is; temporary files are in a folder of the test."""
    for name in ("EQPROP_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))

    def no_home(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    return tmp_path / f"eqprop-{os.getuid()}"


def test_the_order_of_places(monkeypatch, tmp_path, homeless):
    assert cache_folder() == homeless
    assert stat.S_IMODE(homeless.stat().st_mode) == 0o700
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache_folder() == tmp_path / "home" / ".cache" / "eqprop"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "eqprop", "a relative path is to be ignored"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "eqprop"
    monkeypatch.setenv("EQPROP_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert (tmp_path / "own").is_dir()


def test_a_home_that_cannot_be_made(monkeypatch, tmp_path, homeless):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "file")
    assert cache_folder() == homeless


@pytest.mark.parametrize("fault", ["open to others", "a link", "a file", "of another user"])
def test_a_temporary_folder_that_others_could_have_made(homeless, fault, monkeypatch, tmp_path):
    if fault == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        homeless.symlink_to(tmp_path / "elsewhere")
    elif fault == "a file":
        homeless.touch()
    else:
        homeless.mkdir(mode=0o700)
    if fault == "open to others":
        homeless.chmod(0o777)
    if fault == "of another user":
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        homeless.rename(tmp_path / "eqprop-12345")
    assert cache_folder() is None


def test_no_cache_is_no_error(small, homeless, monkeypatch, tmp_path):
    homeless.touch()
    assert cache_folder() is None
    assert len(load_images(small).train) == 2


def test_an_unwritable_cache_is_no_error(small, cache):
    cache.write_text("a file where the folder should be")
    assert cache_folder() is None
    assert len(load_images(small).train) == 2


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_that_the_umask_gives(small, cache, umask):
    before = os.umask(umask)
    try:
        load_images(small)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.iterdir()} == {0o666 & ~umask}
