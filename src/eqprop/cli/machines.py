"""Options that choose the machine on which a trained network runs, and the age of its memory."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from eqprop.devices import DAY, HOUR, YEAR
from eqprop.energy import Substrate
from eqprop.errors import InputError
from eqprop.runs.parsing import Parser
from eqprop.substrates import at_age, find_substrate

MACHINE_OPTIONS = ("substrate", "age", "compensate")
"""The names of the options, without their prefix."""

UNITS = {"s": 1.0, "min": 60.0, "h": HOUR, "d": DAY, "y": YEAR}
"""Of ages, in seconds."""
OLDEST = 1e9 * YEAR
"""The largest age, in seconds."""


def add_machine_options(parser: Parser, own: str, prefix: str = "") -> None:
    """The options that ``machine`` reads.

    Args:
        parser: takes them.
        own: whose substrate is the default, for the help.
        prefix: of their names.
    """
    name = "the model of the machine: a name, as pcm, or module.name of your own"
    parser.add_argument(f"--{prefix}substrate", type=str, default="", help=f"{name}; default: {own}")
    age = "how long ago its memory was programmed: seconds, or as 30min, 1h, 30d, 1y"
    parser.add_argument(f"--{prefix}age", type=str, default="", help=f"{age}; default: the substrate's own")
    factor = "compensate for the drift of its memory, by one factor a layer"
    parser.add_argument(f"--{prefix}compensate", action="store_true", help=factor)


def machine(options: Mapping[str, Any], own: Substrate, prefix: str = "") -> Substrate:
    """The substrate of these options; ``own`` without them.

    Raises:
        InputError: there is no such substrate, the age cannot be read, or no memory ages on the substrate.
    """
    name, age, compensate = (options[f"{prefix}{each}"] for each in MACHINE_OPTIONS)
    substrate = find_substrate(name) if name else own
    if not age and not compensate:
        return substrate
    return at_age(substrate, seconds(age, f"--{prefix}age") if age else None, compensate)


def seconds(text: str, option: str = "age") -> float:
    """An age in seconds: of a number of seconds, or a number and one of ``UNITS``, as 1.5h.

    Raises:
        InputError: it is none; the message names ``option``.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z]*)\s*", text)
    unit = UNITS.get(found[2] or "s") if found else None
    value = float(found[1]) * unit if found and unit else math.inf
    if value > OLDEST:
        known = ", ".join(UNITS)
        raise InputError(
            f"{option} {text!r} is no age: give a number of seconds, or one with {known}, as 30d, up to 1e9y."
        )
    return value
