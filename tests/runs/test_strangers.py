"""A run that was not made here: none of its code is executed and nothing outside of it is read without a word."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

import eqprop
from eqprop.files import sealed
from runs.conftest import environment
from runs.refusals import answer, refused

RECIPE = """
import os
import torch
import eqprop as ep
import helper
from eqprop.tasks import Batches, Images, Normalise
from eqprop.training.loop import Experiment

open(os.environ.get("RAN", os.devnull), "w").close()


def mine(epochs: int = 1, data: str = "") -> Experiment:
    helper.help()
    images = Images(torch.zeros(12, 1, 4, 4, dtype=torch.uint8), torch.arange(12) % 3, 3)
    network = ep.chain((1, 4, 4), [ep.DenseLayer(3)], ep.SquaredError)
    sweeps = ep.FixedSweeps(3)
    model = ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.5), sweeps, sweeps))
    batches = Batches(images, 4, Normalise((0.0,), (1.0,)))
    return Experiment(model, torch.optim.SGD(model.parameters(), 0.1), batches, batches, epochs)
"""
WATCH = """
import os, sys

EVENTS = ("open", "exec", "compile", "import", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork",
          "socket.connect", "socket.getaddrinfo", "os.listdir", "os.scandir")
seen = open(os.environ["SEEN"], "a", buffering=1)
busy = []


def watch(event, arguments):
    if event in EVENTS and not busy:
        busy.append(1)
        what = arguments[0] if arguments else ""
        if event == "exec":
            what = getattr(what, "co_filename", what)
        if event == "compile":
            what = arguments[1]
        if event == "import":
            what = arguments[1] or ""
        seen.write(f"{event}\\t{os.getcwd()}\\t{os.fsdecode(what) if isinstance(what, (bytes, str)) else what}\\n")
        busy.clear()


from eqprop.cli import main
sys.addaudithook(watch)
status = main(sys.argv[1:])
seen.flush()
os._exit(status)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """``own``, a run of a recipe with a file beside it, and ``plain``, one of a recipe of this package."""
    folder, before = tmp_path_factory.mktemp("runs"), os.getcwd()
    os.chdir(folder)
    Path("mine.py").write_text(RECIPE)
    Path("helper.py").write_text("def help():\n    pass\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQPROP_CACHE", str(folder / "cache"))
        assert answer("train", "mine.py:mine", "--threads", "1", "--precision", "32", "--out", "own").status == 0
        words = ("--train_images", "60", "--width", "0.05", "--epochs", "1", "--threads", "1", "--precision", "32")
        assert answer("train", "digits", *words, "--out", "plain").status == 0
    os.chdir(before)
    return folder


@pytest.fixture
def stranger(runs, work):
    """Both runs, of which this user's cache knows nothing."""
    for name in ("own", "plain"):
        shutil.copytree(runs / name, name)
    return work


@pytest.fixture
def friend(runs, work):
    """Both runs, made here."""
    for name in ("own", "plain"):
        shutil.copytree(runs / name, name)
    shutil.copytree(runs / "cache", work.parent / "cache")
    return work


def watched(work, *words, starter=None):
    """The status of a command and what it has opened, run and listed; in a child of ``starter`` if there is one."""
    seen, ran = work.parent / "seen", work.parent / "ran"
    script = work.parent / "watch.py"
    script.write_text(WATCH)
    more = {"SEEN": str(seen), "RAN": str(ran)}
    if starter is None:
        command = [sys.executable, "-X", "frozen_modules=off", str(script), *words]
        done = subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=100)
    else:
        beside = f"import sys\nsys.path[0] = {str(work.parent)!r}\n"  # as for the script
        done = starter.done_code(beside + WATCH, *words, env=environment(**more))
    events = [line.split("\t") for line in seen.read_text().splitlines()] if seen.exists() else []
    return done, events, ran.exists()


PLACES = (
    *{sys.prefix, sys.base_prefix, sys.exec_prefix, *(path for path in sys.path if "python" in path)},
    *(
        str(Path(eqprop.__file__).parents[1]),
        "/proc",
        "/sys",
        "/dev/null",
        "/dev/urandom",
        "/etc",
        "/usr/share",
        "/usr/lib",
    ),
    *("/lib", "/tmp/torchinductor", "<", matplotlib.get_cachedir()),
)
"""Where Python, the packages and the system are, which a command may read."""


def outside(events, work):
    """What was touched that is neither the run's folder nor a part of Python, the package or the user's cache."""
    found = []
    for event, folder, what in events:
        if not what or what.isdigit() or not event.startswith(("open", "os.listdir", "os.scandir")):
            continue
        path = os.path.realpath(os.path.join(folder, what))
        own = (work / "own", work / "plain", work.parent / "cache", work.parent / "watch.py")
        if (
            path != str(work.parent)
            and not path.startswith(tuple(map(str, own)))
            and not what.startswith(PLACES)
            and not path.startswith(PLACES)
        ):
            found.append((event, what))
    return found


