"""An equilibrium network as an ``nn.Module`` that learns through ordinary autograd."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from eqprop.energy.landscape import Landscape
from eqprop.energy.losses import LinearForce, Target, described
from eqprop.energy.network import Data, Network
from eqprop.energy.shapes import example_dims, expand_like, transformed
from eqprop.energy.substitution import resolve, swap, tensors_of
from eqprop.errors import InputError, NotSettledError, NotSettledWarning
from eqprop.learning.estimators import Cost, Estimator, GradientEstimate
from eqprop.settling.solvers import Solution

OnUnsettled = Literal["warn", "raise", "ignore"]


NO_TRANSFORM = (
    "torch.func transforms (grad, vjp, jacrev, vmap) cannot pass through an equilibrium's gradient: call "
    "loss.backward() or torch.autograd.grad. Predictions under vmap need torch.no_grad() and FixedSweeps."
)


class Record:
    """The phases of one step, for metrics: pass one to a call, read it after ``backward``.

    Attributes:
        scores: (batch, classes), read from the free equilibrium.
        free: the settled free phase.
        nudged: the settled nudged phases, stacked, those of real nudges first; ``None`` before ``backward``, or for a
            rule without them.
    """

    def __init__(self) -> None:
        self.scores: Tensor | None = None
        self.free: Solution | None = None
        self.nudged: Solution | None = None


class Equilibrium(nn.Module):
    """A network with its estimator, as a module that learns through autograd.

    >>> model = Equilibrium(network, EquilibriumPropagation(symmetric(0.5), FixedSweeps(60), FixedSweeps(20)))
    >>> model.loss(x, y).backward()         # the nudged phases run here, with the true loss energy
    >>> F.cross_entropy(model(x), y).backward()     # any loss and any module downstream; x gets a gradient too

    In both cases gradients are written to ``parameter.grad``, and optimisers, schedulers, clipping, accumulation,
    parametrisations and ``DistributedDataParallel`` work as for any module. The module stores nothing about a batch. As
    for any PyTorch function, data and parameters must not be changed between a call and its ``backward``.

    Under ``torch.autocast`` messages (convolutions, matrix products) have 16 bits, in the nudged phases too although
    ``backward`` is called outside; states, sums, weights and gradients keep their precision. bfloat16 has the range
    that gradients need. In 16 bits small nudges are lost to rounding in the form ``states``: use ``displacements``.

    ``model(x, y)`` is ``model.loss(x, y)``: wrappers such as ``DistributedDataParallel`` only forward calls.

    Args:
        network: the network that settles.
        estimator: how its gradient is estimated.
        on_unsettled: what to do if a phase does not settle: "warn" (once for each model), "raise" or "ignore".

    Raises:
        InputError: an argument is of the wrong kind.
        NotSettledError: a phase did not settle, and ``on_unsettled`` is "raise".
    """

    def __init__(self, network: Network, estimator: Estimator, on_unsettled: OnUnsettled = "warn"):
        super().__init__()
        self.network, self.estimator, self.on_unsettled = network, estimator, on_unsettled
        self._warned = self._rounded = False

    def extra_repr(self) -> str:
        return f"estimator={type(self.estimator).__name__}, on_unsettled={self.on_unsettled!r}"

    def forward(
        self, x: Data, target: Target = None, weight: Tensor | None = None, record: Record | None = None
    ) -> Tensor:
        """The output, (batch, ...); with ``target`` the mean loss, a scalar. Arguments as for ``loss``."""
        try:
            call = Call(self, x, record if record is not None else Record())
            return call.output() if target is None else call.loss(target, weight)
        except RuntimeError as error:
            if not transformed():
                raise
            raise InputError(f"{NO_TRANSFORM} (torch: {str(error).splitlines()[0]})") from error

    def loss(self, x: Data, target: Target, weight: Tensor | None = None, record: Record | None = None) -> Tensor:
        """The mean over the batch of weight * loss at the free equilibrium; its backward is the estimator's.

        Args:
            x: (batch, *input shape); for several clamped nodes a mapping from names to such tensors.
            target: labels (batch,), or what the network's loss takes.
            weight: (batch,), signed: the factor of each example in the loss and its gradient; default 1.
            record: is filled with the phases, for metrics.

        Raises:
            InputError: the network has no loss, or x, target or weight do not fit it.
        """
        if target is None:
            raise InputError("loss needs a target: without one, call the model itself for its output.")
        return self(x, target, weight, record)

    def generators(self) -> Iterable[torch.Generator]:
        """The random generators of the estimator and of the substrate; a checkpoint stores their states."""
        return (*self.estimator.generators(), *self.network.substrate.generators())

    @torch.no_grad()
    def settle(self, x: Data) -> Solution:
        """The free equilibrium: states, residuals, sweeps and status."""
        solution = self.estimator(self.network.landscape(x))[0]
        self.check_settled("free", solution)
        return solution

    def check_precision(self, landscape: Landscape) -> None:
        """Warns once if a GPU rounds the messages of ``landscape``, and the estimator compares states that are close.

        By default PyTorch computes convolutions of 32 bits on a GPU in TF32, with 10 bits of mantissa.
        """
        if self._rounded or not rounds(landscape.like) or self.estimator.sixteen_bits(landscape):
            return
        self._rounded = True
        warnings.warn(
            "The convolutions of this GPU keep 10 bits of the mantissa (TF32, PyTorch's default), too few for "
            "estimators that compare states, as EquilibriumPropagation in the form `states`. Set "
            "torch.backends.cudnn.allow_tf32 = False, or use the form `displacements`. (Shown once.)",
            UserWarning,
            stacklevel=2,
        )

    def check_settled(self, phase: str, solution: Solution | None) -> None:
        """Warns or raises, as ``on_unsettled`` says, if an example of ``solution`` did not settle."""
        if solution is None or self.on_unsettled == "ignore" or self._warned or transformed():
            return
        if told := solution.explain():
            text = f"The {phase} phase did not settle: {told}"
            if self.on_unsettled == "raise":
                raise NotSettledError(text)
            self._warned = True
            warnings.warn(f'{text} (Shown once; on_unsettled="ignore" hides it.)', NotSettledWarning, stacklevel=2)


class Call:
    """One forward call: the network as it is at that moment, with a leaf for each tensor that it computes with.

    One autograd function has those tensors as its inputs, and the leaves share their memory. Its backward
    differentiates with respect to the leaves; autograd continues from the tensors to what computed them.
    """

    def __init__(self, model: Equilibrium, x: Data, record: Record):
        self.model, self.record = model, record
        x = in_precision_of(next(model.parameters(), torch.empty(0)), x)
        given = [x] if isinstance(x, Tensor) else list(x.values()) if isinstance(x, Mapping) else []
        network = resolve(model.network)
        every = [each for each in (*given, *tensors_of(network)) if isinstance(each, Tensor)]
        self.tensors = list({id(each): each for each in every}.values())
        self.leaves = [leaf_of(each) for each in self.tensors]
        places = {id(tensor): leaf for tensor, leaf in zip(self.tensors, self.leaves, strict=True)}
        data = {n: places.get(id(v), v) for n, v in x.items()} if isinstance(x, Mapping) else places.get(id(x), x)
        self.network = swap(network, places)
        self.batch = len(given[0]) if given and isinstance(given[0], Tensor) and given[0].ndim else 0
        with torch.no_grad():
            masks = self.network.draw_masks(self.batch) if model.training else None
            landscape = self.network.landscape(data, masks)
            model.check_precision(landscape)
            self.free, self.learn = model.estimator(landscape)
            self.shown = landscape.masked(landscape.substrate.measured(self.free.state, -1))
            record.free, record.scores = self.free, self.network.scores(self.shown)
        self.landscape = landscape
        model.check_settled("free", self.free)

    def output(self) -> Tensor:
        """The output node's state, or the loss's read-out of it.

        In backward, each example's incoming gradient, scaled to length 1, is its nudging force, and its part of the
        result is scaled back. So the result is linear in the incoming gradient, for a loss of any scale.
        """
        node, loss = self.network.output, self.model.network.loss
        learn, record = self.learn, self.record

        def backward(gradient: Tensor, parameters: Sequence[Tensor]) -> GradientEstimate:
            force, size = normalised(gradient)
            return learn(Cost(LinearForce(node), force, len(gradient) * size), parameters)

        output = self._attach(self.shown[node], backward, record, self._without_loss())
        reader = loss.reader if loss is not None else None
        return reader.scores(output) if reader is not None and reader.nodes == (node,) else output

    def loss(self, target: Target, weight: Tensor | None) -> Tensor:
        """The mean loss."""
        loss = self.network.loss
        if loss is None:
            raise InputError("The network has no loss: build it with one, or apply your own to its output.")
        loss.check(target, self.batch)
        like = self.shown[loss.nodes[0]]
        weight = like.new_ones(self.batch) if weight is None else weight
        if not isinstance(weight, Tensor) or weight.shape != (self.batch,) or weight.is_complex():
            raise InputError(f"weight must be one real number an example, ({self.batch},), not {described(weight)}.")
        for each in tensors_in(target):
            if each.is_complex() or (each.is_floating_point() and each.dtype != like.dtype):
                raise InputError(f"The target is {each.dtype}, the network's states are {like.dtype}: convert it.")
            if each.device != like.device:
                raise InputError(f"The target is on {each.device}, the network on {like.device}: move it there.")
        weight = weight.to(like)
        learn, held = (
            self.learn,
            tree_map(lambda each: each.detach() if isinstance(each, Tensor) else each, (target, weight)),
        )

        def backward(gradient: Tensor, parameters: Sequence[Tensor]) -> GradientEstimate:
            estimate = learn(Cost(loss, held[0], held[1]), parameters)
            return estimate._replace(gradients=tuple(gradient * each for each in estimate.gradients))

        # Target and weight have the loss's own derivative at the equilibrium, as the free state depends on neither.
        fixed = swap(loss, {id(each): each.detach() for each in tensors_of(loss)})
        cost = Cost(fixed, target, weight)
        value = cost.mean(cost.values(self.landscape, self.free.state))
        return self._attach(value, backward, self.record, self.leaves, tensors_in((target, weight)))

    def _without_loss(self) -> list[Tensor]:
        """All leaves except those of the loss alone, whose read-out is applied outside."""
        loss = self.network.loss
        coupled = {id(each) for each in tensors_of(self.network.couplings)}
        outside = {id(each) for each in tensors_of(loss)} - coupled if loss is not None else set()
        return [leaf for leaf in self.leaves if id(leaf) not in outside]

    def _attach(
        self,
        value: Tensor,
        backward: Callable[[Tensor, Sequence[Tensor]], GradientEstimate],
        record: Record,
        leaves: Sequence[Tensor],
        watched: Sequence[Tensor] = (),
    ) -> Tensor:
        """``value`` as a function of the data and the parameters; its derivative is ``backward``."""
        places = {id(leaf): tensor for leaf, tensor in zip(self.leaves, self.tensors, strict=True)}
        tensors = [places[id(leaf)] for leaf in leaves]
        if not torch.is_grad_enabled() or not (value.requires_grad or any(each.requires_grad for each in tensors)):
            return value
        if transformed():
            raise InputError(NO_TRANSFORM)
        device, model = value.device.type, self.model
        bits = torch.autocast(device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        wanted = [leaf for leaf in leaves if leaf.requires_grad]

        def learn(gradient: Tensor) -> list[Tensor | None]:
            if not wanted:
                return [None for _ in leaves]
            torch.clear_autocast_cache()  # it may hold weights that were cast outside grad mode
            with bits:  # the precision of the forward call: autograd runs backward outside autocast
                estimate = backward(gradient, wanted)
            record.nudged = estimate.nudged
            model.check_settled("nudged", estimate.nudged)
            found = iter(estimate.gradients)
            return [laid_out_as(leaf, next(found)) if leaf.requires_grad else None for leaf in leaves]

        result: Tensor = EquilibriumFunction.apply(value, learn, *tensors, *watched)
        return result


class EquilibriumFunction(torch.autograd.Function):
    """``value`` as a function of tensors; ``learn`` computes its derivative.

    The tensors are saved for backward, so PyTorch detects one that was changed in place; ``learn`` is freed with the
    graph.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, learn: Callable[[Tensor], list[Tensor | None]], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.learn = learn
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        if transformed():
            raise InputError(NO_TRANSFORM)
        twice = torch.is_grad_enabled()
        with torch.no_grad():
            found = ctx.learn(gradient)
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.learn = None
        found += [None] * (len(saved) - len(found))
        if twice:  # with create_graph=True: the result cannot be differentiated again
            found = [each if each is None else Once.apply(each, gradient, *saved) for each in found]
        return gradient, None, *found


