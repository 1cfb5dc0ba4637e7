"""Weights of mean 0 and unit drive, as functions of free parameters: what trains deep without batch normalisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from eqprop.checks import checked
from eqprop.energy.couplings import Synapse
from eqprop.energy.maps import Convolution, Dense
from eqprop.energy.network import Network
from eqprop.errors import InputError


class ScaledStandardisation(nn.Module):
    """A parametrisation: weight = gain * (v - mean) / (deviation * sqrt(fan in)), for each output on its own.

    Brock et al. 2021, arXiv 2101.08692. Inputs of mean square 1 that are independent then give drives of mean square
    gain^2, whatever ``v`` is. A function of the weights alone is valid in an energy: the same weight is in the forward
    and in the transposed message. ``gain``: (outputs, 1, ...), initially 1.

    Args:
        weight: (outputs, ...), to which it is going to be applied.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        self.gain = nn.Parameter(torch.ones_like(weight[(slice(None), *[slice(1)] * (weight.ndim - 1))]))

    def forward(self, v: Tensor) -> Tensor:
        dims = tuple(range(1, v.ndim))
        variance, mean = torch.var_mean(v, dims, correction=0, keepdim=True)
        fan_in = math.prod(v.shape[1:])
        return (v - mean) * torch.rsqrt((variance * fan_in).clamp(min=1e-12)) * self.gain


@checked
def standardise_weights(network: Network) -> None:
    """Standardise the weights of all synapses, dense and convolutional, by ``ScaledStandardisation``, in place.

    The network then has the parameters ``...parametrizations.weight.original`` and ``...weight.0.gain`` in the place of
    each weight; ``torch.nn.utils.parametrize.remove_parametrizations`` undoes it.

    Args:
        network: of any kind; other couplings stay as they are.

    Raises:
        InputError: it has no such weights, or they are computed from others already.
    """
    found = [each.map for each in network.terms.values() if type(each) is Synapse]
    maps = [each for each in found if isinstance(each, Dense | Convolution)]
    if not maps:
        raise InputError("The network has no dense or convolutional synapse, so there is nothing to standardise.")
    for each in maps:
        if parametrize.is_parametrized(each):
            raise InputError("The weights of the network are computed from others already: undo that first.")
    for each in maps:
        parametrize.register_parametrization(each, "weight", ScaledStandardisation(each.weight))
