"""Constraints on weights, imposed after each step of an optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.checks import Positive, checked
from eqprop.draws import generator_for
from eqprop.energy.couplings import is_weight
from eqprop.energy.network import Network
from eqprop.errors import InputError
from eqprop.files import explained

Constrain = Callable[[Network], None]
"""Changes the parameters of a network in place, so that they satisfy a constraint."""


@dataclass(frozen=True, eq=False)
class Signs:
    """Parameters of fixed signs: a parameter of the wrong sign is set to zero.

    Attributes:
        of: the name of a parameter in the network -> a tensor that broadcasts to it: positive where the parameter must
            not be negative, negative where it must not be positive, 0 where it is free. E.g. all ones for a device
            whose conductances are positive; for Dale's law, ``dale``.
    """

    of: Mapping[str, Tensor]

    @torch.no_grad()
    def __call__(self, network: Network) -> None:
        """Raises InputError if no parameter has a name, or if signs do not fit it."""
        parameters = dict(network.named_parameters())
        for name, signs in self.of.items():
            if name not in parameters:
                raise InputError(f"There is no parameter {name!r} to keep the signs of: {list(parameters)}.")
            parameter, signs = parameters[name], signs.to(parameters[name].device)
            misfit = f"Signs of shape {tuple(signs.shape)} do not fit {name!r}, {tuple(parameter.shape)}."
            with explained(misfit, RuntimeError):
                wrong = (parameter * signs < 0).expand_as(parameter)
            parameter.masked_fill_(wrong, 0)


@checked
@dataclass(frozen=True)
class Clipped:
    """Weights within a multiple of the root mean square of their tensor, their standard deviation if the mean is 0.

    A few large weights would set the scale by which memory cells are programmed. Biases, gains and other vectors, and
    weights that do not learn are left as they are.

    Attributes:
        deviations: the largest weight, in root mean squares.
    """

    deviations: Positive = 2.5

    @torch.no_grad()
    def __call__(self, network: Network) -> None:
        for name, parameter in network.named_parameters():
            if is_weight(name, parameter) and parameter.requires_grad:
                limit = self.deviations * parameter.square().mean().sqrt()
                parameter.clamp_(-limit, limit)


def all_of(*constraints: Constrain) -> Constrain:
    """Imposes each constraint, one after the other."""
    if len(constraints) == 1:
        return constraints[0]

    def constrain(network: Network) -> None:
        for each in constraints:
            each(network)

    return constrain


def dale(units: int, excitatory: float, seed: int) -> Tensor:
    """(units,) of 1 and -1: each unit is excitatory with the given probability, else inhibitory; drawn from ``seed``.

    It broadcasts to a dense weight (out, units): all outgoing weights of a unit then have the unit's sign.

    Raises:
        InputError: the probability is not in [0, 1].
    """
    if not 0 <= excitatory <= 1:
        raise InputError(f"excitatory {excitatory} is not a probability: it must be in [0, 1].")
    draws = torch.rand(units, generator=generator_for("dale", seed))
    return torch.where(draws < excitatory, 1.0, -1.0)
