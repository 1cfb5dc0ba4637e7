"""The page that compares runs, and its statistics."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from report.conftest import changed
from report.test_run_pages import EVIL, check_page

import eqprop as ep
from eqprop.cli import main
from eqprop.report import compare
from eqprop.report.comparing import holm, paired, two_sided, welch

TABLE = {1: (6.3138, 12.7062, 63.6567), 2: (2.9200, 4.3027, 9.9248), 5: (2.0150, 2.5706, 4.0321)}
TABLE |= {30: (1.6973, 2.0423, 2.7500)}
"""Degrees of freedom -> the t of two-sided probabilities 0.1, 0.05 and 0.01, as statistical tables print them."""


@pytest.mark.parametrize(("freedom", "values"), TABLE.items())
def test_probabilities_are_those_of_tables(freedom, values):
    for t, p in zip(values, (0.1, 0.05, 0.01), strict=True):
        assert two_sided(t, freedom) == pytest.approx(p, rel=2e-4)
        assert two_sided(-t, freedom) == two_sided(t, freedom)
    assert two_sided(0.0, freedom) == 1
    assert two_sided(float("inf"), freedom) == 0


@pytest.mark.parametrize("freedom", [1.0, 1.3, 2.5, 7.7, 200.0])
def test_probabilities_agree_with_an_integral(freedom):
    """Of the density of Student's distribution, by a fine rule over a long range."""
    t, step = 1.7, 1e-3
    places = [t + step * (i + 0.5) for i in range(400_000)]
    inside = [-t + 2 * t * (i + 0.5) / 20_000 for i in range(20_000)]

    def density(x):
        return (1 + x * x / freedom) ** (-(freedom + 1) / 2)

    tail = 2 * step * sum(map(density, places))
    tail += 2 * (places[-1] ** -freedom) * freedom ** ((freedom + 1) / 2) / freedom  # beyond
    middle = 2 * t / 20_000 * sum(map(density, inside))
    assert two_sided(t, freedom) == pytest.approx(tail / (tail + middle), rel=1e-3)


def test_welch_and_paired_tests():
    one, two = [3.0, 4.0, 1.0, 2.1], [490.2, 340.0, 433.9]
    test = welch(one, two)  # the example of Welch's test in the documentation of several packages
    assert test.t == pytest.approx(9.559, abs=1e-3)
    assert test.freedom == pytest.approx(2.001, abs=1e-3)
    assert test.p == pytest.approx(0.0107, abs=2e-4)
    same = paired([1.0, 2.0, 3.0, 4.0], [1.5, 2.4, 3.6, 4.5])
    assert (same.difference, same.freedom) == (pytest.approx(0.5), 3)
    assert same.t == pytest.approx(0.5 / (0.0816497 / 2), rel=1e-4)
    assert paired([1.0, 2.0], [1.0, 2.0]).p == 1
    assert paired([1.0, 2.0], [2.0, 3.0]).p == 0


def test_holm_allows_for_several_tests():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.fixture
def several(work, tmp_path, monkeypatch):
    """Two settings with three seeds each: copies of one run, whose files say other numbers."""
    results = {
        ("0.1", 0): 0.80,
        ("0.1", 1): 0.82,
        ("0.1", 2): 0.81,
        ("0.3", 0): 0.90,
        ("0.3", 1): 0.93,
        ("0.3", 2): 0.91,
    }
    names = []
    for (rate, seed), accuracy in results.items():
        folder = tmp_path / f"lr{rate}-{seed}"
        shutil.copytree("digits", folder)
        options = json.loads((folder / "run.json").read_text())["options"]
        changed(folder, options=options | {"lr": float(rate), "seed": seed, "mean": [0.1 * seed]})
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(summary | {"test_accuracy_best": accuracy}))
        names.append(str(folder))
    monkeypatch.chdir(tmp_path)
    return names


def test_runs_are_compared(several, capsys):
    assert main(["compare", *several, "--out", "page.html"]) == 0
    assert capsys.readouterr().out == "Comparison: page.html\n"
    found = check_page(Path("page.html").read_text())
    said = found.said()
    assert "Settings that are not the same in all runs setting settings A settings B lr 0.1 0.3" in said
    assert "accuracy A 3 81.00 % 1.00 % 80.00 % 82.00 %" in said
    # differences of 0.10, 0.11 and 0.10: t is 0.31 / 0.01, and p of two degrees of freedom 1 - t / sqrt(t^2 + 2)
    assert " accuracy A to B paired 10.33 % 31 2 0.001039 0.001039" in said, said
    assert "seconds of training" in said
    assert len(found.all("figure")) >= 4


def test_the_page_has_a_place_of_its_own(several):
    assert main(["compare", *several[:2]]) == 0
    assert len([*Path("runs").glob("compare-*.html")]) == 1


def test_other_seeds_are_tested_by_welch(several):
    for folder in several[3:]:
        options = json.loads(Path(folder, "run.json").read_text())["options"]
        changed(folder, options=options | {"seed": options["seed"] + 10})
    assert "A to B Welch" in check_page(compare(several, "a.html").read_text()).said()
    said = check_page(compare([several[0], several[3]], "b.html").read_text()).said()
    assert "needs two seeds or more of each setting" in said


def test_runs_that_cannot_be_compared_say_so(several, work):
    Path(several[0], "summary.json").unlink()
    manifest = json.loads(Path(several[3], "run.json").read_text())["manifest"]
    changed(several[3], manifest=manifest | {"fingerprints": {"train": "0", "test": "1"}})
    said = check_page(compare([*several, work / "regression"], "a.html").read_text()).said()
    assert "Not finished, and so in no test: lr0.1-0" in said
    assert "tested on different data" in said


@pytest.mark.parametrize("value", ["NaN", "1e999", str(10**400)])
def test_metrics_that_are_not_finite_have_no_mean(several, tmp_path, value):
    summary = Path(several[0], "summary.json")
    held = summary.read_text()
    summary.write_text(f'{{"test_accuracy_best": {value}, "test_accuracy_last": {value}}}')
    assert compare(several, tmp_path / "page.html").exists()
    summary.write_text(held)


def test_a_comparison_of_everything(work, tmp_path):
    names = ["digits", "regression", "hardware", "classes", "sequence", "loader", "interrupted", "failed"]
    check_page(compare(names, tmp_path / "all.html").read_text())


def test_names_of_strangers_stay_text(several, tmp_path):
    odd = tmp_path / EVIL.replace("/", "|")[:200]
    shutil.copytree(several[0], odd)
    with open(odd / "metrics.csv") as file:
        rows = list(csv.reader(file))
    rows[0][3] = EVIL
    with open(odd / "metrics.csv", "w") as file:
        csv.writer(file).writerows(rows)
    check_page(compare([odd, several[1]], "a.html").read_text())


def test_what_is_no_comparison_is_refused(several):
    for wrong in ([], several[:1], [several[0], several[0]], [several[0], "nowhere"]):
        with pytest.raises(ep.InputError):
            compare(wrong, "a.html")
    with pytest.raises(ep.InputError, match="--out"):
        compare(several, "nowhere/a.html")
