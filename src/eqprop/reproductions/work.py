"""Runs the parts of a result, each once; and the manifest, which says what came out and how.

A part is an ordinary folder of a run, or a sealed JSON file that appears in one step. A process that is killed at any
moment loses at most what the run has learnt since its last checkpoint, or the numbers of one computation.
"""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eqprop import files
from eqprop.errors import InputError, NotSettledError
from eqprop.reproductions.result import Computation, Numbers, Result, Setting, Table, Training
from eqprop.runs import folder as folders
from eqprop.runs.lock import locked
from eqprop.tasks import load_images

FORMAT = 1
MANIFEST = "manifest.json"
FIGURE = "figure.png"
README = "README.md"
RUNS, CELLS = "runs", "cells"
SEEDS = 100
"""More than any result is run with."""
Train = Callable[[Sequence[str]], int]
"""A command of the command line: its words -> its exit status."""


class Interrupted(Exception):
    """A signal has stopped a run, which is saved.

    Args:
        status: the exit status that says so.
    """

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Job:
    """A result at a setting, in a folder.

    Attributes:
        name: of the result.
        result: the result.
        size: the name of the setting.
        folder: where everything is.
        data: where the examples are; "": where the setting says.
    """

    name: str
    result: Result
    size: str
    folder: Path
    data: str = ""

    @property
    def setting(self) -> Setting:
        """The setting of that name."""
        return self.result.settings[self.size]

    @property
    def source(self) -> str:
        """Where the examples are."""
        return self.data or self.setting.data

    def place(self, row: str, seed: int) -> Path:
        """The folder or the file of a part."""
        name = f"{re.sub(r'[^a-z0-9.]+', '-', row.lower()).strip('-')}-{seed}"
        if isinstance(self.setting.rows[row].part, Training):
            return self.folder / RUNS / name
        return self.folder / CELLS / f"{name}.json"


def perform(job: Job, rows: Sequence[str], seeds: int, session: Sequence[str], train: Train, resume: Train) -> Path:
    """Runs the parts that are not done yet, and writes the manifest, the figure and the page. Returns the manifest.

    Args:
        job: what is run, and where.
        rows: the names of those that are run.
        seeds: as many of each, from 0.
        session: words of the command line for each training, such as its threads.
        train, resume: the commands.

    Raises:
        InputError: the folder holds something else, or numbers in it were changed by hand.
        Interrupted: a signal has stopped a run.
    """
    begin(job)
    with locked(job.folder):
        check_kept(job)
        for seed in range(seeds):
            for row in rows:
                do(job, row, seed, session, train, resume)
        return write_manifest(job)


def begin(job: Job) -> None:
    """Makes the folder, or refuses one of something else."""
    if job.folder.is_dir():
        names = {path.name for path in job.folder.iterdir()}
        if names - {MANIFEST, FIGURE, README, RUNS, CELLS, ".lock"}:
            other = min(names - {MANIFEST, FIGURE, README, RUNS, CELLS, ".lock"})
            raise InputError(f"The folder {str(job.folder)!r} holds other files ({other}): --out names another.")
    for name in ("", RUNS, CELLS):
        files.make_folder(job.folder / name, exist_ok=True)


def do(job: Job, row: str, seed: int, session: Sequence[str], train: Train, resume: Train) -> None:
    """Runs one part, or the rest of it."""
    part, place = job.setting.rows[row].part, job.place(row, seed)
    if done(job, row, seed):
        return
    if isinstance(part, Computation):
        began = time.perf_counter()
        numbers = part.function(job.source, seed, **part.arguments)
        content = {"format": FORMAT, "what": described(part), "numbers": dict(numbers)}
        content |= {"data": job.source, "fingerprints": load_images(job.source).manifest.fingerprints}
        content |= signed() | {"seconds": time.perf_counter() - began}
        files.write_text_atomic(place, files.sealed(content))
        return
    options = {**part.options, "data": job.source, "seed": seed}
    words = [part.recipe, *(word for name, value in options.items() for word in (f"--{name}", typed(value)))]
    fixed = ["--report_seconds", "0"]
    command = (
        partial(resume, [str(place), *fixed])
        if place.exists()
        else partial(train, [*words, *fixed, *session, "--out", str(place)])
    )
    try:
        status = command()
    except NotSettledError:
        return  # the run's folder says so: it diverged
    if status:
        raise Interrupted(status)


