"""Steps that are captured once as a CUDA graph, and then replayed; and batches that are prepared ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from eqprop.errors import InputError
from eqprop.learning.equilibrium import Equilibrium

Step = Callable[[Any, Any], Any]
"""(x, y) -> tensors, however nested; it also sets the gradient of each parameter."""

WARM_UP = 3
"""Steps before a capture, in which libraries choose their algorithms and allocate their memory."""


def check_capturable(model: Equilibrium, device: torch.device, processes: int) -> None:
    """Raises InputError where a CUDA graph would repeat what must differ from step to step, or cannot be captured."""
    network = model.network
    drops = [name for name, node in network.free.items() if node.dropout]
    reasons = {
        f"the device is {device.type}, not cuda": device.type != "cuda",
        f"{processes} processes share a batch": processes > 1,
        f"the network runs on {network.substrate}": not network.substrate.is_ideal,
        f"dropout of {drops} draws anew in each step": bool(drops),
        "its estimator draws random numbers": any(True for _ in model.estimator.generators()),
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise InputError(f"This run cannot be captured in a CUDA graph ({'; '.join(found)}): leave out --cuda_graph.")


@dataclass
class Captured:
    """A graph of a step for batches of one shape, with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    found: Any
    gradients: list[Tensor | None]


class Graphed:
    """A step for batches of any shape; each shape is captured at its first batch.

    What it returns, and the gradients, are overwritten by the next batch of the same shape.

    Args:
        step: what is captured. It must not wait for the device, or depend on anything else that changes.
        model: whose gradients it sets.
    """

    def __init__(self, step: Step, model: Equilibrium):
        self.step, self.parameters = step, list(model.parameters())
        self.captured: dict[tuple[Any, ...], Captured] = {}

    def __call__(self, x: Any, y: Any) -> Any:
        tensors = [each for each in tree_leaves((x, y)) if isinstance(each, Tensor)]
        shape = tuple((each.shape, each.dtype, each.stride()) for each in tensors)
        if shape not in self.captured:
            self.captured[shape] = self._capture(x, y)
        captured = self.captured[shape]
        for own, new in zip(captured.inputs, tensors, strict=True):
            own.copy_(new)
        captured.graph.replay()
        for parameter, gradient in zip(self.parameters, captured.gradients, strict=True):
            parameter.grad = gradient
        return captured.found

    def _capture(self, x: Any, y: Any) -> Captured:
        x, y = tree_map(lambda each: each.clone() if isinstance(each, Tensor) else each, (x, y))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.step(x, y)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                found = self.step(x, y)
        except RuntimeError as error:
            raise InputError(
                "A step of this run cannot be captured in a CUDA graph, as a part of it waits for the device "
                f"({str(error).splitlines()[0]}): leave out --cuda_graph."
            ) from error
        inputs = [each for each in tree_leaves((x, y)) if isinstance(each, Tensor)]
        return Captured(graph, inputs, found, [each.grad for each in self.parameters])


def ahead(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """The batches; on CUDA each is prepared on a stream of its own while the step before it runs."""
    if device.type != "cuda":
        yield from batches
        return
    stream, source = torch.cuda.Stream(device), iter(batches)

    def prepared() -> Any:
        with torch.cuda.stream(stream):
            return next(source, None)

    batch = prepared()
    while batch is not None:
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for each in tree_leaves(batch):
            if isinstance(each, Tensor) and each.is_cuda:
                each.record_stream(current)
        present, batch = batch, prepared()
        yield present
