"""Common parts of the benchmarks: the network of Laborieux et al. (2021), clocks, the machine, and tables."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

import eqprop as ep
from eqprop.diagnostics import exact_gradients
from eqprop.recipes.cifar10 import NORMALISE
from eqprop.recipes.setting import innermost
from eqprop.tasks import load_images
from eqprop.training.loop import load_weights

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


def paper_network(width: float = 1.0, layers: int = 4) -> ep.Network:
    """The CIFAR-10 network of Laborieux et al. (2021), its channels times ``width``, with its first ``layers``."""
    channels = [int(width * c) for c in (128, 256, 512, 512)]
    stack = [ep.ConvLayer(c, padding=0 if c is channels[3] and i == 3 else 1) for i, c in enumerate(channels)]
    loss = partial(ep.ReadoutCrossEntropy, classes=10)
    return innermost(ep.chain((3, 32, 32), stack[:layers], loss))


def images(data: str, count: int) -> tuple[Tensor, Tensor]:
    """Test images of CIFAR-10 in ``data``, (count, 3, 32, 32) and (count,); noise and arbitrary labels without it."""
    if data:
        test = load_images(data).test
        return NORMALISE(test.pixels[:count]), test.labels[:count]
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 10


def load(network: ep.Network, checkpoint: str) -> None:
    """The weights of a run's checkpoint, a safetensors file."""
    load_weights(ep.Equilibrium(network, ep.InfinitesimalNudge(ep.FixedSweeps(1))), load_file(checkpoint))


def gradients(model: ep.Equilibrium, precision: str, x: Tensor, y: Tensor) -> tuple[tuple[Tensor, ...], ep.Solution]:
    """The gradients of a model's weight tensors, from the input on, and its free phase."""
    record = ep.Record()
    with bits(precision):
        loss = model.loss(x, y, record=record)
    found = torch.autograd.grad(loss, weights(model.network.named_parameters()))
    assert record.free is not None
    return found, record.free


def exact_weight_gradients(network: ep.Network, state: ep.energy.State, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The exact gradient of each weight tensor at the equilibrium that ``state`` settles to, in float64."""
    return weights(exact_gradients(network, state, x, y).items())


def weights(named: Iterable[tuple[str, Tensor]]) -> tuple[Tensor, ...]:
    return tuple(tensor for name, tensor in named if name.endswith("weight"))


def bits(precision: str) -> AbstractContextManager[object]:
    """Messages in bfloat16 or float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def machine() -> Row:
    model = next((line.split(":")[1].strip() for line in cpu_lines() if line.startswith("model name")), "")
    return {
        "machine": f"{platform.machine()} {model}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def show(title: str, rows: Sequence[Row]) -> None:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=150).print(table)


def write(name: str, result: object) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1))
