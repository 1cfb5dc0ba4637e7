"""Peak memory as a function of the length of the free phase, and the scaling of a step's cost.

    python benchmarks/memory_and_scaling.py

Memory: equilibrium propagation and backpropagation through all T sweeps, each in its own process, on the network of
Laborieux et al. (2021), batch 8. Cost: a step of the fast estimator in float32 for several batch sizes, widths and
depths; and images per second of one process with all threads and of two that share them and average their gradients.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from common import Row, images, machine, paper_network, show, timed, write
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import eqprop as ep
from eqprop.recipes.setting import fast


def peak(method: str, sweeps: int) -> int:
    """MiB of this process after one step."""
    torch.manual_seed(0)
    free = ep.FixedSweeps(sweeps)
    estimator: ep.Estimator = ep.BackpropagationThroughTime(free, sweeps)
    if method == "equilibrium propagation":
        estimator = ep.EquilibriumPropagation(ep.symmetric(0.5), free, free)
    ep.Equilibrium(paper_network(), estimator).loss(*images("", 8)).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def memory() -> list[Row]:
    rows = []
    for sweeps in (5, 10, 20, 40, 80):
        row: Row = {"sweeps": sweeps}
        for method in ("equilibrium propagation", "backpropagation through time"):
            command = [sys.executable, __file__, "--peak", method, "--sweeps", str(sweeps)]
            row[f"{method}, MiB"] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
    return rows


def seconds(network: ep.Network, batch: int, repeats: int = 3) -> Row:
    x, y = images("", batch)
    model, record = ep.Equilibrium(network, fast(0.2, 60, 4, 0.25)), ep.Record()

    def step() -> None:
        model.loss(x, y, record=record).backward()

    step()
    took = median(timed(step) for _ in range(repeats))
    assert record.free is not None
    return {"seconds": took, "images_per_s": batch / took, "free_sweeps": float(record.free.sweeps.float().mean())}


def growth() -> list[Row]:
    torch.manual_seed(0)
    rows = [{"what": f"batch {batch}"} | seconds(paper_network(), batch) for batch in (1, 4, 16, 64)]
    rows += [{"what": f"batch 32, width {w:g}"} | seconds(paper_network(w), 32) for w in (0.25, 0.5, 1.0)]
    return rows + [{"what": f"batch 32, {n} layers"} | seconds(paper_network(layers=n), 32) for n in (2, 3, 4)]


def one_process(rank: int, processes: int, folder: str) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes)
    took = shared_step(rank, processes)
    if rank == 0:
        torch.save(torch.tensor(took), f"{folder}/took")
    dist.barrier()
    dist.destroy_process_group()


def shared_step(rank: int, processes: int) -> float:
    torch.manual_seed(0)
    model = DistributedDataParallel(ep.Equilibrium(paper_network(0.5), fast(0.2, 60, 4, 0.25)))
    x, y = (t.chunk(processes)[rank] for t in images("", 32))

    def step() -> None:
        model(x, y).backward()

    step()
    return median(timed(step) for _ in range(5))


def processes() -> list[Row]:
    rows = []
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            spawn(one_process, (count, folder), nprocs=count)
            took = float(torch.load(f"{folder}/took"))
        rows.append({"processes": count, "seconds": took, "images_per_s": 32 / took})
    return rows


def tables(options: argparse.Namespace) -> dict[str, Any]:
    found = {"memory": memory(), "growth": growth(), "processes": processes()}
    show("peak memory of a step, batch 8", found["memory"])
    show("a step, float32", found["growth"])
    show("a step of batch 32 at half width, float32, the threads shared", found["processes"])
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--peak", default="", help=argparse.SUPPRESS)
    made.add_argument("--sweeps", type=int, default=0, help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    asked = parser().parse_args()
    if asked.peak:
        print(peak(asked.peak, asked.sweeps))
    else:
        write("memory_and_scaling", tables(asked) | {"machine": machine()})
