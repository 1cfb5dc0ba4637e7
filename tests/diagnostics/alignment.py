"""A short training that shows whether separate feedback weights align with the feedforward ones."""

from __future__ import annotations

from functools import partial

import torch

from eqprop.energy.losses import ReadoutCrossEntropy
from eqprop.learning import Equilibrium, EquilibriumPropagation, Rule, kolen_pollack, symmetric, vector_field
from eqprop.models.builders import DenseLayer, chain
from eqprop.settling.solvers import FixedSweeps
from eqprop.tasks import load_images
from eqprop.training.loop import alignment_angles

Angles = dict[str, list[float]]
"""Synapse -> degrees before training and after each epoch."""

RULES: dict[str, Rule] = {
    "vector_field (different updates)": vector_field,
    "kolen_pollack (same update)": kolen_pollack,
}
LR, MOMENTUM, DECAY = 0.1, 0.9, 1e-3
ABOUT = f"embedded digits, dense 64-128-64 and a read-out, rate {LR}, momentum {MOMENTUM}, weight decay {DECAY}"


def trained_angles(epochs: int = 10, seed: int = 0) -> dict[str, Angles]:
    """Rule -> the angles of a network with separate feedback that learns the embedded digits."""
    return {name: angles(rule, epochs, seed) for name, rule in RULES.items()}


def angles(rule: Rule, epochs: int, seed: int) -> Angles:
    """The angles of one training, with weight decay: equal updates preserve a difference, which only decay removes.

    Torch's random generator is restored afterwards.
    """
    train = load_images("digits").train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [DenseLayer(128), DenseLayer(64)]
        network = chain((1, 8, 8), layers, partial(ReadoutCrossEntropy, classes=10), separate_feedback=True)
        model = Equilibrium(network, EquilibriumPropagation(symmetric(0.5), FixedSweeps(8), FixedSweeps(4), rule))
        optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
        rows = [alignment_angles(model)]
        for _ in range(epochs):
            for chosen in torch.randperm(len(train)).split(32):
                optimizer.zero_grad()
                model.loss(train.pixels[chosen] / 255, train.labels[chosen]).backward()
                optimizer.step()
            rows.append(alignment_angles(model))
    return {name.removeprefix("angle_"): [row[name] for row in rows] for name in rows[0]}
