"""Parts of models written down as JSON: classes and their arguments, without weights, which ``state_dict`` holds.

A class writes itself down if each parameter of its ``__init__`` is an attribute of the same name, as in any dataclass.
Reading runs no code of a stranger's: only the mathematics of this package, and what the caller allows, is looked up,
among what is already imported.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import is_dataclass
from numbers import Integral, Real
from types import FunctionType
from typing import Any, get_args, get_origin, get_type_hints

from torch import nn

from eqprop.checks import described, test_of
from eqprop.energy.nodes import Node
from eqprop.errors import InputError

PARTS = {
    "eqprop.energy": ("Node", "Unit", "Coupling", "Map", "Pool", "Loss", "Substrate", "Network"),
    "eqprop.settling": ("Solver", "Leaky"),
    "eqprop.learning": ("Estimator", "Nudging", "Predictor", "Teacher", "DeltaRule", "Noisy"),
    "eqprop.learning.forms": ("Form",),
    "eqprop.devices": ("Ageing",),
    "eqprop.physics": ("Sampler",),
    "eqprop.substrates": (),
    "eqprop.tasks": ("Inputs", "Outputs", "Normalise"),
}
"""Package -> its classes that a spec may name, with their subclasses in this package."""
PROTOCOLS = {"eqprop.settling": ("Sweep", "Norm"), "eqprop.learning": ("Rule", "Penalty")}
"""Package -> its kinds of functions that a spec may name."""
LARGEST = 2**28
"""The units of a node, at most: 1 GiB an example."""
DEPTH = 100
"""Levels of a spec, at most."""
NUMBER = 2**63
"""The integers of a spec are smaller."""


def to_spec(value: object, place: str) -> Any:
    """As JSON that ``from_spec`` reads.

    {"class": "module:name", "arguments": {...}}; a function {"name": "module:name"}; a tuple [...], a list
    {"list": [...]}, a mapping {"mapping": {...}}, infinity {"float": "inf"}, a complex number {"complex": [...]}.

    Args:
        value: a part of a model, or an argument of one.
        place: what it is, for messages.

    Raises:
        InputError: it does not write itself down; the class and the parameter are named.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and not math.isnan(value):
        number = float(value)
        return number if math.isfinite(number) else {"float": str(number)}
    if isinstance(value, complex):
        return {"complex": [to_spec(part, place) for part in (value.real, value.imag)]}
    if isinstance(value, Mapping | nn.ModuleDict) and all(isinstance(name, str) for name in value):
        return {"mapping": {name: to_spec(each, f"{place}[{name!r}]") for name, each in value.items()}}
    if isinstance(value, tuple | list | nn.ModuleList):
        items = [to_spec(each, f"{place}[{i}]") for i, each in enumerate(value)]
        return {"list": items} if isinstance(value, list) else items
    if isinstance(value, FunctionType):
        if "<" in value.__qualname__:
            raise InputError(f"{place} is {value.__qualname__!r}, which has no name: define it in a module.")
        return {"name": name_of(value)}
    name, arguments = name_of(type(value)), {}
    if isinstance(value, type) or not (isinstance(value, (*parts(), nn.Module)) or is_dataclass(value)):
        raise InputError(f"{place} is a {name}, which no spec holds: use numbers, strings and parts of models.")
    own = type(value).__init__ not in (nn.Module.__init__, object.__init__)
    for parameter in inspect.signature(type(value)).parameters if own else ():
        if not hasattr(value, parameter):
            raise InputError(f"{name} does not write itself down: keep {parameter!r} of its __init__ as an attribute.")
        arguments[parameter] = to_spec(getattr(value, parameter), f"{parameter!r} of {name}")
    return {"class": name, "arguments": arguments}


def from_spec(spec: Any, allow: Collection[Any], depth: int = DEPTH) -> Any:
    """What ``to_spec`` wrote down, built anew.

    Args:
        spec: maybe a stranger's, of any kind.
        allow: classes and functions that it may name beside those of this package.
        depth: of its levels.

    Raises:
        InputError: it is malformed, too deep or too large, or names anything else.
    """
    if not depth:
        raise InputError(f"The spec has more than {DEPTH} levels.")
    if isinstance(spec, list):
        return tuple(from_spec(each, allow, depth - 1) for each in spec)
    if spec is None or isinstance(spec, bool | str):
        return spec
    if isinstance(spec, int | float) and abs(spec) < NUMBER:  # not a NaN either
        return spec
    if spec in ({"float": "inf"}, {"float": "-inf"}):
        return float(spec["float"])
    match spec:
        case {"complex": [int() | float() as real, int() | float() as imaginary], **rest} if not rest:
            return complex(from_spec(real, ()), from_spec(imaginary, ()))
        case {"list": list() as items, **rest} if not rest:
            return list(from_spec(items, allow, depth - 1))
        case {"mapping": dict() as items, **rest} if not rest:
            return {name: from_spec(each, allow, depth - 1) for name, each in items.items()}
        case {"name": name, **rest} if not rest:
            return find(name, allow, function=True)
        case {"class": name, "arguments": dict() as arguments, **rest} if not rest:
            kind = find(name, allow)
            return built(kind, {key: from_spec(each, allow, depth - 1) for key, each in arguments.items()})
    told = f"{list(spec)}" if isinstance(spec, dict) else f"a {type(spec).__name__} such as this"
    raise InputError(f"The spec holds classes, names, mappings, lists and numbers, and not {told:.100}.")


