"""What an estimator says about one batch, asked so that nothing is left changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.energy import Loss, Network, Target
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator
from eqprop.settling.solvers import Solution

Named = Mapping[str, Tensor]
"""Parameter name -> gradient, of the parameter's shape."""


class Estimate(NamedTuple):
    """A gradient of the mean loss for each parameter that learns, and the phases that gave it."""

    gradients: Named
    free: Solution
    nudged: Solution | None


@torch.no_grad()
def estimate(network: Network, estimator: Estimator, x: Tensor, y: Target) -> Estimate:
    """What ``Equilibrium(network, estimator).loss(x, y).backward()`` finds, without dropout and touching no ``.grad``.

    Raises:
        InputError: the estimator does not return one gradient of the right shape for each parameter.
    """
    landscape = network.landscape(x)
    free, learn = estimator(landscape)
    parameters = learning(network)
    learnt = learn(Cost(loss_of(network), y, x.new_ones(len(x))), list(parameters.values()))
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


def check_batch(network: Network, x: Tensor, y: Target) -> None:
    """Raises InputError where the network has no loss or nothing to learn, or x or y do not fit it."""
    loss = loss_of(network)
    if not learning(network):
        raise InputError("No parameter of the network requires a gradient: there is nothing to estimate.")
    network.landscape(x)
    loss.check(y, len(x))


def double(network: Network) -> Network:
    """A twin in float64, for evaluation."""
    return copy.deepcopy(network).double().eval()


@contextmanager
def undisturbed(x: Tensor, estimators: Iterable[Estimator] = ()) -> Iterator[None]:
    """Random generators, torch's and the estimators', are afterwards as they were."""
    own = [generator for estimator in estimators for generator in estimator.generators()]
    states = [generator.get_state() for generator in own]
    try:
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            yield
    finally:
        for generator, state in zip(own, states, strict=True):
            generator.set_state(state)


def as_vector(gradients: Named) -> Tensor:
    """One after the other, in float64; (parameters,)."""
    return torch.cat([gradient.double().flatten() for gradient in gradients.values()])


def relative_error(found: Tensor, right: Tensor) -> float:
    """|found - right| / |right|; 0 where both are 0, infinite where only ``right`` is."""
    error, size = float((found - right).norm()), float(right.norm())
    return error / size if size else (float("inf") if error else 0.0)
