"""The search in the examples: several workers, one killed, and continued."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")
from optuna.storages import JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

SEARCH = Path(__file__).parents[1] / "examples" / "search_optuna.py"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SECONDS = 100


def worker(trials: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(SEARCH), str(trials)], stderr=subprocess.DEVNULL)


def trials_of(file: Path, states: tuple[TrialState, ...]) -> list[optuna.trial.FrozenTrial]:
    if not file.exists():
        return []
    storage = JournalStorage(JournalFileBackend(str(file)))
    return [
        trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id, states=states)
    ]


def test_two_workers_share_a_study_that_survives_one_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, deadline = tmp_path / "search.journal", time.monotonic() + SECONDS
    killed, other = worker(1000), worker(3)
    try:
        while not (len(trials_of(file, (TrialState.RUNNING,))) == 2 and trials_of(file, FINISHED)):
            assert time.monotonic() < deadline, "no two workers at once"
            time.sleep(0.05)
        killed.kill()  # in the middle of a trial
        assert other.wait(timeout=SECONDS) == 0
    finally:
        for each in (killed, other):
            each.kill()
            each.wait()
    assert len(trials_of(file, FINISHED)) in (3, 4)
    assert worker(6).wait(timeout=SECONDS) == 0  # continued by another
    assert len(trials_of(file, FINISHED)) == 6
    complete = trials_of(file, (TrialState.COMPLETE,))
    assert all(len(trial.intermediate_values) == 3 for trial in complete)
    assert len(trials_of(file, (TrialState.RUNNING,))) <= 1, "what the killed worker had begun"
