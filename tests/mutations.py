"""Deliberate one-line bugs, and the tests that must notice them: what the two files of them share."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import eqprop

TESTS = Path(__file__).parent


def run(tests, **environment):
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(str(TESTS / t) for t in tests)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=300)


def with_bug(folder, file, right, wrong, tests):
    copy = folder / "eqprop"
    shutil.copytree(Path(eqprop.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text()
    assert text.count(right) == 1, f"{file} no longer says {right!r} once: bring this bug up to date"
    (copy / file).write_text(text.replace(right, wrong))
    return run([tests], PYTHONPATH=str(folder))


@contextmanager
def all_running(bugs, tmp_path_factory):
    """All of them, two at a time; and the same tests on the package as it is, under "no bug"."""
    with ThreadPoolExecutor(2) as pool:
        jobs = {"no bug": pool.submit(run, sorted({bug[-1] for bug in bugs.values()}))}
        jobs |= {name: pool.submit(with_bug, tmp_path_factory.mktemp("bug"), *bug) for name, bug in bugs.items()}
        yield jobs
        pool.shutdown(cancel_futures=True)


def noticed(found):
    assert found.returncode == 1, f"no test noticed, or none ran:\n{found.stdout[-2000:]}{found.stderr[-500:]}"


def passed(found):
    """Else a bug would seem noticed where the tests fail anyway."""
    assert found.returncode == 0, found.stdout[-2000:]
