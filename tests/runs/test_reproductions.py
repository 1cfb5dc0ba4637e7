"""``eqprop reproduce``: every result runs, goes on after it was killed, and notices a number that was changed."""

import importlib
import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from eqprop import files
from eqprop.cli import main
from eqprop.cli.reproducing import reproduce_parser
from eqprop.cli.training import resume, train, train_parser
from eqprop.errors import InputError, NotSettledError
from eqprop.recipes import find as find_recipe
from eqprop.reproductions import FORMAT, RESULTS, chosen_rows, definitions, measured
from eqprop.reproductions.result import FIGURE, TRIAL, Computation, Quantity, Table, Training
from eqprop.reproductions.shown import joined, lines_of, spread
from eqprop.reproductions.work import (
    MANIFEST,
    README,
    Job,
    as_it_began,
    digest,
    do,
    perform,
    read_manifest,
    table_of,
    typed,
)
from eqprop.substrates import find_substrate
from eqprop.tasks import load_images
from eqprop.training.cuda_graphs import NotCapturableError
from runs.refusals import LONG, NO_NUMBERS, named, refused

ROOT = Path(__file__).parents[2]
SETTINGS = [(name, size) for name, result in RESULTS.items() for size in result.settings]
TWO = ["depth", "--setting", "trial", "--rows", "1 hidden;2 hidden", "--threads", "1", "--out", "made"]


def reproduce(*words):
    return main(["reproduce", *words])


def job(name="depth", size=TRIAL, folder="made"):
    return Job(name, RESULTS[name], size, Path(folder))


# What is there


@cache
def options_of(recipe):
    return train_parser(recipe, find_recipe(recipe))


@pytest.mark.parametrize(("name", "size"), SETTINGS, ids=str)
def test_every_recipe_and_option_exists(name, size):
    for row, each in RESULTS[name].settings[size].rows.items():
        if isinstance(each.part, Training):
            words = [word for option, value in each.part.options.items() for word in (f"--{option}", typed(value))]
            read = options_of(each.part.recipe).read(words)
            for option, value in each.part.options.items():
                assert read[option] == value, (row, option)
        else:
            assert isinstance(each.part, Computation)
            json.dumps(each.part.arguments)
    find_substrate(definitions.NOISY)


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_states_itself(name):
    result = RESULTS[name]
    assert TRIAL in result.settings
    assert result.default != TRIAL
    assert result.claims
    rows = {row for setting in result.settings.values() for row in setting.rows}
    known = {each.name for each in result.quantities}
    for row, figures in result.published.items():
        assert row in rows or row == "backpropagation", row
        assert known >= figures.keys()
    for setting in result.settings.values():
        assert setting.deviations, "every deviation is named; or that there is none"
        assert setting.about.endswith(".")


def test_the_list_tells_of_every_result(capsys):
    assert reproduce() == 0
    said = capsys.readouterr().out
    for name, result in RESULTS.items():
        assert f"{name}: {result.title}" in said
        assert result.source in said
        for size, setting in result.settings.items():
            assert (size == TRIAL) or all(f"differs: {each}" in said for each in setting.deviations)
        for size, entries in measured().get(name, {}).items():
            assert all(entry["manifest"][:12] in said for entry in entries)
            for line in lines_of(result, joined(result.settings[size], entries))[1:]:
                assert all(cell in said for cell in line), size


def test_figures_of_this_package_belong_to_its_settings():
    """Settings that change make their figures old: run them again, then `python tools/reproductions.py FOLDER`."""
    for name, sizes in measured().items():
        for size, entry in ((size, entry) for size, entries in sizes.items() for entry in entries):
            assert size != TRIAL
            assert entry["digest"] == digest(RESULTS[name].settings[size]), (name, size)
            assert entry["numbers"].keys() <= RESULTS[name].settings[size].rows.keys()
            assert entry["machines"]
            assert entry["commit"]


