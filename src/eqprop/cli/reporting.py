"""``eqprop report`` and ``eqprop compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eqprop.cli.terminal import plain_console
from eqprop.cli.training import add_kept_options
from eqprop.errors import InputError
from eqprop.report import making
from eqprop.runs.parsing import Parser

PORT = 8642
"""Of the server of a run's page; any that few programs use."""


def report_parser() -> Parser:
    """The options of ``eqprop report``."""
    parser = Parser(prog="eqprop report", description="A page about a run, in one file that needs nothing else.")
    parser.add_argument("run", type=str, help="the folder of the run")
    parser.add_argument("--out", type=str, default="", help=f"the HTML file; default: RUN/{making.NAME}")
    parser.add_argument(
        "--seconds", type=float, default=making.SECONDS, help="how long the parts that compute may take"
    )
    parser.add_argument("--live", action="store_true", help="serve the page to this machine alone, as the run goes on")
    parser.add_argument("--port", type=int, default=PORT, help="of --live; 0: any that is free")
    add_kept_options(parser)
    return parser


def report(arguments: Sequence[str]) -> int:
    """Makes the page of a run, or serves it while the run trains."""
    options = report_parser().read(arguments)
    seconds, port, live = options["seconds"], options["port"], options["live"]
    if seconds < 0:
        raise InputError(f"--seconds {seconds}: give 0 or more.")
    if port != PORT and not live:
        raise InputError(f"--port {port} is of --live: add that, or leave it out.")
    if not 0 <= port < 2**16:
        raise InputError(f"--port {port}: a port is a number from 0 to 65535.")
    if live and options["out"]:
        raise InputError("--out and --live do not go together: --live writes no file.")
    folder, console = Path(options["run"]), plain_console()
    how = options["data"], options["accept_new_data"], options["trust_recipe"]
    if live:
        from eqprop.report.live import serve
        from eqprop.report.subject import Opened

        serve(Opened(folder, *how), seconds, port, lambda text: console.print(text, soft_wrap=True))
    else:
        console.print(f"Report: {making.report(folder, options['out'], seconds, *how)}", soft_wrap=True)
    return 0


def compare_parser() -> Parser:
    """The options of ``eqprop compare``."""
    parser = Parser(prog="eqprop compare", description="A page that compares runs, in one file.")
    parser.add_argument("runs", type=str, nargs="+", help="the folders of two runs or more")
    parser.add_argument("--out", type=str, default="", help="the HTML file; default: runs/compare-TIME.html")
    return parser


def compare(arguments: Sequence[str]) -> int:
    """Makes the page that compares runs."""
    options = compare_parser().read(arguments)
    made = making.compare(options["runs"], options["out"])
    plain_console().print(f"Comparison: {made}", soft_wrap=True)
    return 0
