"""A checkpoint or a saved model that is damaged is refused in one line, and nothing in the run changes."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eqprop.files import sealed
from runs.refusals import answer, named, refused

USERS = {
    "last": (
        ["resume", "run"],
        ["evaluate", "run", "--checkpoint", "last"],
        ["predict", "run", "--checkpoint", "last"],
    ),
    "best": (["evaluate", "run"], ["check", "run"], ["train", "digits", "--from", "run", "--out", "new"]),
}
"""The commands that read a checkpoint, of which each must refuse."""


@pytest.fixture(scope="session", autouse=True)
def another(trained):
    """The checkpoint of a run of the same network beside the trained one."""
    from runs.conftest import TINY

    folder = trained / "other"
    if not folder.exists():
        before = os.getcwd()
        os.chdir(trained)
        try:
            words = ["train", "digits", *TINY, "--epochs", "2", "--seed", "1", "--out", "other"]
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EQPROP_CACHE", str(trained / "cache"))
                assert answer(*words).status == 0
        finally:
            os.chdir(before)
    return folder


def refused_by_all(name):
    for words in USERS[name]:
        refused(words)


def refused_by_first(name):
    refused(USERS[name][0])


def record(name):
    return json.loads(Path(f"run/{name}.json").read_text())


def write(name, found):
    """Writes a checkpoint's file with a checksum that is right."""
    found.pop("sha256", None)
    Path(f"run/{name}.json").write_text(sealed(found))


def tensors_of(name):
    return Path("run") / record(name)["tensors"]["file"]


def put(place, keys, value):
    """Puts the value where the keys lead; takes the last key away for ``ABSENT``."""
    *keys, last = keys
    for key in keys:
        place = place[key]
    if value == ABSENT:
        del place[last]
    else:
        place[last] = value


ABSENT = "\0absent"
KINDS = (None, True, -1, 1.5, float("nan"), "x", [], [1], {}, {"a": 1})

STATES = [
    *((("tensors",), value) for value in (ABSENT, None, 1, "x", [], {}, {"file": "x"})),
    *((("tensors", "file"), value) for value in (ABSENT, None, 1, "", "x", "..", "../run.json", "/etc/passwd", "\0",
                                                "n" * 300, "../other/{}", "pipe", "run.json", "last.json", [], {})),
    *((("tensors", "bytes"), value) for value in (ABSENT, None, -1, 0, "x", 10**30, 1.5, [])),
    *((("tensors", "sha256"), value) for value in (ABSENT, None, 1, "", "x", "0" * 64, [])),
    *((("state",), value) for value in (ABSENT, None, 1, "x", [], {})),
    *((("format",), value) for value in (ABSENT, None, 1, 99, "2", 2.0, [], True)),
    *((("state", "run"), value) for value in (ABSENT, *KINDS)),
    *((("state", "progress"), value) for value in (ABSENT, *KINDS)),
    *((("state", "progress", "epoch"), value) for value in (*KINDS, 3, 1, 10**30, "2", 2.0)),
    *((("state", "progress", "index"), value) for value in (*KINDS, "0", 0.0)),
    *((("state", "progress", "seconds"), value) for value in (None, True, "x", [], {})),
    *((("state", "progress", "best"), value) for value in (True, "x", [], {})),
    *((("state", "progress", "rates"), value) for value in (None, True, 1, "x", ["x"], [None], {"a": 1})),
    *((("state", "progress", "history"), value) for value in (None, True, 1, "xx", [], [1, 2], [{}], [[], []],
                                                             [{"a": "b"}, {}], [{"a": None}, {}], {"a": 1, "b": 2})),
]  # fmt: skip
RESUMED = [
    *((("state", "epochs"), value) for value in (ABSENT, None, "2", -1, 0, 1.5, [], True)),
    *((("state", "progress", "index"), value) for value in (100, 10**30)),
    *((("state", "optimizer"), value) for value in (ABSENT, *KINDS)),
    *((("state", "optimizer", "kind"), value) for value in (ABSENT, "Adam", "sgd", None, 1, [], {})),
    *(
        (("state", "optimizer", "state"), value)
        for value in (ABSENT, *KINDS, {"dict": []}, {"dict": 1}, {"tensor": "x"})
    ),
    *(
        (("state", "scheduler"), value)
        for value in (ABSENT, *KINDS, {"dict": []}, {"dict": [["T_max", 2]]}, {"tensor": 1})
    ),
]
"""What only ``resume`` reads."""


