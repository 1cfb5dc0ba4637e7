"""The search in the examples: several workers, one killed, and continued."""

import signal
import time
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")
from optuna.storages import JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from runs.kills import Started, shared_starter  # noqa: E402

SEARCH = Path(__file__).parents[1] / "examples" / "search_optuna.py"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SECONDS = 100


def worker(trials: int) -> Started:
    """A process that runs the example, as ``python search_optuna.py`` does."""
    return shared_starter().begin_code(f"import runpy\nrunpy.run_path({str(SEARCH)!r}, run_name='__main__')", trials)


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
    with worker(1000) as killed, worker(3) as other:
        while not (len(trials_of(file, (TrialState.RUNNING,))) == 2 and trials_of(file, FINISHED)):
            assert time.monotonic() < deadline, "no two workers at once"
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)  # in the middle of a trial
        assert other.end().returncode == 0, other.stderr
    assert len(trials_of(file, FINISHED)) in (3, 4)
    assert worker(5).end().returncode == 0  # continued by another
    assert len(trials_of(file, FINISHED)) == 5
    complete = trials_of(file, (TrialState.COMPLETE,))
    assert all(len(trial.intermediate_values) == 3 for trial in complete)
    assert len(trials_of(file, (TrialState.RUNNING,))) <= 1, "what the killed worker had begun"
