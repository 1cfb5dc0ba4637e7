"""Images: read once from any data set, stored as bytes, and given in batches that depend on the seed only.

``datasets`` is imported in the functions that need it: the import takes 0.6 s, and a run with cached images does not
need it.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from eqprop.errors import InputError
from eqprop.tasks.images import Images, ImageSets
from eqprop.tasks.manifest import Manifest
from eqprop.training import checkpoint
from eqprop.training.checkpoint import explained, first_line

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from PIL.Image import Image as Picture

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

EMBEDDED = "digits"
IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
CACHE_FORMAT = 2
HUB_SECONDS = 10.0
LAYOUTS = (("parquet", "{}*.parquet"), ("parquet", "data/{}*.parquet"), ("imagefolder", "{}/*/*"))
"""A builder of ``datasets``, and the paths of a split's files."""


def load_images(source: str | Path, follow_links: bool = False) -> ImageSets:
    """Both sides of a data set of images, see ``load_side``; ``follow_links``: also out of a folder."""
    train, test = load_side(source, "train"), load_side(source, "test")
    sides: dict[str, Images] = {"train": train, "test": test}
    counts = {side: len(images) for side, images in sides.items()}
    channels, height, width = train.pixels.shape[1:]
    form = f"{width}x{height} {'L' if channels == 1 else 'RGB'}, 8 bits"
    prints = {side: images.fingerprint() for side, images in sides.items()}
    classes = [str(number) for number in range(train.classes)]
    return ImageSets(train, test, Manifest("images", counts, prints, str(source), form, classes))


def load_side(source: str | Path, split: Split) -> Images:
    """The images of one side of a data set.

    ``source`` is one of

    - ``"digits"``, the set embedded in this package;
    - a folder with ``train*.parquet`` and ``test*.parquet``, at its top or under ``data/``, as on the hub;
    - a folder of images, ``train/<class>/*`` and ``test/<class>/*``;
    - the name of a data set on the Hugging Face hub, ``owner/name``.

    The classes are those that the data set names; if its labels are plain numbers, 0 to the largest label of the
    training split. Decoded images are stored in the folder ``EQPROP_CACHE`` (default: ``~/.cache/eqprop``). Raises
    InputError if the source is missing, damaged, or does not have labelled images of one size and mode.
    """
    if split not in SPLITS:
        raise InputError(f"There is no split {split!r}: choose 'train' or 'test'.")
    if source == EMBEDDED:
        embedded = Path(__file__).parent.parent / "datasets" / EMBEDDED
        return _read(embedded, split, _find_folder(embedded)[0])
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) and not Path(source).exists():
        return _load_hub(source, split)
    folder = Path(source).expanduser()
    open_split, files = _find_folder(folder)
    return _cached(files, split, lambda: _read(folder.resolve(), split, open_split))


# Where images come from

OpenSplit = Callable[[Split], "Dataset | IterableDataset"]


def _find_folder(folder: Path) -> tuple[OpenSplit, list[Path]]:
    """The function that opens the data set in ``folder``, and its files. Raises InputError if there is none."""
    if folder.is_file():
        raise InputError(
            f"{folder} is one file: pass the folder that holds the train and the test files, {folder.parent}."
        )
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}: pass 'digits', a folder, or a name on the Hugging Face hub such "
            "as 'ylecun/mnist' with --data."
        )
    folder = folder.resolve()
    for builder, layout in LAYOUTS:
        files = {side: sorted(filter(Path.is_file, folder.glob(layout.format(side)))) for side in SPLITS}
        patterns = {side: f"{glob.escape(str(folder))}/{layout.format(side)}" for side in SPLITS if files[side]}
        if patterns:
            # All files identify either split: the classes of one may depend on the other.
            return functools.partial(_open_folder, builder, patterns), [*files["train"], *files["test"]]
    raise InputError(
        f"{folder} holds no data set: it needs train*.parquet and test*.parquet (there or under data/), or "
        "images as train/<class>/* and test/<class>/*."
    )


def _open_folder(builder: str, patterns: Mapping[Split, str], split: Split) -> IterableDataset:
    import datasets

    if split not in patterns:
        raise InputError(f"there are no files: add {split}*.parquet or {split}/<class>/ with images.")
    options: dict[str, Any] = {"data_files": {split: patterns[split]}}
    if builder == "imagefolder":  # the classes are the names of the folders of both splits
        options = {"data_files": patterns, "drop_labels": False, "drop_metadata": True}
    # Streaming leaves no copy in the cache of ``datasets``: this module stores the decoded pixels.
    with tempfile.TemporaryDirectory() as scratch:
        return datasets.load_dataset(builder, split=split, streaming=True, cache_dir=scratch, **options)


def _load_hub(name: str, split: Split) -> Images:
    import datasets

    open_split = functools.cache(lambda side: datasets.load_dataset(name, split=side))
    unreachable = _ask_hub(name)
    offline = unreachable is not None
    try:
        with _quiet(offline):
            # The Arrow files of the downloaded copy identify it: their path contains the revision.
            files = [Path(entry["filename"]) for entry in open_split(split).cache_files]
    except Exception as error:  # the hub's client, its transport and ``datasets`` have different exceptions
        # An OSError offline only means that there is no copy; the first error explains why one was needed.
        cause = unreachable if unreachable and isinstance(error, OSError) else error
        raise InputError(
            f"There is no folder {name}, and the Hugging Face hub did not give the {split} images of a "
            f"data set of that name ({type(cause).__name__}: {first_line(cause)}): pass a folder with "
            "--data."
        ) from error
    return _cached(files, split, lambda: _read(name, split, open_split, offline))


