"""What a data set is, wherever it comes from, and what its batches hold."""

import io
import logging
import os
import socket
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from eqprop.errors import InputError
from eqprop.tasks import Batches, Crop, Flip, Images, Normalise, load_images, sources as data

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PLAIN = Normalise((0.0,), (1.0,))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("EQPROP_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise socket.gaierror("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def picture(seed, size=(5, 4), mode="RGB"):
    channels = {"RGB": (3,), "RGBA": (4,)}.get(mode, ())
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], *channels), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, pictures, labels, names=("cat", "dog"), image="image", label="label"):
    """A split in the layout of the hub; without ``names`` its labels are bare numbers."""
    kind = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
    features = datasets.Features({image: datasets.Image(), label: kind})
    encoded = [{"bytes": p if isinstance(p, bytes) else png(p), "path": None} for p in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict({image: encoded, label: labels}, features=features)
    table.to_parquet(path)
    return path.parent


def fake(count=20, channels=1, size=6, classes=3):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % classes, classes)


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


# Sources


def test_the_embedded_digits_are_those_of_scikit_learn():
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    train, test = load_images("digits").train, load_images("digits", "test")
    assert (train.pixels.shape, test.pixels.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert train.classes == test.classes == 10
    ours = torch.cat([train.pixels, test.pixels]).flatten(1)
    theirs = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, ours.numpy())) == sorted(map(bytes, theirs))
    assert all(torch.bincount(test.labels) >= 34)


def test_the_embedded_digits_are_not_cached(cache):
    load_images("digits").test
    assert not cache.exists()


