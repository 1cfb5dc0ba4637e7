"""The state of optimisers and random generators, as tensors and JSON, for checkpoints."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from eqprop.errors import InputError
from eqprop.files import explained


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimiser as named tensors, and as JSON that refers to them.

    Raises InputError for a value that is neither a tensor nor plain data.
    """
    tensors: dict[str, Tensor] = {}
    state = _encode(optimizer.state_dict(), "optimizer", tensors)
    return tensors, {"kind": type(optimizer).__name__, "state": state}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Give ``optimizer`` the state that ``flatten_optimizer`` took. ``tensors`` may hold others too.

    Raises InputError when the state belongs to another kind of optimiser or to other parameters.
    """
    misfit = (
        f"The saved optimiser does not fit {type(optimizer).__name__} ({{}}): use the "
        "optimiser and the model of the checkpoint."
    )
    with explained(misfit, KeyError, TypeError, ValueError):
        if state["kind"] != type(optimizer).__name__:  # PyTorch would accept it, and fail in a later step
            raise ValueError(f"it is of {state['kind']}")
        optimizer.load_state_dict(_decode(state["state"], tensors))
        own = type(optimizer).__module__.startswith("torch.optim.")
        if own and not isinstance(optimizer, torch.optim.LBFGS):  # it and others keep what they like
            _check_shapes(optimizer)


def _check_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError for state that has neither a parameter's shape nor that of a sum over its dimensions."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            sizes = iter(parameter.shape)
            if isinstance(value, Tensor) and not (
                value.ndim <= parameter.ndim and all(each in sizes for each in value.shape if each != 1)
            ):
                raise ValueError(f"{name} is {tuple(value.shape)} for a parameter {tuple(parameter.shape)}")


def flatten(state: Any, tensors: dict[str, Tensor]) -> Any:
    """The state of a scheduler as JSON, which keeps numbers that are keys; its tensors are added to ``tensors``."""
    return _encode(state, "scheduler", tensors)


def restore_scheduler(scheduler: LRScheduler, tensors: Mapping[str, Tensor], state: Any) -> None:
    """Gives ``scheduler`` the state that ``flatten`` took. Raises ValueError if it is of another form."""
    found = _decode(state, tensors)
    if not _alike(scheduler.state_dict(), found):
        raise ValueError(f"its schedule is not that of {type(scheduler).__name__}")
    scheduler.load_state_dict(found)


def _alike(own: Any, found: Any) -> bool:
    """Whether two states have the same keys and kinds of values."""
    if isinstance(own, dict):
        same = isinstance(found, dict) and own.keys() == found.keys()
        return same and all(_alike(own[key], found[key]) for key in own)
    if isinstance(own, list | tuple):
        same = isinstance(found, list | tuple) and len(own) == len(found)
        return same and all(_alike(*pair) for pair in zip(own, found, strict=True))
    if type(own) in (int, float):
        return type(found) in (int, float)
    return own is None or type(found) is type(own)


def rng_tensors(device: torch.device) -> dict[str, Tensor]:
    """The states of the global generators of PyTorch (CPU, and ``device``), NumPy and ``random``."""
    _, keys, *rest = np.random.get_state()
    _, state, gauss = random.getstate()
    states = {
        "rng.cpu": torch.get_rng_state(),
        "rng.numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "rng.numpy_rest": torch.tensor([float(each) for each in rest], dtype=torch.float64),
        "rng.random": torch.tensor(state, dtype=torch.int64),
        "rng.random_rest": torch.tensor([gauss is not None, gauss or 0.0], dtype=torch.float64),
    }
    if device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_rng(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Sets the global generators to what ``rng_tensors`` took; other ``tensors`` are ignored.

    Raises InputError when a state is missing or is none.
    """
    lost = "The checkpoint holds no state of the random generators ({}): start the run again."
    with explained(lost, KeyError, RuntimeError, TypeError, ValueError):
        torch.set_rng_state(tensors["rng.cpu"])
        position, has_gauss, cached = tensors["rng.numpy_rest"].tolist()
        keys = tensors["rng.numpy"].reshape(624).numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))
        has_gauss, gauss = tensors["rng.random_rest"].tolist()
        random.setstate((3, tuple(tensors["rng.random"].tolist()), gauss if has_gauss else None))
        if device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], device)


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON that ``_decode`` inverts exactly; its tensors are added to ``tensors``."""
    match value:
        case Tensor():
            tensors[name] = value
            return {"tensor": name}
        case dict():
            return {"dict": [[key, _encode(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
        case list() | tuple():
            items = [_encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        case None | bool() | int() | float() | str():
            return value
    raise InputError(f"{name} is {value!r}: a checkpoint holds tensors and plain data: use another optimiser.")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"dict": items}:
            return {key: _decode(item, tensors) for key, item in items}
        case {"tuple": items}:
            return tuple(_decode(item, tensors) for item in items)
        case list():
            return [_decode(item, tensors) for item in value]
    return value
