"""Runs the parts of a result, each once; and the manifest, which says what came out and how.

A training is an ordinary folder of a run, a computation a sealed JSON file that appears in one step. A process that is
killed at any moment loses at most what the run has learnt since its last checkpoint, or the numbers of one computation.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from eqprop import files
from eqprop.errors import InputError, NotSettledError
from eqprop.recipes import find
from eqprop.reproductions.result import (
    FIGURE,
    LAST_LINE,
    Computation,
    Numbers,
    Part,
    Result,
    Setting,
    Table,
    Training,
)
from eqprop.runs import folder as folders
from eqprop.runs.lock import locked
from eqprop.runs.parsing import Parser
from eqprop.tasks import load_images
from eqprop.training.cuda_graphs import NotCapturableError
from eqprop.training.precision import chosen_device

FORMAT = 1
MANIFEST = "manifest.json"
README = "README.md"
RUNS, CELLS = "runs", "cells"
SUMMARY, METRICS = "summary.json", "metrics.csv"
"""The files of a run that its numbers are read from."""
DIVERGED = {"test_error": math.inf, "train_error": math.inf, "best_test_error": math.inf}
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

    def run(self, row: str, seed: int) -> Path:
        """The folder of a training."""
        return self.folder / RUNS / f"{slug(row)}-{seed}"

    def cell(self, row: str, seed: int) -> Path:
        """The file of a computation; or of a training that diverged, which says so."""
        return self.folder / CELLS / f"{slug(row)}-{seed}.json"


def slug(row: str) -> str:
    """The name of a row for files."""
    return re.sub(r"[^a-z0-9.]+", "-", row.lower()).strip("-")


def perform(
    job: Job,
    rows: Sequence[str],
    seeds: int,
    session: Mapping[str, str],
    train: Train,
    resume: Train,
    say: Callable[[str], object],
) -> Path:
    """Runs the parts that are not done yet, and writes the manifest, the figure and the page. Returns the manifest.

    Args:
        job: what is run, and where.
        rows: the names of those that are run.
        seeds: as many of each, from 0.
        session: options of each training by name, as they are typed, such as ``threads``, which computations take too;
            ``cuda_graph`` is for those whose steps can be captured.
        train, resume: the commands.
        say: tells what begins, after all has been checked, and which of these options has no effect.

    Raises:
        NotSettledError: a computation did not settle; after all other parts were run, and the manifest was written.
        InputError: the folder holds something else, or parts that were made otherwise or from other data, or numbers in
            it were changed by hand.
        Interrupted: a signal has stopped a run.
    """
    data = load_images(job.source).manifest  # before anything is made
    begin(job)
    with locked(job.folder):
        for path in (*job.folder.glob(".*.tmp"), *(job.folder / CELLS).glob(".*.tmp")):  # of a process that was killed
            path.unlink(missing_ok=True)
        check_kept(job)
        check_data(job, jsonable(data.fingerprints))
        table_of(job)  # refuses what does not belong here before anything is trained
        done_already = sum(done(job, row, seed) for seed in range(seeds) for row in rows)
        begins = f"{job.name}, setting {job.size}: {job.setting.about} In {job.folder}"
        say(f"{begins}; {done_already} of {seeds * len(rows)} are done." if done_already else f"{begins}.")
        missing = []
        for seed in range(seeds):
            for row in rows:
                try:
                    do(job, row, seed, session, train, resume, say)
                except NotSettledError as error:
                    missing.append(f"{row}, seed {seed}: {error}")
        path = write_manifest(job)
    if missing:
        raise NotSettledError(f"{len(missing)} of {seeds * len(rows)} parts have no numbers: {missing[0]}")
    return path


def begin(job: Job) -> None:
    """Makes the folder, or refuses one of something else."""
    if job.folder.is_dir():
        names = {path.name for path in job.folder.iterdir()}
        ours = {MANIFEST, RUNS, CELLS}
        if README in names and files.read_regular(job.folder / README).rstrip().endswith(LAST_LINE.encode()):
            ours |= {README, FIGURE}
        elif MANIFEST in names and README not in names:
            ours |= {FIGURE}
        if others := sorted(name for name in names - ours if not name.startswith(".")):
            raise InputError(f"The folder {str(job.folder)!r} holds other files ({others[0]}): --out names another.")
    for name in ("", RUNS, CELLS):
        files.make_folder(job.folder / name, exist_ok=True)


def check_data(job: Job, wanted: Mapping[str, str]) -> None:
    """Raises InputError if a part, done or begun, was made from data of other fingerprints."""
    for row in job.setting.rows:
        for seed in range(SEEDS):
            kept, place = job.cell(row, seed), job.run(row, seed)
            if kept.exists():
                found = cell(kept)["fingerprints"]
            elif place.exists() and (manifest := folders.read(place)[0].manifest):
                kept, found = place, jsonable(manifest.fingerprints)
            else:
                continue
            if found != wanted:
                raise InputError(
                    f"{kept} was made from other data than those of {job.source!r}: --data names its own, --out "
                    "another folder."
                )


@contextlib.contextmanager
def threads_kept() -> Iterator[None]:
    """After it PyTorch has as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def do(
    job: Job,
    row: str,
    seed: int,
    session: Mapping[str, str],
    train: Train,
    resume: Train,
    say: Callable[[str], object],
) -> None:
    """Runs one part, or the rest of it."""
    part = job.setting.rows[row].part
    if done(job, row, seed):
        return
    with threads_kept():
        if isinstance(part, Computation):
            compute(job, row, seed, part, int(session.get("threads", 0)))
        else:
            run(job, row, seed, part, session, train, resume, say)


