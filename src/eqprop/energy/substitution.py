"""Copies of a module with other tensors, which leave the module unchanged.

A landscape reads the weights of its couplings once. Parametrisations (``torch.nn.utils.parametrize``) and the older
hooks that compute a weight before each call (``weight_norm``, ``spectral_norm``, ``prune``) are evaluated only then, so
that all messages of a phase, forward and transposed, use the same weight.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

M = TypeVar("M", bound=nn.Module)

Change = Callable[[nn.Module, nn.Module], None]
"""(a module, its copy) -> None: changes the copy."""


def swap(module: M, tensors: Mapping[int, Tensor]) -> M:
    """A copy that shares all tensors except the given ones: ``id`` of a parameter or buffer -> its replacement."""

    def change(part: nn.Module, copy: nn.Module) -> None:
        for store in (copy._parameters, copy._buffers):
            for name, tensor in store.items():
                store[name] = tensors.get(id(tensor), tensor)  # type: ignore[assignment]

    return copied(module, change)


def resolve(module: M) -> M:
    """The module itself; if it computes weights from others, a copy that stores their present values.

    Under grad mode these have a graph to what they are computed from.
    """
    return copied(module, store_computed) if any(map(computes_weights, module.modules())) else module


@torch.no_grad()
def with_values(module: M) -> M:
    """The module itself; if it computes weights from others, a copy whose parameters are their present values."""
    found = resolve(module)
    for part in found.modules():
        for name, value in part._parameters.items():
            if value is not None and not isinstance(value, nn.Parameter):
                part._parameters[name] = nn.Parameter(value.clone())
    return found


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Its parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]


def computes_weights(part: nn.Module) -> bool:
    return parametrize.is_parametrized(part) or any(map(is_weight_hook, part._forward_pre_hooks.values()))


def may_compute_weights(part: nn.Module) -> bool:
    """Whether it may compute a weight from others: also by a hook of a user's own, at each call."""
    return parametrize.is_parametrized(part) or bool(part._forward_pre_hooks)


def is_weight_hook(hook: object) -> bool:
    return isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod)


def store_computed(part: nn.Module, copy: nn.Module) -> None:
    """Stores the weights that ``part`` computes in ``copy``, and removes what they are computed from."""
    if parametrize.is_parametrized(part):
        copy.__class__ = type(part).__bases__[0]
        del copy._modules["parametrizations"]
        for name in part.parametrizations:  # type: ignore[union-attr]
            copy._parameters[name] = getattr(part, name)
    for key, hook in part._forward_pre_hooks.items():
        if not is_weight_hook(hook):
            continue
        hook(part, ())
        name = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name  # type: ignore[attr-defined]
        copy._parameters[name] = getattr(part, name)
        setattr(part, name, getattr(part, name).detach())  # keeps no graph alive between calls
        copy.__dict__.pop(name, None)
        del copy._forward_pre_hooks[key]
        for suffix in ("orig", "g", "v", "u", "mask"):
            copy._parameters.pop(f"{name}_{suffix}", None)
            copy._buffers.pop(f"{name}_{suffix}", None)


def copied(module: M, change: Change) -> M:
    """A copy of the module and of all modules in it, which shares their tensors; ``change`` is applied to each.

    Attributes that lead to a tensor or a module of it (in lists, tuples and dictionaries, by bound methods) lead to
    what took its place.
    """
    made: dict[int, Any] = {}
    twin = twin_of(module, change, made)
    parts = [part for part in module.modules() if id(part) in made]
    for part in parts:
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            copy = made[id(part)]
            if tensor is not None and name in (store := copy._parameters | copy._buffers):
                made[id(tensor)] = store[name]
    for part in parts:
        own = made[id(part)].__dict__
        for name, value in part.__dict__.items():
            if name not in REGISTRIES and own.get(name) is value and (new := replaced(value, made)) is not value:
                own[name] = new
    return twin


REGISTRIES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def twin_of(module: M, change: Change, made: dict[int, Any]) -> M:
    """The copy of a module; ``made``: ``id`` of a module -> its copy, so far."""
    if id(module) not in made:
        twin = made[id(module)] = object.__new__(type(module))
        state: dict[str, Any] = dict(module.__dict__)
        for name in ("_parameters", "_buffers", "_modules"):
            state[name] = dict(state[name])
        state["_forward_pre_hooks"] = OrderedDict(state["_forward_pre_hooks"])
        twin.__dict__.update(state)
        change(module, twin)
        twin._modules = {name: each and twin_of(each, change, made) for name, each in twin._modules.items()}
    return made[id(module)]


def replaced(value: Any, made: Mapping[int, Any]) -> Any:
    """``value``, with what ``made`` names in the place of what it is of; the same object where nothing is."""
    if isinstance(value, MethodType):
        return MethodType(value.__func__, made[id(value.__self__)]) if id(value.__self__) in made else value
    if type(value) in (list, tuple):
        parts = [replaced(each, made) for each in value]
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else type(value)(parts)
    if type(value) is dict:
        found = {key: replaced(each, made) for key, each in value.items()}
        return value if all(found[key] is value[key] for key in value) else found
    return made.get(id(value), value)
