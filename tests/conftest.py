import os
import signal
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch reads it as it is imported: each test process has one core
sys.path.insert(0, str(Path(__file__).parent))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell; the tests send this signal
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = 9
"""The number of cases of a long table."""
WHOLE = (
    *("test_public_names", "test_docs", "test_figures", "test_examples", "test_pages", "test_oracle", "test_kills"),
    *("test_launchers", "test_package"),
)
"""Files of which each case is tried each time: a case stands for a thing, not for a kind."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of long tables every third case is tried each time; ``pytest -m long`` tries the others."""
    tables = {}
    for item in items:
        if hasattr(item, "callspec") and not item.path.name.startswith(WHOLE):
            tables.setdefault((item.path, item.originalname), []).append(item)
    for cases in tables.values():
        for number, item in enumerate(cases if len(cases) >= LONG else ()):
            if number % 3:
                item.add_marker("long")


@pytest.fixture(scope="session")
def fork_server():
    from mutations import ForkServer

    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def double():
    """64 bits by default, and the same random numbers in every test."""
    import torch

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
