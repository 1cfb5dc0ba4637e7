"""Substrates by their names."""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Mapping
from types import MappingProxyType

from eqprop.devices.ageing import HOUR, PhaseChange
from eqprop.energy.substrate import IDEAL, Substrate
from eqprop.errors import InputError, explained, one_line
from eqprop.substrates.reading import ReadConverter, ReadNoise, ReadSpread
from eqprop.substrates.together import Together, TwoCircuits
from eqprop.substrates.units import UnitSpread
from eqprop.substrates.weights import Aged, StuckWeights, WeightNoise, WeightSpread, WriteNoise
from eqprop.substrates.wires import Wires

SUBSTRATES: Mapping[str, Substrate] = MappingProxyType(
    {
        "ideal": IDEAL,
        "pcm": Aged(PhaseChange(), HOUR),
        "mismatch": Together(WeightSpread(0.1), UnitSpread(0.1, 0.1), ReadSpread(0.01, 0.01)),
        "converters": ReadConverter(2 / 255, -1.0, 1.0),
        "noisy-reads": ReadNoise(1e-3),
        "noisy-weights": WeightNoise(0.0175),
        "noisy-writes": WriteNoise(0.05),
        "stuck": StuckWeights(0.1),
        "two-circuits": TwoCircuits(StuckWeights(0.1), StuckWeights(0.1, seed=1)),
        "wires": Wires(1.75e-6),
    }
)
"""Name -> substrate: phase-change memory an hour old; 10 % of spread; 8-bit readings of [-1, 1]; and so on."""


def find_substrate(name: str) -> Substrate:
    """The substrate of that name, or one of your own by the path of its class or object, as ``my_chip.Chip``.

    Args:
        name: one of ``SUBSTRATES``, or module.name, which is imported.

    Returns:
        A copy: its draws are those of a new one, whatever was drawn before.

    Raises:
        InputError: there is none (a similar name is suggested), or what the path leads to is no substrate.
    """
    if name in SUBSTRATES:
        return copy.deepcopy(SUBSTRATES[name])
    module, _, own = name.rpartition(".")
    if not module:
        near = difflib.get_close_matches(name.lower(), SUBSTRATES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(SUBSTRATES)
        raise InputError(f"There is no substrate {name!r}: {hint}Give one of {known}, or a path as my_chip.Chip.")
    try:
        found = getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"The substrate {name!r} cannot be imported ({one_line(error)}): name an object of a module in a folder of "
            "PYTHONPATH."
        ) from error
    made = found
    if isinstance(found, type) and issubclass(found, Substrate):
        with explained(f"{name} cannot be made without arguments ({{}}): give the path of an object of it.", TypeError):
            made = found()
    if not isinstance(made, Substrate):
        kind = "class" if isinstance(made, type) else type(made).__name__
        raise InputError(f"{name!r} is a {kind}, no substrate: give the path of one.")
    return copy.deepcopy(made)