def test_the_page_is_made_from_these_figures(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("reproductions")
    text = tool.PAGE.read_text()
    assert tool.page(measured(), text) == text, "run `python tools/reproductions.py`"


def test_rows_and_seeds_may_come_from_several_folders(work, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("reproductions")

    def made(folder, rows, seeds="1"):
        words = ("--setting", "trial", "--rows", rows, "--seeds", seeds, "--out", folder, "--threads", "1")
        assert reproduce("depth", *words) == 0
        return Path(folder)

    def kept(found):
        return [tool.parts(entry) for entry in found["depth"][TRIAL]]

    one, two = {("1 hidden layers", "0")}, {("2 hidden layers", "0")}
    first = tool.with_folder({}, made("one", "1 hidden"))
    assert kept(tool.with_folder(first, Path("one"))) == [one], "it takes its own place"
    both = tool.with_folder(first, made("two", "2 hidden"))
    assert kept(both) == [one, two]
    numbers = joined(job().setting, both["depth"][TRIAL]).numbers
    assert [*numbers] == ["1 hidden layers", "2 hidden layers"]
    assert kept(tool.with_folder(both, made("all", "1 hidden;2 hidden"))) == [one | two]
    more = tool.with_folder({}, made("one", "1 hidden", "2"))
    with pytest.raises(InputError, match="1 hidden layers, seed 0, is also in the kept manifest"):
        tool.with_folder(more, Path("all"))
    first["depth"][TRIAL][0]["digest"] = "of other settings"
    assert kept(tool.with_folder(first, Path("two"))) == [two]


def test_figures_that_were_changed_by_hand_are_refused(monkeypatch, tmp_path):
    kept = tmp_path / "measured.json"
    kept.write_text(files.sealed({"format": FORMAT, "results": {}}))
    monkeypatch.setattr("eqprop.reproductions.resources", lambda _: tmp_path)
    assert measured() == {}
    kept.write_text(kept.read_text().replace("{}", '{"depth": {}}'))
    with pytest.raises(InputError, match="changed by hand"):
        measured()


def test_rows_are_chosen_by_their_beginnings():
    setting = RESULTS["cifar10-table"].settings["small"]
    assert chosen_rows(setting, "") == [*setting.rows]
    assert chosen_rows(setting, "squared error: BPTT; cross-entropy:") == [
        "squared error: BPTT",
        "cross-entropy: symmetric",
        "cross-entropy: BPTT",
    ]


def test_numbers_for_people():
    percent, plain = Quantity("q", "q", "%"), Quantity("q", "q")
    assert spread(percent, [1.0]) == "1.00 %"
    assert spread(percent, [1.0, 3.0, 2.0]) == "2.00 % (1.00 to 3.00)"
    assert spread(plain, [0.001234]) == "0.00123"
    assert spread(percent, [1.0, float("inf")]) == "diverged"


def test_claims_wait_for_their_rows():
    for result in RESULTS.values():
        assert all(holds is None for _, holds in result.verdicts(result.default, Table({})))


def test_a_claim_can_fail():
    table = Table({f"{depth} hidden layers": {0: {"test_error": 2.0}} for depth in range(1, 13)})
    (claim,) = RESULTS["depth"].claims
    assert claim.verdict(table) is True
    worse = Table({**table.numbers, "7 hidden layers": {0: {"test_error": 3.1}}})
    assert claim.verdict(worse) is False
    diverged = Table({**table.numbers, "7 hidden layers": {0: {"test_error": float("inf")}}})
    assert claim.verdict(diverged) is False
    assert RESULTS["depth"].verdicts(TRIAL, table) == [(claim.text, None)]


# Running


@pytest.mark.parametrize("name", RESULTS)
def test_a_trial_of_every_result_runs(name, capsys):
    rows = list(RESULTS[name].settings[TRIAL].rows)
    asked = list(dict.fromkeys([rows[0], rows[-1]]))
    words = [name, "--setting", TRIAL, "--rows", ";".join(asked), "--seeds", "1", "--threads", "1", "--out", "made"]
    assert reproduce(*words) == 0, capsys.readouterr().err
    manifest = read_manifest(Path("made", MANIFEST))
    assert (manifest["name"], manifest["setting"]) == (name, TRIAL)
    assert manifest["numbers"].keys() == {*asked}
    assert manifest["machine"]
    assert manifest["versions"]["torch"]
    assert manifest["deviations"]
    assert [(part["row"], part["seed"]) for part in manifest["parts"]] == [(row, 0) for row in asked]
    for part in manifest["parts"]:
        assert part["machine"]
        assert part["fingerprints"].keys() == {"train", "test"}
        assert part["sha256"]
        for file, known in part["sha256"].items():
            assert files.sha256_of(Path("made", file)) == known
    assert files.sha256_of(Path("made", FIGURE)) == manifest["figure"]["sha256"]
    assert Path("made", FIGURE).read_bytes().startswith(b"\x89PNG")
    page = Path("made", README).read_text()
    assert all(row in page for row in asked)
    quantities = {each.name for each in RESULTS[name].quantities}
    assert all(seeds["0"].keys() >= quantities for seeds in manifest["numbers"].values())


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder in which two rows are done."""
    folder, before = tmp_path_factory.mktemp("kept"), os.getcwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQPROP_CACHE", str(folder / "cache"))
        assert reproduce(*TWO) == 0
    os.chdir(before)
    return folder / "made"


@pytest.fixture
def made(kept, work):
    shutil.copytree(kept, "made")
    return Path("made")


def test_a_second_call_runs_nothing_again(made, monkeypatch):
    monkeypatch.setattr("eqprop.cli.reproducing.train", lambda words: pytest.fail(f"trains {words}"))
    before = read_manifest(made / MANIFEST)
    assert reproduce(*TWO) == 0
    after = read_manifest(made / MANIFEST)
    times = {"made"}
    assert {k: v for k, v in after.items() if k not in times} == {k: v for k, v in before.items() if k not in times}


def test_rows_and_seeds_are_added(made):
    assert reproduce("depth", "--setting", "trial", "--rows", "2 hidden", "--seeds", "2", "--out", "made") == 0
    assert {row: [*seeds] for row, seeds in read_manifest(made / MANIFEST)["numbers"].items()} == {
        "1 hidden layers": ["0"],
        "2 hidden layers": ["0", "1"],
    }


CHANGES = {
    "manifest.json": ('"holds": null', '"holds": true'),
    "runs/1-hidden-layers-0/summary.json": ('"test_accuracy_last": 0', '"test_accuracy_last": 1'),
    "runs/2-hidden-layers-0/metrics.csv": (".", ",."),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_number_that_was_changed_is_noticed(made, name):
    path = made / name
    path.write_text(path.read_text().replace(*CHANGES[name], 1))
    refused(["reproduce", *TWO], path.name, "changed")


def test_a_number_that_is_gone_is_noticed(made):
    (made / "runs/1-hidden-layers-0/summary.json").unlink()
    refused(["reproduce", *TWO], "summary.json")


def test_a_computed_number_that_was_changed_is_noticed(work):
    words = ["ep-is-bptt", "--setting", "trial", "--rows", "beta 0.1", "--out", "made"]
    assert reproduce(*words) == 0
    path = Path("made/cells/beta-0.1-0.json")
    path.write_text(path.read_text().replace('"one_sided": 0.', '"one_sided": 0.0', 1))
    refused(["reproduce", *words], path.name, "changed")
    Path("made", MANIFEST).unlink()
    refused(["reproduce", *words], path.name, "changed by hand")
    path.unlink()
    assert reproduce(*words) == 0


def test_a_folder_of_other_settings_is_refused(made):
    refused(["reproduce", "depth", "--out", "made"], "setting trial")
    refused(["reproduce", "noise", "--setting", "trial", "--out", "made"], "holds depth")
    (made / MANIFEST).unlink()
    refused(["reproduce", "depth", "--rows", "1 hidden", "--out", "made"], "belongs to other settings")
    (made / "mine").touch()
    refused(["reproduce", *TWO], "holds other files (mine)")


def test_files_of_the_user_are_not_replaced(work):
    Path("made").mkdir()
    for name in (README, FIGURE):
        Path("made", name).write_text("mine")
        refused(["reproduce", *TWO], f"holds other files ({name})")
        assert Path("made", name).read_text() == "mine"
        Path("made", name).unlink()


def test_a_page_of_the_user_in_the_place_of_ours_is_not_replaced(made):
    (made / README).write_text("# Mine\n")
    refused(["reproduce", *TWO], f"holds other files ({README})")


def test_the_page_is_made_again_without_the_manifest(made):
    (made / MANIFEST).unlink()
    before = (made / README).read_text()
    assert reproduce(*TWO) == 0
    assert (made / README).read_text().splitlines()[:4] == before.splitlines()[:4]
    (made / README).unlink()
    assert reproduce(*TWO) == 0


def test_what_a_killed_process_left_is_removed(made):
    left = made / f".{MANIFEST}.0a1b2c3d.tmp", made / "cells" / ".a.json.0a1b2c3d.tmp"
    for path in left:
        path.write_text("half")
    assert reproduce(*TWO) == 0
    assert not any(path.exists() for path in left)


def test_parts_are_of_the_same_data(made, monkeypatch):
    found = load_images("digits")
    prints = dict.fromkeys(found.manifest.fingerprints, "0" * 64)
    other = replace(found, manifest=replace(found.manifest, fingerprints=prints))
    monkeypatch.setattr("eqprop.reproductions.work.load_images", lambda source: other)
    refused(["reproduce", *TWO], "was made from other data")


def test_parts_that_are_not_asked_for_are_looked_at_first(made, monkeypatch):
    monkeypatch.setattr("eqprop.cli.reproducing.train", lambda words: pytest.fail(f"trains {words}"))
    path = made / "runs/1-hidden-layers-0/summary.json"
    path.write_text("{")
    (made / MANIFEST).unlink()
    refused(["reproduce", *TWO[:4], "3 hidden", *TWO[5:]], "1-hidden-layers-0", "damaged")


def test_a_computation_that_does_not_settle_is_told_and_ends_nothing(work, monkeypatch, capsys):
    words = ["ep-is-bptt", "--setting", "trial", "--rows", "beta 0.1", "--out", "made"]
    row = RESULTS["ep-is-bptt"].settings[TRIAL].rows["beta 0.1"]

    def fails(*_, **__):
        raise NotSettledError("the free phase did not settle")

    monkeypatch.setattr(type(row.part), "function", property(lambda self: fails), raising=False)
    assert reproduce(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("eqprop: 1 of 1 parts have no numbers: beta 0.1, seed 0: the free phase did not settle")
    assert read_manifest(Path("made", MANIFEST))["numbers"] == {}
    monkeypatch.undo()
    monkeypatch.chdir(work)
    assert reproduce(*words) == 0
    assert [*read_manifest(Path("made", MANIFEST))["numbers"]] == ["beta 0.1"]


def test_words_that_a_run_which_goes_on_does_not_take_are_told(work):
    words = ["train", "digits-deep", "--depth", "1", "--epochs", "1", "--train_images", "60", "--width", "0.1"]
    assert main([*words, "--threads", "1", "--out", "a"]) == 0
    assert as_it_began(Path("a"), {"threads": "1", "device": "cpu", "precision": "32"}) == ""
    assert as_it_began(Path("a"), {"threads": "0", "device": "auto"}) == ""
    told = as_it_began(Path("a"), {"threads": "2", "cuda_graph": "true"})
    assert told == "--threads 1, not 2, --cuda_graph false, not true"


def test_each_part_leaves_the_threads_as_they_were(work):
    before = torch.get_num_threads()

    def command(words):
        torch.set_num_threads(before + 1)
        return 0

    Path("made", "cells").mkdir(parents=True)
    do(job(), "1 hidden layers", 0, {"threads": "3"}, command, resume, str)
    assert torch.get_num_threads() == before
    do(job("ep-is-bptt"), "beta 0.1", 0, {"threads": str(before + 2)}, command, resume, str)
    assert torch.get_num_threads() == before


def test_a_gpu_is_refused_for_what_is_computed(work):
    words = ["reproduce", "ep-is-bptt", "--setting", "trial"]
    refused([*words, "--device", "cuda"], "--device cuda", "on the CPU")
    refused([*words, "--cuda_graph", "true"], "--cuda_graph true", "on the CPU")


def test_a_training_that_diverges_counts_as_diverged(work, monkeypatch, capsys):
    rows = dict(RESULTS["depth"].settings[TRIAL].rows)
    monkeypatch.setattr("eqprop.training.loop.Trainer._check_settled", unsettled)
    assert reproduce(*TWO) == 0
    found = read_manifest(Path("made", MANIFEST))
    assert found["numbers"]["1 hidden layers"]["0"] == dict.fromkeys(("test_error", "train_error", "best_test_error"))
    assert found["claims"][0]["holds"] is None
    assert "diverged" in Path("made", README).read_text()
    assert table_of(job()).mean(next(iter(rows))) == float("inf")
    monkeypatch.undo()


def unsettled(self, train):
    from eqprop.errors import NotSettledError

    raise NotSettledError("it does not settle")


def test_a_process_that_is_killed_goes_on(starter, kept, tmp_path):
    """At any moment, any number of times: the numbers are those of a process that was left alone."""
    rng, began, killed = random.Random(0), time.monotonic(), 0
    for _ in range(5):
        pid = starter.start(["reproduce", *TWO], tmp_path)
        time.sleep(rng.random() * (3 if killed else 1))
        os.kill(pid, signal.SIGKILL)
        killed += starter.wait(pid) != 0
        if (tmp_path / "made" / MANIFEST).exists() or time.monotonic() - began > 40:
            break
    assert starter.run(["reproduce", *TWO], tmp_path) == 0, (tmp_path / "log").read_text()
    assert killed
    numbers, alone = (read_manifest(folder / MANIFEST)["numbers"] for folder in (tmp_path / "made", kept))
    assert numbers == alone


def test_a_process_that_is_asked_to_stop_says_how_it_goes_on(work, monkeypatch, capsys):
    monkeypatch.setattr("eqprop.cli.reproducing.train", lambda words: 143)
    assert reproduce(*TWO) == 143
    assert "eqprop reproduce depth --setting trial --rows '1 hidden;2 hidden'" in capsys.readouterr().out
    assert not Path("made", MANIFEST).exists()


def test_what_cannot_be_captured_runs_without_a_graph(work):
    """The training command is a stand-in, as there may be no GPU here: it refuses the second row's graph."""
    tried = []

    def command(words):
        (depth,), graph = (
            [word for name, word in pairwise(words) if name == each] for each in ("--depth", "--cuda_graph")
        )
        tried.append((depth, graph[-1]))
        if tried[-1] == ("2", "true"):
            raise NotCapturableError("it draws random numbers")
        return train([*words, "--cuda_graph", "false"])

    rows = chosen_rows(job().setting, "1 hidden;2 hidden")
    perform(job(), rows, 1, {"threads": "1", "cuda_graph": "true"}, command, resume, str)
    assert tried == [("1", "true"), ("2", "true"), ("2", "false")]
    assert set(read_manifest(Path("made", MANIFEST))["numbers"]) == set(rows)


def test_a_graph_is_refused_without_a_gpu(work):
    refused(["reproduce", *TWO, "--device", "cpu", "--cuda_graph", "true"], "the device is cpu, not cuda")
    assert not Path("made").exists()


def test_no_option_of_a_result_is_ignored_without_its_name(work):
    given = {"setting": "small", "rows": "x", "seeds": 1, "out": "x", "data": "x"}
    given |= {"threads": 2, "device": "cpu", "cuda_graph": "true"}
    for name in reproduce_parser().read([]).keys() - {"result"}:
        refused(["reproduce", f"--{name}", str(given[name])], f"--{name}", "is of a result")


# Bad input

BAD = [
    *([value] for value in ("nothing", "Depth", "depht", "", " ", "\0", "é", LONG, "[red]", "*", "../depth", "a\nb")
      if value.strip()),
    *(["depth", "--setting", value] for value in ("Small", "huge", "\0", LONG, "[1]", "a\nb")),
    *(["depth", "--rows", value] for value in ("13 hidden", ";", "x", "1 hidden;", "\0", "a\nb", LONG)),
    *(["depth", f"--seeds={value}"] for value in ("0", "-1", "101", "1.5", *NO_NUMBERS) if value != "null"),
    *(["depth", f"--threads={value}"] for value in ("-1", "1.5", *NO_NUMBERS)),
    *(["depth", f"--device={value}"] for value in ("gpu", "", "[red]")),
    *(["depth", f"--data={value}"] for value in ("nowhere", "file", "empty", "pipe", "loop", "/dev/zero", "a\nb")),
    *(["depth", f"--out={value}"] for value in ("file", "file/x", "full", "loop", "\0", LONG, "pipe", "/dev/null")),
    *(["depth", "noise"], ["depth", "--beta", "1"], ["depth", "-z"], ["--x"]),
]  # fmt: skip


@pytest.mark.parametrize("words", BAD, ids=named)
def test_words(places, words):
    refused(["reproduce", *words])