@pytest.mark.parametrize(("folder", "shape"), [("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))])
def test_a_shared_data_set(folder, shape):
    if not (SHARED / folder).exists():
        pytest.skip(f"shared/data/{folder} is not beside this checkout")
    images = load_images(SHARED / folder).test
    assert images.pixels.shape == (10000, *shape)
    assert images.classes == 10
    assert torch.bincount(images.labels).min() > 800


@pytest.mark.parametrize("inner", ["", "data"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_parquet_folder(tmp_path, inner, mode):
    pictures = [picture(seed, mode=mode) for seed in range(3)]
    write_parquet(tmp_path / "odd [name] *" / inner / "train-00000-of-00002.parquet", pictures[:2], [0, 1])
    write_parquet(tmp_path / "odd [name] *" / inner / "train-00001-of-00002.parquet", pictures[2:], [1])
    images = load_images(tmp_path / "odd [name] *").train
    expected = np.stack([np.asarray(p).reshape(4, 5, -1) for p in pictures]).transpose(0, 3, 1, 2)
    assert np.array_equal(images.pixels, expected)
    assert (images.labels.tolist(), images.classes) == ([0, 1, 1], 2)


def test_an_image_folder(tmp_path):
    folder = tmp_path / "odd [name] *"
    for split, classes in {"train": ["b", "a"], "test": ["a", "c"]}.items():
        for seed, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            picture(seed).save(folder / split / name / "0.png")
            (folder / split / name / "notes.txt").write_text("not an image")
    train, test = load_images(folder).train, load_images(folder, "test")
    assert train.classes == test.classes == 3
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [0, 2])
    assert np.array_equal(train.pixels[0], np.asarray(picture(1)).transpose(2, 0, 1))


def test_columns_without_types_are_found_by_name(tmp_path):
    for split, labels in {"train": [0, 4], "test": [1, 0]}.items():
        rows = {"img": [png(picture(seed)) for seed in range(2)], "fine_label": labels, "row": [7, 8]}
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}.parquet")
    images = load_images(tmp_path).test
    assert np.array_equal(images.pixels[1], np.asarray(picture(1)).transpose(2, 0, 1))
    assert images.labels.tolist() == [1, 0]
    assert images.classes == 5, "the largest label of the train side + 1"


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA"])
def test_other_modes_are_converted(tmp_path, mode):
    original = picture(0, mode="RGBA" if mode == "RGBA" else "RGB").convert(mode)
    write_parquet(tmp_path / "train.parquet", [original], [0])
    expected = np.asarray(original.convert("L" if mode in ("1", "LA") else "RGB")).reshape(4, 5, -1)
    assert np.array_equal(load_images(tmp_path).train.pixels[0], expected.transpose(2, 0, 1))


def test_a_local_load_prints_nothing_and_leaves_the_settings(tmp_path, capfd, monkeypatch):
    def settings_now():
        return datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity(), os.environ.copy()

    write_parquet(tmp_path / "train.parquet", [picture(0)], [0])
    before, _ = settings_now(), capfd.readouterr()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("asked the network"))
    load_images(tmp_path).train
    assert settings_now() == before
    assert not datasets.config.HF_HUB_OFFLINE
    assert capfd.readouterr() == ("", "")


# Errors


def said(source, split="train"):
    with pytest.raises(InputError) as caught:
        load_images(source, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_a_bare_name_a_file_and_an_empty_folder(tmp_path):
    assert "nowhere" in said(tmp_path / "nowhere")
    assert "ylecun/mnist" in said("mnist-without-owner")
    file = write_parquet(tmp_path / "train.parquet", [picture(0)], [0]) / "train.parquet"
    assert f"pass the folder that holds the train and the test files, {tmp_path}" in said(file)
    assert "train*.parquet" in said(Path(__file__).parent)
    assert "test*.parquet" in said(tmp_path, "test")
    assert "'validation'" in said(tmp_path, "validation")


@pytest.mark.parametrize(
    ("labels", "names", "named"),
    [
        ([0, 1, -1], ("cat", "dog"), ["-1", "row 2", "0..1"]),
        ([0, 3, 0], None, []),
        ([0, None, 0], None, ["None", "row 1"]),
        ([0, 0, -4], None, ["-4", "row 2"]),
    ],
)
def test_labels_out_of_range(tmp_path, labels, names, named):
    write_parquet(tmp_path / "train.parquet", [picture(seed) for seed in range(3)], labels, names)
    if not named:
        assert load_images(tmp_path).train.classes == 4
    else:
        assert all(part in said(tmp_path) for part in [*named, str(tmp_path)])


def test_a_row_far_down_is_named(tmp_path):
    write_parquet(tmp_path / "train.parquet", [png(picture(0))] * 1002, [0] * 1001 + [None], names=None)
    assert "row 1001 " in said(tmp_path)


def test_a_test_label_that_the_train_side_does_not_have(tmp_path):
    for split, label in {"train": 1, "test": 2}.items():
        write_parquet(tmp_path / f"{split}.parquet", [picture(0)], [label], names=None)
    assert "Label 2 of row 0 is not in 0..1" in said(tmp_path, "test")


def test_labels_beyond_the_named_classes():
    with pytest.raises(InputError, match=r"Label 2 of row 1 is not in 0\.\.1"):
        Images(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.tensor([0, 2]), 2)


def test_columns_that_cannot_be_told_are_listed(tmp_path):
    write_parquet(tmp_path / "train.parquet", [picture(0)], [0], names=None, label="species")
    assert "['image', 'species']" in said(tmp_path)


@pytest.mark.parametrize(("size", "mode", "named"), [((6, 4), "RGB", "6x4 RGB"), ((5, 4), "L", "5x4 L")])
def test_images_that_differ(tmp_path, size, mode, named):
    write_parquet(tmp_path / "train.parquet", [picture(0), picture(1), picture(2, size, mode)], [0, 0, 0])
    assert all(part in said(tmp_path) for part in ["row 2", named, "5x4 RGB"])


def test_a_deep_image(tmp_path):
    deep = Image.fromarray(np.full((4, 5), 40000, np.uint16))
    write_parquet(tmp_path / "train.parquet", [deep], [0])
    assert "8 bits" in said(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b"\0" * 20, lambda b: b[:60] + b"x" * 40])
def test_a_corrupt_image_is_named(tmp_path, damage):
    write_parquet(tmp_path / "parquet" / "train.parquet", [picture(0), damage(png(picture(1)))], [0, 0])
    assert "row 1" in said(tmp_path / "parquet")
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "broken.png").write_bytes(damage(png(picture(1))))
    assert "broken.png" in said(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 300, -30])
def test_a_truncated_parquet_file(tmp_path, keep, capfd, caplog):
    file = write_parquet(tmp_path / "train.parquet", [picture(seed) for seed in range(9)], [0] * 9) / "train.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    capfd.readouterr()  # of writing it
    logger = logging.getLogger("datasets")
    logger.addHandler(caplog.handler)
    try:
        assert str(tmp_path) in said(tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_damaged_middle_of_a_parquet_file(tmp_path):
    file = write_parquet(tmp_path / "train.parquet", [picture(seed) for seed in range(9)], [0] * 9) / "train.parquet"
    content = bytearray(file.read_bytes())
    content[4:600] = b"\xff" * 596
    file.write_bytes(content)
    assert str(tmp_path) in said(tmp_path)


def test_a_hub_that_cannot_be_reached(capfd):
    start = time.monotonic()
    message = said("nobody/nothing-here")
    assert time.monotonic() - start < 5
    assert all(part in message for part in ["nobody/nothing-here", "hub", "no network in tests", "--data"])
    assert capfd.readouterr() == ("", "")


def test_a_hub_data_set_is_read_through_datasets(tmp_path, monkeypatch, cache):
    folder = write_parquet(tmp_path / "train.parquet", [picture(0)], [1])
    files = {"train": str(folder / "train.parquet")}
    local = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=tmp_path / "arrow")
    calls = []
    monkeypatch.setattr(data, "_ask_hub", lambda name: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: calls.append((name, split)) or local)
    images = [load_images("owner/pets").train for _ in range(2)]
    assert all(np.array_equal(i.pixels[0], np.asarray(picture(0)).transpose(2, 0, 1)) for i in images)
    assert calls == [("owner/pets", "train")] * 2
    assert len(list(cache.glob("*.json"))) == 1


