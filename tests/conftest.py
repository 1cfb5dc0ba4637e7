import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch reads it as it is imported: each test process has one core
sys.path.insert(0, str(Path(__file__).parent))


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
