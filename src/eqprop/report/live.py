"""The page of a run while it trains, served to this machine alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from eqprop.errors import EqpropError, explained, one_line
from eqprop.files import sha256
from eqprop.report.blocks import Page, Section, Text
from eqprop.report.html import render
from eqprop.report.sections import page
from eqprop.report.subject import Clock, Opened
from eqprop.runs.lock import holder

LOOPBACK = "127.0.0.1"
WATCHED = ("run.json", "metrics.csv", "best.json", "summary.json", "failed.txt")
"""Files that change when a run has something new."""
PATIENCE = 5
"""A page is made again at the earliest after this many times the seconds that the last one took."""


class Pages:
    """The present page of a run, made anew when the run has something new.

    Args:
        opened: the run.
        seconds: that the parts which compute may take.
    """

    def __init__(self, opened: Opened, seconds: float):
        self.opened, self.seconds = opened, seconds
        self.lock = threading.Lock()
        self.mark, self.text, self.again = "", "", 0.0

    def state(self) -> str:
        """A mark of what the run has now; the last page's, until there may be another."""
        if self.text and time.monotonic() < self.again:
            return self.mark
        return mark_of(self.opened.folder)

    def page(self) -> str:
        """The present page."""
        with self.lock:
            mark = self.state()
            if mark != self.mark or not self.text:
                begin = time.monotonic()
                self.text, self.mark = self._made(mark), mark
                now = time.monotonic()
                self.again = now + PATIENCE * (now - begin)
            return self.text

    def _made(self, mark: str) -> str:
        try:
            return render(page(self.opened.subject(), Clock(self.seconds)), mark)
        except EqpropError as error:  # a file was half there; the next page is whole
            says = [Section("summary", "Summary", [Text(one_line(error), "bad")])]
            return render(Page("Report of a run", str(self.opened.folder), says), mark)


def mark_of(folder: Path) -> str:
    """A text that changes whenever a watched file of the run does."""
    found = [holder(folder)]
    for name in WATCHED:
        try:
            about = (folder / name).stat()
            found.append(f"{name} {about.st_mtime_ns} {about.st_size}")
        except OSError:
            found.append(name)
    return sha256("\n".join(found).encode())[:16]


def server(pages: Pages, port: int) -> ThreadingHTTPServer:
    """A server of the page on the loopback address.

    It answers to requests for that address alone, so that a page of another site cannot read it under its own name.

    Args:
        pages: what it shows.
        port: of it; 0: any that is free.

    Raises:
        InputError: the port is taken, or may not be used.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, protocol_version = "eqprop", "", "HTTP/1.0"
        timeout = 30

        def do_GET(self) -> None:
            hosts = {f"{name}:{made.server_port}" for name in (LOOPBACK, "localhost")}
            found: tuple[str, Callable[[], str]] | None = {
                "/": ("text/html", pages.page),
                "/state": ("text/plain", pages.state),
            }.get(self.path)
            if self.headers.get("Host") not in hosts:
                self.send_error(HTTPStatus.FORBIDDEN)
            elif found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                kind, make = found
                content = make().encode()
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("X-Frame-Options", "DENY")
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing: the terminal is the user's."""

    taken = f"Cannot serve on port {port} of this machine ({{}}): --port names another, 0 any that is free."
    with explained(taken, OSError, OverflowError):
        made = ThreadingHTTPServer((LOOPBACK, port), Handler)
    return made


def serve(opened: Opened, seconds: float, port: int, say: Callable[[str], None]) -> None:
    """Serves the page of a run until it is interrupted.

    Args:
        opened: the run.
        seconds: that the parts which compute may take.
        port: of the server; 0: any that is free.
        say: prints a line.

    Raises:
        InputError: the port is taken.
    """
    with server(Pages(opened, seconds), port) as made:
        say(f"http://{LOOPBACK}:{made.server_port}/ shows the run {opened.folder}; Ctrl-C ends it.")
        made.serve_forever(poll_interval=0.2)
