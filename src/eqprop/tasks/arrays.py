"""Tensors and NumPy arrays as examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from eqprop.errors import InputError
from eqprop.tasks.batches import Draw, Examples, moved, rows_of
from eqprop.tasks.formats import Inputs, Outputs
from eqprop.tasks.manifest import Manifest
from eqprop.tasks.task import Pair


@dataclass(frozen=True, eq=False)
class Arrays(Examples):
    """Inputs and targets that lie in memory.

    Floating-point numbers get PyTorch's default precision; whole numbers and truth values become int64, but inputs of
    uint8 stay bytes. A tensor that already has its type is not copied.

    Args:
        inputs: (count, ...), or a mapping from clamped nodes to such; a tensor or a NumPy array.
        target: (count,) int64 labels, or values (count, ...); a tuple or a mapping of such for a loss that takes it.

    Raises:
        InputError: they are no arrays of numbers of the same, positive length, a value is not finite, or a label is
            negative.
    """

    inputs: Any
    target: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", as_tensors(self.inputs, "inputs"))
        object.__setattr__(self, "target", as_tensors(self.target, "target"))
        leaves = tree_leaves((self.inputs, self.target))
        lengths = sorted({len(each) for each in leaves})
        if len(lengths) > 1 or not tree_leaves(self.inputs) or not tree_leaves(self.target):
            raise InputError(f"Inputs and target have lengths {lengths}: give each example an input and a target.")
        if not all(each.numel() for each in leaves):
            raise InputError(f"Inputs or target hold no number: {[tuple(each.shape) for each in leaves]}.")

    def __len__(self) -> int:
        return len(tree_leaves(self.target)[0])

    def read(self, draws: Iterable[Draw]) -> Iterator[Pair]:
        for draw in draws:
            yield rows_of(self.inputs, draw.rows), rows_of(self.target, draw.rows)

    def subset(self, rows: Tensor) -> Self:
        return type(self)(rows_of(self.inputs, rows), rows_of(self.target, rows))

    def to(self, device: torch.device | str) -> Arrays:
        return Arrays(moved(self.inputs, device), moved(self.target, device))

    def fingerprint(self) -> str:
        return hash_of((self.inputs, self.target))


@dataclass(frozen=True, eq=False)
class ArraySets:
    """Both sides of a data set, its inventory, and what its inputs and targets mean.

    Attributes:
        train, test: the examples of each side, prepared.
        manifest: the inventory.
        inputs, outputs: how files become inputs, and scores answers.
    """

    train: Arrays
    test: Arrays
    manifest: Manifest
    inputs: Inputs
    outputs: Outputs


def as_tensors(value: Any, what: str, names: Sequence[object] | None = None) -> Any:
    """``value`` with tensors in place of arrays: floats of the default precision, whole numbers as int64.

    Args:
        value: an array or a tensor, (count, ...), or a mapping of such; for a target also a tuple of such.
        what: "inputs", of which uint8 is kept, or "target".
        names: of the examples, for errors; default: their positions.

    Raises:
        InputError: it is something else, a value is not finite, or a label is negative.
    """
    if isinstance(value, Mapping):
        return {name: as_tensors(each, f"{what}[{name!r}]", names) for name, each in value.items()}
    is_target = what.startswith("target")
    if is_target and isinstance(value, tuple):
        return tuple(as_tensors(each, f"{what}[{i}]", names) for i, each in enumerate(value))
    tensor = _tensor(value, what)

    def first(bad: Tensor) -> object:
        at = int(bad.flatten(1).any(1).nonzero()[0]) if bad.ndim > 1 else int(bad.nonzero()[0])
        return at if names is None else names[at]

    if tensor.is_floating_point():
        kept = tensor.to(torch.get_default_dtype())
        bad = ~kept.isfinite()
        if bool(bad.any()):
            raise InputError(f"{what} of example {first(bad)} is not finite: leave the example out.")
        return kept
    if tensor.dtype == torch.uint8 and not is_target:
        return tensor
    kept = tensor.to(torch.int64)
    if tensor.dtype == torch.uint64 and bool((kept < 0).any()):
        raise InputError(f"{what} of example {first(kept < 0)} is above 2**63 - 1: give smaller numbers, or floats.")
    if is_target and kept.ndim == 1 and bool((kept < 0).any()):
        raise InputError(
            f"{what} of example {first(kept < 0)} is the negative label {int(kept[kept < 0][0])}: number the classes "
            "from 0, or give floats for a regression."
        )
    return kept


def _tensor(value: Any, what: str) -> Tensor:
    """The array as a tensor of its own type. Raises InputError unless it has numbers of (count, ...)."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise InputError(f"{what} is an array of {value.dtype}: give real numbers, all examples of one shape.")
        if isinstance(value, np.ma.MaskedArray):
            raise InputError(f"{what} is a masked array: leave out the examples with masked values, and pass its data.")
        kind = value.dtype.newbyteorder("=") if value.dtype.itemsize <= 8 else np.dtype(np.float64)
        array = np.ascontiguousarray(value, kind).reshape(value.shape)
        value = torch.from_numpy(array if array.flags.writeable else array.copy())
    if not isinstance(value, Tensor):
        raise InputError(
            f"{what} must be an array or a tensor of (count, ...), not {type(value).__name__}: convert it, with "
            "numpy.array."
        )
    if value.layout != torch.strided or value.is_nested or value.is_quantized or value.is_complex() or value.is_meta:
        raise InputError(f"{what} is a tensor of {value.dtype}, {value.layout}: give a dense one of real numbers.")
    if value.ndim == 0:
        raise InputError(f"{what} is a single number: give one for each example, (count, ...).")
    return value.detach()


def hash_of(value: Any) -> str:
    """SHA-256 of names, types, shapes and values of all tensors in ``value``."""
    digest = hashlib.sha256()
    for name, tensor in _named(value, ""):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _named(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of ``value`` with the keys of mappings before them, in an order that is not that of insertion."""
    if isinstance(value, Mapping):
        for name in sorted(value, key=str):
            yield from _named(value[name], f"{prefix}{name!r} ")
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _named(each, prefix)
    else:
        yield prefix, value