def built(kind: type, arguments: dict[str, Any]) -> Any:
    """An object of this class, or this package's own one where only one of its kind exists.

    Raises:
        InputError: the arguments do not fit.
    """
    name = name_of(kind)
    try:
        many = [key for key, each in inspect.signature(kind).parameters.items() if each.kind is each.VAR_POSITIONAL]
        rest = [each for key in many for each in arguments.pop(key, ())]
        for key, wanted in hints(kind.__init__).items():  # type: ignore[misc]
            for value in rest if key in many else [arguments[key]] if key in arguments else []:
                if not suits(value, wanted):
                    raise InputError(f"The spec of {name}: {key} must be {described(value, wanted)}.")
        made = kind(*rest, **arguments)
        if isinstance(made, Node) and made.units > LARGEST:
            raise InputError(f"The spec asks for a node of {made.units} units: at most {LARGEST} are read.")
    except InputError:
        raise
    except Exception as error:  # of whatever a stranger's arguments lead to
        raise InputError(f"The spec of {name} does not fit it: {' '.join(str(error).split()):.300}") from error
    if not (arguments or rest):
        return next((each for each in published() if type(each) is kind and each == made), made)
    return made


def suits(value: Any, wanted: Any) -> bool:
    """Whether an argument is what its annotation says; a callable of this package also in what it takes and returns."""
    if not test_of(wanted)(value):
        return False
    if get_origin(wanted) is not Callable or isinstance(value, type):
        return True
    called = value if isinstance(value, FunctionType) else type(value).__call__
    return not str(called.__module__).startswith("eqprop.") or fits(called, wanted)


def fits(function: Callable[..., Any], protocol: Any) -> bool:
    """Whether a function or method takes and returns exactly what the ``Callable`` says."""
    taken, returned = get_args(protocol)
    known = hints(function)
    given = [known.get(name) for name in inspect.signature(function).parameters if name != "self"]
    return given == list(taken) and known.get("return") == returned


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Its annotations; none if they name what does not exist at run time."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        return {}


def find(name: object, allow: Collection[Any], function: bool = False) -> Any:
    """The class, or the function, of this name. Imports nothing.

    Raises:
        InputError: there is none, or it may not be named.
    """
    module, _, own = str(name).partition(":")
    allowed = [each for each in allow if isinstance(each, type) is not function]
    # A class of a script has another module where the script is imported.
    for similar in ([each for each in allowed if name_of(each) == name], [e for e in allowed if e.__qualname__ == own]):
        if len(similar) == 1:
            return similar[0]
    inside = vars(sys.modules.get(module, object)).get(own) if module.startswith("eqprop.") else None
    if str(getattr(inside, "__module__", "")).startswith("eqprop."):
        if not function and isinstance(inside, type) and issubclass(inside, parts()):
            return inside
        if function and isinstance(inside, FunctionType) and any(fits(inside, each) for each in among(PROTOCOLS)):
            return inside
    kind = "function" if function else "class"
    raise InputError(
        f"The spec names {str(name)[:100]!r}, no part of a model in eqprop: pass its {kind} by allow=[...]."
    )


def parts() -> tuple[type, ...]:
    return tuple(among(PARTS))


def among(names: Mapping[str, Collection[str]]) -> Iterator[Any]:
    """What modules hold under these names, as far as they are imported."""
    for module, known in names.items():
        if module in sys.modules:
            yield from (vars(sys.modules[module])[name] for name in known)


def published() -> Iterator[Any]:
    """The objects that this package's modules offer."""
    for module in PARTS:
        yield from vars(sys.modules.get(module, object)).values()


def name_of(value: Any) -> str:
    """Where this package offers a class or a function; else where it is defined."""
    own = value.__name__
    for module in PARTS:
        if vars(sys.modules.get(module, object)).get(own) is value:
            return f"{module}:{own}"
    return f"{value.__module__}:{value.__qualname__}"
