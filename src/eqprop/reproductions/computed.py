"""Numbers of results that need no training: gradients of networks with initial weights, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eqprop.diagnostics import compare, through_time
from eqprop.energy import Network, SquaredError, tanh
from eqprop.errors import NotSettledError
from eqprop.learning import Backpropagation, EquilibriumPropagation, Estimator, one_sided, symmetric
from eqprop.learning.dyadic import DyadicEP
from eqprop.learning.rules import (
    Rule,
    clamped_presynaptic,
    contrastive,
    generalised_recirculation,
    kolen_pollack,
    vector_field,
)
from eqprop.learning.teachers import Teacher, clamp, corrected, force
from eqprop.models.builders import DenseLayer, chain
from eqprop.recipes import mnist
from eqprop.settling import FromFeedforward, UntilConverged
from eqprop.tasks import load_images

FAR = FromFeedforward(UntilConverged(1e-10, 2000))
NUDGED = UntilConverged(1e-12, 2000)
"""Phases settle so far that only the estimator's own error remains."""
CONTRASTS: dict[str, Rule] = {
    "product": contrastive,
    "clamped presynaptic": clamped_presynaptic,
    "free presynaptic": generalised_recirculation,
}
SEPARATE: dict[str, tuple[Rule, Teacher]] = {
    "vector field": (vector_field, force),
    "Kolen-Pollack": (kolen_pollack, force),
    "asymmetric EP": (vector_field, corrected),
}
DYADIC = "dyadic EP"


def examples(data: str, images: int) -> tuple[Tensor, Tensor]:
    """The first test images, (images, channels, height, width) float64 in [0, 1], and their labels."""
    test = load_images(data).test
    return test.pixels[:images].double() / test.pixels.max(), test.labels[:images]


def steps(
    data: str, seed: int, hidden: Sequence[int], scale: float, beta: float, free: int, nudged: int, images: int
) -> dict[str, float]:
    """How far the updates of nudged sweeps are from those of backpropagation through time, sweep by sweep.

    The network is dense with tanh everywhere and a squared error, its weights ``scale`` times PyTorch's initial ones so
    that it settles. ``through_time`` defines the error, here of the worst parameter.
    """
    x, y = examples(data, images)
    torch.manual_seed(seed)
    layers = [DenseLayer(units, tanh) for units in (*hidden, 10)]
    network = chain(tuple(x.shape[1:]), layers, SquaredError).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    found = through_time(network, x, y, beta, nudged, free)
    if found.residual > 1e-9:
        raise NotSettledError(f"The free phase still moves by {found.residual:.1e} after {free} sweeps: take more.")
    rows = found.errors()
    return {
        name: max(row["rmse"] for row in rows if row["estimate"] == side)
        for name, side in (("one_sided", "+beta"), ("symmetric", "mean"))
    }


def feedback(data: str, seed: int, rule: str, gain: float, images: int) -> dict[str, float]:
    """The angle and the relative error of a contrastive Hebbian rule to backpropagation, at a feedback gain."""
    x, y = examples(data, images)
    torch.manual_seed(seed)
    network = mnist.network(shape_of(x), 10, feedback_gain=gain).double()
    taught_by = EquilibriumPropagation(one_sided(1.0), FAR, NUDGED, CONTRASTS[rule], teacher=clamp)
    return agreement(network, x, y, taught_by, Backpropagation())


def separate_feedback(rule: str, beta: float) -> Estimator:
    """The estimator of that name for networks with separate feedback weights, with symmetric nudges."""
    if rule == DYADIC:
        return DyadicEP(beta, FAR, NUDGED)
    how, teacher = SEPARATE[rule]
    return EquilibriumPropagation(symmetric(beta), FAR, NUDGED, how, teacher=teacher)


def turned(data: str, seed: int, rule: str, angle: float, beta: float, images: int) -> dict[str, float]:
    """The angle and the relative error to the exact gradient, with feedback weights at an angle to the feedforward."""
    x, y = examples(data, images)
    torch.manual_seed(seed)
    network = mnist.turned_feedback(shape_of(x), 10, angle=angle, learn_feedback=True).double()
    return agreement(network, x, y, separate_feedback(rule, beta))


def agreement(
    network: Network, x: Tensor, y: Tensor, estimator: Estimator, reference: Estimator | None = None
) -> dict[str, float]:
    """Of all parameters together: angle in degrees, and relative error; the reference is by default the exact one."""
    row = compare(network, x, y, {"it": estimator}, reference).of("it")
    if row.problem:
        raise NotSettledError(row.problem)
    return {"angle": math.degrees(math.acos(row.cosine)), "error": row.error}


def shape_of(x: Tensor) -> tuple[int, int, int]:
    """Of one image: channels, height, width."""
    _, channels, height, width = x.shape
    return channels, height, width