class Once(torch.autograd.Function):
    """A gradient that depends on ``sources`` and cannot be differentiated with respect to them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *sources: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "The gradient of an equilibrium cannot be differentiated twice: leave out gradient penalties and second "
            "derivatives through it."
        )


def rounds(tensor: Tensor) -> bool:
    """Whether convolutions of ``tensor`` are rounded to TF32, as PyTorch does on a GPU if nothing else was set."""
    if not tensor.is_cuda or tensor.dtype != torch.float32 or torch.is_autocast_enabled(tensor.device.type):
        return False
    with contextlib.suppress(RuntimeError):  # set by PyTorch's newer interface, so by somebody who knows
        return torch.backends.cudnn.allow_tf32
    return False


def normalised(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Each example's gradient, (batch, ...), as a direction of length 1, and its length, (batch,).

    A gradient of 0 has direction 0; one that is not finite has direction 0 and length nan.
    """
    dims = example_dims(gradient)
    largest = gradient.abs().amax(dims, keepdim=True)
    usable = (largest > 0) & largest.isfinite()
    scaled = torch.where(usable, gradient / torch.where(usable, largest, 1), 0)
    length = torch.linalg.vector_norm(scaled, dim=dims)
    force = scaled / expand_like(torch.where(length > 0, length, 1), scaled)
    size = length * largest.view(-1)
    return force, torch.where(largest.view(-1).isfinite(), size, torch.nan)


def in_precision_of(parameter: Tensor, data: Data) -> Data:
    """Under autocast, data of other precisions as the network's own, in which its states are; else as they are."""
    if isinstance(data, Mapping):
        return {name: in_precision_of(parameter, each) for name, each in data.items()}  # type: ignore[misc]
    if not isinstance(data, Tensor) or not data.is_floating_point():
        return data
    return data.to(parameter.dtype) if torch.is_autocast_enabled(data.device.type) else data


def laid_out_as(tensor: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of ``tensor``, as optimisers and data-parallel wrappers expect it."""
    if gradient.shape != tensor.shape or gradient.stride() == tensor.stride():
        return gradient
    return torch.empty_like(tensor).copy_(gradient)


def leaf_of(tensor: Tensor) -> Tensor:
    """The same values in the same memory, detached from their graph; a leaf unless a transform is active."""
    return tensor.detach() if transformed() else tensor.detach().requires_grad_(tensor.requires_grad)


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a target or a batch, however nested, also in mappings that are no ``dict``."""
    found = []
    for each in tree_leaves(value):
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, Mapping):
            found += tensors_in(list(each.values()))
    return found
