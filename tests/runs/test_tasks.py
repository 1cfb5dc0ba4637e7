"""A table, sequences and a DataLoader of one's own, by every command."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from eqprop.cli import main
from eqprop.files import load
from runs import kills
from runs.conftest import run

SHORT = ["--epochs", "2", "--precision", "32", "--threads", "1", "--report_seconds", "0", "--out", "run"]


def table():
    rows = kills.houses()
    Path("houses.csv").write_text("\n".join(rows))
    Path("new.csv").write_text("\n".join(",".join(row.split(",")[:3]) for row in rows[:4]))
    return (
        ["table", "--data", "houses.csv", "--target", "price"],
        "new.csv",
        ("example", "price"),
        "test squared_error ",
    )


def sequence():
    moves = kills.moves()
    np.savez("moves.npz", **moves)
    np.save("new.npy", moves["inputs"][:3])
    return ["sequence", "--data", "moves.npz"], "new.npy", ("example", "class", "probability"), "test accuracy "


def loader():
    Path("mine.py").write_text(kills.RECIPES)
    np.save("new.npy", np.zeros((3, 4), dtype=np.float32))
    return ["mine.py:loader"], "new.npy", ("example", "class", "probability"), "test accuracy "


def said(capsys, *command):
    assert main([str(word) for word in command]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("make", [table, sequence, loader], ids=lambda make: make.__name__)
def test_every_command(make, starter, capsys):
    recipe, file, header, metric = make()
    out = said(capsys, "train", *recipe, *SHORT)
    assert "data: " in out
    assert metric in out
    before = load(Path("run"), "last")[0]
    out = said(capsys, "resume", "run", "--epochs", "3", "--report_seconds", "0")
    assert "epoch 3/3" in out
    assert load(Path("run"), "last")[1]["progress"]["epoch"] == 3
    assert before.keys() == load(Path("run"), "last")[0].keys()
    summary = json.loads(Path("run/summary.json").read_text())
    name = metric.split()[1]
    shown = f"{name} {100 * summary[f'test_{name}_best']:.2f} %" if name == "accuracy" else f"{name} "
    assert shown in said(capsys, "evaluate", "run")
    assert "Verdict: " in said(capsys, "check", "run", "--images", "4", "--pictures", "false")
    assert Path("run/curves.png").stat().st_size > 1000
    whole = said(capsys, "predict", "run").splitlines()
    assert tuple(whole[0].split(",")) == header
    assert len(whole) > 10, "the test set"
    new = said(capsys, "predict", "run", file).splitlines()
    assert len(new) == 4
    # in a fresh process, in one line, the same bits
    code = f"import eqprop, pathlib; m = eqprop.load('run'); r = list(m.inputs.read(pathlib.Path({file!r})))\n"
    code += "for (name, _), answer in zip(r, m.predict([x for _, x in r])): print(name, *answer, sep=',')"
    done = run([sys.executable, "-c", code]) if make is table else starter.done_code(code)
    assert done.stdout.splitlines() == new[1:], done.stderr


@pytest.mark.parametrize("make", [table, sequence, loader], ids=lambda make: make.__name__)
def test_data_that_changed(make, quick, capsys):
    recipe, *_ = make()
    said(capsys, "train", *recipe, *SHORT)
    if make is loader:
        text = kills.RECIPES.replace("return 40", "return 41")
        Path("mine.py").write_text(text)
        assert "its kept copy is used" in said(capsys, "resume", "run")
        return
    path = Path(recipe[2])
    if path.suffix == ".csv":
        path.write_text(path.read_text().replace("sea", "lake"))
    else:
        held = dict(np.load(path))
        np.savez(path, inputs=held["inputs"] + 1, target=held["target"])
    for command in ("resume", "evaluate"):
        assert main([command, "run"]) == 2
        assert "are not what it was trained on" in capsys.readouterr().err


def test_weights_of_other_classes_or_columns_are_told(quick, capsys):
    rows = [(f"{row}.5", f"{row % 5}.25", "ab"[row % 2]) for row in range(40)]
    for name, header, classes in (("one", "u,v,kind", "ab"), ("two", "v,u,kind", "cd")):
        lines = [",".join(row).replace("a", classes[0]).replace("b", classes[1]) for row in rows]
        Path(f"{name}.csv").write_text("\n".join([header, *lines]))
    train = ["train", "table", "--target", "kind", "--epochs", "1", "--threads", "1", "--report_seconds", "0"]
    said(capsys, *train, "--data", "one.csv", "--out", "one")
    assert "--from were" not in said(capsys, *train, "--data", "one.csv", "--from", "one", "--out", "same")
    told = said(capsys, *train, "--data", "two.csv", "--from", "one", "--out", "two")
    assert "The classes are 'c', 'd', and those of --from were 'a', 'b'." in told
    assert "The columns are 'v', 'u', and those of --from were 'u', 'v'." in told
