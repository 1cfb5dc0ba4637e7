"""Parameters that change during a phase, while those of the network stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from eqprop.energy.landscape import Landscape
from eqprop.learning.estimators import Cost


class MovingParameters:
    """Tensors that replace a landscape's parameters; at first the parameters themselves. Data are not changed.

    Attributes:
        now: one tensor for each parameter.
    """

    def __init__(self, landscape: Landscape, cost: Cost, parameters: Sequence[Tensor]):
        self._first, self._landscape, self._cost = list(parameters), landscape, cost
        self._data = {id(value) for value in landscape.data.values()}
        self.now = self._first

    def move(self, steps: Sequence[Tensor]) -> None:
        """Sets every parameter to its first value plus its step."""
        self.now = [
            first if id(first) in self._data else (first + step).detach().requires_grad_()
            for first, step in zip(self._first, steps, strict=True)
        ]

    def landscape(self) -> Landscape:
        """The landscape, built from the present tensors."""
        return self._landscape.rebuilt(self._values())

    def cost(self) -> Cost:
        """The cost, its loss with the present tensors."""
        return self._cost.with_tensors(self._values())

    def _values(self) -> dict[int, Tensor]:
        return {id(first): now for first, now in zip(self._first, self.now, strict=True)}
