"""Every example runs, and learns."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


FLOORS = {
    "library_loop": 0.95,
    "own_energy": 0.92,
    "ep_block": 0.92,
    "own_estimator": 0.85,
    "own_device": 0.9,
    "search_optuna": 0.7,
}
SHORT = {"search_optuna": {"trials": 5, "seed": 0}}
"""Arguments of those that take long by themselves."""


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_learn(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it writes, if it does
    assert runpy.run_path(str(path))["main"](**SHORT.get(path.stem, {})) > FLOORS[path.stem]