def compute(job: Job, row: str, seed: int, part: Computation, threads: int) -> None:
    """Keeps the numbers of a computation. Raises NotSettledError if it has none."""
    if threads:
        torch.set_num_threads(threads)
    began = time.perf_counter()
    numbers = dict(part.function(job.source, seed, **part.arguments))
    write_cell(job, row, seed, numbers=numbers, seconds=time.perf_counter() - began)


def run(
    job: Job,
    row: str,
    seed: int,
    part: Training,
    session: Mapping[str, str],
    train: Train,
    resume: Train,
    say: Callable[[str], object],
) -> None:
    """Trains, or goes on with a training that was begun."""
    place, fixed = job.run(row, seed), ["--report_seconds", "0"]
    words = typed_all({**part.options, "data": job.source, "seed": seed})
    try:
        if place.exists():
            if kept := as_it_began(place, session):
                say(f"{place} goes on as it began: {kept}.")
            status = resume([str(place), *fixed, *(["--data", job.data] if job.data else [])])
        else:
            words = [part.recipe, *words, *fixed, *typed_all(session), "--out", str(place)]
            try:
                status = train(words)
            except NotCapturableError as error:
                say(f"{row}: {error} It goes on without.")
                status = train([*words, "--cuda_graph", "false"])
    except NotSettledError as error:
        write_cell(job, row, seed, diverged=str(error), seconds=None)
        return
    if status:
        raise Interrupted(status)


def as_it_began(place: Path, session: Mapping[str, str]) -> str:
    """The options of this call that a run which goes on does not take, as it began with others; "" for none."""
    began = folders.read(place)[0].session
    found = {"threads": began.threads, "device": chosen_device(began.device), "cuda_graph": began.cuda_graph}
    return ", ".join(
        f"--{name} {typed(value)}, not {session[name]}"
        for name, value in found.items()
        if name in session and session[name] not in (typed(value), "0", "auto")
    )


def write_cell(job: Job, row: str, seed: int, **found: Any) -> None:
    """Keeps what came out of a part, in one step."""
    content = {"format": FORMAT, "what": described(job.setting.rows[row].part), **found, "data": job.source}
    content |= {"fingerprints": load_images(job.source).manifest.fingerprints, **signed()}
    files.write_text_atomic(job.cell(row, seed), files.sealed(content))


