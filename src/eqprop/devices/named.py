"""Devices with the numbers that were published for them, as aihwkit 1.2.0 collects them.

Rasch et al. 2021, doi 10.1109/AICAS51828.2021.9458494; each source is named beside its device.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from eqprop.devices.cells import Device
from eqprop.devices.pairs import Pair
from eqprop.devices.pulses import Constant, Exponential, Linear, SoftBounds, Table
from eqprop.errors import InputError

IDEALISED = Constant(step=2e-4, low=-1.0, high=1.0, up_down_spread=0.0)
"""Small pulses of one size."""
GOKMEN_VLASOV = Constant(step=1.6e-3, low=-1.0, high=1.0)
"""The device that Gokmen & Vlasov 2016, doi 10.3389/fnins.2016.00333, ask for."""
CAPACITOR = Linear(
    step=5e-3,
    low=-1.0,
    high=1.0,
    up_slope=0.05,
    down_slope=0.05,
    slope_spread=0.01,
    step_spread=0.1,
    up_down_spread=0.06,
    low_spread=0.07,
    high_spread=0.07,
    additive=True,
    lifetime=1e6,
    lifetime_spread=0.3,
)
"""A capacitor that leaks (Li et al. 2018, doi 10.1109/VLSIT.2018.8510648)."""
ECRAM = Linear(
    step=2e-3,
    low=-0.8276,
    high=1.1724,
    up_slope=0.1153,
    down_slope=0.5085,
    slope_spread=0.05,
    step_spread=0.1,
    low_spread=0.05,
    high_spread=0.05,
)
"""An electrochemical memory with lithium (Tang et al. 2018, doi 10.1109/IEDM.2018.8614551)."""
ECRAM_OXIDE = replace(
    ECRAM, step=2.8214e-4, low=-0.8286, high=1.1714, up_slope=0.4152, down_slope=0.7342, cycle_noise=2.0
)
"""An electrochemical memory of metal oxides (Kim et al. 2019, doi 10.1109/IEDM19573.2019.8993463)."""
RERAM_SB = SoftBounds(
    step=2e-3,
    low=-0.75,
    high=1.25,
    low_spread=0.3 / 0.75,
    high_spread=0.3 / 1.25,
    cycle_noise=3.75,
    additive=True,
    write_noise=56.0,
    from_symmetry=True,
)
"""A resistive memory of hafnium oxide, by soft bounds (Gong et al. 2018, doi 10.1038/s41467-018-04485-1)."""
RERAM_ES = Exponential(
    step=1.35e-3,
    up_down=0.259359,
    low=-1.0,
    high=1.0,
    scale=-0.5,
    offset=-0.5,
    rate=5.0,
    up_weight=-1.18445,
    down_weight=-0.081404,
    step_spread=0.2,
    up_down_spread=0.05,
    cycle_noise=5.0,
    write_noise=75.0,
)
"""The same memory, by exponentials."""
_ARRAY = SoftBounds(low=-1.0, high=1.0, log_normal=True, additive=True, from_symmetry=True, reference_spread=0.05)
RERAM_ARRAY_OM = replace(
    _ARRAY,
    step=0.0949,
    step_spread=0.7829,
    low_spread=0.5695,
    high_spread=0.3499,
    cycle_noise=0.4158,
    write_noise=1.4113,
)
"""An array of optimised resistive memories; in it 13.48 % of the devices were stuck, which counts if you say so."""
RERAM_ARRAY_HFO2 = replace(
    _ARRAY,
    step=0.4622,
    step_spread=0.7125,
    low_spread=0.5990,
    high_spread=0.4295,
    cycle_noise=0.2174,
    write_noise=0.5841,
)
"""An array of resistive memories of hafnium oxide; in it 9.77 % were stuck, which counts if you say so."""
PCM = Exponential(
    step=0.01,
    low=0.0,
    high=2.0,
    scale=-1.0,
    offset=0.0,
    rate=2.5,
    up_weight=-27.235,
    down_weight=-2.235,
    noise_offset=0.042,
    noise_slope=0.108,
    step_spread=0.2,
    up_down_spread=0.05,
    low_spread=0.0,
    high_spread=0.1,
    cycle_noise=0.6,
)
"""Phase-change memory, which crystallises in steps and is reset at once: its weights need a ``Pair``."""

DEVICES: dict[str, Device | Pair] = {
    "idealised": IDEALISED,
    "gokmen-vlasov": GOKMEN_VLASOV,
    "capacitor": CAPACITOR,
    "ecram": ECRAM,
    "ecram-oxide": ECRAM_OXIDE,
    "reram-sb": RERAM_SB,
    "reram-es": RERAM_ES,
    "reram-array-om": RERAM_ARRAY_OM,
    "reram-array-hfo2": RERAM_ARRAY_HFO2,
    "pcm": Pair(device=PCM),
}
"""Names of devices, as options of recipes, and what they stand for."""


def find_device(name: str) -> Device | Pair:
    """The device of that name, or one measured in a CSV file: see ``Table.from_csv``.

    Args:
        name: in ``DEVICES``, or the path of a file that ends in .csv.

    Raises:
        InputError: there is no device of that name (a similar one is suggested), or the file does not hold one.
    """
    if name in DEVICES:
        return DEVICES[name]
    if name.endswith(".csv"):
        return Table.from_csv(name)
    near = difflib.get_close_matches(name, DEVICES, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"There is no device {name!r}: {hint}Give one of {', '.join(DEVICES)}, or a file that ends in .csv."
    )