# The cache


@pytest.fixture
def small(tmp_path):
    return write_parquet(tmp_path / "set" / "train.parquet", [picture(s) for s in range(4)], [0, 1, 0, 1])


def test_a_second_load_decodes_nothing(small, monkeypatch):
    first = load_images(small).train
    monkeypatch.setattr(data, "_decode", lambda *_: pytest.fail("decoded again"))
    second = load_images(small).train
    assert equal([(first.pixels, first.labels)], [(second.pixels, second.labels)])
    assert first.classes == second.classes


def test_changed_files_are_decoded_again(small):
    load_images(small).train
    write_parquet(small / "train.parquet", [picture(9)], [1])
    images = load_images(small).train
    assert np.array_equal(images.pixels[0], np.asarray(picture(9)).transpose(2, 0, 1))


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-7], lambda b: b"junk" * 99, lambda b: b[:-1] + b"\1"])
def test_a_damaged_cache_is_rewritten(small, cache, damage, monkeypatch):
    first = load_images(small).train
    (file,) = cache.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again = load_images(small).train
    assert equal([(first.pixels, first.labels)], [(again.pixels, again.labels)])
    (rewritten,) = cache.glob("*.safetensors")
    monkeypatch.setattr(data, "_decode", lambda *_: pytest.fail("decoded again"))
    assert len(load_images(small).train) == 4
    assert rewritten.stat().st_size == len(whole)


def test_an_unwritable_cache_is_no_error(small, cache):
    cache.write_text("a file where the folder should be")
    assert len(load_images(small).train) == 4


# Parts


def test_take():
    images = fake(20)
    assert torch.equal(images.take(5).pixels, images.pixels[:5])
    for count in (0, -1, 21):
        with pytest.raises(InputError, match=f"{count} of 20"):
            images.take(count)


