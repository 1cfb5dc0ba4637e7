"""Losses of the states of nodes; and the nudge, which adds one to the energy."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from eqprop.checks import Count, Fraction
from eqprop.energy.holomorphic import gradient, linearly, log_softmax, softmax
from eqprop.energy.nodes import Node
from eqprop.energy.shapes import expand_like, sum_per_example
from eqprop.energy.terms import Term
from eqprop.errors import InputError

if TYPE_CHECKING:
    from torchmetrics import Metric

Target = Any
"""Labels (batch,) int64, a tensor (batch, *node shape), or a sequence of these for ``WeightedSum``."""


class Loss(nn.Module, ABC):
    """A cost of the states of ``nodes`` for each example. It may have parameters."""

    nodes: tuple[str, ...]
    holomorphic: bool = False
    """Whether it accepts complex states, as its holomorphic extension."""
    quadratic: bool = False
    """Whether ``stiffness`` may differ from 0."""

    @abstractmethod
    def forward(self, target: Target, *states: Tensor) -> Tensor:
        """The loss, (batch,); ``states``: (batch, *node shape) each, in the order of ``nodes``."""

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        """Minus the gradient with respect to the state of ``node``, (batch, *node shape).

        Derived by automatic differentiation; an override must give the same values.
        """
        i = self.nodes.index(node)

        def total(state: Tensor) -> Tensor:
            return self(target, *states[:i], state, *states[i + 1 :]).sum()

        return -gradient(total, states[i])

    def stiffness(self, node: str, target: Target, *states: Tensor) -> Tensor | None:
        """Minus the derivative of the force on a unit of ``node`` by its own state, not negative; ``None`` for 0."""
        return None

    def target_minus_state(self, node: str, target: Target, *states: Tensor) -> Tensor:
        """The state at which a clamp holds ``node``, minus its present state, (batch, *node shape).

        Raises:
            InputError: the loss does not define it.
        """
        raise InputError(
            f"{type(self).__name__} does not say where to hold {node!r}: use the teacher `force`, or a loss with "
            "`target_minus_state`, such as SquaredError."
        )

    @property
    def reader(self) -> Loss:
        """The loss whose ``scores`` are the prediction."""
        return self

    def scores(self, *states: Tensor) -> Tensor:
        """The scores of a prediction, (batch, classes): the first node's state, unless there is a read-out."""
        return states[0]

    def probabilities(self, scores: Tensor) -> Tensor | None:
        """The probabilities of classes, (batch, classes), in the order of the scores; ``None``: no classes.

        Args:
            scores: (batch, ...), as ``scores`` returns them.
        """
        return None

    def metrics(self, target: Target) -> dict[str, Metric]:
        """Metrics of predictions beside the loss, new ones: name -> metric, for ``metric.update(scores, target)``.

        They need torchmetrics. Each of their states should be a tensor that is summed over processes.

        Args:
            target: a batch's, for its kind.
        """
        return {}

    def bind(self, nodes: Mapping[str, Node]) -> None:
        """Called once by the network with its nodes, to check shapes; raises InputError if they do not fit."""

    def check(self, target: Target, batch: int) -> None:
        """Raises InputError if ``target`` is not valid for ``batch`` examples."""


