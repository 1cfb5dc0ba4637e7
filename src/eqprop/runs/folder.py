"""The folder of a run, and ``run.json``: everything that a run was started with."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import platform
import secrets
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from eqprop import files
from eqprop.checks import NonNegative, Positive, checked
from eqprop.errors import EqpropError, InputError, one_line, plain
from eqprop.runs import recipe_files, trust
from eqprop.runs.recipe_files import KEPT, Source
from eqprop.tasks.manifest import Manifest

FORMAT = 2
NAME = "run.json"
FAILED = "failed.txt"
"""Why a run ended before its last epoch, in one line."""
LONGEST = 2000
"""Bytes of it that are read."""
LATER = {"cuda_graph": False}
"""Fields of a session that runs of earlier versions do not have, with their values in those."""
OPTIONS_LATER: dict[str, dict[str, Any]] = {
    "": {"cutout": 0, "eval_batch_size": 200},
    "cifar10-predictive": {"rule": "predictive"},
}
"""Options that runs of earlier versions do not have, with what those did: of all recipes (""), and of one."""
PACKAGES = ("eqprop", "torch", "numpy", "lightning-fabric", "torchmetrics")


@checked
@dataclass(frozen=True)
class Session:
    """How a recipe is run.

    Args:
        out: the folder of the run; default: runs/RECIPE-TIME.
        device: cpu or cuda. auto: cuda if there is one.
        processes: processes that share each batch; under torchrun and srun these say how many.
        precision: 32; or bf16 for messages alone (convolutions, matrix products), where weights, states and sums have
            32 bits; or 64 for all. auto: bf16 if this device is faster at it and the recipe's estimator is as good.
        threads: CPU threads; 0: as PyTorch chooses, which the run then keeps.
        checkpoint_seconds: how often to save within an epoch.
        residual_limit: the mean residual of an epoch's free phases above which the run stops as not settling.
        cuda_graph: on a GPU, capture a step once and replay it. Solvers then make all the sweeps that they may.
    """

    out: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Annotated[int, ">= 1", "<= 1024"] = 1
    precision: Literal["auto", "32", "64", "bf16"] = "auto"
    threads: Annotated[int, ">= 0", "<= 1024"] = 0
    checkpoint_seconds: NonNegative = 60.0
    residual_limit: Positive = 0.5
    cuda_graph: bool = False


@checked
@dataclass(frozen=True)
class About:
    """The content of ``run.json``.

    Attributes:
        recipe: its name, or file.py:function for a user's own.
        options: of the recipe, resolved.
        session: how it is run, resolved.
        source: of a user's own recipe.
        command: as it was typed.
        directory: where, absolute: a recipe's relative paths begin there.
        versions: of packages.
        commit: of the recipe's repository; "" if there is none.
        machine: processor, system and Python.
        job: of the launcher that may start the run again.
        manifest: of the data.
        inputs: how raw examples become the network's inputs, as ``to_spec`` writes it; ``None`` if it does not.
        start: the weights that the run began with, if it was given some.
        made: when, in local time.
        id: of the run, in each of its checkpoints.
    """

    recipe: str
    options: dict[str, Any]
    session: Session
    source: Source | None = None
    command: list[str] = field(default_factory=list)
    directory: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    machine: str = ""
    job: str = ""
    manifest: Manifest | None = None
    inputs: Any = None
    start: str = ""
    made: str = ""
    id: str = ""

    @classmethod
    def now(cls, recipe: str, options: dict[str, Any], session: Session, command: list[str], job: str = "") -> About:
        """Of a run that starts now, here."""
        return cls(
            recipe=recipe,
            options=options,
            session=session,
            command=command,
            directory=os.getcwd(),
            versions=versions(),
            commit=commit_of(Path(recipe.rpartition(":")[0]).absolute().parent) if ":" in recipe else package_commit(),
            machine=machine(),
            job=job,
            made=time.strftime("%Y-%m-%d %H:%M:%S %z"),
            id=secrets.token_hex(8),
        )

    @property
    def name(self) -> str:
        """The recipe's name, for titles and folders."""
        return self.recipe.rpartition(":")[2]

    def text(self) -> str:
        """The content of ``run.json``, with its checksum."""
        return files.sealed({"format": FORMAT, **asdict(self)})


