"""Labelled images from the Hugging Face hub, by ``datasets``."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqprop.errors import InputError, needing_extra, one_line
from eqprop.tasks.found import Found, Side, within
from eqprop.tasks.parquet import IMAGE_NAMES, LABEL_NAMES, ROWS, class_names, column, embedded
from eqprop.tasks.text import explained, plain

if TYPE_CHECKING:
    from datasets import Dataset

SECONDS = 10.0
"""For the hub to answer."""
NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*?)(?:@([\w.-]+))?", re.ASCII)
"""``owner/name``, or ``owner/name@revision``."""


def find_on_hub(source: str) -> Found:
    """The data set of this name, fetched unless it was before.

    Raises:
        InputError: the hub does not have it, or cannot be reached and there is no copy here.
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise InputError(f"{plain(source)} is no name on the Hugging Face hub: give owner/name, or a folder.")
    with needing_extra("The Hugging Face hub"):
        import datasets
    name, revision = match.groups()
    answer = ask_hub(name, revision)
    offline = isinstance(answer, Exception)
    sides: dict[str, Dataset] = {}
    try:
        with quiet(offline):
            for side in ("train", "test"):
                sides[side] = datasets.load_dataset(name, split=side, revision=revision if offline else answer)
    except Exception as error:  # the hub's client, its transport and ``datasets`` have different exceptions
        # An OSError offline only means that there is no copy; the first error explains why one was needed.
        cause = answer if isinstance(answer, Exception) and isinstance(error, OSError) else error
        raise InputError(
            f"There is no folder {source}, and the Hugging Face hub did not give the train and test images of a data "
            f"set of that name ({type(cause).__name__}: {one_line(cause)}): pass a folder with --data."
        ) from error
    # The Arrow files of the downloaded copy; their path contains the revision.
    files = {side: [Path(entry["filename"]) for entry in rows.cache_files] for side, rows in sides.items()}
    known = answer if isinstance(answer, str) else revision or _revision(files["train"])
    return Found(
        "hub",
        f"{name}@{known}" if known else name,
        {side: {path.name: path for path in paths} for side, paths in files.items()},
        lambda side: open_rows(sides[side], f"the {side} side"),
    )


def ask_hub(name: str, revision: str | None) -> str | Exception | None:
    """The hub's revision of ``name``, or its error; one request.

    ``datasets`` would retry for 23 s before it used a copy on this machine.
    """
    try:
        import huggingface_hub

        return huggingface_hub.HfApi().dataset_info(name, revision=revision, timeout=SECONDS).sha
    except Exception as error:  # the transport is another library in each version
        return error


def open_rows(rows: Dataset, name: str) -> Side:
    """A side that ``datasets`` has loaded. Raises InputError if it cannot be told which columns are which."""
    import datasets

    features: dict[str, Any] = rows.features.to_dict()
    try:
        image = column(list(features), features, "Image", IMAGE_NAMES)
        label = column(list(features), features, "ClassLabel", LABEL_NAMES)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error

    def where(row: int) -> str:
        return f"of row {row} of {name}"

    def labels() -> Iterator[object]:
        for batch in rows.select_columns([label]).iter(batch_size=1 << 16):
            yield from batch[label]

    def contents() -> Iterator[bytes]:
        row = 0
        encoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        for batch in encoded.iter(batch_size=ROWS):
            for value in batch[image]:
                content = fetched(value)
                yield embedded(value, where(row)) if content is None else content
                row += 1

    broken = f"{name} cannot be read ({{}}): fetch it again."
    with explained(broken, OSError, ValueError, TypeError, NotImplementedError):
        return Side(list(labels()), {name: class_names(features[label])}, contents, where)


def fetched(value: object) -> bytes | None:
    """The content of the file that a row names, if ``datasets`` has fetched it; no other file is opened."""
    import datasets
    import huggingface_hub.constants

    path = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else None
    if not isinstance(path, str):
        return None
    real = os.path.realpath(path)
    folders = (huggingface_hub.constants.HF_HUB_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH)
    if not any(within(real, os.path.realpath(folder)) for folder in folders):
        return None
    with explained(f"the fetched file {plain(path)} cannot be read ({{}}): fetch it again.", OSError):
        return Path(real).read_bytes() if stat.S_ISREG(os.stat(real).st_mode) else None


def _revision(files: list[Path]) -> str | None:
    return next((part for file in files for part in file.parts if re.fullmatch("[0-9a-f]{40}", part)), None)


@contextlib.contextmanager
def quiet(offline: bool) -> Iterator[None]:
    """Prevents ``datasets`` from printing, from running what a set brings and, if ``offline``, from the network."""
    import datasets
    import huggingface_hub.utils as hub

    with contextlib.ExitStack() as undo:
        for library in (datasets, hub):
            if not library.are_progress_bars_disabled():
                library.disable_progress_bars()
                undo.callback(library.enable_progress_bars)
        for logger in map(logging.getLogger, ("datasets", "huggingface_hub")):
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        settings = {"HF_HUB_OFFLINE": datasets.config.HF_HUB_OFFLINE or offline}
        if hasattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE"):  # before version 4, which runs none
            settings["HF_DATASETS_TRUST_REMOTE_CODE"] = False
        for name, value in settings.items():
            undo.callback(setattr, datasets.config, name, getattr(datasets.config, name))
            setattr(datasets.config, name, value)
        yield
