"""Every example runs, and learns."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = {
    "library_loop": ({"epochs": 1}, 0.75),
    "own_energy": ({"epochs": 3}, 0.85),
    "ep_block": ({"epochs": 2}, 0.8),
    "own_estimator": ({"directions": 300}, 0.65),
    "own_device": ({"epochs": 3}, 0.75),
    "search_optuna": ({"trials": 2, "seed": 0}, 0.7),
}
"""Example -> arguments for a short run, and what its result must exceed."""
WHOLE = {
    "library_loop": ({}, 0.95),
    "own_energy": ({}, 0.92),
    "ep_block": ({}, 0.92),
    "own_estimator": ({}, 0.85),
    "own_device": ({}, 0.9),
    "search_optuna": ({"trials": 5, "seed": 0}, 0.7),
}
"""The same of the examples as they stand; of the search, with fewer trials."""


def check(name, arguments, floor, folder, monkeypatch):
    monkeypatch.chdir(folder)  # where it writes, if it does
    assert runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](**arguments) > floor


def test_every_example_is_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SHORT.keys() == WHOLE.keys()


@pytest.mark.parametrize("name", SHORT)
def test_examples_learn(name, tmp_path, monkeypatch):
    check(name, *SHORT[name], tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("name", WHOLE)
def test_examples_as_they_stand_learn(name, tmp_path, monkeypatch):
    check(name, *WHOLE[name], tmp_path, monkeypatch)
