"""Published results that one command runs from end to end: ``eqprop reproduce NAME``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from eqprop import files
from eqprop.errors import InputError
from eqprop.reproductions.definitions import RESULTS as RESULTS
from eqprop.reproductions.result import Result, Setting

MEASURED = "measured.json"
"""The figures that were measured with this package, as ``tools/reproductions.py`` keeps them."""
FORMAT = 2


def find(name: str) -> Result:
    """The result of that name.

    Raises:
        InputError: there is none; a similar one is suggested.
    """
    if name not in RESULTS:
        near = difflib.get_close_matches(name, RESULTS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"There is no result {name!r}: {hint}`eqprop reproduce` lists them.")
    return RESULTS[name]


def find_setting(name: str, size: str) -> Setting:
    """The setting of that name of a result. Raises InputError if there is none."""
    settings = find(name).settings
    if size not in settings:
        raise InputError(f"--setting {size!r}: {name} has {', '.join(settings)}.")
    return settings[size]


def chosen_rows(setting: Setting, names: str) -> list[str]:
    """The rows that are asked for.

    Args:
        setting: has them.
        names: their names, or beginnings of them, separated by ``;``; "" for all.

    Raises:
        InputError: a name fits no row, or several without being one of them.
    """
    rows = list(setting.rows)
    if not names.strip():
        return rows
    chosen = []
    for name in (each.strip() for each in names.split(";")):
        found = [row for row in rows if row == name] or [row for row in rows if name and row.startswith(name)]
        if not found:
            raise InputError(f"--rows: there is no row {name!r}: there are {'; '.join(rows)}.")
        chosen += found
    return list(dict.fromkeys(chosen))


def measured() -> Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]:
    """The figures of this package: result -> setting -> an entry for each manifest, as ``work.entry_of`` makes it.

    Raises:
        InputError: the file is missing or was changed by hand.
    """
    path = Path(str(resources("eqprop.reproductions") / MEASURED))
    found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] = files.unsealed(
        files.read_regular(path), path, FORMAT
    )["results"]
    return found
