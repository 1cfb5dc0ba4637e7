"""Predictions: the terms of predictive coding. Each node is held at a function of the node before it.

The energy of a chain, sum_k |h_k - f_k(h_(k-1))|^2 / 2, is 0 in the feedforward pass, which is the free state: the
nodes are ``Wire``, without energy of their own. Nudged states have prediction errors e_k = h_k - f_k(h_(k-1)), and are
often saddles of the nudged energy (Kerjan et al. 2026, arXiv 2606.03584).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from eqprop.energy.attached import attached
from eqprop.energy.couplings import Coupling
from eqprop.energy.holomorphic import gradient
from eqprop.energy.maps import Map, ModuleMap
from eqprop.energy.nodes import Node
from eqprop.energy.shapes import channels_last, example_dims, expand_like, sum_per_example, transformed
from eqprop.energy.terms import Clamped, Term
from eqprop.errors import InputError


class Prediction(Coupling):
    """|post - f(pre)|^2 / 2: ``pre`` predicts ``post`` by a module f of any kind.

    Its drive on ``post`` is minus the prediction error, and on ``pre`` the error through the transposed derivative of
    f. Nonlinearities are inside f: with nodes of ``Wire`` the free state of a chain of predictions is its feedforward
    pass, of energy 0 (Kerjan et al. 2026, arXiv 2606.03584). One prediction holds each node; for two inputs of a node,
    let a module read a node that holds both.

    Args:
        pre, post: the two nodes.
        module: f, from the shape of ``pre`` to that of ``post``: a ``Map``, or any ``nn.Module`` whose output depends
            on its input only.

    Raises:
        InputError: ``pre`` is ``post``; when bound, the module does not fit the nodes, is random or mixes examples; or
            a node has dropout.
    """

    quadratic = True
    module: Map
    pre, post = property(lambda self: self.nodes[0]), property(lambda self: self.nodes[1])

    def __init__(self, pre: str, post: str, module: nn.Module):
        super().__init__()
        if pre == post:
            raise InputError(f"{pre!r} cannot predict itself: name two nodes.")
        self.nodes, self.module = (pre, post), module  # type: ignore[assignment]

    def energy(self, *states: Tensor) -> Tensor:
        pre, post = states
        return half_square(post - self.module(pre))

    def drive(self, node: str, *states: Tensor) -> Tensor:
        pre, post = states
        if node == self.nodes[1]:
            return self.module(pre) - post
        return -gradient(lambda at: self.energy(at, post).sum(), pre)

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return states[1].new_ones(()) if node == self.nodes[1] else None

    def clamp(self, data: Mapping[str, Tensor]) -> Term:
        pre, post = self.nodes
        if post in data:
            return Clamped(self, data)
        return GivenPrediction(post, self.module(data[pre])) if pre in data else PlacedPrediction(self)

    def bind(self, nodes: Mapping[str, Node]) -> None:
        pre, post = self.nodes
        if not isinstance(self.module, Map):
            self.module = ModuleMap(self.module, nodes[pre].shape)
        for name, shape in ((pre, self.module.in_shape), (post, self.module.out_shape)):
            if nodes[name].shape != shape:
                raise InputError(
                    f"The prediction {self.name} maps {self.module.in_shape} to {self.module.out_shape}, but node "
                    f"{name!r} has shape {nodes[name].shape}."
                )
            if nodes[name].dropout:
                raise InputError(f"Node {name!r} has dropout, which a prediction would count as an error: set it to 0.")


class Predicted(Term):
    """A prediction in one landscape: of the last of its nodes."""

    quadratic = True

    @abstractmethod
    def predicted(self, *pre: Tensor) -> Tensor:
        """The prediction at the states of the nodes but the last, (batch, *node shape)."""

    def energy(self, *states: Tensor) -> Tensor:
        return half_square_to_learn(self.predicted(*states[:-1]), states[-1])

    def stiffness(self, node: str, *states: Tensor) -> Tensor | None:
        return states[-1].new_ones(()) if node == self.nodes[-1] else None


class GivenPrediction(Predicted):
    """A prediction by data, (batch, *node shape), computed once for a batch."""

    def __init__(self, node: str, value: Tensor):
        self.nodes, self.value = (node,), value

    def predicted(self, *pre: Tensor) -> Tensor:
        return self.value

    def drive(self, node: str, *states: Tensor) -> Tensor:
        return self.value - states[0]

    def select(self, examples: Tensor) -> Term:
        copies, rest = divmod(len(examples), len(self.value))
        if not rest and torch.equal(examples, torch.arange(len(self.value), device=examples.device).repeat(copies)):
            return GivenPrediction(self.nodes[0], torch.cat([self.value] * copies))  # its derivative is cheaper
        return GivenPrediction(self.nodes[0], channels_last(self.value.index_select(0, examples)))


@dataclass(frozen=True, eq=False)
class Recorded:
    """The value of a prediction at one state, with its autograd graph.

    Attributes:
        pre: (copies * batch, *pre shape), what it was computed from.
        version: of that tensor: a change in place is seen.
        autocast: whether messages had 16 bits.
        at: (batch, *pre shape), a leaf of the graph.
        value: (copies * batch, *post shape), detached.
        graph: (batch, *post shape), with the graph to ``at`` and to the parameters.
        copies: how often the batch is repeated.
    """

    pre: Tensor
    version: int
    autocast: bool
    at: Tensor
    value: Tensor
    graph: Tensor
    copies: int = 1

    def is_of(self, pre: Tensor) -> bool:
        """Whether it is the value at ``pre``, in the precision that messages have now."""
        return self.pre is pre and self.version == pre._version and self.autocast == in_16_bits(pre)

    def pulled(self, error: Tensor) -> Tensor:
        """``error``, (copies * batch, *post shape), through the transposed derivative."""
        parts = [
            torch.autograd.grad(self.graph, self.at, each, retain_graph=True)[0]
            for each in error.to(self.graph.dtype).chunk(self.copies)
        ]
        return parts[0] if self.copies == 1 else torch.cat(parts)


class PlacedPrediction(Predicted):
    """A prediction between free nodes in one landscape; outside grad mode it records the latest evaluation.

    One evaluation serves the value, all drives at the same state and, if a rule reads that state, the derivative by the
    parameters. Copies of a batch (``select``) go on with the evaluation of the batch itself as long as their states are
    copies too.
    """

    def __init__(self, prediction: Prediction, source: Recorded | None = None, examples: Tensor | None = None):
        self.prediction, self.nodes = prediction, prediction.nodes
        self._source, self._examples = source, examples
        self._latest: Recorded | None = None
        self._selected: PlacedPrediction | None = None

    def predicted(self, *pre: Tensor) -> Tensor:
        return self._record(pre[0]).value if records() else self.prediction.module(pre[0])

    def pulled(self, pre: Tensor, error: Tensor) -> Tensor:
        """``error``, (batch, *post shape), through the transposed derivative at ``pre``."""
        if records():
            return self._record(pre).pulled(error)
        return gradient(lambda at: (self.prediction.module(at) * error).sum(), pre)

    def drive(self, node: str, *states: Tensor) -> Tensor:
        if not records():
            return self.prediction.drive(node, *states)
        pre, post = states
        found = self._record(pre)
        return found.value - post if node == self.nodes[1] else found.pulled(post - found.value)

    def energy(self, *states: Tensor) -> Tensor:
        pre, post = states
        latest = self._latest
        if torch.is_grad_enabled() and latest is not None and latest.copies == 1 and latest.is_of(pre):
            return half_square_to_learn(latest.graph, post)
        return self.prediction.energy(pre, post)

    def select(self, examples: Tensor) -> Term:
        """The term for these examples; the same object for the same ones, so that a rule finds what it recorded."""
        last = self._selected
        if last is None or last._examples is None or not torch.equal(last._examples, examples):
            last = self._selected = PlacedPrediction(self.prediction, self._latest, examples)
        return last

    def _record(self, pre: Tensor) -> Recorded:
        if self._latest is None or not self._latest.is_of(pre):
            self._latest = self._copied(pre) or self._evaluated(pre)
        return self._latest

    def _evaluated(self, pre: Tensor) -> Recorded:
        with torch.enable_grad():
            at = pre.detach().requires_grad_()
            graph = self.prediction.module(at)
        return Recorded(pre, pre._version, in_16_bits(pre), at, graph.detach(), graph)

    def _copied(self, pre: Tensor) -> Recorded | None:
        """The record of the batch that ``pre`` repeats; ``None`` if it repeats none."""
        source = self._source
        self._source = None  # of the first state only
        if source is None or source.copies != 1 or source.autocast != in_16_bits(pre):
            return None
        copies, rest = divmod(len(pre), len(source.at))
        if rest or not all(torch.equal(part, source.at) for part in pre.split(len(source.at))):
            return None
        value = torch.cat([source.value] * copies)
        return replace(source, pre=pre, version=pre._version, value=value, copies=copies)


def records() -> bool:
    """Whether an evaluation may be recorded: not under a transform, nor where the caller's own graph is built."""
    return not (torch.is_grad_enabled() or torch.is_inference_mode_enabled() or transformed())


def in_16_bits(like: Tensor) -> bool:
    """Whether messages have 16 bits now."""
    return torch.is_autocast_enabled(like.device.type)


def half_square(error: Tensor) -> Tensor:
    """|error|^2 / 2, (batch,)."""
    return 0.5 * sum_per_example(error.square())


def half_square_to_learn(value: Tensor, post: Tensor) -> Tensor:
    """|value - post|^2 / 2, (batch,), whose derivative by the graph of ``value`` takes one product."""
    if not value.requires_grad or post.requires_grad or transformed():
        return half_square(value - post)
    with torch.no_grad():
        error = value - post
        size = 0.5 * torch.linalg.vector_norm(error, dim=example_dims(error)).square()

    def backward(each: Tensor) -> tuple[Tensor]:
        return ((expand_like(each, error) * error).to(value.dtype),)

    return size + attached(len(error), backward, value)