@pytest.mark.parametrize(("keys", "value"), STATES, ids=named)
@pytest.mark.parametrize("name", USERS)
def test_states_that_cannot_be(run_folder, trained, name, keys, value):
    os.mkfifo("run/pipe")
    shutil.copytree(trained / "other", "other")
    found = record(name)
    if value == "../other/{}":
        value = value.format(tensors_of(name).name)
    put(found, keys, value)
    write(name, found)
    refused_by_first(name)
    if name == "last" and keys[:2] != ("state", "progress"):
        refused(["predict", "run", "--checkpoint", "last"])


@pytest.mark.parametrize(("keys", "value"), RESUMED, ids=named)
def test_states_that_cannot_be_continued(run_folder, keys, value):
    found = record("last")
    put(found, keys, value)
    write("last", found)
    refused(["resume", "run"])


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def parts(data):
    """Damaged copies of a file, by name."""
    size = len(data)
    for part in (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        place = int(part * size)
        yield f"a bit at {part}", flipped(data, place)
        yield f"cut at {part}", data[:place]
        yield f"a byte more at {part}", data[:place] + b"\0" + data[place:]
        yield f"a byte less at {part}", data[:place] + data[place + 1 :]
    yield "zeros", bytes(size)
    yield "longer", data + b"\0" * 100
    yield "twice", data * 2
    yield "no UTF-8", b"\xff" * size
    yield "a huge header", b"\xff" * 7 + b"\x7f" + data[8:]
    yield "nested", b"[" * 100_000


PARTS = [name for name, _ in parts(bytes(range(256)) * 4)]


@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("which", ["json", "safetensors"])
@pytest.mark.parametrize("part", PARTS)
def test_bytes_that_are_damaged(run_folder, name, which, part):
    path = Path(f"run/{name}.json") if which == "json" else tensors_of(name)
    data = path.read_bytes()
    damaged = list(dict(parts(data)).values())[PARTS.index(part)]
    if which == "json" and "less" in part:
        with contextlib.suppress(ValueError):
            if json.loads(damaged) == json.loads(data):  # a space is gone, or 1e-05 is 1e-5
                damaged = damaged.replace(b"t", b"d")
    path.write_bytes(damaged)
    refused_by_first(name)


def instead(make):
    def do(path):
        path.unlink()
        make(path)

    return do


PLACES = {
    "nothing": Path.unlink,
    "an empty file": instead(Path.touch),
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
    "a link to /dev/zero": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to /proc": instead(lambda path: path.symlink_to("/proc/self/environ")),
    "a closed file": lambda path: path.chmod(0),
}


@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("which", ["json", "safetensors"])
@pytest.mark.parametrize("place", PLACES)
def test_places_that_are_none(run_folder, name, which, place):
    if os.getuid() == 0 and "closed" in place:
        pytest.skip("root reads everything")
    PLACES[place](Path(f"run/{name}.json") if which == "json" else tensors_of(name))
    if (name, which, place) == ("best", "json", "nothing"):
        refused(["evaluate", "run"])  # weights to begin with are then the last
    else:
        refused_by_all(name)


def rewritten(name, change):
    """Changes the tensors of a checkpoint, which then has a right checksum."""
    import hashlib

    path = tensors_of(name)
    found = load_file(path)
    change(found)
    save_file({key: value.contiguous() for key, value in found.items()}, path)
    about = record(name)
    about["tensors"] |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write(name, about)


def each(prefix, change):
    """Changes the first tensor of these names."""

    def do(found):
        name = next(key for key in sorted(found) if key.startswith(prefix))
        value = change(found[name])
        if value is None:
            del found[name]
        else:
            found[name] = value

    return do


CHANGES = {
    "gone": lambda value: None,
    "a number": lambda value: torch.zeros(()),
    "empty": lambda value: torch.zeros(0),
    "longer": lambda value: torch.zeros(value.numel() + 1, dtype=value.dtype),
    "of more dimensions": lambda value: value[None],
    "of other dimensions": lambda value: torch.zeros(2, 3, 4, 5, 6),
}
WEIGHTS = CHANGES | {
    "of integers": lambda value: value.to(torch.int64),
    "of truth values": lambda value: value > 0,
    "not a number": lambda value: value * float("nan"),
    "infinite": lambda value: value + float("inf"),
}


@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("change", WEIGHTS)
def test_weights_that_do_not_fit(run_folder, name, change):
    rewritten(name, each("model.", WEIGHTS[change]))
    refused_by_all(name)


@pytest.mark.parametrize("change", [each for each in CHANGES if each not in ("a number", "of more dimensions")])
@pytest.mark.parametrize("prefix", ["optimizer", "rng.cpu", "rng.numpy", "rng.numpy_rest", "rng.random", "totals.sums"])
def test_tensors_that_do_not_fit(run_folder, prefix, change):
    rewritten("last", each(prefix, CHANGES[change]))
    refused(["resume", "run"])


@pytest.mark.parametrize("name", USERS)
def test_more_weights_than_the_network_has(run_folder, name):
    rewritten(name, lambda found: found.update({"model.more": torch.zeros(2)}))
    refused_by_all(name)


@pytest.mark.parametrize("name", USERS)
def test_the_checkpoint_of_another_run(run_folder, trained, name):
    for path in (trained / "other").glob(f"{name}*"):
        shutil.copy(path, "run")
    refused_by_all(name)


MODEL_FILES = ["config.json", "model.safetensors"]


@pytest.mark.parametrize("which", MODEL_FILES)
@pytest.mark.parametrize("part", PARTS)
def test_bytes_of_a_saved_model(run_folder, which, part):
    path = Path("run") / which
    path.write_bytes(list(dict(parts(path.read_bytes())).values())[PARTS.index(part)])
    found = answer("predict", "run")
    if which == "config.json" and found.status == 0:
        assert json.loads(path.read_text())["format"] == 1, "a file may differ where nothing is read"
    else:
        refused(["predict", "run"])


@pytest.mark.parametrize("which", MODEL_FILES)
@pytest.mark.parametrize("place", PLACES)
def test_places_of_a_saved_model(run_folder, which, place):
    if os.getuid() == 0 and "closed" in place:
        pytest.skip("root reads everything")
    PLACES[place](Path("run") / which)
    refused(["predict", "run"])
    shutil.rmtree("saved", ignore_errors=True)
    Path("run/run.json").unlink()
    refused(["train", "digits", "--from", "run", "--out", "new"])


CONFIGS = [
    *((("format",), value) for value in (ABSENT, None, 0, 99, "1", [])),
    *((("library",), value) for value in (ABSENT, None, "torch", 1, [])),
    *(((name,), value) for name in ("network", "estimator", "on_unsettled", "inputs", "outputs", "weights")
      for value in (ABSENT, 1, "x", [], {}, [1], {"class": "os.system"}, float("nan"))),
    *((("network", "shared"), value) for value in (ABSENT, None, 1, [], {"a": "b"}, {"a": 1})),
    *((("weights", name), value) for name in ("bytes", "sha256", "strides")
      for value in (ABSENT, None, -1, "x", [])),
    *((("outputs",), value) for value in ({"class": "eqprop.tasks.formats.Classes"}, {"class": "subprocess.Popen"})),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "value"), CONFIGS, ids=named)
def test_configurations_that_cannot_be(run_folder, keys, value):
    path = Path("run/config.json")
    found = json.loads(path.read_text())
    put(found, keys, value)
    path.write_text(json.dumps(found))
    refused(["predict", "run"])
