"""Makes the pages about runs, and writes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eqprop.errors import needing_extra
from eqprop.files import explained, make_folder, refuse_others, write_text_atomic
from eqprop.runs.folder import quoted, read

if TYPE_CHECKING:
    from eqprop.training.loop import Experiment

NAME = "report.html"
BEGINS = b"<!doctype html>"
"""Every page."""
SECONDS = 60.0
"""That a report may take."""


def report(
    run: str | Path,
    out: str | Path = "",
    seconds: float = SECONDS,
    data: str = "",
    accept_new_data: bool = False,
    trust_recipe: bool = False,
) -> Path:
    """A page about a run: what was trained on what, curves, mistakes, an example that settles, and how to reproduce it.

    Args:
        run: its folder.
        out: the file; default: ``report.html`` in the folder.
        seconds: how long the parts that compute may take; what would take longer is left out, and says so.
        data: where its data are now; "": where they were. Without data that may be read, the rest is shown.
        accept_new_data: whether other data than the training's will do.
        trust_recipe: whether the code of a user's recipe in a run that you have not made here may run.

    Returns:
        The file.

    Raises:
        InputError: it is no run, the data that are named cannot be used, or the file cannot be written.
    """
    with needing_extra("A report"):
        from eqprop.report.html import render
        from eqprop.report.sections import page
        from eqprop.report.subject import Clock, Opened
    folder = Path(run)
    read(folder)
    file = Path(out) if out else folder / NAME
    check_place(file)
    subject = Opened(folder, data, accept_new_data, trust_recipe).subject()
    return written(file, render(page(subject, Clock(seconds))))


def after_training(folder: Path, run: Experiment, weights: str, seconds: float) -> Path:
    """The page about a run that has just ended, of the experiment as it is in memory.

    Args:
        folder: of the run.
        run: its experiment.
        weights: which it has now, in words.
        seconds: see ``report``.

    Returns:
        The file.
    """
    from eqprop.report.html import render
    from eqprop.report.sections import page
    from eqprop.report.subject import Clock, look, of_experiment

    subject = replace(look(folder), trained=of_experiment(run, weights))
    return written(folder / NAME, render(page(subject, Clock(seconds))))


def compare(runs: Sequence[str | Path], out: str | Path = "") -> Path:
    """A page that compares runs: curves, the settings that differ, means over seeds and tests of significance.

    Args:
        runs: their folders, two or more.
        out: the file; default: runs/compare-TIME.html.

    Returns:
        The file.

    Raises:
        InputError: there are less than two, one of them is no run or is named twice, or the file cannot be written.
    """
    with needing_extra("A comparison"):
        from eqprop.report.comparing import page
        from eqprop.report.html import render
    file = Path(out or time.strftime("runs/compare-%Y%m%d-%H%M%S.html"))
    if out:
        check_place(file)
    text = render(page([Path(each) for each in runs]))
    if not out:
        make_folder(file.parent, exist_ok=True)
    return written(file, text)


def check_place(path: Path) -> None:
    """Raises InputError if no page can be at ``path``, before any work."""
    with explained(f"Cannot write {quoted(path)} ({{}}): --out names another file.", OSError, ValueError):
        refuse_others(path, BEGINS)


def written(path: Path, text: str) -> Path:
    """Writes a page. Raises InputError if it cannot be written."""
    with explained(f"Cannot write {quoted(path)} ({{}}): --out names another file.", OSError, ValueError):
        write_text_atomic(path, text)
    return path
