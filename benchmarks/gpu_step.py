"""What a training step costs on a GPU: started kernel by kernel, and captured as a CUDA graph, over backpropagation.

    python benchmarks/gpu_step.py [--batch 128] [--rounds 5] [--repeats 20] [--profile]

The networks of ``cifar10-ce-fast`` (Laborieux et al. 2021, doi 10.3389/fnins.2021.633674) and of ``cifar10-deep``, on
initial weights and images of noise, messages in bfloat16, without data and optimiser. Medians of interleaved rounds;
every ratio is to backpropagation of the same network that is started in the same way. The errors are of the gradient of
a captured step against that of the same step started kernel by kernel, and of 16 images in float64 against the CPU's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from common import Row, machine, paper_network, show, write
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import eqprop as ep
from eqprop.learning.penalties import RayleighPenalty
from eqprop.recipes.deep import CifarDeep
from eqprop.recipes.setting import fast, innermost, weak
from eqprop.training.cuda_graphs import Graphed

Step = Callable[[], Any]


def deep_network() -> ep.Network:
    return innermost(CifarDeep(data="").network((3, 32, 32), 10))


NETWORKS = {"cifar10-ce-fast": paper_network, "cifar10-deep": deep_network}
SIDES: dict[str, dict[str, ep.Estimator]] = {
    "cifar10-ce-fast": {
        "backpropagation": ep.Backpropagation(),
        "8 sweeps, with its penalty": RayleighPenalty(fast(1e-9, 8, 4, 0.0), 1.0),
        "12 sweeps, with its penalty": RayleighPenalty(fast(1e-9, 12, 4, 0.0), 1.0),
        "12 sweeps": fast(1e-9, 12, 4, 0.0),
    },
    "cifar10-deep": {"backpropagation": ep.Backpropagation(), "2 sweeps and 1": weak(2, 1)},
}


def step_of(model: ep.Equilibrium, bits: bool) -> Callable[[Tensor, Tensor], Tensor]:
    def step(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bits):
            loss = model.loss(x, y)
        model.zero_grad()
        loss.backward()
        return loss.detach()

    return step


def gradients(model: ep.Equilibrium) -> list[Tensor]:
    return [each.grad.detach().cpu().clone() for each in model.parameters() if each.grad is not None]


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Relative, of the worst tensor."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


def milliseconds(step: Step, repeats: int) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / repeats * 1e3


def table(name: str, options: argparse.Namespace) -> list[Row]:
    torch.manual_seed(0)
    x, y = torch.randn(options.batch, 3, 32, 32), torch.randint(10, (options.batch,))
    ways: dict[str, tuple[Step, Step]] = {}
    errors: dict[str, tuple[float, float]] = {}
    for side, estimator in SIDES[name].items():
        model = ep.Equilibrium(NETWORKS[name](), estimator, on_unsettled="ignore").double()
        step_of(model, False)(x[:16].double(), y[:16])
        cpu = gradients(model)
        model.cuda()
        there = x.cuda(), y.cuda()
        step_of(model, False)(there[0][:16].double(), there[1][:16])
        apart = error(gradients(model), cpu)
        model.float()
        eager = step_of(model, True)
        eager(*there)
        expected = gradients(model)
        graphed = Graphed(eager, model)
        graphed(*there)
        errors[side] = error(gradients(model), expected), apart
        ways[side] = partial(eager, *there), partial(graphed, *there)
    times: dict[str, list[list[float]]] = {side: [[], []] for side in ways}
    for _ in range(options.rounds):
        for side, steps in ways.items():
            for way, step in enumerate(steps):
                times[side][way].append(milliseconds(step, options.repeats))
    found = {side: [median(each) for each in both] for side, both in times.items()}
    base = found["backpropagation"]
    if options.profile:
        side = list(ways)[-1]
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            ways[side][1]()
            torch.cuda.synchronize()
        print(side, seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=30))
    return [
        {
            "network": name,
            "step": side,
            "eager (ms)": both[0],
            "times backpropagation": both[0] / base[0],
            "captured (ms)": both[1],
            "times captured backpropagation": both[1] / base[1],
            "error of capture": f"{errors[side][0]:.0e}",
            "error to CPU": f"{errors[side][1]:.0e}",
        }
        for side, both in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--profile", action="store_true", help="the kernels of each network's last step")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu_step: PyTorch finds no GPU here: run it where there is one.")
    torch.backends.cudnn.allow_tf32 = False
    rows = [row for name in NETWORKS for row in table(name, options)]
    about = machine() | {"gpu": torch.cuda.get_device_name(), "memory": torch.cuda.max_memory_allocated() / 2**20}
    show(f"a step of {options.batch} images", rows)
    write("gpu_step", {"machine": about, "rows": rows})
    print(about)


if __name__ == "__main__":
    main()
