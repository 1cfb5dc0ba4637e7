"""A run whose run.json is damaged is refused by every command, in one line, and nothing in it changes."""

import json
import os
import shutil
from pathlib import Path

import pytest

from eqprop.cli import main
from eqprop.files import sealed
from eqprop.runs.trust import trust
from runs.refusals import HUGE, named, refused

COMMANDS = ("resume", "evaluate", "predict", "check", "report")
OTHERS = (None, True, -1, 1.5, float("nan"), float("inf"), 10**30, "x", "", "\0", [], [1], {}, {"a": 1}, [[]])
"""Values of all kinds."""
MARK = "\0absent"


def content():
    """What run.json holds, without its checksum."""
    found = json.loads(Path("run/run.json").read_text())
    del found["sha256"]
    return found


def write(found):
    """Writes run.json with a checksum that is right, as this user would."""
    text = sealed(found)
    Path("run/run.json").write_text(text)
    trust(text.encode())


def changed(*path):
    """Puts the last of ``path`` where the keys before lead; or takes the key away, for ``MARK``."""
    *keys, last, value = path
    found = place = content()
    for key in keys:
        place = place[key]
    if value == MARK:
        del place[last]
    else:
        place[last] = value
    write(found)


KINDS = {
    "format": int, "recipe": str, "options": dict, "session": dict, "source": dict, "command": list, "directory": str,
    "versions": dict, "commit": str, "machine": str, "job": str, "manifest": dict, "start": str, "made": str, "id": str,
}  # fmt: skip
NUMBERS = ("processes", "threads", "checkpoint_seconds", "residual_limit")
MANIFEST = ("kind", "counts", "fingerprints", "place", "form", "classes", "used", "skipped", "notes", "skipped_more")


def changes():
    """Paths into run.json with a value that cannot be there."""
    for key, kind in KINDS.items():
        if key not in ("source",):
            yield (key, MARK)
        for value in OTHERS:
            right = isinstance(value, kind) and key != "format" and not isinstance(value, bool)
            if not right and not (key in ("source", "manifest") and value is None):
                yield (key, value)
    yield from (("recipe", value) for value in ("x", "", "nothing", "../x.py:run", "x.py:run", "digits:x", "\0"))
    yield from (("options", value) for value in ({"a": 1}, {"epochs": 2, "nothing": 1}, {"": 1}, {"data": 1}))
    yield from (
        ("source", value)
        for value in (
            {"path": "x"},
            {"files": {}},
            {"path": 1, "files": 1},
            {"path": "x", "files": {"a": "b"}},
            {"path": "x", "files": {"../a": "b"}},
        )
    )
    yield ("more", 1)
    yield ("versions", {"torch": 1})
    yield ("command", [1])
    for name in ("out", "device", "precision", *NUMBERS):
        yield ("session", name, MARK) if name not in ("out",) else ("session", "more", 1)
        yield from (
            ("session", name, value)
            for value in (None, [], {}, -1, "warp", HUGE, float("nan"))
            if not (name == "out" and isinstance(value, str))
        )
    yield from (("session", "cuda_graph", value) for value in (None, 1, "true", []))
    for name in ("epochs", "batch_size", "lr", "seed", "beta", "width", "depth", "validation", "free_sweeps"):
        yield from (
            ("options", name, value)
            for value in (None, "a", [], {}, float("nan"), -1, 10**30)
            if not ((name == "beta" and value in (-1, 10**30)) or (name, value) == ("lr", 10**30))
        )
    for name in ("data", "mean", "std", "choose_by_test"):
        yield from (("options", name, value) for value in (1, {"a": 1}, "\0", [[]], float("nan")))
    for name in MANIFEST:
        yield from (
            ("manifest", name, value)
            for value in (-1, 1.5, True, [1], {"a": []}, "x")
            if not (name in ("kind", "place", "form") and value == "x")
        )