@pytest.mark.parametrize("command", ["evaluate", "resume", "predict", "check", "report"])
@pytest.mark.parametrize("name", ["own", "plain"])
def test_nothing_of_a_stranger_runs_and_nothing_outside_is_read(stranger, starter, command, name):
    """In a fresh process for one command, which then imports what it needs."""
    Path("plain/run.json.py").write_text("raise SystemExit")
    options = ["--pictures=false", "--images=2"][: 2 * (command == "check")]
    fresh = (command, name) == ("resume", "plain")
    done, events, ran = watched(stranger, command, name, *options, starter=None if fresh else starter)
    assert events, "nothing was watched"
    assert not ran
    work = str(stranger)
    executed = [(event, what) for event, _, what in events if event in ("exec", "compile") and what.startswith(work)]
    assert not executed
    started = ("os.system", "subprocess", "os.exec", "os.posix", "socket")
    ours = {"git", "uname", "lscpu", "fc-list", "/sbin/ldconfig"}  # the last by ctypes, of a library that is imported
    assert {event[2] for event in events if event[0].startswith(started)} <= ours
    found = outside(events, stranger)
    assert not [each for each in found if each[0] != "import"], found
    if name == "own" and command not in ("predict", "report"):
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "--trust-recipe" in done.stderr


@pytest.mark.parametrize("command", ["evaluate", "resume", "check"])
def test_a_word_lets_the_code_run(stranger, command):
    options = ["--images", "2", "--pictures=false"] if command == "check" else []
    refused([command, "own", *options], "--trust-recipe")
    found = answer(command, "own", "--trust_recipe", *options)
    assert found.status == 0, found


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("substrate", "ran.Chip", "its substrate 'ran.Chip' is code"), ("write_to", "/etc/own.csv", "'/etc/own.csv'")],
)
def test_a_substrate_and_a_device_of_a_stranger_want_a_word(stranger, monkeypatch, option, value, told):
    """Neither is a module imported nor a file read."""
    Path("ran.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(stranger))
    resealed(lambda found: found["options"].update({option: value}), "plain")
    for command in ("evaluate", "resume", "check"):
        refused([command, "plain"], "--trust-recipe", told)


def test_a_run_that_was_made_here_needs_no_word(friend):
    assert answer("evaluate", "own").status == 0
    assert answer("evaluate", "own").status == 0, "the first has left something"


def change_recipe(name):
    path = Path("own/recipe") / name
    path.write_text(path.read_text() + "\n# changed\n")


def resealed(change, run="own"):
    """Changes run.json, with a checksum that is right."""
    path = Path(run, "run.json")
    found = json.loads(path.read_text())
    del found["sha256"]
    change(found)
    path.write_text(sealed(found))


def files(**changed):
    return lambda: resealed(lambda found: found["source"].update({"files": changed}))


def linked(target):
    def do():
        path = Path("own/recipe/helper.py")
        path.unlink()
        path.symlink_to(target)

    return do


def folder_linked():
    Path("own/recipe").rename("elsewhere")
    Path("own/recipe").symlink_to("../elsewhere")


def compiled(path):
    """Other code, in the place where Python looks for the compiled code of a file."""
    import py_compile

    about, text = path.stat(), path.read_text()
    path.write_text("raise SystemExit(3)".ljust(len(text)))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    py_compile.compile(str(path))
    path.write_text(text)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


DAMAGED = {
    "the recipe is changed": lambda: change_recipe("mine.py"),
    "its helper is changed": lambda: change_recipe("helper.py"),
    "the recipe is gone": lambda: Path("own/recipe/mine.py").unlink(),
    "its helper is gone": lambda: Path("own/recipe/helper.py").unlink(),
    "the copies are gone": lambda: shutil.rmtree("own/recipe"),
    "a file above": files(**{"../../mine.py": "0" * 64}),
    "an absolute file": files(**{"/etc/passwd": "0" * 64}),
    "no file": files(),
    "a file that is none": files(**{"": "0" * 64}),
    "a null character": files(**{"\0": "0" * 64}),
    "a link out": linked("/etc/passwd"),
    "a link to a device": linked("/dev/zero"),
    "a link to a pipe": lambda: (os.mkfifo("pipe"), linked("../../pipe")()),
    "the folder is a link": folder_linked,
    "the function is another": lambda: resealed(lambda found: found.update(recipe="mine.py:nothing")),
    "the file is another": lambda: resealed(lambda found: found.update(recipe="helper.py:help")),
    "the file is above": lambda: resealed(lambda found: found.update(recipe="../../mine.py:mine")),
    "the file is absolute": lambda: resealed(lambda found: found.update(recipe="/etc/passwd:mine")),
    "no file is named": lambda: resealed(lambda found: found.update(recipe="mine")),
    "a module beside it": lambda: Path("own/recipe/torch.py").write_text("raise SystemExit(3)"),
    "a package beside it": lambda: (Path("own/recipe/torch").mkdir(), Path("own/recipe/torch/__init__.py").touch()),
    "a library beside it": lambda: Path("own/recipe/helper.abi3.so").touch(),
    "compiled code": lambda: compiled(Path("own/recipe/helper.py")),
    "compiled code alone": lambda: Path("own/recipe/json5.pyc").touch(),
    "a link beside it": lambda: Path("own/recipe/json5").symlink_to("/etc"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_copies_of_a_recipe_that_are_changed(stranger, name):
    """Even with the user's word, only what the run was started with runs."""
    Path("mine.py").write_text(RECIPE)
    DAMAGED[name]()
    refused(["evaluate", "own"])
    refused(["evaluate", "own", "--trust_recipe"])


@pytest.mark.parametrize(
    "data",
    ["/etc", "/dev/zero", "/proc/self", "..", "~", "user/name", "data", "https://a.b/c", "s3://a/b", "\\\\host\\a"],
)
@pytest.mark.parametrize("command", ["evaluate", "resume", "check"])
def test_a_stranger_names_no_data(stranger, command, data):
    path = Path("plain/run.json")
    found = json.loads(path.read_text())
    del found["sha256"]
    found["options"]["data"] = data
    path.write_text(sealed(found))
    refused([command, "plain"], "--data")
