"""Two processes: averaged gradients equal those of one process on the whole batch."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import eqprop as ep
from runs.kills import shared_starter


def model():
    torch.manual_seed(0)
    settle = ep.FixedSweeps(30)
    layers = [ep.ConvLayer(3, activation=ep.tanh), ep.DenseLayer(5, ep.tanh)]
    network = ep.chain((1, 6, 6), layers, lambda n, s: ep.ReadoutCrossEntropy(n, s, 3))
    return ep.Equilibrium(network, ep.EquilibriumPropagation(ep.symmetric(0.1), settle, settle)).double()


def data():
    torch.manual_seed(1)
    return torch.randn(6, 1, 6, 6, dtype=torch.float64), torch.arange(6) % 3


def one_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, y = data()
    share = slice(3 * rank, 3 * rank + 3)
    for name in ("loss", "output"):
        wrapped = DistributedDataParallel(model())
        if name == "loss":
            loss = wrapped(x[share], y[share])
        else:
            loss = torch.nn.functional.cross_entropy(wrapped(x[share]), y[share])
        loss.backward()
        torch.save([p.grad for p in wrapped.parameters()], f"{folder}/{name}{rank}")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # a thread of the group's sometimes outlives it on a busy machine, and aborts an ordinary exit


def test_averaged_gradients_equal_those_of_one_process(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    code += f"from learning.test_parallel import one_process; one_process(int(sys.argv[1]), {str(tmp_path)!r})"
    with shared_starter().begin_code(code, 0) as one, shared_starter().begin_code(code, 1) as other:
        for each in (one, other):
            assert each.end().returncode == 0, each.stderr
    x, y = data()
    for name in ("loss", "output"):
        alone = model()
        (alone(x, y) if name == "loss" else torch.nn.functional.cross_entropy(alone(x), y)).backward()
        for rank in (0, 1):
            for found, parameter in zip(torch.load(tmp_path / f"{name}{rank}"), alone.parameters(), strict=True):
                torch.testing.assert_close(found, parameter.grad, rtol=1e-7, atol=1e-9)