@pytest.mark.parametrize("path", list(changes()), ids=named)
def test_values_that_cannot_be(run_folder, path):
    changed(*path)
    for command in ("resume", "evaluate"):
        refused([command, "run"])


def test_a_run_of_an_earlier_version_is_read(run_folder):
    changed("session", "cuda_graph", MARK)
    assert main(["evaluate", "run"]) == 0


def texts(whole):
    """Contents of run.json that are none, by name."""
    size = len(whole)
    yield from ((f"cut after {place}", whole[:place]) for place in (0, 1, size // 3, size // 2, size - 2, size - 1))
    yield from ((f"a bit of {place}", flipped(whole, place)) for place in range(5, size, size // 20))
    yield from ((f"a byte of {place}", whole[:place] + b"\xff" + whole[place + 1 :]) for place in (0, 90, size // 2))
    yield from ((f"a null at {place}", whole[:place] + b"\0" + whole[place:]) for place in (0, 100, size))
    yield "twice", whole * 2
    yield "with words", whole + b"x"
    yield "after words", b"x" + whole
    yield "UTF-16", whole.decode().encode("utf-16")
    yield "with a mark", b"\xef\xbb\xbf" + whole
    yield "spaces", b" " * 1000
    yield "zeros", bytes(len(whole))
    yield "nested lists", b"[" * 100_000
    yield "nested objects", b'{"a":' * 100_000
    yield "a long number", b"1" * 100_000
    yield "a long number inside", whole.replace(b'"format": 2', b'"format": ' + b"2" * 5000)
    yield "not a number", b"NaN"
    yield from ((f"a {text.decode()}", text) for text in (b"null", b"1", b'"x"', b"[]", b"{}", b"true", b"[1, 2]"))
    yield "a newer format", sealed({**json.loads(whole), "format": 99}).encode()
    yield "an older format", sealed({**json.loads(whole), "format": 1}).encode()
    yield "no checksum", json.dumps({k: v for k, v in json.loads(whole).items() if k != "sha256"}).encode()
    for value in (None, 1, "", "0" * 64, [], {}):
        yield f"the checksum {value}", json.dumps(json.loads(whole) | {"sha256": value}).encode()


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


TEXTS = [name for name, _ in texts(b'{"format": 2, ' + b" " * 1500 + b'"a": 1}')]


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_none(run_folder, name):
    path = Path("run/run.json")
    whole = path.read_bytes()
    size = len(whole)
    made = dict(texts(whole))
    found = list(made.values())[TEXTS.index(name)]
    assert found != whole, size
    path.write_bytes(found)
    for command in COMMANDS:
        refused([command, "run"])


def remove():
    Path("run/run.json").unlink()


def instead(make):
    def do():
        remove()
        make(Path("run/run.json"))

    return do


PLACES = {
    "nothing": remove,
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to("run.json")),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to /proc": instead(lambda path: path.symlink_to("/proc/self/environ")),
    "a link to a pipe": instead(lambda path: (os.mkfifo("pipe"), path.symlink_to("../pipe"))),
    "a socket": instead(lambda path: bind(path)),
    "an empty file": instead(Path.touch),
    "a closed file": lambda: Path("run/run.json").chmod(0),
    "a closed folder": lambda: Path("run").chmod(0),
    "no folder": lambda: shutil.rmtree("run"),
    "a file for the folder": lambda: (shutil.rmtree("run"), Path("run").write_text("x")),
    "an empty folder": lambda: (shutil.rmtree("run"), Path("run").mkdir()),
    "the folder moved": lambda: Path("run").rename("moved"),
}


def bind(path):
    import socket

    with socket.socket(socket.AF_UNIX) as each:
        folder = os.open(path.parent, os.O_RDONLY)
        each.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", PLACES)
def test_places_that_are_none(run_folder, place, command):
    if os.getuid() == 0 and "closed" in place:
        pytest.skip("root reads everything")
    PLACES[place]()
    try:
        refused([command, "run"])
    finally:
        if Path("run").is_dir():
            Path("run").chmod(0o755)
