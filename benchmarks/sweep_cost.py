"""One synchronous sweep of the seed paper's CIFAR-10 network over the convolutions that it must do.

    python benchmarks/sweep_cost.py [--batch 32] [--dtype float32] [--repeats 15]

Both sides are timed in turn, in one run; the median of each is reported. The bare side runs each synapse's convolution
and its transposed convolution once, on tensors of the same shapes and layout. (The input's convolution is done once a
batch, and is no part of a sweep.) Then a settling of 250 sweeps is timed in stretches, to show that nothing grows.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional as F

import eqprop as ep

LAYERS = [ep.ConvLayer(128), ep.ConvLayer(256), ep.ConvLayer(512), ep.ConvLayer(512, padding=0)]


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def bare(network: ep.Network, state: ep.State) -> Callable[[], None]:
    """The convolution and the transposed convolution of every synapse between free nodes."""
    work = []
    for term in network.terms.values():
        if isinstance(term, ep.Synapse) and network.input not in term.nodes:
            pre, weight, padding = state[term.nodes[0]], term.map.weight, term.map.padding
            work.append((pre, F.conv2d(pre, weight, padding=padding), weight, padding))

    def run() -> None:
        for pre, z, weight, padding in work:
            F.conv2d(pre, weight, padding=padding)
            F.conv_transpose2d(z, weight, padding=padding)

    return run


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float64"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sweep_cost.json")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(0)
    network = ep.chain((3, 32, 32), LAYERS, partial(ep.ReadoutCrossEntropy, classes=10)).to(dtype)
    landscape = network.landscape(torch.randn(options.batch, 3, 32, 32).to(dtype))
    state = ep.FixedPoint(5, ep.synchronous)(landscape, landscape.rest()).state

    def sweep() -> None:
        nonlocal state
        state = ep.synchronous(landscape, state)

    convolutions = bare(network, state)
    for warm in (sweep, convolutions):
        warm()
    pairs = [(timed(sweep), timed(convolutions)) for _ in range(options.repeats)]
    whole, least = (median(side) for side in zip(*pairs, strict=True))
    state = landscape.rest()
    stretches, peak = [], []
    for sweeps in (1, 49, 50, 50, 50, 50):
        stretches.append(timed(lambda count=sweeps: [sweep() for _ in range(count)]) / sweeps)  # type: ignore[misc]
        peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    result = {
        "what": f"one synchronous sweep, batch {options.batch}, {options.dtype}",
        "sweep_seconds": whole,
        "convolutions_seconds": least,
        "ratio_of_medians": whole / least,
        "ratio_pair_by_pair": sorted(a / b for a, b in pairs),
        "seconds_a_sweep_up_to_sweep_1_50_100_150_200_250": stretches,
        "peak_memory_mib_after_each_stretch": peak,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))
    for name, value in result.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
