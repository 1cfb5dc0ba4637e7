"""The inventory of a data set: its line, its place in JSON, and what differs between two."""

import dataclasses
import json

import pytest

from eqprop.errors import InputError
from eqprop.tasks import Manifest

PETS = Manifest(
    "image folder",
    {"train": 1437, "test": 360},
    {"train": "ab", "test": "cd"},
    "/data/pets",
    "8x8 L, 8 bits",
    ("cat", "dog"),
    1797,
    {"train/cat/a.csv": "no image"},
    ("no test image of class 'dog'",),
    3,
)
BARE = Manifest("arrays", {"train": 3}, {"train": "ab"})


def test_a_line():
    assert PETS.line() == (
        "image folder /data/pets; 1,437 train, 360 test examples; 2 classes; 8x8 L, 8 bits; 1,797 files; "
        "skipped train/cat/a.csv (no image) and 3 more; no test image of class 'dog'"
    )
    assert BARE.line() == "arrays; 3 train examples"
    assert dataclasses.replace(PETS, place="/data/a\nb\x1b[31m\udcff").line().isprintable()


@pytest.mark.parametrize("manifest", [PETS, BARE], ids=["pets", "bare"])
def test_json_and_back(manifest):
    back = Manifest.from_dict(json.loads(json.dumps(manifest.as_dict())))
    assert back == manifest
    assert not back.differences(manifest)


DAMAGED = {
    "no object": None,
    "a list": [],
    "text": "{}",
    "empty": {},
    "another key": PETS.as_dict() | {"clases": []},
    "a key of another kind": PETS.as_dict() | {7: 7},
    **{
        f"{name} is {value!r}": PETS.as_dict() | {name: value}
        for name, values in {
            "kind": [None, 1, ["x"]],
            "examples": [None, [], {"train": "7"}, {"train": -1}, {"train": True}, {"train": 1.0}, {1: 1}],
            "fingerprints": [None, {"train": 7}, "ab"],
            "place": [None, 7],
            "classes": [None, "cat", [1], {"a": "b"}],
            "files": [None, "7", -1, 1e9],
            "skipped": [None, [], {"a": None}],
            "notes": ["note", [None]],
            "more_skipped": [None, -1],
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_inventory(name):
    with pytest.raises(InputError) as caught:
        Manifest.from_dict(DAMAGED[name])
    assert str(caught.value).isprintable()
    assert "inventory" in str(caught.value)


CHANGES = {
    "place": ({"place": "/elsewhere", "files": 2, "skipped": {}, "notes": (), "more_skipped": 0}, []),
    "names": ({"classes": ["cat", "wolf"]}, ["the classes are ['cat', 'wolf'] and were ['cat', 'dog']"]),
    "order": ({"classes": ["dog", "cat"]}, ["the classes are ['dog', 'cat'] and were ['cat', 'dog']"]),
    "a list": ({"classes": ["cat", "dog"]}, []),
    "form": ({"form": "9x9 L, 8 bits"}, ["an example is 9x9 L, 8 bits and was 8x8 L, 8 bits"]),
    "count": ({"examples": {"train": 1437, "test": 361}}, ["there are 361 test examples and were 360"]),
    "a side": (
        {"examples": {"train": 1437}, "fingerprints": {"train": "ab"}},
        ["there are None test examples and were 360"],
    ),
    "content": ({"fingerprints": {"train": "ab", "test": "??"}}, ["the content of the 360 test examples is another"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_differences(name):
    change, expected = CHANGES[name]
    now = dataclasses.replace(PETS, **change)
    assert now.differences(PETS) == expected
    of_test_side = [each for each in expected if "test" in each]
    assert now.differences(PETS, ["train"]) == [each for each in expected if each not in of_test_side]