@given(count=st.integers(2, 40), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_a_split_parts_the_images(count, fraction, seed):
    images = Images(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(count, dtype=torch.int64), 1)
    if not 0 < round(fraction * count) < count:
        with pytest.raises(InputError, match="one side empty"):
            images.split(fraction, seed)
        return
    first, second = images.split(fraction, seed)
    assert len(first) == round(fraction * count)
    assert sorted([*first.pixels.flatten().tolist(), *second.pixels.flatten().tolist()]) == list(range(count))
    assert torch.equal(images.split(fraction, seed)[0].pixels, first.pixels)


def test_splits_of_other_seeds_differ_and_nan_is_refused():
    images = fake(200)
    assert not torch.equal(images.split(0.5, 0)[0].pixels, images.split(0.5, 1)[0].pixels)
    with pytest.raises(InputError):
        images.split(float("nan"), 0)


# Augmentation


def test_a_crop_is_a_window_of_the_edge_padded_image():
    images = torch.rand(64, 2, 7, 5)
    padding = 3
    padded = torch.nn.functional.pad(images, (padding,) * 4, mode="replicate")
    windows = padded.unfold(2, 7, 1).unfold(3, 5, 1)  # (batch, channels, down, right, 7, 5)
    cropped = Crop(padding)(images, torch.Generator().manual_seed(0))
    same = (windows == cropped[:, :, None, None]).all(dim=(-1, -2)).all(dim=1)
    assert same.flatten(1).any(dim=1).all()
    places = {divmod(int(place), 2 * padding + 1) for place in same.flatten(1).int().argmax(dim=1)}
    assert len(places) > 20, "each image has a window of its own"
    assert {down for down, _ in places} == {right for _, right in places} == set(range(2 * padding + 1))


def test_a_crop_without_padding_changes_nothing():
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(Crop(0)(images, torch.Generator()), images)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_mirror_whole_images_at_their_rate(probability):
    images = torch.rand(4000, 2, 3, 4)
    flipped = Flip(probability)(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    kept = (flipped == images).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all()
    assert abs(mirrored.float().mean() - probability) < 0.03


def test_normalise():
    pixels = fake(4, channels=3).pixels
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    expected = (pixels.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    result = Normalise(mean, std)(pixels)
    assert result.dtype == torch.float32
    assert np.allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Normalise((0.0,), (0.0,)),
        lambda: Normalise((0.0,), (-1.0,)),
        lambda: Normalise((float("nan"),), (1.0,)),
        lambda: Normalise((0.0, 0.0), (1.0,)),
        lambda: Normalise((0.0, 0.0), (1.0, 1.0))(fake().pixels),
        lambda: Batches(fake(), 4, Normalise((0.0, 0.0), (1.0, 1.0))),
        lambda: Batches(fake(), 0, PLAIN),
        lambda: Batches(fake(3), 4, PLAIN, keep_last=False),
        lambda: Batches(fake(), 4, PLAIN).epoch(0, start=6),
        lambda: Batches(fake(), 4, PLAIN).epoch(0, start=-1),
        lambda: Batches(fake(), 5, PLAIN).epoch(0, world=2),
        lambda: Batches(fake(), 4, PLAIN).epoch(0, rank=2, world=2),
        lambda: Batches(fake(3), 4, PLAIN).epoch(0, world=2),
        lambda: Flip(1.5),
        lambda: Crop(-1),
    ],
)
def test_numbers_that_do_not_fit(build):
    with pytest.raises(InputError):
        build()


# Batches

SETTINGS = {
    "count": st.integers(1, 30),
    "batch_size": st.integers(1, 12),
    "seed": st.integers(0, 9),
    "shuffle": st.booleans(),
    "augment": st.sampled_from([(), (Flip(), Crop(2))]),
}


@given(**SETTINGS, keep_last=st.booleans(), number=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_an_epoch_from_any_batch_on_is_the_tail_of_the_epoch(
    count, batch_size, seed, shuffle, augment, keep_last, number
):
    if count < batch_size:
        keep_last = True
    batches = Batches(fake(count), batch_size, PLAIN, augment, seed, shuffle, keep_last)
    whole = list(batches.epoch(number))
    assert len(whole) == len(batches)
    assert sum(len(y) for _, y in whole) == (count if keep_last else count // batch_size * batch_size)
    for start in range(len(batches) + 1):
        assert equal(list(batches.epoch(number, start)), whole[start:])


@given(**SETTINGS, world=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_shares_of_the_ranks_side_by_side_are_the_batch_of_one_process(
    count, batch_size, seed, shuffle, augment, world
):
    batches = Batches(fake(count), batch_size * world, PLAIN, augment, seed, shuffle)
    if not batches.steps(world):
        return
    single = list(batches.epoch(1))
    ranks = zip(*(batches.epoch(1, rank=rank, world=world) for rank in range(world)), strict=True)
    joined = []
    for shares in ranks:
        assert len({len(y) for _, y in shares}) == 1
        joined.append(tuple(torch.cat(parts) for parts in zip(*shares, strict=True)))
    assert len(joined) == batches.steps(world)
    assert equal(joined, single[: len(joined)])
    assert all(len(y) % world for _, y in single[len(joined) :])


def test_an_epoch_holds_each_image_once_with_its_label():
    images = Images(torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(200), 200)
    for x, y in Batches(images, 64, PLAIN).epoch(0):
        assert torch.equal((x * 255).round().flatten().long(), y)
    seen = torch.cat([y for _, y in Batches(images, 64, PLAIN).epoch(0)])
    assert torch.equal(seen.sort().values, torch.arange(200))
    unshuffled = torch.cat([y for _, y in Batches(images, 64, PLAIN, shuffle=False).epoch(3)])
    assert torch.equal(unshuffled, torch.arange(200))


def test_epochs_batches_and_seeds_differ():
    images = Images(torch.arange(16, dtype=torch.uint8).expand(64, 1, 16, 16).contiguous(), torch.arange(64), 64)

    def drawn(seed, number):
        return list(Batches(images, 32, PLAIN, (Flip(), Crop(4)), seed).epoch(number))

    runs = [drawn(0, 0), drawn(0, 1), drawn(1, 0)]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert not torch.equal(runs[one][0][1], runs[other][0][1]), "another order"
        assert not torch.equal(runs[one][0][0], runs[other][0][0]), "other augmentation"
    assert not torch.equal(runs[0][0][0], runs[0][1][0]), "other augmentation in the next batch"


def test_batches_do_not_touch_the_global_generator():
    before = torch.get_rng_state()
    list(Batches(fake(), 4, PLAIN, (Flip(), Crop(2))).epoch(0))
    fake().split(0.5, 0)
    assert torch.equal(torch.get_rng_state(), before)
