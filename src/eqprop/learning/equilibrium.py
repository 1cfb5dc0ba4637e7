"""An equilibrium network as an ``nn.Module`` that learns through ordinary autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eqprop.energy.attached import Attached
from eqprop.energy.losses import LinearForce, Target
from eqprop.energy.network import Landscape, Network
from eqprop.errors import InputError
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate, GradientFunction
from eqprop.settling.solvers import Solution


class Record:
    """What happened in one step, for metrics: pass one to a call, read it after ``backward``.

    Attributes:
        scores: (batch, classes), read off the free equilibrium.
        free: the settled free phase.
        nudged: the settled nudged phases, stacked, those of real nudges first; ``None`` before ``backward``, or for a
            rule without them.
    """

    def __init__(self) -> None:
        self.scores: Tensor | None = None
        self.free: Solution | None = None
        self.nudged: Solution | None = None


class Equilibrium(nn.Module):
    """A network, and how it learns.

    >>> model = Equilibrium(network, EquilibriumPropagation(symmetric(0.5), FixedSweeps(60), FixedSweeps(20)))
    >>> model.loss(x, y).backward()         # the nudged phases run here, with the true loss energy
    >>> F.cross_entropy(model(x), y).backward()     # any loss and any module downstream; x gets a gradient too

    Under ``torch.autocast`` messages (convolutions, matrix products) have 16 bits, in the nudged phases too although
    ``backward`` is called outside; states, sums, weights and gradients keep their precision. bfloat16 has the range
    that gradients need. The ordinary form drowns in 16 bits where nudges are small: use the difference form there.

    Either way gradients reach ``parameter.grad``, and optimisers, schedulers, clipping, accumulation and
    ``DistributedDataParallel`` work as for any module. Nothing about a batch is kept on the module.

    ``model(x, y)`` is ``model.loss(x, y)``: wrappers such as ``DistributedDataParallel`` only forward calls.
    """

    def __init__(self, network: Network, estimator: Estimator):
        super().__init__()
        self.network, self.estimator = network, estimator

    def forward(
        self, x: Tensor, target: Target = None, weight: Tensor | None = None, record: Record | None = None
    ) -> Tensor:
        """Without ``target`` the output, (batch, ...); with one the mean loss, a scalar."""
        record = record if record is not None else Record()
        return self._output(x, record) if target is None else self._loss(x, target, weight, record)

    def loss(self, x: Tensor, target: Target, weight: Tensor | None = None, record: Record | None = None) -> Tensor:
        """The mean over the batch of weight * loss at the free equilibrium; its backward is the estimator's.

        Args:
            x: (batch, *input shape)
            target: labels (batch,), or what the network's loss takes.
            weight: (batch,), signed: each example's share; default 1. It scales that example's nudge.
            record: filled with what happened, for metrics.

        Raises:
            InputError: the network has no loss, or x or target do not fit it.
        """
        if target is None:
            raise InputError("loss needs a target: without one, call the model itself for its output.")
        return self(x, target, weight, record)

    @torch.no_grad()
    def settle(self, x: Tensor) -> Solution:
        """The free equilibrium: states, residuals and sweeps."""
        return self.estimator(self.network.landscape(x))[0]

    def _output(self, x: Tensor, record: Record) -> Tensor:
        """The output node's state, or what the loss's read-out makes of it.

        Backward, the incoming gradient times the batch size is the nudging force: with a loss that is a mean over
        the batch, that is each example's own gradient, and ``beta`` means what it means in ``loss``.
        """
        node, loss = self.network.output, self.network.loss
        data, parameters = leaves(x, self.network.couplings)
        landscape, free, learn = self._settle(data, record)

        def backward(gradient: Tensor) -> GradientEstimate:
            batch = len(gradient)
            force = Cost(LinearForce(node), batch * gradient, gradient.new_ones(batch))
            return learn(force, wanted(data, parameters))

        output = attach(landscape.masked(free.state)[node], backward, record, x, parameters)
        return loss.scores(output) if loss is not None and loss.nodes == (node,) else output

    def _loss(self, x: Tensor, target: Target, weight: Tensor | None, record: Record) -> Tensor:
        loss = self.network.loss
        if loss is None:
            raise InputError("The network has no loss: build it with one, or apply your own to its output.")
        loss.check(target, len(x))
        weight = x.new_ones(len(x)) if weight is None else weight.to(x)
        if weight.shape != (len(x),):
            raise InputError(f"weight must be one number an example, ({len(x)},), not {tuple(weight.shape)}.")
        data, parameters = leaves(x, self.network)
        landscape, free, learn = self._settle(data, record)
        cost = Cost(loss, target, weight)

        def backward(gradient: Tensor) -> GradientEstimate:
            learnt = learn(cost, wanted(data, parameters))
            return learnt._replace(gradients=tuple(gradient * each for each in learnt.gradients))

        with torch.no_grad():
            value = cost.values(landscape, free.state).mean()
        return attach(value, backward, record, x, parameters)

    def _settle(self, data: Tensor, record: Record) -> tuple[Landscape, Solution, GradientFunction]:
        network = self.network
        with torch.no_grad():
            landscape = network.landscape(data, network.draw_masks(len(data)) if self.training else None)
            free, learn = self.estimator(landscape)
            record.free, record.scores = free, network.scores(landscape.masked(free.state))
        return landscape, free, learn


def leaves(x: Tensor, module: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """The data cut off from whatever made them, and the parameters that learn."""
    return x.detach().requires_grad_(x.requires_grad), [p for p in module.parameters() if p.requires_grad]


def wanted(data: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    return [data, *parameters] if data.requires_grad else parameters


def attach(
    value: Tensor, backward: Callable[[Tensor], GradientEstimate], record: Record, x: Tensor, parameters: list[Tensor]
) -> Tensor:
    """``value`` as a function of the data and the parameters whose derivative is ``backward``."""

    device = x.device.type
    bits = torch.autocast(device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

    def learn(gradient: Tensor) -> tuple[Tensor | None, ...]:
        with bits:  # those of the forward call: autograd runs backward outside it
            learnt = backward(gradient)
        record.nudged = learnt.nudged
        return learnt.gradients if x.requires_grad else (None, *learnt.gradients)

    return Attached.apply(value, learn, x, *parameters)
