"""Steps that are captured once as a CUDA graph, and then replayed; and batches that are prepared ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from eqprop.energy.prediction import Prediction
from eqprop.errors import InputError
from eqprop.learning.equilibrium import Equilibrium, tensors_in
from eqprop.learning.references import Backpropagation
from eqprop.learning.rules import Noisy
from eqprop.learning.stencils import Nudging, Stencil

Step = Callable[[Any, Any], Any]
"""(x, y) -> tensors, however nested; it also sets the gradient of each parameter, from ``None``."""

WARM_UP = 3
"""Steps before a capture, in which libraries choose their algorithms and allocate their memory."""
LEAVE_OUT = "leave out --cuda_graph."


class NotCapturableError(InputError):
    """The steps of a run cannot be a CUDA graph, for example as they must differ; raised before the first of them."""


def check_capturable(model: Equilibrium, device: torch.device, processes: int) -> None:
    """Raises NotCapturableError where a run's steps cannot be a CUDA graph."""
    network, parts = model.network, list(parts_of(model.estimator))
    drops = [name for name, node in network.free.items() if node.dropout]
    draws = [type(part).__name__ for part in parts if isinstance(part, Noisy) or not_fixed(part)]
    waits = any(isinstance(term, Prediction) for term in network.terms.values())
    waits = waits and not isinstance(model.estimator, Backpropagation)
    reasons = {
        f"the device is {device.type}, not cuda": device.type != "cuda",
        f"{processes} processes share a batch": processes > 1,
        f"the network runs on {network.substrate}": not network.substrate.is_ideal,
        "predictive-coding couplings compare states, which waits for the device": waits,
        f"units of {drops} are dropped at random": bool(drops),
        "its estimator draws random numbers": any(True for _ in model.estimator.generators()),
        f"{', '.join(draws)} may differ from step to step": bool(draws),
        f'on_unsettled={model.on_unsettled!r} waits for each step: take "ignore"': model.on_unsettled != "ignore",
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise NotCapturableError(f"This run cannot be captured in a CUDA graph ({'; '.join(found)}): {LEAVE_OUT}")


def parts_of(value: Any) -> Iterator[Any]:
    """The fields of a dataclass, and the fields of these."""
    for each in fields(value) if is_dataclass(value) and not isinstance(value, type) else ():
        part = getattr(value, each.name)
        yield part
        yield from parts_of(part)


def not_fixed(part: Any) -> bool:
    return isinstance(part, Nudging) and not isinstance(part, Stencil)


@dataclass
class Captured:
    """A graph of a step for batches of one shape, with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    found: Any
    gradients: list[Tensor | None]
    places: list[tuple[int, bool]]


class Graphed:
    """A step for batches of any shape; each shape is captured at its first batch.

    What it returns, and the gradients, are overwritten by the next batch of the same shape.

    Args:
        step: what is captured. It must not wait for the device, or depend on anything else that changes.
        model: whose gradients it sets, on a CUDA device.
    """

    def __init__(self, step: Step, model: Equilibrium):
        self.step, self.model, self.parameters = step, model, list(model.parameters())
        self.captured: dict[tuple[Any, ...], Captured] = {}
        self.pool: Any = None

    def __call__(self, x: Any, y: Any) -> Any:
        leaves, structure = tree_flatten((x, y))
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        others = [each for each in leaves if not isinstance(each, Tensor)]
        if strange := [each for each in others if not isinstance(each, bool | int | float | str | None)]:
            raise InputError(f"A batch with a {type(strange[0]).__name__} cannot be captured: {LEAVE_OUT}")
        kind = (str(structure), *map(repr, others), *((each.shape, each.dtype, each.stride()) for each in tensors))
        with torch.cuda.device(self.parameters[0].device):
            if kind not in self.captured:
                self.captured[kind] = self._capture(x, y)
            captured = self.captured[kind]
            if captured.places != self._places():
                raise InputError(
                    "A parameter or a buffer has moved to other memory, or was frozen or freed, since the step was "
                    f"captured: change values in place (p.copy_), or {LEAVE_OUT}"
                )
            for own, new in zip(captured.inputs, tensors, strict=True):
                own.copy_(new)
            captured.graph.replay()
        for parameter, gradient in zip(self.parameters, captured.gradients, strict=True):
            parameter.grad = gradient
        return captured.found

    def _places(self) -> list[tuple[int, bool]]:
        return [(each.data_ptr(), each.requires_grad) for each in (*self.parameters, *self.model.buffers())]

    def _capture(self, x: Any, y: Any) -> Captured:
        x, y = tree_map(lambda each: each.clone() if isinstance(each, Tensor) else each, (x, y))
        # What the steps before the capture change: a run that goes on captures again, and has the same bits.
        buffers = [(each, each.clone()) for each in self.model.buffers()]
        random = torch.get_rng_state(), torch.cuda.get_rng_state()
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.step(x, y)
        torch.cuda.current_stream().wait_stream(stream)
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                found = self.step(x, y)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise InputError(
                "A step of this run cannot be captured in a CUDA graph; if a part of it waits for the device, that is "
                f"why ({str(error).splitlines()[0]}): {LEAVE_OUT}"
            ) from error
        self.pool = graph.pool()
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        torch.set_rng_state(random[0])
        torch.cuda.set_rng_state(random[1])
        return Captured(graph, tensors_in((x, y)), found, [each.grad for each in self.parameters], self._places())


def ahead(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """The batches; on CUDA each is prepared on a stream of its own, while the step before it runs there."""
    if device.type != "cuda":
        yield from batches
        return
    stream, source = torch.cuda.Stream(device), iter(batches)
    stream.wait_stream(torch.cuda.current_stream(device))  # what the batches are made of
    while True:
        with torch.cuda.stream(stream):
            try:
                batch = next(source)
            except StopIteration:
                return
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for each in tensors_in(batch):
            if each.is_cuda:
                each.record_stream(current)  # its memory is not used again before the step has read it
        yield batch