class Valued(Loss):
    """A loss between a node's state and given values.

    Its ``target``: labels (batch,), or values (batch, *shape).

    Args:
        node: its node.
        shape: of that node.
    """

    node = property(lambda self: self.nodes[0])

    def __init__(self, node: str, shape: tuple[int, ...]):
        super().__init__()
        self.nodes, self.shape = (node,), tuple(shape)

    def target_minus_state(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return self._values(target, states[0]) - states[0]

    def bind(self, nodes: Mapping[str, Node]) -> None:
        check_shape(self, nodes[self.nodes[0]], self.shape)

    def check(self, target: Target, batch: int) -> None:
        if isinstance(target, Tensor) and target.shape == (batch, *self.shape) and target.is_floating_point():
            return
        if not isinstance(target, Tensor) or not is_labels(target):
            raise InputError(
                f"{type(self).__name__} wants int64 labels ({batch},) or values {(batch, *self.shape)}, not "
                f"{described(target)}."
            )
        check_labels(target, batch, math.prod(self.shape))

    def metrics(self, target: Target) -> dict[str, Metric]:
        """Of labels their accuracies; of values the squared error and R^2, which are means over outputs."""
        from eqprop.energy import metrics

        outputs = math.prod(self.shape)
        return metrics.of_labels(outputs) if is_labels(target) else metrics.of_values(outputs)

    def _values(self, target: Tensor, state: Tensor) -> Tensor:
        if not is_labels(target):
            return target
        return F.one_hot(target, math.prod(self.shape)).to(state.dtype).view(state.shape)


class SquaredError(Valued):
    """|s - y|^2 / 2, summed over units. ``target``: labels (batch,), or values (batch, *shape)."""

    holomorphic = True
    quadratic = True

    def forward(self, target: Target, *states: Tensor) -> Tensor:
        return 0.5 * sum_per_example(self.target_minus_state(self.nodes[0], target, *states).square())

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return self.target_minus_state(node, target, *states)

    def stiffness(self, node: str, target: Target, *states: Tensor) -> Tensor | None:
        return states[0].new_ones(len(states[0]))

    def probabilities(self, scores: Tensor) -> Tensor | None:
        """Those nearest to the scores, as least squares of labels estimates probabilities."""
        return nearest_probabilities(scores.flatten(1).float())


class BinaryCrossEntropy(Valued):
    """-y log s - (1 - y) log(1 - s), summed over units in [0, 1]. ``target``: labels, or values in [0, 1].

    It matches logistic units: its derivative by their drive is slope * (s - y), so a clamp at y descends it (divided by
    the slope), and not the squared error. As in PyTorch, logarithms are at least -100.

    Raises:
        InputError: when bound, the node's units leave [0, 1]; when used, the target does.
    """

    def forward(self, target: Target, *states: Tensor) -> Tensor:
        values = self._values(target, states[0])
        with torch.autocast(values.device.type, enabled=False):  # CUDA's autocast refuses this loss in any precision
            return sum_per_example(F.binary_cross_entropy(states[0].clamp(0, 1), values, reduction="none"))

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        (state,) = states
        return self.target_minus_state(node, target, state) / (state * (1 - state)).clamp(min=1e-12)

    def probabilities(self, scores: Tensor) -> Tensor | None:
        """Each class's own probability, divided by their sum; equal ones if all are 0."""
        each = scores.flatten(1).float().clamp(0, 1)
        total = each.sum(1, keepdim=True)
        return torch.where(total == 0, 1 / each.shape[1], each / total)

    def metrics(self, target: Target) -> dict[str, Metric]:
        """Accuracies: of labels, or of outputs whose values are 0 or 1; of other values squared error and R^2."""
        from eqprop.energy import metrics

        if is_labels(target) or not bool(((target == 0) | (target == 1)).all()):
            return super().metrics(target)
        return metrics.of_bits()

    def bind(self, nodes: Mapping[str, Node]) -> None:
        super().bind(nodes)
        unit = nodes[self.nodes[0]].unit
        ends = (
            unit.response(torch.tensor([-1e6, 1e6], device="cpu")) if unit is not None else torch.zeros(2, device="cpu")
        )
        if float(ends.min()) < 0 or float(ends.max()) > 1:
            raise InputError(
                f"BinaryCrossEntropy reads {self.nodes[0]!r}, whose units leave [0, 1]: give it a sigmoid unit."
            )

    def check(self, target: Target, batch: int) -> None:
        super().check(target, batch)
        if target.device.type == "cpu" and not is_labels(target) and not bool(((target >= 0) & (target <= 1)).all()):
            raise InputError("BinaryCrossEntropy needs target values in [0, 1]: rescale them, or use SquaredError.")


class CrossEntropy(Loss):
    """-log softmax(s)[y] of a node inside the dynamics, whose unit should be linear. ``target``: labels.

    Args:
        node: its node.
        shape: of that node.
        smoothing: the share of the target's probability that is spread over all classes evenly: label smoothing
            (Szegedy et al. 2016, doi 10.1109/CVPR.2016.308). The loss is then never 0.
    """

    holomorphic = True
    node = property(lambda self: self.nodes[0])

    def __init__(self, node: str, shape: tuple[int, ...], smoothing: Fraction = 0.0):
        super().__init__()
        self.nodes, self.shape, self.smoothing = (node,), tuple(shape), smoothing

    def forward(self, target: Target, *states: Tensor) -> Tensor:
        return cross_entropy(self.scores(*states), target, self.smoothing)

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return softmax_residual(self.scores(*states), target, self.smoothing).view_as(states[0])

    def target_minus_state(self, node: str, target: Target, *states: Tensor) -> Tensor:
        """Minus the gradient, as a clamp at one-hot values would descend the squared error instead."""
        return self.force(node, target, *states)

    def scores(self, *states: Tensor) -> Tensor:
        return states[0].flatten(1)

    def bind(self, nodes: Mapping[str, Node]) -> None:
        check_shape(self, nodes[self.nodes[0]], self.shape)

    def probabilities(self, scores: Tensor) -> Tensor | None:
        return scores.float().softmax(1)

    def metrics(self, target: Target) -> dict[str, Metric]:
        """Accuracies."""
        from eqprop.energy import metrics

        return metrics.of_labels(math.prod(self.shape))

    def check(self, target: Target, batch: int) -> None:
        check_labels(target, batch, math.prod(self.shape))


class ReadoutCrossEntropy(Loss):
    """-log softmax(W vec(s) + b)[y]: a linear read-out that is no part of the dynamics. ``target``: labels.

    Laborieux et al. 2021, section 2, doi 10.3389/fnins.2021.633674. W and b learn from the gradient of this loss at the
    nudged states.

    Args:
        node: the node that is read.
        shape: of that node.
        classes: number of scores.
        smoothing: see ``CrossEntropy``.
    """

    holomorphic = True
    node = property(lambda self: self.nodes[0])
    classes = property(lambda self: self.readout.out_features)

    def __init__(self, node: str, shape: tuple[int, ...], classes: Count, smoothing: Fraction = 0.0):
        super().__init__()
        self.nodes, self.shape, self.smoothing = (node,), tuple(shape), smoothing
        self.readout = nn.Linear(math.prod(shape), classes)

    def forward(self, target: Target, *states: Tensor) -> Tensor:
        return cross_entropy(self.scores(*states), target, self.smoothing)

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        error = softmax_residual(self.scores(*states), target, self.smoothing)
        return linearly(lambda e: e @ self.readout.weight, error).view_as(states[0])

    def scores(self, *states: Tensor) -> Tensor:
        s = states[0].flatten(1)
        if not s.is_complex():
            return self.readout(s)
        return linearly(lambda part: F.linear(part, self.readout.weight), s) + self.readout.bias

    def bind(self, nodes: Mapping[str, Node]) -> None:
        check_shape(self, nodes[self.nodes[0]], self.shape)

    def probabilities(self, scores: Tensor) -> Tensor | None:
        return scores.float().softmax(1)

    def metrics(self, target: Target) -> dict[str, Metric]:
        """Accuracies."""
        from eqprop.energy import metrics

        return metrics.of_labels(self.readout.out_features)

    def check(self, target: Target, batch: int) -> None:
        check_labels(target, batch, self.readout.out_features)


class LinearForce(Loss):
    """<target, s>: the first order of a loss behind this node. ``target``: (batch, *node shape)."""

    holomorphic = True
    node = property(lambda self: self.nodes[0])

    def __init__(self, node: str):
        super().__init__()
        self.nodes = (node,)

    def forward(self, target: Target, *states: Tensor) -> Tensor:
        return sum_per_example(target * states[0])

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return -target

    def target_minus_state(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return -target


class WeightedSum(Loss):
    """sum_i weight_i loss_i, over any nodes. ``target``: one for all, or a tuple or list with one for each loss.

    Args:
        losses: at least one.
        weights: one for each loss; default: 1.

    Raises:
        InputError: there is no loss, or not one weight for each.
    """

    def __init__(self, losses: Sequence[Loss], weights: Sequence[float] | None = None):
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(losses)
        if not losses or len(self.weights) != len(losses):
            raise InputError(f"WeightedSum has {len(losses)} losses and {len(self.weights)} weights: give one each.")
        self.nodes = tuple(dict.fromkeys(node for loss in losses for node in loss.nodes))
        self.holomorphic = all(loss.holomorphic for loss in losses)
        self.quadratic = any(loss.quadratic for loss in losses) and min(self.weights) >= 0

    def forward(self, target: Target, *states: Tensor) -> Tensor:
        parts = [w * loss(t, *self._of(loss, states)) for loss, w, t in self._parts(target)]
        return torch.stack(parts).sum(0)

    def force(self, node: str, target: Target, *states: Tensor) -> Tensor:
        return torch.stack([w * loss.force(node, t, *at) for loss, w, t, at in self._at(node, target, states)]).sum(0)

    def stiffness(self, node: str, target: Target, *states: Tensor) -> Tensor | None:
        parts = [(w, loss.stiffness(node, t, *at)) for loss, w, t, at in self._at(node, target, states)]
        found = [w * part for w, part in parts if part is not None]
        return torch.stack(found).sum(0) if found else None

    def target_minus_state(self, node: str, target: Target, *states: Tensor) -> Tensor:
        parts = self._at(node, target, states)
        return torch.stack([w * loss.target_minus_state(node, t, *at) for loss, w, t, at in parts]).sum(0)

    @property
    def reader(self) -> Loss:
        return self.losses[0].reader  # type: ignore[return-value]

    def scores(self, *states: Tensor) -> Tensor:
        """The first loss's."""
        (first, *_) = self._parts(None)
        return first[0].scores(*self._of(first[0], states))

    def probabilities(self, scores: Tensor) -> Tensor | None:
        """The first loss's."""
        return self.reader.probabilities(scores)

    def metrics(self, target: Target) -> dict[str, Metric]:
        """The first loss's, for its target; they are updated with the whole target."""
        return self._parts(target)[0][0].metrics(self._parts(target)[0][2])

    def bind(self, nodes: Mapping[str, Node]) -> None:
        for loss, _, _ in self._parts(None):
            loss.bind(nodes)

    def check(self, target: Target, batch: int) -> None:
        if isinstance(target, tuple | list) and len(target) != len(self.losses):
            raise InputError(f"WeightedSum has {len(self.losses)} losses and got {len(target)} targets.")
        for loss, _, part in self._parts(target):
            loss.check(part, batch)

    def _parts(self, target: Target) -> list[tuple[Loss, float, Target]]:
        targets = target if isinstance(target, tuple | list) else [target] * len(self.losses)
        return list(zip(self.losses, self.weights, targets, strict=True))  # type: ignore[arg-type]

    def _at(
        self, node: str, target: Target, states: tuple[Tensor, ...]
    ) -> list[tuple[Loss, float, Target, tuple[Tensor, ...]]]:
        """The losses that read ``node``, with their weights, targets and states."""
        return [(loss, w, t, self._of(loss, states)) for loss, w, t in self._parts(target) if node in loss.nodes]

    def _of(self, loss: Loss, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        known = dict(zip(self.nodes, states, strict=True))
        return tuple(known[node] for node in loss.nodes)


class Nudge(Term):
    """scale * loss(target, states) as a term of the energy.

    Args:
        loss, target: as in a ``Cost``.
        scale: (batch,), the nudge of each example, so that phases can share a batch.
        stiff: whether the term has the stiffness of the loss.
    """

    def __init__(self, loss: Loss, target: Target, scale: Tensor, stiff: bool = True):
        self.nodes, self.loss, self.target, self.scale = loss.nodes, loss, target, scale
        self.holomorphic, self.quadratic = loss.holomorphic, stiff and loss.quadratic

    def select(self, examples: Tensor) -> Term:
        return Nudge(self.loss, select_target(self.target, examples), self.scale[examples], self.quadratic)

    def energy(self, *states: Tensor) -> Tensor:
        return self.scale * self.loss(self.target, *states)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        force = self.loss.force(node, self.target, *states)
        return expand_like(self.scale, force) * force

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        own = self.loss.stiffness(node, self.target, *states)
        if own is None:
            return None
        like = states[self.nodes.index(node)]
        return expand_like(self.scale.real, like) * expand_like(own.real, like)


def select_target(target: Target, examples: Tensor) -> Target:
    """The target of a batch made of these examples: of each tensor in it, which may be nested in any way."""
    return tree_map(lambda part: part[examples] if isinstance(part, Tensor) else part, target)


def cross_entropy(scores: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """-sum over classes of p log softmax(scores), (batch,); p: 1 at the label, of which ``smoothing`` is spread."""
    logarithms = log_softmax(scores, 1)
    right = -logarithms.gather(1, labels.unsqueeze(1)).squeeze(1)
    return torch.lerp(right, -logarithms.mean(1), smoothing) if smoothing else right


def softmax_residual(scores: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """p - softmax(scores), (batch, classes), with p as in ``cross_entropy``."""
    target = F.one_hot(labels, scores.shape[1]).to(scores.dtype)
    if smoothing:
        target = (1 - smoothing) * target + smoothing / scores.shape[1]
    return target - softmax(scores, 1)


def nearest_probabilities(values: Tensor) -> Tensor:
    """The nearest numbers >= 0 of sum 1 in each row of ``values``, (batch, classes): its positive part, after a shift.

    Their order is that of the values.
    """
    descending = values.sort(1, descending=True).values
    count = torch.arange(1, values.shape[1] + 1, device=values.device)
    shift = (descending.cumsum(1) - 1) / count
    last = (descending > shift).sum(1, keepdim=True).clamp(min=1) - 1
    return (values - shift.gather(1, last)).clamp(min=0)


def is_labels(target: Tensor) -> bool:
    return target.ndim == 1 and target.dtype == torch.int64


def described(target: object) -> str:
    return f"{tuple(target.shape)} {target.dtype}" if isinstance(target, Tensor) else f"a {type(target).__name__}"


def check_shape(loss: Loss, node: Node, shape: tuple[int, ...]) -> None:
    if node.shape != shape:
        raise InputError(
            f"{type(loss).__name__} is for a node of shape {shape}, but {loss.nodes[0]!r} has shape {node.shape}."
        )


def check_labels(labels: Tensor, batch: int, classes: int) -> None:
    if not isinstance(labels, Tensor) or not is_labels(labels) or len(labels) != batch:
        raise InputError(f"The target must be int64 labels of shape ({batch},), not {described(labels)}.")
    # On an accelerator this check would wait for the device at each step; the loader has checked the labels.
    if labels.device.type == "cpu" and batch and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        bad = labels[(labels < 0) | (labels >= classes)][0]
        raise InputError(f"Label {int(bad)} is outside 0..{classes - 1}: the network has {classes} outputs.")