def _ask_hub(name: str) -> Exception | None:
    """The error of the hub for ``name``, or ``None`` if it has it; one request.

    ``datasets`` would retry for 23 s before it used a copy on this machine.
    """
    import huggingface_hub

    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # the transport is another library in each version
        return error
    return None


@contextlib.contextmanager
def _quiet(offline: bool) -> Iterator[None]:
    """Prevents ``datasets`` from printing and, if ``offline``, from using the network (it reports even local loads)."""
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
        undo.callback(setattr, datasets.config, "HF_HUB_OFFLINE", datasets.config.HF_HUB_OFFLINE)
        datasets.config.HF_HUB_OFFLINE |= offline
        yield


# From rows to tensors


def _read(source: str | Path, split: Split, open_split: OpenSplit, offline: bool = True) -> Images:
    """Decode one split. Raises InputError that names the source and the split."""
    import datasets

    try:
        with _quiet(offline):
            return _decode(open_split, split)
    except InputError as error:
        raise InputError(f"{source} ({split}): {error}") from error
    except (OSError, ValueError, TypeError, NotImplementedError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"The {split} files of {source} cannot be read ({first_line(error)}): fetch them again, or pass "
            "another folder with --data."
        ) from error


def _decode(open_split: OpenSplit, split: Split) -> Images:
    import datasets

    dataset = open_split(split)
    image = _column(dataset.features, IMAGE_NAMES, datasets.Image)
    label = _column(dataset.features, LABEL_NAMES, datasets.ClassLabel)
    # Still encoded, so that the error for a damaged image can name its row.
    rows = dataset.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    decoder = datasets.Image()
    pictures: list[np.ndarray] = []
    labels: list[int] = []
    for batch in rows.iter(batch_size=1000):
        labels += _whole_numbers(batch[label], len(labels))
        for encoded in batch[image]:
            pictures.append(_pixels(decoder, encoded, len(pictures)))
            if pictures[-1].shape != pictures[0].shape:
                raise InputError(
                    f"the image of row {len(pictures) - 1} is {_size(pictures[-1])} and the first is "
                    f"{_size(pictures[0])}: convert all images to one size and mode."
                )
    if not pictures:
        raise InputError("there are no images: fetch the files again.")
    named = getattr(dataset.features[label], "num_classes", None)
    classes = named or 1 + max(labels if split == "train" else _train_labels(open_split, label))
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(labels), classes)


def _train_labels(open_split: OpenSplit, label: str) -> list[int]:
    rows = open_split("train").select_columns([label])
    return [number for batch in rows.iter(batch_size=1000) for number in _whole_numbers(batch[label], 0)]


def _column(features: Mapping[str, Any], names: Sequence[str], kind: type) -> str:
    """The column of the type ``kind``; if there are several or none, the first of the usual ``names``."""
    typed = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(typed) == 1:
        return typed[0]
    for name in names:
        if name in (typed or features):
            return name
    raise InputError(f"which column holds the {names[0]}s cannot be told from {list(features)}: name it {names[0]!r}.")


def _pixels(decoder: Any, encoded: Any, row: int) -> np.ndarray:
    """(height, width, channels), uint8."""
    place = encoded.get("path") if isinstance(encoded, dict) else None
    place = f" ({place})" if place else ""
    broken = f"the image of row {row}{place} cannot be decoded ({{}}): replace it or leave it out."
    with explained(broken, Exception):  # Pillow raises many kinds of exceptions for damaged files
        # Read here, as Pillow leaves a file open if it cannot decode it.
        content = encoded["bytes"] or Path(encoded["path"]).read_bytes()
        picture: Picture = decoder.decode_example({"path": None, "bytes": content})
    if picture.mode.startswith(("I", "F")):
        raise InputError(f"the image of row {row} has mode {picture.mode}: convert all images to 8 bits.")
    grey = picture.mode in ("1", "L", "LA", "La")
    pixels = np.asarray(picture.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _size(pixels: np.ndarray) -> str:
    height, width, channels = pixels.shape
    return f"{width}x{height} {'L' if channels == 1 else 'RGB'}"


def _whole_numbers(labels: Sequence[Any], first_row: int) -> list[int]:
    for row, label in enumerate(labels, first_row):
        if not isinstance(label, int):
            raise InputError(f"label {label!r} of row {row} is not a whole number: number the classes from 0.")
    return list(labels)


# The cache of decoded images


def _cached(files: Sequence[Path], split: Split, read: Callable[[], Images]) -> Images:
    """The result of ``read``, or its cached result for the same, unchanged files."""
    stats = [(str(file), file.stat()) for file in files]
    identity = [CACHE_FORMAT, split, [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    folder = Path(os.environ.get("EQPROP_CACHE") or Path.home() / ".cache" / "eqprop")
    with contextlib.suppress(InputError):  # there is no cached result, or it is damaged
        tensors, state = checkpoint.load(folder, name)
        return Images(tensors["pixels"], tensors["labels"], state["classes"])
    images = read()
    with contextlib.suppress(InputError):  # without a cache the next run is only slower
        tensors = {"pixels": images.pixels, "labels": images.labels}
        checkpoint.save(folder, name, tensors, {"classes": images.classes})
    return images