def done(job: Job, row: str, seed: int) -> bool:
    """Whether a part has come to its end. Raises InputError if what is there belongs to another setting."""
    part, kept, place = job.setting.rows[row].part, job.cell(row, seed), job.run(row, seed)
    other = "{} belongs to other settings ({}): --out names another folder."
    if kept.exists():
        if (what := cell(kept)["what"]) != described(part):
            raise InputError(other.format(kept, what))
        return True
    if isinstance(part, Computation) or not place.exists():
        return False
    about, _ = folders.read(place)
    if about.recipe != part.recipe:
        raise InputError(other.format(place, f"the recipe {about.recipe}"))
    for name, value in resolved(part, seed).items():
        if name in about.options and jsonable(about.options[name]) != jsonable(value):
            raise InputError(other.format(place, f"{name} {about.options[name]!r}, not {value!r}"))
    return (place / SUMMARY).exists()


def resolved(part: Training, seed: int) -> dict[str, Any]:
    """All options of a training, but for where the data are and what is measured from them."""
    options = options_of(part.recipe).check({**part.options, "seed": seed})
    return {name: value for name, value in options.items() if name not in {"data", "mean", "std"} - {*part.options}}


@cache
def options_of(recipe: str) -> Parser:
    """The options of a recipe."""
    parser = Parser(prog=recipe)
    parser.add_recipe(recipe, find(recipe))
    return parser


def cell(place: Path) -> dict[str, Any]:
    """The content of a computation's file. Raises InputError if it is damaged or was changed by hand."""
    try:
        return files.unsealed(files.read_regular(place), place, FORMAT)
    except InputError as error:
        raise InputError(
            f"{place} is damaged, or was changed by hand: delete it, and the command computes it again."
        ) from error


def described(part: Part) -> dict[str, Any]:
    """What a part is, as JSON gives it."""
    if isinstance(part, Training):
        return {"recipe": part.recipe, "options": jsonable(part.options)}
    return {"function": part.function.__name__, "arguments": jsonable(part.arguments)}


def digest(setting: Setting) -> str:
    """A checksum of what a setting runs, and of how it says that this differs from the publication."""
    rows = {name: described(row.part) for name, row in setting.rows.items()}
    return files.sha256(json.dumps([rows, setting.data, setting.about, [*setting.deviations]]).encode())


def jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value))


def typed(value: Any) -> str:
    """An option's value as it is typed."""
    return value if isinstance(value, str) else json.dumps(value)


def typed_all(options: Mapping[str, Any]) -> list[str]:
    """Options by name, as they are typed."""
    return [word for name, value in options.items() for word in (f"--{name}", typed(value))]