def done(job: Job, row: str, seed: int) -> bool:
    """Whether a part has come to its end. Raises InputError if what is there belongs to another setting."""
    part, place = job.setting.rows[row].part, job.place(row, seed)
    if not place.exists():
        return False
    other = f"{place} belongs to other settings ({{}}): --out names another folder."
    if isinstance(part, Computation):
        if (kept := cell(place))["what"] != described(part):
            raise InputError(other.format(kept["what"]))
        return True
    about, _ = folders.read(place)
    wanted = {**part.options, "seed": seed}
    if about.recipe != part.recipe:
        raise InputError(other.format(f"the recipe {about.recipe}"))
    for name, value in wanted.items():
        if jsonable(about.options.get(name)) != jsonable(value):
            raise InputError(other.format(f"{name} {about.options.get(name)!r}, not {value!r}"))
    return (place / "summary.json").exists() or bool(folders.failure(place))


def cell(place: Path) -> dict[str, Any]:
    """The content of a computation's file. Raises InputError if it is damaged or was changed by hand."""
    try:
        return files.unsealed(files.read_regular(place), place, FORMAT)
    except InputError as error:
        raise InputError(
            f"{place} is damaged, or was changed by hand: delete it, and the command computes it again."
        ) from error


def described(part: Computation) -> dict[str, Any]:
    """What a computation is, as JSON gives it."""
    return {"function": part.function.__name__, "arguments": jsonable(part.arguments)}


def jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value))


def typed(value: Any) -> str:
    """An option's value as it is typed."""
    return value if isinstance(value, str) else json.dumps(value)


