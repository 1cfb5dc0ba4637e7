"""Deliberate one-line bugs, and the tests that must notice them: what the two files of them share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import eqprop

TESTS = Path(__file__).parent
PACKAGE = Path(eqprop.__file__).parent


class ForkServer:
    """Runs tests on copies of the package, each in a fork of one process: see fork_server.py."""

    def __init__(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=TESTS.parent,
        )

    def close(self) -> None:
        with self._process:  # it ends with its standard input
            self._process.stdin.close()

    def run(self, tests: list[str], package: Path, folder: Path) -> dict:
        """The report of ``tests`` with ``package`` in eqprop's place; files are written in ``folder``."""
        log, report = folder / "log", folder / "report"
        names = [str(TESTS / test) for test in tests]
        job = {"package": str(package.parent), "tests": names, "log": str(log), "report": str(report)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline(), "the fork server has ended"
        assert report.exists(), f"the tests did not end: {log.read_text()[-2000:]}"
        found = json.loads(report.read_text()) | {"log": log.read_text()[-2000:]}
        assert Path(found["file"]).parent == package, f"the tests ran on {found['file']}"
        return found

    def notices(self, folder: Path, file: str, right: str, wrong: str, tests: str) -> None:
        """An assertion of ``tests`` fails where ``file`` says ``wrong`` for ``right``."""
        copy = folder / "eqprop"
        shutil.copytree(PACKAGE, copy)
        text = (copy / file).read_text()
        assert text.count(right) == 1, f"{file} no longer says {right!r} once: bring this bug up to date"
        (copy / file).write_text(text.replace(right, wrong))
        for compiled in (copy / file).parent.glob(f"__pycache__/{Path(file).stem}.*"):
            compiled.unlink()
        found = self.run([tests], copy, folder)
        assert found["ran"], f"no test ran:\n{found['log']}"
        assert any(failure["asserted"] for failure in found["failures"]), (
            f"no assertion failed; of {found['ran']} tests, these failed otherwise: {found['failures']}\n{found['log']}"
        )

    def passes(self, folder: Path, tests: list[str]) -> None:
        """``tests`` pass on the package as it is: else a bug would seem noticed where they fail anyway."""
        found = self.run(tests, PACKAGE, folder)
        assert found["status"] == 0, found["log"]
