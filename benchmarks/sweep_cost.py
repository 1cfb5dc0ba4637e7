"""One synchronous sweep of the CIFAR-10 network of Laborieux et al. (2021), relative to its bare convolutions.

    python benchmarks/sweep_cost.py [--batch 32] [--repeats 15]

For each precision the sweep and its bare convolutions are timed alternately, in one run; medians, and the median of
the ratios. The bare side is each synapse's convolution and transposed convolution once, on tensors of the same shapes
and layout, already in that precision. (The convolution of the input is computed once for a batch, not in a sweep.) The
ceiling is a square matrix product on the same machine. Then 250 sweeps are timed in parts: nothing must grow.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import bits, images, machine, paper_network, show, timed, write
from torch.nn import functional as F

import eqprop as ep


def bare(network: ep.Network, state: ep.energy.State, dtype: torch.dtype) -> tuple[Callable[[], None], int]:
    """The convolution and the transposed convolution of every synapse between free nodes; and their operations."""
    work, operations = [], 0
    for term in network.terms.values():
        if isinstance(term, ep.Synapse) and network.input not in term.nodes:
            assert isinstance(term.map, ep.Convolution)
            pre, weight, padding = state[term.nodes[0]].to(dtype), term.map.weight.to(dtype), term.map.padding
            z = F.conv2d(pre, weight, padding=padding)
            work.append((pre, z, weight, padding))
            operations += 4 * z.numel() * weight[0].numel()  # a product and a sum, both ways

    def run() -> None:
        for pre, z, weight, padding in work:
            F.conv2d(pre, weight, padding=padding)
            F.conv_transpose2d(z, weight, padding=padding)

    return run, operations


def product(dtype: torch.dtype, size: int = 2048) -> tuple[Callable[[], object], int]:
    a, b = (torch.randn(size, size, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2 * size**3


@torch.no_grad()
def tables(options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    network, (x, _) = paper_network(), images("", options.batch)
    rows, growth = [], []
    for precision in ("float32", "bfloat16"):
        dtype = getattr(torch, precision)
        with bits(precision):
            landscape = network.landscape(x)
            state = ep.FixedSweeps(5, ep.synchronous)(landscape, landscape.zeros()).state

            def sweep(times: int = 1, landscape: ep.energy.Landscape = landscape) -> None:
                nonlocal state
                for _ in range(times):
                    state = ep.synchronous(landscape, state)

            convolutions, operations = bare(network, state, dtype)
            multiply, products = product(dtype)
            for warm in (sweep, convolutions, multiply):
                warm()
            rounds = [(timed(sweep), timed(convolutions), timed(multiply)) for _ in range(options.repeats)]
            whole, least, ceiling = (median(side) for side in zip(*rounds, strict=True))
            rows.append(
                {
                    "precision": precision,
                    "sweep_s": whole,
                    "convolutions_s": least,
                    "ratio": median(a / b for a, b, _ in rounds),
                    "gflops_of_sweep": operations / whole / 1e9,
                    "gflops_of_matrix_product": products / ceiling / 1e9,
                    "share_of_ceiling": operations / whole / (products / ceiling),
                }
            )
            state = landscape.zeros()
            for done in (50, 100, 150, 200, 250):
                seconds = timed(lambda: sweep(50)) / 50
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                growth.append({"precision": precision, "sweeps": done, "sweep_s": seconds, "peak_memory_mib": peak})
    show(f"a sweep over its bare convolutions, batch {options.batch}", rows)
    show("250 sweeps in parts", growth)
    return {"sweep": rows, "stretches": growth}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--repeats", type=int, default=15)
    return made


if __name__ == "__main__":
    write("sweep_cost", tables(parser().parse_args()) | {"machine": machine()})
