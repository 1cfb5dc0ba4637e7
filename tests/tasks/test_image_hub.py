"""Data sets of the hub are read through ``datasets``; the tests have no network."""

import time

import numpy as np
import pytest
from pictures import encoded, picture, pixels_of, said

from eqprop.errors import InputError
from eqprop.tasks import hub, load_images

datasets = pytest.importorskip("datasets")
REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_a_hub_that_cannot_be_reached(capfd):
    start = time.monotonic()
    message = said("nobody/nothing-here")
    assert time.monotonic() - start < 8
    assert all(part in message for part in ["nobody/nothing-here", "hub", "no network in tests", "--data"])
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """``publish(rows)`` puts rows on a hub of one data set, and returns what was asked for."""

    def publish(rows, features, sha=REVISION):
        calls = []

        def load(name, split, revision):
            calls.append((name, split, revision))
            folder = tmp_path / "arrow" / split
            if not folder.exists():
                datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder)
            return datasets.load_from_disk(folder)

        monkeypatch.setattr(hub, "ask_hub", lambda name, revision: sha)
        monkeypatch.setattr(datasets, "load_dataset", load)
        return calls

    return publish


FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})


def test_a_data_set_is_read_with_its_names_and_revision(published, cache, capfd):
    settings = datasets.are_progress_bars_disabled(), datasets.config.HF_HUB_OFFLINE
    rows = {"image": [{"bytes": encoded(picture(seed)), "path": None} for seed in range(2)], "label": [1, 0]}
    calls = published(rows, FEATURES)
    capfd.readouterr()
    first, second = load_images("owner/pets"), load_images("owner/pets")
    assert capfd.readouterr().out == ""
    assert calls == [("owner/pets", side, REVISION) for side in ("train", "test")] * 2
    assert np.array_equal(second.train.pixels[1], pixels_of(picture(1)))
    assert second.train.labels.tolist() == [1, 0]
    manifest = second.manifest
    assert manifest == first.manifest
    assert (manifest.kind, manifest.place) == ("hub", f"owner/pets@{REVISION}")
    assert tuple(manifest.classes) == ("cat", "dog")
    assert len(list(cache.glob("*.json"))) == 1
    assert settings == (datasets.are_progress_bars_disabled(), datasets.config.HF_HUB_OFFLINE)


def test_a_revision_may_be_named(published, monkeypatch):
    asked = []
    rows = {"image": [picture(0)], "label": [0]}
    calls = published(rows, FEATURES)
    monkeypatch.setattr(hub, "ask_hub", lambda name, revision: asked.append((name, revision)) or REVISION)
    load_images("owner/pets@v1.0")
    assert asked == [("owner/pets", "v1.0")]
    assert calls[0] == ("owner/pets", "train", REVISION)


def test_a_copy_is_read_offline(published):
    calls = published({"image": [picture(0)], "label": [0]}, FEATURES, sha=OSError("no network"))
    data = load_images("owner/pets")
    assert calls[0] == ("owner/pets", "train", None)
    assert data.manifest.place == "owner/pets"
    assert data.manifest.notes[0] == "no train image of class 'dog'"


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([0, -1], datasets.ClassLabel(names=["cat", "dog"]), "Label -1 of the image of row 1 of the train side"),
        ([0, 2], datasets.Value("int64"), "no train image has label 1"),
        ([0.5, 2.0], datasets.Value("float32"), "not a whole number"),
    ],
)
def test_labels_that_do_not_fit(published, labels, kind, message):
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    published({"image": [picture(0), picture(1)], "label": labels}, features)
    assert message in said("owner/pets")


def test_columns_that_cannot_be_told(published):
    features = datasets.Features({"x": datasets.Image(), "y": datasets.Value("int64")})
    published({"x": [picture(0)], "y": [0]}, features)
    assert "which column holds the labels cannot be told from 'x', 'y'" in said("owner/pets")


def test_files_that_rows_name_are_read_only_if_the_hub_gave_them(published, tmp_path, monkeypatch):
    outside, fetched = tmp_path / "outside.png", tmp_path / "hub" / "blob.png"
    fetched.parent.mkdir()
    for seed, path in enumerate([outside, fetched]):
        path.write_bytes(encoded(picture(seed)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(fetched.parent))
    assert hub.fetched({"bytes": None, "path": str(fetched)}) == fetched.read_bytes()
    assert hub.fetched({"bytes": None, "path": str(outside)}) is None
    assert hub.fetched({"bytes": None, "path": str(fetched.parent)}) is None
    assert hub.fetched({"bytes": b"x", "path": str(fetched)}) is None
    published({"image": [{"bytes": None, "path": str(fetched)}], "label": [0]}, FEATURES)
    assert np.array_equal(load_images("owner/pets").train.pixels[0], pixels_of(picture(1)))


def test_a_file_outside_is_not_read(published, tmp_path):
    (tmp_path / "outside.png").write_bytes(encoded(picture(0)))
    side = {"image": [{"bytes": None, "path": str(tmp_path / "outside.png")}], "label": [0]}
    opened = hub.open_rows(datasets.Dataset.from_dict(side, features=FEATURES), "the train side")
    with pytest.raises(InputError, match="store the images themselves"):
        list(opened.contents())
