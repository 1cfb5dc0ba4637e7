"""The metrics of an epoch: sums over its examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from eqprop.energy.nodes import length
from eqprop.learning.equilibrium import Record

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torchmetrics import Metric

Row = dict[str, float]
"""One epoch's metrics."""


class Counts(NamedTuple):
    """What an epoch's metrics count of a batch.

    Attributes:
        sums, peaks: the first values of ``EpochMetrics.SUMS`` and ``PEAKS``, float64.
        scores: (batch, ...), as the network's loss reads them.
    """

    sums: Tensor
    peaks: Tensor
    scores: Tensor

    @classmethod
    def of(cls, loss: Tensor, record: Record) -> Counts:
        """Those of a batch with its mean loss and its phases."""
        free, nudged = record.free, record.nudged
        assert free is not None
        assert record.scores is not None
        count = len(free.residual)
        sums = [loss.new_full((), count), loss.detach() * count, free.residual.sum(), free.sweeps.sum()]
        peaks = [free.residual.max()]
        if nudged is not None:
            many = loss.new_full((), len(nudged.residual))
            moved = length({node: value.abs() for node, value in nudged.state.items()})
            sums += [many, nudged.residual.sum(), nudged.sweeps.sum(), moved.sum(), nudged.unstable.sum()]
            peaks.append(nudged.residual.max())
        together, largest = (torch.stack([each.double() for each in kind]) for kind in (sums, peaks))
        return cls(together, largest, record.scores)


class EpochMetrics:
    """Sums and maxima over the steps of an epoch. They are on the device, so adding to them does not wait for it.

    Args:
        metrics: of the loss, new; their states are sums.
        device: where they are.
    """

    SUMS = (
        *("examples", "loss", "free_residual", "free_sweeps"),
        *("nudged", "nudged_residual", "nudged_sweeps"),
        *("response_norm", "unstable"),
    )
    PEAKS = ("free_residual_worst", "nudged_residual_worst")
    MEANS = (
        ("examples", ("loss", "free_residual", "free_sweeps", "free_residual_worst")),
        ("nudged", ("nudged_residual", "nudged_sweeps", "nudged_residual_worst", "response_norm", "unstable")),
    )
    """A count of examples, and the metrics that are means over it."""

    def __init__(self, metrics: Mapping[str, Metric], device: torch.device):
        self.sums = torch.zeros(len(self.SUMS), dtype=torch.float64, device=device)
        self.peaks = torch.zeros(len(self.PEAKS), dtype=torch.float64, device=device)
        self.metrics = {name: metric.to(device) for name, metric in metrics.items()}
        for metric in self.metrics.values():
            metric.sync_on_compute = False  # ``gather`` does it

    @property
    def examples(self) -> float:
        return float(self.sums[0])

    def add(self, counts: Counts, y: Any) -> None:
        """Adds a batch, whose targets are ``y``."""
        self.sums[: len(counts.sums)] += counts.sums
        self.peaks[: len(counts.peaks)].clamp_(min=counts.peaks)
        for metric in self.metrics.values():
            metric.update(counts.scores, y)

    def means(self) -> Row:
        """The metrics of what was added."""
        found = dict(zip((*self.SUMS, *self.PEAKS), [*self.sums.tolist(), *self.peaks.tolist()], strict=True))
        row = {}
        for count, known in self.MEANS:
            for name in known if found[count] else ():
                row[name] = found[name] if name in self.PEAKS else found[name] / found[count]
        return row | {name: float(metric.compute()) for name, metric in self.metrics.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All sums, by name."""
        found: dict[str, Any] = {"totals.sums": self.sums, "totals.peaks": self.peaks}
        for name, metric in self.metrics.items():
            found |= {f"totals.{name}.{key}": value for key, value in metric.metric_state.items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Sets the sums to what ``tensors`` gave. Raises KeyError or ValueError if one is missing or no such sum."""
        for name, own in self.tensors().items():
            if tensors[name].shape != own.shape:
                raise ValueError(f"{name} is {tuple(tensors[name].shape)}")
        self._set({name: tensors[name] for name in self.tensors()})

    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, own in self.tensors().items():
            own.copy_(values[name])
        for metric in self.metrics.values():
            metric._update_count = max(metric._update_count, 1)  # else it warns that nothing was added
            metric._computed = None

    def gather(self, fabric: Fabric) -> None:
        """Moves the sums of all processes to the first one."""
        if fabric.world_size > 1:
            summed: dict[str, Any] = {
                name: fabric.all_reduce(value.clone(), reduce_op="max" if name == "totals.peaks" else "sum")
                for name, value in self.tensors().items()
            }
            first = fabric.is_global_zero
            self._set({name: value if first else torch.zeros_like(value) for name, value in summed.items()})

    def spread(self, fabric: Fabric) -> None:
        """Gives all processes the sums of the first one."""
        if fabric.world_size > 1:
            self._set({name: fabric.broadcast(value) for name, value in self.tensors().items()})
