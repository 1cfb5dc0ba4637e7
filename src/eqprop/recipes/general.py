"""Runs on a user's own tables and sequences: a dense network that learns by equilibrium propagation.

Symmetric nudges: Laborieux et al. 2021, doi 10.3389/fnins.2021.633674.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from eqprop.checks import Count, Fraction, NonNegative, Positive
from eqprop.energy import Network, ReadoutCrossEntropy, SquaredError, identity, tanh
from eqprop.learning import EquilibriumPropagation, Estimator, symmetric
from eqprop.models.builders import DenseLayer, chain
from eqprop.recipes.setting import NudgeOptions, TaskRecipe
from eqprop.settling import FixedSweeps, FromFeedforward
from eqprop.tasks import ArraySets, Classes, load_sequences, load_table
from eqprop.tasks.tables import TableKind
from eqprop.training.loop import Experiment


class DenseRecipe(NudgeOptions, TaskRecipe):
    """A dense network with hidden layers of tanh, and Adam with a rate that falls to 0 by a cosine.

    Args:
        hidden: units of each hidden layer.
        layers: the number of hidden layers.
        lr: the first learning rate.
        weight_decay: the factor by which Adam's steps shrink weights (AdamW), times the rate.
        test_share: the share of the examples of one file that is the test set; a folder has a file for each.
        follow_links: read files through links that lead out of the data's folder.
    """

    batch_size: Count = 32
    epochs: Count = 40
    hidden: Count = 64
    layers: Count = 2
    lr: Positive = 5e-3
    weight_decay: NonNegative = 1e-2
    beta: float = 0.2
    free_sweeps: Count = 15
    nudged_sweeps: Count = 12
    test_share: Fraction = 0.2
    follow_links: bool = False

    def unused(self, estimator: Estimator) -> Mapping[str, str]:
        own = {"test_share": "the folder has a test set of its own"} if Path(self.data).is_dir() else {}
        return {**super().unused(estimator), **own}

    def optimise(self, network: Network, periods: int) -> tuple[torch.optim.Optimizer, CosineAnnealingLR]:
        optimizer = torch.optim.AdamW(network.parameters(), self.lr, weight_decay=self.weight_decay)
        return optimizer, CosineAnnealingLR(optimizer, periods)

    def learn(self, data: ArraySets) -> Experiment:
        """The run on these data: a cross-entropy for classes, else the squared error of linear outputs."""
        shape, layers = tuple(data.train.inputs.shape[1:]), [DenseLayer(self.hidden, tanh)] * self.layers

        def build() -> Network:
            if isinstance(data.outputs, Classes):
                return chain(shape, layers, partial(ReadoutCrossEntropy, classes=len(data.outputs.names)))
            return chain(shape, [*layers, DenseLayer(data.train.target.shape[1], identity)], SquaredError)

        free, nudged = FromFeedforward(FixedSweeps(self.free_sweeps)), FixedSweeps(self.nudged_sweeps)
        estimator = EquilibriumPropagation(symmetric(self.beta), free, nudged)
        return self.experiment(
            data.train,
            data.test,
            build,
            estimator,
            manifest=data.manifest,
            inputs=data.inputs,
            outputs=data.outputs,
        )


class Table(DenseRecipe):
    """The options of a run on a table.

    Args:
        data: a CSV or parquet file, or a folder with train.csv and test.csv (or .parquet).
        target: the column to predict, or several columns of numbers.
        inputs: the columns to predict from; default: all others.
        kind: classification or regression; auto: as the target's column tells.
    """

    target: Sequence[str] | str
    inputs: Sequence[str] = ()
    kind: TableKind = "auto"


class SequenceOptions(DenseRecipe):
    """The options of a run on sequences of vectors.

    Args:
        data: a file, or a folder with train.npz and test.npz (or .safetensors, .parquet), with inputs (count, steps,
            features) and target.
        standardise: each feature by its mean and standard deviation.
    """

    standardise: bool = True


def table(**options: Any) -> Experiment:
    """A classification or a regression on columns of a CSV or parquet file."""
    given = Table(**options)
    data = load_table(
        given.data, given.target, given.inputs, given.kind, given.test_share, given.seed, given.follow_links
    )
    return given.learn(data)


def sequence(**options: Any) -> Experiment:
    """A classification or a regression on sequences of vectors, of which a dense network sees all steps at once."""
    given = SequenceOptions(**options)
    return given.learn(load_sequences(given.data, given.test_share, given.seed, given.standardise, given.follow_links))