def signed() -> dict[str, Any]:
    """Where and when something is computed, and by what."""
    return {
        "machine": folders.machine(),
        "commit": folders.package_commit(),
        "versions": folders.versions(),
        "made": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


# What came out


def numbers_of(job: Job, row: str, seed: int) -> Numbers:
    """The numbers of a part that is done."""
    if job.cell(row, seed).exists():
        found: Numbers = cell(job.cell(row, seed)).get("numbers", DIVERGED)
        return found
    place = job.run(row, seed)
    damaged = f"The run {str(place)!r} is damaged ({{}}): delete it, and the command trains it again."
    with files.explained(damaged, KeyError, ValueError, IndexError):
        summary = json.loads(files.read_regular(place / SUMMARY))
        last = [*csv.DictReader(io.StringIO(files.read_regular(place / METRICS).decode()))][-1]
        shares = {"test_error": summary["test_accuracy_last"], "train_error": last["train_accuracy"]}
        shares |= {"best_test_error": summary["test_accuracy_best"]}
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


def origin(job: Job, row: str, seed: int) -> dict[str, Any]:
    """How a part was made: settings, machine, commit, versions; and the checksums of the files with its numbers."""
    kept, place = job.cell(row, seed), job.run(row, seed)
    if kept.exists():
        content = cell(kept)
        names = ("what", "data", "fingerprints", "machine", "commit", "versions", "made", "seconds")
        sums = {str(kept.relative_to(job.folder)): files.sha256_of(kept)}
        return {name: content[name] for name in names} | {"sha256": sums}
    about, _ = folders.read(place)
    with files.explained(f"The run {str(place)!r} is damaged ({{}}): delete it.", KeyError, ValueError, OSError):
        return {
            "what": {"recipe": about.recipe, "options": jsonable(about.options)},
            "data": about.options.get("data", ""),
            "fingerprints": jsonable(about.manifest.fingerprints) if about.manifest else {},
            "machine": about.machine,
            "commit": about.commit,
            "versions": about.versions,
            "made": about.made,
            "seconds": json.loads(files.read_regular(place / SUMMARY))["seconds"],
            "device": about.session.device,
            "precision": about.session.precision,
            "threads": about.session.threads,
            "cuda_graph": about.session.cuda_graph,
            "sha256": {str(f.relative_to(job.folder)): files.sha256_of(f) for f in (place / SUMMARY, place / METRICS)},
        }


def check_kept(job: Job) -> None:
    """Raises InputError if the manifest, or a number that it has the checksum of, was changed."""
    kept = job.folder / MANIFEST
    if not kept.exists():
        return
    manifest = read_manifest(kept)
    if (manifest["name"], manifest["setting"]) != (job.name, job.size):
        raise InputError(
            f"The folder {str(job.folder)!r} holds {manifest['name']} at the setting {manifest['setting']}: --out "
            "names another."
        )
    for part in manifest["parts"]:
        for name, known in part["sha256"].items():
            changed = InputError(
                f"{job.folder / name} has changed since the manifest was written: restore it; or delete {kept} and "
                "what belongs to the part, and run the command again."
            )
            path = job.folder / name
            if not path.is_file() or files.sha256_of(path) != known:
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
    picture = draw(result, setting, table)
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": job.name,
        "setting": job.size,
        "title": result.title,
        "source": result.source,
        "read": result.read,
        "published": jsonable(result.published),
        "about": setting.about,
        "data": job.data,
        "digest": digest(setting),
        "deviations": list(setting.deviations),
        "claims": [{"text": text, "holds": holds} for text, holds in result.verdicts(job.size, table)],
        "quantities": [each.name for each in result.quantities],
        "numbers": {
            row: {str(seed): {name: finite(value) for name, value in found.items()} for seed, found in seeds.items()}
            for row, seeds in table.numbers.items()
        },
        "parts": [{"row": row, "seed": seed} | origin(job, row, seed) for row, seed in all_done(job)],
        "figure": {"file": FIGURE, "sha256": files.sha256(picture)},
        **signed(),
    }
    path = job.folder / MANIFEST
    files.write_text_atomic(path, files.sealed(content))
    files.write_bytes_atomic(job.folder / FIGURE, picture)
    files.write_text_atomic(job.folder / README, page(job.name, result, job.size, entry_of(content), job.data))
    return path


def finite(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return value if abs(value) < float("inf") else None


def entry_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a manifest: its numbers, where they come from, and its checksum."""
    parts = manifest["parts"]
    return {
        "numbers": manifest["numbers"],
        "digest": manifest["digest"],
        "runs": len(parts),
        "seconds": round(sum(part["seconds"] or 0 for part in parts), 1),
        "fingerprints": parts[0]["fingerprints"] if parts else {},
        "machines": sorted({part["machine"] for part in parts}),
        "commits": sorted({part["commit"] for part in parts} - {""}),
        "commit": manifest["commit"],
        "versions": parts[0]["versions"] if parts else {},
        "made": manifest["made"],
        "manifest": files.sha256(files.sealed(manifest).encode()),
    }
