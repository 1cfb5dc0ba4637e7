"""Whether the loss, the phases and the gradients of a step are finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eqprop.learning.equilibrium import Record
from eqprop.settling.solvers import stacked


class Vitals(NamedTuple):
    """The numbers of a step that tell whether it is finite.

    Attributes:
        phases: the nodes of its free phase, and those of its nudged phases.
        gradients: the parameters that have one.
        values: (1 + nodes + gradients,): the loss, the largest residual of each node, the largest of each gradient.
    """

    phases: tuple[list[str], ...]
    gradients: list[str]
    values: Tensor

    @classmethod
    def of(cls, loss: Tensor, record: Record, named: Iterable[tuple[str, nn.Parameter]]) -> Vitals:
        """Those of a step, after its backward, with the parameters ``named``."""
        settled = [each for each in (record.free, record.nudged) if each is not None]
        gradients = {name: parameter.grad for name, parameter in named if parameter.grad is not None}
        largest = [gradient.abs().max() for gradient in gradients.values()]
        residuals = [stacked(each.residuals).amax(1) for each in settled]
        values = torch.cat([loss.detach().view(1), *residuals, *([torch.stack(largest)] if largest else [])])
        return cls(tuple(list(each.residuals) for each in settled), list(gradients), values)

    @torch.no_grad()
    def hold(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sets all gradients to zero if one of the values is not finite, without waiting for the device."""
        finite = self.values.isfinite().all()
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(torch.where(finite, parameter.grad, 0))

    def told(self) -> str:
        """What the values say of a step that is not finite. Waits for the device."""
        loss, *rest = self.values.tolist()
        phases = []
        for nodes in self.phases:
            phases.append(dict(zip(nodes, rest, strict=False)))
            rest = rest[len(nodes) :]
        # Of the nudged phases, unless the free phase has failed already.
        changes = phases[-1 if math.isfinite(loss) else 0]
        node = max(changes, key=lambda each: changes[each] if changes[each] == changes[each] else math.inf)
        wild = [name for name, size in zip(self.gradients, rest, strict=True) if not math.isfinite(size)]
        return (
            f"the loss is {loss:g} and node {node!r} changed by {changes[node]:g} in its last sweep; gradients that "
            f"are not finite: {', '.join(wild) or 'none'}"
        )