def read(folder: Path) -> tuple[About, bool]:
    """What ``folder`` says of its run, and whether this user has made it here.

    Raises:
        InputError: it is not the folder of a run, or ``run.json`` is damaged or was changed by hand.
    """
    path = folder / NAME
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}: name the folder of a run, such as runs/digits-...")
    if not path.exists():
        raise InputError(f"{str(folder)!r} is not the folder of a run (it has no {NAME}): name one that was trained.")
    content = files.read_regular(path)
    held = files.unsealed(content, path, FORMAT)
    damaged = f"{path} is damaged ({{}}): train again, or restore the file."
    with files.explained(damaged, KeyError, TypeError, ValueError, AttributeError, wrap=True):
        del held["format"]
        held["session"] = LATER | held["session"]
        for kind, found in ((About, held), (Session, held["session"])):
            if missing := sorted({each.name for each in fields(kind)} - found.keys()):
                raise ValueError(f"it does not say {', '.join(missing)}")
        held["session"] = Session(**held["session"])
        held["source"] = None if held["source"] is None else Source(**held["source"])
        held["manifest"] = None if held["manifest"] is None else Manifest.from_dict(held["manifest"])
        about = About(**held)
    return about, trust.trusted(content)


def write(folder: Path, about: About) -> None:
    """Replaces ``run.json``. Raises InputError if it cannot be written."""
    text = about.text()
    with files.explained(f"Cannot write {folder / NAME} ({{}}): make room, or make it writable.", OSError):
        files.write_text_atomic(folder / NAME, text)
    trust.trust(text.encode())


def make(about: About, stamp: str) -> tuple[Path, About]:
    """Makes the folder of a run appear at once, with ``run.json`` and the copies of a user's recipe.

    Args:
        about: of the run; ``session.out`` names the folder, or "" for runs/RECIPE-``stamp``.
        stamp: the time.

    Raises:
        InputError: the folder exists and is not empty, or it cannot be made.
    """
    out = about.session.out
    sources = recipe_files.gather(Path(about.recipe.rpartition(":")[0])) if ":" in about.recipe else {}
    if sources:
        file = str(Path(about.recipe.rpartition(":")[0]).resolve())  # as the copies are named
        source = Source(file, {n: files.sha256(c) for n, c in sources.items()})
        about = replace(about, source=source, recipe=f"{Path(source.path).name}:{about.name}")
    for attempt in range(1, 1000):
        folder = Path(out or f"runs/{about.name}-{stamp}{'' if attempt == 1 else f'-{attempt}'}")
        if out:
            refuse_taken(folder)
        elif folder.exists():
            continue
        chosen = replace(about, session=replace(about.session, out=str(folder)))
        cannot = f"Cannot make the folder {str(folder)!r} ({{}}): --out names another."
        with files.explained(cannot, OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder)
            hidden = folder.with_name(f".{folder.name}.{platform.node()}-{os.getpid()}.tmp")
            try:
                hidden.mkdir()
                for name, content in sources.items():
                    (hidden / KEPT / name).parent.mkdir(parents=True, exist_ok=True)
                    (hidden / KEPT / name).write_bytes(content)
                text = chosen.text()
                files.write_text_atomic(hidden / NAME, text)
                os.rename(hidden, folder)  # onto nothing, or onto an empty folder
            except OSError as error:
                shutil.rmtree(hidden, ignore_errors=True)
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and not out:
                    continue
                raise
        trust.trust(text.encode())
        return folder, chosen
    raise InputError(f"Cannot find a free name for the run {about.name!r} in runs: --out names one.")


def remove_abandoned(folder: Path) -> None:
    """Removes what processes of this machine left that ended while they made this folder."""
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.{glob.escape(platform.node())}-*.tmp"):
        pid = path.name.removesuffix(".tmp").rpartition("-")[2]
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            if int(pid) != os.getpid():
                os.kill(int(pid), 0)  # only asks whether the process is there
                continue
        shutil.rmtree(path, ignore_errors=True)


def refuse_taken(folder: Path) -> None:
    """Raises InputError if ``folder``, which the user has named, exists and is not an empty folder."""
    with files.explained(f"Cannot use {str(folder)!r} ({{}}): --out names another folder.", OSError, UnicodeError):
        str(folder).encode()  # safetensors writes no other path
        taken = os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir()))
    if taken:
        raise InputError(
            f"The folder {str(folder)!r} exists: `eqprop resume {quoted(folder)}` continues it if it is a run, --out "
            "names another."
        )