def signed() -> dict[str, Any]:
    """Where and when something is computed, and by what."""
    return {
        "machine": folders.machine(),
        "commit": folders.commit_of(Path(__file__).parent),
        "versions": folders.versions(),
        "made": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


# What came out


def numbers_of(job: Job, row: str, seed: int) -> Numbers:
    """The numbers of a part that is done."""
    place = job.place(row, seed)
    if isinstance(job.setting.rows[row].part, Computation):
        found: Numbers = cell(place)["numbers"]
        return found
    if not (place / "summary.json").exists():
        return {"test_error": float("inf"), "train_error": float("inf")}
    damaged = f"The run {str(place)!r} is damaged ({{}}): delete it, and the command trains it again."
    with files.explained(damaged, KeyError, ValueError, IndexError):
        summary = json.loads(files.read_regular(place / "summary.json"))
        last = [*csv.DictReader(io.StringIO(files.read_regular(place / "metrics.csv").decode()))][-1]
        shares = {"test_error": summary["test_accuracy_last"], "train_error": last["train_accuracy"]}
        return {name: 100 * (1 - float(share)) for name, share in shares.items()}


def all_done(job: Job) -> Iterator[tuple[str, int]]:
    """The rows and seeds whose parts are done."""
    for row in job.setting.rows:
        for seed in range(SEEDS):
            if done(job, row, seed):
                yield row, seed


def table_of(job: Job) -> Table:
    """All numbers that are in the folder."""
    numbers: dict[str, dict[int, Numbers]] = {}
    for row, seed in all_done(job):
        numbers.setdefault(row, {})[seed] = numbers_of(job, row, seed)
    return Table(numbers)


def kept_files(job: Job, row: str, seed: int) -> list[Path]:
    """The files from which a part's numbers are read."""
    place = job.place(row, seed)
    if isinstance(job.setting.rows[row].part, Computation):
        return [place]
    return [path for name in ("summary.json", "metrics.csv", folders.FAILED) if (path := place / name).exists()]


def origin(job: Job, row: str, seed: int) -> dict[str, Any]:
    """How a part was made: settings, machine, commit, versions, checksums."""
    part, place = job.setting.rows[row].part, job.place(row, seed)
    sums = {str(path.relative_to(job.folder)): files.sha256_of(path) for path in kept_files(job, row, seed)}
    if isinstance(part, Computation):
        content = cell(place)
        names = ("what", "data", "fingerprints", "machine", "commit", "versions", "made", "seconds")
        return {name: content[name] for name in names} | {"sha256": sums}
    about, _ = folders.read(place)
    with files.explained(f"The run {str(place)!r} is damaged ({{}}): delete it.", KeyError, ValueError):
        has_ended = (place / "summary.json").exists()
        seconds = json.loads(files.read_regular(place / "summary.json"))["seconds"] if has_ended else None
    return {
        "what": {"recipe": about.recipe, "options": jsonable(about.options)},
        "data": about.options.get("data", ""),
        "fingerprints": jsonable(about.manifest.fingerprints) if about.manifest else {},
        "machine": about.machine,
        "commit": about.commit,
        "versions": about.versions,
        "made": about.made,
        "seconds": seconds,
        "precision": about.session.precision,
        "threads": about.session.threads,
        "sha256": sums,
    }


def check_kept(job: Job) -> None:
    """Raises InputError if the manifest, or a number that it has the checksum of, was changed."""
    path = job.folder / MANIFEST
    if not path.exists():
        return
    manifest = read_manifest(path)
    if (manifest["name"], manifest["setting"]) != (job.name, job.size):
        raise InputError(
            f"The folder {str(job.folder)!r} holds {manifest['name']} at the setting {manifest['setting']}: --out "
            "names another."
        )
    for part in manifest["parts"]:
        for name, known in part["sha256"].items():
            changed = InputError(
                f"{job.folder / name} has changed since the manifest was written: restore it; or delete it, the part "
                f"that it belongs to and {path}, and run the command again."
            )
            with files.explained(str(changed).replace("{", "{{"), OSError):
                if files.sha256_of(job.folder / name) != known:
                    raise changed


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest.

    Raises:
        InputError: it is missing, damaged, of another format, or was changed by hand.
    """
    try:
        return files.unsealed(files.read_regular(path), path, FORMAT)
    except InputError as error:
        raise InputError(
            f"The manifest {path} cannot be read, or was changed by hand: restore it; or delete it, and run "
            "`eqprop reproduce` again."
        ) from error


def write_manifest(job: Job) -> Path:
    """Writes the figure, the page and the manifest from what is in the folder. Returns the manifest."""
    from eqprop.reproductions.shown import draw, page

    table, result, setting = table_of(job), job.result, job.setting
    files.write_bytes_atomic(job.folder / FIGURE, draw(result, setting, table))
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": job.name,
        "setting": job.size,
        "title": result.title,
        "source": result.source,
        "read": result.read,
        "published": jsonable(result.published),
        "about": setting.about,
        "deviations": list(setting.deviations),
        "claims": [{"text": claim.text, "holds": claim.verdict(table)} for claim in result.claims],
        "quantities": [each.name for each in result.quantities],
        "numbers": {
            row: {str(seed): {name: finite(value) for name, value in found.items()} for seed, found in seeds.items()}
            for row, seeds in table.numbers.items()
        },
        "parts": [{"row": row, "seed": seed} | origin(job, row, seed) for row, seed in all_done(job)],
        "figure": {"file": FIGURE, "sha256": files.sha256_of(job.folder / FIGURE)},
        **signed(),
    }
    path = job.folder / MANIFEST
    files.write_text_atomic(path, files.sealed(content))
    files.write_text_atomic(job.folder / README, page(result, job.size, entry_of(content)))
    return path


def finite(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if abs(value) < float("inf") else None


def entry_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a manifest: its numbers, where they come from, and its checksum."""
    parts = manifest["parts"]
    return {
        "numbers": manifest["numbers"],
        "runs": len(parts),
        "seconds": round(sum(part["seconds"] or 0 for part in parts), 1),
        "machines": sorted({part["machine"] for part in parts}),
        "commits": sorted({part["commit"] for part in parts}),
        "versions": parts[0]["versions"] if parts else {},
        "made": manifest["made"],
        "manifest": files.sha256(files.sealed(manifest).encode()),
    }
