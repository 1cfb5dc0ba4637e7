"""Tensors and NumPy arrays as examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from eqprop.errors import InputError
from eqprop.tasks.batches import Draw, Examples, moved, rows_of
from eqprop.tasks.task import Pair


@dataclass(frozen=True, eq=False)
class Arrays(Examples):
    """Inputs and targets that lie in memory.

    Attributes:
        inputs: (count, ...), or a mapping from clamped nodes to such; NumPy arrays are converted.
        target: (count,) int64 labels, or values (count, ...).

    Raises:
        InputError: they are no arrays of the same, positive length, or hold a value that is not finite.
    """

    inputs: Any
    target: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", as_tensors(self.inputs, "inputs"))
        object.__setattr__(self, "target", as_tensors(self.target, "target"))
        lengths = {len(each) for each in tree_leaves((self.inputs, self.target))}
        if len(lengths) != 1 or 0 in lengths:
            raise InputError(f"Inputs and target have lengths {sorted(lengths)}: give each example a target.")

    def __len__(self) -> int:
        return len(tree_leaves(self.target)[0])

    def read(self, draws: Iterable[Draw]) -> Iterator[Pair]:
        device = tree_leaves(self.target)[0].device
        for draw in draws:
            rows = draw.rows.to(device)
            yield rows_of(self.inputs, rows), rows_of(self.target, rows)

    def subset(self, rows: Tensor) -> Self:
        return type(self)(rows_of(self.inputs, rows), rows_of(self.target, rows))

    def to(self, device: torch.device | str) -> Arrays:
        return Arrays(moved(self.inputs, device), moved(self.target, device))

    def fingerprint(self) -> str:
        return hash_of((self.inputs, self.target))


def as_tensors(value: Any, what: str) -> Any:
    """``value`` with tensors for arrays: floats of the default precision, whole numbers as int64."""
    if isinstance(value, Mapping):
        return {name: as_tensors(each, f"{what}[{name!r}]") for name, each in value.items()}
    if not isinstance(value, np.ndarray | Tensor) or value.ndim == 0:
        raise InputError(f"{what} must be an array or a tensor of (count, ...), not {type(value).__name__}.")
    try:
        tensor = torch.as_tensor(value)
    except TypeError as error:
        raise InputError(f"{what} is an array of {value.dtype}: give numbers.") from error
    if tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
        bad = (~tensor.isfinite()).flatten(1).any(1) if tensor.ndim > 1 else ~tensor.isfinite()
        if bool(bad.any()):
            raise InputError(f"{what} of example {int(bad.nonzero()[0])} is not finite: leave the example out.")
        return tensor
    return tensor if tensor.dtype == torch.uint8 and what != "target" else tensor.to(torch.int64)


def hash_of(value: Any) -> str:
    """SHA-256 of types, shapes and values of all tensors in ``value``."""
    digest = hashlib.sha256()
    for tensor in tree_leaves(value):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
