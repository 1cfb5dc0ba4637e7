"""Keeps the figures of reproductions in the package, and writes the table of docs/reproductions.md from them.

python tools/reproductions.py [FOLDER ...]

FOLDER is what `eqprop reproduce NAME --out FOLDER` has made; its manifest is read, and nothing is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqprop import files, reproductions
from eqprop.reproductions import FORMAT, MEASURED, RESULTS
from eqprop.reproductions.shown import whole_page
from eqprop.reproductions.work import MANIFEST, Job, check_kept, entry_of, read_manifest

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "src" / "eqprop" / "reproductions" / MEASURED
PAGE = ROOT / "docs" / "reproductions.md"
BEGIN, END = "<!-- begin of the generated part -->", "<!-- end of the generated part -->"


def with_folder(measured: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, dict[str, Any]]:
    """The figures with those of a folder, in the order of the results."""
    manifest = read_manifest(folder / MANIFEST)
    name, size = manifest["name"], manifest["setting"]
    check_kept(Job(name, RESULTS[name], size, folder))
    found = {**measured, name: {**measured.get(name, {}), size: entry_of(manifest)}}
    return {
        each: {s: found[each][s] for s in RESULTS[each].settings if s in found[each]}
        for each in RESULTS
        if each in found
    }


def page(measured: Mapping[str, Mapping[str, Any]], before: str) -> str:
    """The page with its generated part."""
    head, _, rest = before.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{whole_page(RESULTS, measured)}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    measured: dict[str, Any] = json.loads(json.dumps(reproductions.measured())) if KEPT.exists() else {}
    for folder in sys.argv[1:]:
        measured = with_folder(measured, Path(folder))
    files.write_text_atomic(KEPT, files.sealed({"format": FORMAT, "results": measured}) + "\n")
    files.write_text_atomic(PAGE, page(measured, PAGE.read_text()))


if __name__ == "__main__":
    main()
