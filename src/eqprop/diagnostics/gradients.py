"""The gradient that an estimator gives for one batch, without changing anything."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.energy import Loss, Network, Target
from eqprop.energy.network import Data
from eqprop.energy.substrate import IDEAL
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator
from eqprop.settling.solvers import Solution

Named = Mapping[str, Tensor]
"""Parameter name -> gradient, of the parameter's shape."""


class Estimate(NamedTuple):
    """A gradient of the mean loss for each parameter that learns, and the phases it was computed from."""

    gradients: Named
    free: Solution
    nudged: Solution | None


@torch.no_grad()
def estimate(network: Network, estimator: Estimator, x: Data, y: Target) -> Estimate:
    """The gradient of ``Equilibrium(network, estimator).loss(x, y)``, without dropout and without setting ``.grad``.

    Raises:
        InputError: the estimator does not return one gradient of the right shape for each parameter.
    """
    landscape = network.landscape(x)
    free, learn = estimator(landscape)
    parameters = learning(network)
    weight = landscape.like.new_ones(len(landscape.like))
    learnt = learn(Cost(loss_of(network), y, weight), list(parameters.values()))
    found, expected = ([tuple(t.shape) for t in each] for each in (learnt.gradients, parameters.values()))
    if found != expected:
        raise InputError(f"The estimator returned gradients of shapes {found} for parameters of shapes {expected}.")
    return Estimate(dict(zip(parameters, learnt.gradients, strict=True)), free, learnt.nudged)


def learning(network: Network) -> dict[str, Tensor]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def loss_of(network: Network) -> Loss:
    if network.loss is None:
        raise InputError("The network has no loss to take a gradient of: build it with one.")
    return network.loss


def check_batch(network: Network, x: Data, y: Target) -> None:
    """Raises InputError if the network has no loss or no parameters to learn, or x or y do not fit it."""
    loss = loss_of(network)
    if not learning(network):
        raise InputError("No parameter of the network requires a gradient: there is nothing to estimate.")
    loss.check(y, len(network.on(IDEAL).landscape(x).like))  # a machine would draw


def reciprocal_terms(network: Network, x: Data) -> bool:
    """Whether feedback is the transpose of feedforward, up to gains, in all terms of the network on its substrate."""
    return all(term.reciprocal for term in network.landscape(x).terms.values())


def double(network: Network) -> Network:
    """A copy in float64, in evaluation mode."""
    return copy.deepcopy(network).double().eval()


def double_data(x: Data) -> Data:
    return x.double() if isinstance(x, Tensor) else {name: value.double() for name, value in x.items()}


@contextmanager
def undisturbed(x: Data, estimators: Iterable[Estimator] = ()) -> Iterator[None]:
    """Restores the random generators of torch and of the estimators afterwards."""
    own = [generator for estimator in estimators for generator in estimator.generators()]
    states = [generator.get_state() for generator in own]
    try:
        like = x if isinstance(x, Tensor) else next(iter(x.values()))
        with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
            yield
    finally:
        for generator, state in zip(own, states, strict=True):
            generator.set_state(state)


def as_vector(gradients: Named) -> Tensor:
    """All gradients in one vector, float64: (parameters,)."""
    return torch.cat([gradient.double().flatten() for gradient in gradients.values()])


def relative_error(found: Tensor, right: Tensor) -> float:
    """|found - right| / |right|; 0 if both are 0, infinite if only ``right`` is."""
    error, size = float((found - right).norm()), float(right.norm())
    return error / size if size else (float("inf") if error else 0.0)