def fail(folder: Path, error: BaseException) -> None:
    """Keeps what ended a run, for its report. A folder that cannot be written keeps nothing."""
    text = one_line(error) if isinstance(error, EqpropError) else f"{type(error).__name__}: {one_line(error)}"
    with contextlib.suppress(OSError):
        files.write_text_atomic(folder / FAILED, text + "\n")


def failure(folder: Path) -> str:
    """What ended a run, in one line; "" if it did not fail, or goes on."""
    with contextlib.suppress(InputError):
        if (folder / FAILED).exists():
            return plain(files.read_regular(folder / FAILED)[:LONGEST].decode(errors="replace").strip())
    return ""


def forget_failure(folder: Path) -> None:
    """The run goes on: what ended it before is over."""
    with contextlib.suppress(OSError):
        (folder / FAILED).unlink(missing_ok=True)


def code_of(folder: Path, about: About, known: bool) -> Path | None:
    """The kept copy of a user's recipe, if the run has one.

    Args:
        folder: of the run.
        about: of the run.
        known: whether this user made the run here, or has said that the code may run.

    Raises:
        InputError: the code is a stranger's, or it is not what the run was started with.
    """
    if about.source is None:
        return None
    if not known:
        raise InputError(
            f"The run {str(folder)!r} was not made by you on this machine, and its recipe is code: read "
            f"{folder / KEPT}, and pass --trust-recipe to run it."
        )
    kept, inside = folder / KEPT, folder.resolve() / KEPT
    file = kept / about.recipe.rpartition(":")[0]
    for name, wanted in about.source.files.items():
        path = kept / name
        if not path.resolve().is_relative_to(inside):
            raise InputError(f"{folder / NAME} names a file outside of the run, {name!r}: it is damaged.")
        if files.sha256(files.read_regular(path)) != wanted:
            raise InputError(f"{path} is not the recipe that the run was started with: restore it, or train again.")
    known_files = {kept / name for name in about.source.files}
    for path in (file, *kept.rglob("*")):  # also what Python would rather import: compiled files, modules of a name
        if path not in known_files and (path.is_symlink() or not path.is_dir()):
            raise InputError(f"{path} is no part of the recipe that the run was started with: take it away.")
    return file


def recipe_changed(about: About) -> str:
    """A warning if the file of a user's recipe is no longer what the run was started with; else ""."""
    if about.source is None:
        return ""
    path = Path(about.source.path)
    changed = []
    for name, wanted in about.source.files.items():
        with contextlib.suppress(OSError):  # gone: the copy serves
            if files.sha256((path.parent / name).read_bytes()) != wanted:
                changed.append(str(path.parent / name))
    return f"{', '.join(changed)} has changed since the run was started: its kept copy is used." if changed else ""


def differences(about: About) -> list[str]:
    """Versions that differ from those of the run: the bits may then differ too."""
    now = versions()
    return [
        f"{name} {now.get(name, 'none')} (was {old})" for name, old in about.versions.items() if now.get(name) != old
    ]


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def machine(device: torch.device | None = None) -> str:
    """Processor, system and Python in one line, and the GPU if ``device`` is one."""
    name = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    best = torch.backends.cpu.get_cpu_capability()
    gpu = f", {torch.cuda.get_device_name(device)}" if device is not None and device.type == "cuda" else ""
    system = f"{platform.system()} {platform.machine()}, {platform.python_version()}"
    return f"{os.cpu_count()} x {name} ({best}), {system}{gpu}"


def package_commit() -> str:
    """The commit of this package, if it runs from its own repository; else ""."""
    here = Path(__file__)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        known = ["git", "ls-files", "--error-unmatch", here.name]  # fails in an environment inside another repository
        subprocess.run(known, cwd=here.parent, capture_output=True, timeout=5, check=True)
        return commit_of(here.parent)
    return ""


def commit_of(folder: Path) -> str:
    """The commit of the repository around ``folder``, with "+" if files differ from it; "" without one."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ask = {"cwd": folder, "capture_output": True, "text": True, "timeout": 5, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()  # type: ignore[call-overload]
        status = ["git", "status", "--porcelain", "--untracked-files=no"]
        return commit + "+" * bool(subprocess.run(status, **ask).stdout.strip())  # type: ignore[call-overload]
    return ""


def quoted(path: Path | str) -> str:
    """A path as a shell takes it."""
    import shlex

    return shlex.quote(str(path))
