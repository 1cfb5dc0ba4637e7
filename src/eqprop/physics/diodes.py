"""Diodes: units of a circuit whose voltage a diode to the ground bounds, ideal ones and real ones.

An excitatory unit's diode conducts at negative voltages and so holds v >= 0, an inhibitory one's holds v <= 0: linear
rectification of both signs, as conductances cannot be negative. Kendall et al. 2020, arXiv 2006.01981.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from eqprop.checks import NonNegative, Positive
from eqprop.energy.units import Stiffness, Unit, is_zero
from eqprop.errors import InputError

Share = Annotated[float, ">= 0", "<= 1"]

BOLTZMANN, CHARGE = 1.38064852e-23, 1.6021766208e-19
"""In J/K and C, the values that ngspice 39 computes with."""
THERMAL_VOLTAGE = BOLTZMANN * 300.15 / CHARGE
"""k T / q at 27 degrees Celsius, in volts."""


@dataclass(frozen=True)
class DiodeLayer(Unit):
    """The base of units with a diode to the ground: the first units of a node are excitatory, all others inhibitory.

    Attributes:
        excitatory: the share of excitatory units; of n units the first floor(share n), along the node's first
            dimension.

    Raises:
        InputError: the share is out of range; or a displacement without the node's terms is asked for.
    """

    excitatory: Share = 0.5

    parabolic = True

    def count(self, units: int) -> int:
        """The number of excitatory units among so many."""
        return int(self.excitatory * units + 1e-9)

    def difference(self, drive: Tensor, change: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        raise InputError(f"{self}: a circuit's nodes settle as states; there is no displacement without their terms.")

    def check_stiff(self, stiffness: Stiffness) -> None:
        """Raises InputError where no term holds the units: they have no energy of their own but a diode's."""
        if is_zero(stiffness):
            raise InputError(
                f"{self} has no energy of its own: couple its node by a term with stiffness, as resistors."
            )


@dataclass(frozen=True)
class IdealDiodes(DiodeLayer):
    """v = max(a / k, 0) of excitatory units, min(a / k, 0) of inhibitory ones; k is the stiffness of the node's terms.

    A ``Wire`` with a bound is the same for a node whose units are all of one kind. ``excitatory``: see ``DiodeLayer``.

    Raises:
        InputError: on use, no term of the node has a stiffness.
    """

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        self.check_stiff(stiffness)
        free = drive / stiffness
        first = self.count(free.shape[1])
        return torch.cat([free[:, :first].clamp(min=0), free[:, first:].clamp(max=0)], 1)

    def potential(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)


@dataclass(frozen=True)
class JunctionDiodes(DiodeLayer):
    """Real diodes: a current I_s (exp(z) - 1) at z = -v / w of excitatory units, v / w of inhibitory ones.

    G(v) = I_s w (exp(z) - 1 - z) + leakage v^2 / 2, the diode's co-content. As I_s rises or w falls, the units tend to
    ``IdealDiodes``. The response is the root of k v - a = current, by Newton's method from a bound of the root, from
    which it converges without a line search. W. Shockley's equation, as in SPICE.

    Attributes:
        excitatory: see ``DiodeLayer``.
        saturation: I_s, in units of current.
        width: w = N k T / q, the emission coefficient times the thermal voltage.
        leakage: a conductance in parallel with the diode, as SPICE's GMIN.

    Raises:
        InputError: a number is out of range; on use, no term of the node has a stiffness.
    """

    saturation: Positive = 1e-14
    width: Positive = THERMAL_VOLTAGE
    leakage: NonNegative = 0.0

    def response(self, drive: Tensor, stiffness: Stiffness = 0.0) -> Tensor:
        self.check_stiff(stiffness)
        side = self._side(drive)
        source, total = side * drive, stiffness + self.leakage
        with torch.no_grad():
            x = torch.maximum(source / total, -self.width * torch.log1p(source.abs() / self.saturation))
            x = self._newton(x, source, total)  # not above the root; from there steps rise to it, until rounding
            for _ in range(STEPS):
                before, x = x, self._newton(x, source, total)
                if not bool((x > before).any()):
                    break
        return side * self._newton(x, source, total)  # the derivative of the last step is that of the root

    def potential(self, state: Tensor) -> Tensor:
        z = -self._side(state) * state / self.width
        return self.saturation * self.width * (torch.expm1(z) - z) + 0.5 * self.leakage * state.square()

    def _newton(self, x: Tensor, source: Tensor, total: Stiffness) -> Tensor:
        """One step to the root of total x - source - I_s (exp(-x / w) - 1), which is concave and rises with x."""
        carried = self.saturation * torch.exp(-x / self.width)
        return x - (total * x - source - (carried - self.saturation)) / (total + carried / self.width)

    def _side(self, state: Tensor) -> Tensor:
        """1 for excitatory units, -1 for inhibitory ones, broadcastable to ``state``."""
        units = state.shape[1]
        side = torch.ones(units, dtype=state.dtype, device=state.device)
        side[self.count(units) :] = -1
        return side.view(-1, *(1 for _ in state.shape[2:]))


STEPS = 60
"""Newton steps at most."""
