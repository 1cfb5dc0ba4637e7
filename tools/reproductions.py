"""Keeps the figures of reproductions in the package, and writes the table of docs/reproductions.md from them.

python tools/reproductions.py [FOLDER ...]

FOLDER is what `eqprop reproduce NAME --out FOLDER` has made; its manifest is read, and nothing is typed by hand. Rows
and seeds of one setting may come from several folders, made on several machines. A folder takes the place of an older
one whose rows and seeds it has all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eqprop import files, reproductions
from eqprop.errors import InputError
from eqprop.loading import EMBEDDED
from eqprop.reproductions import FORMAT, MEASURED, RESULTS, find_setting
from eqprop.reproductions.shown import whole_page
from eqprop.reproductions.work import MANIFEST, Job, check_kept, digest, entry_of, read_manifest

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "src" / "eqprop" / "reproductions" / MEASURED
PAGE = ROOT / "docs" / "reproductions.md"
BEGIN, END = "<!-- begin of the generated part -->", "<!-- end of the generated part -->"


Entries = dict[str, dict[str, list[dict[str, Any]]]]
"""Result -> setting -> the entry of each manifest."""


def with_folder(measured: Entries, folder: Path) -> Entries:
    """The figures with those of a folder, in the order of the results.

    Raises:
        InputError: it is of settings that this version does not have, or of the embedded data where others are meant;
            or a kept manifest has some of its rows and seeds, and others that it lacks.
    """
    manifest = read_manifest(folder / MANIFEST)
    name, size, new = manifest["name"], manifest["setting"], entry_of(manifest)
    setting = find_setting(name, size)
    if new["digest"] != digest(setting):
        raise InputError(f"{folder}: this version has other settings for {name}, {size}: run it again.")
    embedded = {part["data"] == EMBEDDED for part in manifest["parts"]}
    if embedded - {setting.data == EMBEDDED}:
        raise InputError(f"{folder}: its data are not those of {name}, {size}: {setting.data!r}.")
    check_kept(Job(name, RESULTS[name], size, folder))
    kept = [each for each in measured.get(name, {}).get(size, []) if each["digest"] == new["digest"]]
    kept = [each for each in kept if not parts(each) <= parts(new)]
    for each in kept:
        if new["fingerprints"] != each.get("fingerprints", new["fingerprints"]):  # older ones do not say
            raise InputError(f"{folder}: its data are not those of the kept manifest {each['manifest'][:12]}.")
        if both := sorted(parts(each) & parts(new)):
            raise InputError(
                f"{folder}: {both[0][0]}, seed {both[0][1]}, is also in the kept manifest {each['manifest'][:12]}, "
                "which has more: run the rest of that one in this folder too."
            )
    found = {**measured, name: {**measured.get(name, {}), size: [*kept, new]}}
    return {
        each: {s: found[each][s] for s in RESULTS[each].settings if s in found[each]}
        for each in RESULTS
        if each in found
    }


def parts(entry: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The rows and seeds of which an entry has numbers."""
    return {(row, seed) for row, seeds in entry["numbers"].items() for seed in seeds}


def page(measured: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], before: str) -> str:
    """The page with its generated part."""
    head, _, rest = before.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{whole_page(RESULTS, measured)}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    measured: Entries = json.loads(json.dumps(reproductions.measured())) if KEPT.exists() else {}
    for folder in sys.argv[1:]:
        measured = with_folder(measured, Path(folder))
    files.write_text_atomic(KEPT, files.sealed({"format": FORMAT, "results": measured}) + "\n")
    files.write_text_atomic(PAGE, page(measured, PAGE.read_text()))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"reproductions: {error}")
