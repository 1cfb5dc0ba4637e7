import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def fork_server():
    from mutations import ForkServer

    server = ForkServer()
    yield server
    server.close()
