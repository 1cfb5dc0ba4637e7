"""The page of a run as it trains: on this machine alone, and made anew when there is something new."""

import http.client
import shutil
import threading
import time

import pytest
from report.test_run_pages import Parsed

import eqprop as ep
from eqprop.report.live import LOOPBACK, Pages, server
from eqprop.report.subject import Opened
from eqprop.runs.folder import fail
from eqprop.runs.lock import holder, locked


@pytest.fixture
def served(work, tmp_path):
    """A run, its pages, and a function that asks its server."""
    shutil.copytree("digits", tmp_path / "run")
    pages = Pages(Opened(tmp_path / "run"), 0.0)
    made = server(pages, 0)
    port = made.server_address[1]
    assert made.server_address[0] == LOOPBACK
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()

    def ask(path, host=f"{LOOPBACK}:{port}", method="GET"):
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
        connection.request(method, path, headers={"Host": host})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer, text

    yield tmp_path / "run", pages, ask
    made.shutdown()
    made.server_close()


def test_a_page_is_made_anew_when_the_run_has_something_new(served):
    folder, pages, ask = served
    answer, text = ask("/")
    assert answer.status == 200
    assert answer.getheader("Cache-Control") == "no-store"
    mark = ask("/state")[1]
    assert f'data-live="{mark}"' in text
    assert "connect-src 'self'" in next(each["content"] for each in Parsed(text).all("meta") if "content" in each)
    assert ask("/")[1] == text
    fail(folder, ValueError("a new thing"))
    pages.again = time.monotonic() + 1000
    assert ask("/state")[1] == mark, "not so soon after the last"
    pages.again = 0
    assert ask("/state")[1] != mark
    assert "a new thing" in Parsed(ask("/")[1]).said()
    (folder / "run.json").write_text("{")
    pages.again = 0
    assert "damaged" in Parsed(ask("/")[1]).said()


def test_nothing_else_is_served(served):
    folder, _, ask = served
    for path in ("/run.json", "/../run.json", "/%2e%2e/run.json", "/state/", "", f"/{folder}/run.json"):
        assert ask(path or "/x")[0].status == 404
    for host in ("evil.example", "evil.example:80", LOOPBACK, f"{LOOPBACK}:1", ""):
        answer, text = ask("/", host=host)
        assert answer.status in (400, 403), host
        assert "digits" not in text
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert ask("/", method=method)[0].status == 501


def test_a_port_that_is_taken_is_refused(served):
    _, pages, ask = served
    port = int(ask("/")[0].getheader("X-Port", 0)) or None
    made = server(pages, 0)
    try:
        with pytest.raises(ep.InputError, match="--port"):
            server(pages, made.server_address[1])
        assert port is None
    finally:
        made.server_close()


def test_a_run_that_trains_is_said_to_train(work, tmp_path):
    shutil.copytree("interrupted", tmp_path / "run")
    from eqprop.report.subject import look

    assert not holder(tmp_path / "run")
    assert look(tmp_path / "run").state == "interrupted"
    with locked(tmp_path / "run"):
        assert holder(tmp_path / "run").startswith("process ")
        assert look(tmp_path / "run").state == "training"
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            raise ZeroDivisionError
    assert not holder(tmp_path / "run")
    assert not holder(tmp_path)
    (tmp_path / "run/.lock").write_text("process 99999999 on nowhere\n")
    assert not holder(tmp_path / "run")
