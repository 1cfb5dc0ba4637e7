"""Runs tests on a copy of the package, in a fork of this process, which has imported PyTorch once for all of them.

A line of standard input is a job, an object in JSON: the folder that holds the copy, ``package``; the ``tests``; the
files to write, ``log`` and ``report``. A line of standard output follows when the job is done. The report, in JSON,
has the package's file, how many tests ran, pytest's exit status, and the failures: the test, the error, its first
line, and whether an assertion of the test's made it.
"""

import gc
import importlib.util
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import hypothesis  # noqa: F401
import lightning_fabric  # noqa: F401
import numpy  # noqa: F401
import pytest
import torch
import torch.func

SECONDS = 300


class Recorder:
    """A plug-in of pytest: it keeps what failed and how, and ends the session at the first assertion that fails."""

    def __init__(self, package: Path):
        self.package, self.ran, self.failures = package, 0, []

    def _asserted(self, call) -> bool:
        """An assertion of the test or of a testing helper; not one inside the code under test."""
        error, where = call.excinfo.value, Path(call.excinfo.traceback[-1].path)
        if where.is_relative_to(self.package) and "testing" not in str(where.relative_to(self.package)):
            return False
        missing = isinstance(error, pytest.fail.Exception) and str(error).startswith(("DID NOT RAISE", "DID NOT WARN"))
        return call.when == "call" and (isinstance(error, AssertionError) or missing)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        self.ran += call.when == "call"
        if report.failed:
            error = call.excinfo.value
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            found = {"test": item.nodeid, "error": type(error).__name__, "message": (lines or [""])[0]}
            self.failures.append(found | {"asserted": self._asserted(call)})
            if self.failures[-1]["asserted"]:
                item.session.shouldstop = "an assertion failed"
        return report


def job(package: str, tests: list[str], log: str, report: str) -> None:
    """In the child: the copy comes first, for it and for the processes that a test starts."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.path.insert(0, package)
    os.environ["PYTHONPATH"] = package
    recorder = Recorder(Path(package))
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-o", "addopts=", *tests], plugins=[recorder])
    found = {
        "file": importlib.util.find_spec("eqprop").origin,
        "ran": recorder.ran,
        "status": int(status),
        "failures": recorder.failures,
    }
    Path(report).write_text(json.dumps(found))


def serve() -> None:
    torch.set_num_threads(1)
    gc.freeze()  # else each child, which pytest has collect its garbage, looks through all that is imported
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS)
            try:
                job(**json.loads(line))
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        print("done", flush=True)


if __name__ == "__main__":
    assert "eqprop" not in sys.modules
    serve()
