"""Metrics of predictions, by torchmetrics; imported only when a loss is asked for them.

All are sums over examples in float64. So they may be saved between two batches, and summed over processes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy
from torchmetrics.regression import MeanSquaredError, R2Score

TOP = 5


class Exact(Metric):
    """Flattens what it is given, in float64; of a tuple of targets it takes the first, to which the scores belong."""

    update_called = True  # sums may also come from a checkpoint: no warning

    def update(self, preds: Tensor, target: Any) -> None:
        """``preds``: the scores, (batch, ...); ``target``: as the loss takes it."""
        while isinstance(target, tuple | list):
            target = target[0]
        super().update(flat(preds), flat(target) if target.is_floating_point() else target)  # type: ignore[safe-super]


def flat(values: Tensor) -> Tensor:
    return values.detach().flatten(1).double().contiguous()


class Accuracy(Exact, MulticlassAccuracy):
    """The share of labels that are among the ``top_k`` largest scores."""


class SquaredError(Exact, MeanSquaredError):
    """The mean over examples and outputs of (prediction - value)^2."""


class BinaryShare(Exact, BinaryAccuracy):
    """The share of outputs that lie on the same side of 1/2 as their values."""

    def update(self, preds: Tensor, target: Any) -> None:
        super().update(preds > 0.5, target > 0.5)


class Determination(Exact, R2Score):
    """R^2, the mean over outputs of 1 - squared error / variance; 0 for a constant output unless it is predicted.

    Of less than two examples it is not a number. torchmetrics's own result is 1 for all errors below 1e-4, so that it
    depends on the unit of the values.
    """

    def __init__(self, outputs: int, **kwargs: Any):
        super().__init__(**kwargs)
        for name in ("sum_squared_error", "sum_error", "residual"):  # of their final shape in every process
            self.add_state(name, torch.zeros(outputs), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        if self.total < 2:
            return torch.full_like(self.total, math.nan)
        spread = self.sum_squared_error - self.sum_error.square() / self.total
        constant = spread <= 1e-12 * self.sum_squared_error
        return torch.where(constant, (self.residual == 0).double(), 1 - self.residual / spread).mean()


def of_labels(classes: int) -> dict[str, Metric]:
    """For scores (batch, ``classes``) and labels (batch,) int64."""
    best = Accuracy(classes, average="micro", validate_args=False, compute_with_cache=False)
    if classes <= TOP:
        return exact({"accuracy": best})
    top = Accuracy(classes, top_k=TOP, average="micro", validate_args=False, compute_with_cache=False)
    return exact({"accuracy": best, f"top{TOP}_accuracy": top})


def of_values(outputs: int) -> dict[str, Metric]:
    """For predictions and values, (batch, ...), ``outputs`` numbers an example."""
    return exact(
        {
            "squared_error": SquaredError(compute_with_cache=False),
            "r2": Determination(outputs, compute_with_cache=False),
        }
    )


def of_bits() -> dict[str, Metric]:
    """For predictions in [0, 1] and values that are 0 or 1, (batch, ...)."""
    return exact({"accuracy": BinaryShare(validate_args=False, compute_with_cache=False)})


def exact(metrics: dict[str, Metric]) -> dict[str, Metric]:
    return {name: metric.set_dtype(torch.float64) for name, metric in metrics.items()}
