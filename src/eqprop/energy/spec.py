"""Networks written down as JSON: classes and their arguments, without weights, which ``state_dict`` holds.

A class writes itself down if each parameter of its ``__init__`` is an attribute of the same name, as in any dataclass.
Reading runs no code of a stranger's: only parts of networks from this package, and classes that the caller allows, are
looked up, among what is already imported.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from eqprop.energy.couplings import Coupling
from eqprop.energy.losses import Loss
from eqprop.energy.maps import Map
from eqprop.energy.nodes import Node
from eqprop.energy.pooling import Pool
from eqprop.energy.substrate import Substrate
from eqprop.energy.units import Unit
from eqprop.errors import InputError

PARTS = (Node, Unit, Coupling, Map, Pool, Loss, Substrate)


def to_spec(value: object, place: str) -> Any:
    """As {"class": "module:qualname", "arguments": {...}}; a mapping as {"mapping": {...}}, infinity {"float": "inf"}.

    Args:
        value: a part of a network, or an argument of one.
        place: what it is, for messages.

    Raises:
        InputError: it does not write itself down; the class and the parameter are named.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Mapping | nn.ModuleDict):
        return {"mapping": {name: to_spec(each, f"{place}[{name!r}]") for name, each in value.items()}}
    if isinstance(value, tuple | list | nn.ModuleList):
        return [to_spec(each, f"{place}[{i}]") for i, each in enumerate(value)]
    name, arguments = name_of(type(value)), {}
    if not isinstance(value, (*PARTS, nn.Module)):
        raise InputError(f"{place} is a {name}, which no spec holds: use numbers, strings and parts of networks.")
    own = type(value).__init__ is not nn.Module.__init__
    for parameter in inspect.signature(type(value)).parameters if own else ():
        if not hasattr(value, parameter):
            raise InputError(f"{name} does not write itself down: keep {parameter!r} of its __init__ as an attribute.")
        arguments[parameter] = to_spec(getattr(value, parameter), f"{parameter!r} of {name}")
    return {"class": name, "arguments": arguments}


def from_spec(spec: Any, allow: Collection[type]) -> Any:
    """What ``to_spec`` wrote down, built anew; ``allow``: what it may name beside the parts of this package.

    Raises:
        InputError: it is malformed, or names another class.
    """
    if isinstance(spec, list):
        return tuple(from_spec(each, allow) for each in spec)
    if not isinstance(spec, dict):
        return spec
    if spec in ({"float": "inf"}, {"float": "-inf"}):
        return float(spec["float"])
    if set(spec) == {"mapping"} and isinstance(spec["mapping"], dict):
        return {name: from_spec(each, allow) for name, each in spec["mapping"].items()}
    if set(spec) != {"class", "arguments"} or not isinstance(spec["arguments"], dict):
        raise InputError(f"A spec holds a class and its arguments, a mapping or a float, not {list(spec)}.")
    kind = find(spec["class"], allow)
    try:
        return kind(**{name: from_spec(each, allow) for name, each in spec["arguments"].items()})
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"The spec of {spec['class']} does not fit it: {' '.join(str(error).split())}") from error


def find(name: object, allow: Collection[type]) -> type:
    """The class of this name. Imports nothing."""
    module, _, qualname = str(name).partition(":")
    inside = vars(sys.modules.get(module, object)).get(qualname) if module.split(".")[0] == "eqprop" else None
    for kind in (*allow, *([inside] if isinstance(inside, type) and issubclass(inside, PARTS) else [])):
        if name == name_of(kind):
            return kind
    raise InputError(f"The spec names {name!r}, no part of a network in eqprop: pass its class by allow=[...].")


def name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
