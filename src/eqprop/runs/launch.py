"""The processes of a run, by Lightning Fabric: started by itself, by ``torchrun``, or by SLURM's ``srun``."""

from __future__ import annotations

import atexit
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from eqprop.errors import EqpropError, InputError
from eqprop.files import explained
from eqprop.training.memory import keep_freed_memory
from eqprop.training.precision import chosen_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from eqprop.runs.messages import MessagePrecision

T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """Who started the processes of a run.

    Attributes:
        by: "torchrun", "srun" or "" for this program.
        processes: on each node; 0: as ``--processes`` says.
        nodes: how many machines.
        rank: of this process among all.
        job: what identifies the launch over restarts; "" if nothing restarts it.
        restarts: how often the launcher has started it again.
    """

    by: str = ""
    processes: int = 0
    nodes: int = 1
    rank: int = 0
    job: str = ""
    restarts: int = 0


def launched() -> Launch:
    """Reads the environment of this process.

    Raises:
        InputError: a variable of the launcher is missing or no number.
    """
    env = os.environ
    what = "torchrun" if "TORCHELASTIC_RUN_ID" in env else "srun" if _by_srun() else ""
    with explained(f"The environment of {what} is not whole ({{}}): start it again.", KeyError, ValueError):
        if what == "torchrun":
            local, world = int(env["LOCAL_WORLD_SIZE"]), int(env["WORLD_SIZE"])
            job = env["TORCHELASTIC_RUN_ID"]
            if job == "none":  # the same for all launches without an identity: the agent's process has one
                job = f"{socket.gethostname()}-{os.getppid()}"
            restarts = int(env.get("TORCHELASTIC_RESTART_COUNT", 0))
            return Launch(what, local, world // local, int(env["RANK"]), f"torchrun {job}", restarts)
        job, restarts = env.get("SLURM_JOB_ID", ""), int(env.get("SLURM_RESTART_COUNT", 0))
        job = f"slurm {job}" if job else ""
        if what == "srun":
            tasks, nodes = int(env["SLURM_NTASKS"]), int(env.get("SLURM_NNODES", 1))
            return Launch(what, tasks // nodes, nodes, int(env["SLURM_PROCID"]), job, restarts)
    return Launch(job=job, restarts=restarts)


def _by_srun() -> bool:
    """Whether this process is a task of ``srun``, not just a program inside an allocation.

    A batch script has the variables of task 0 too, but belongs to no numbered step.
    """
    env = os.environ
    step = env.get("SLURM_STEP_ID", env.get("SLURM_STEPID"))
    if step is None:
        return "SLURM_PROCID" in env and "SLURM_NTASKS" in env and env.get("ENVIRONMENT") != "BATCH"
    return step.isdigit() and "SLURM_PROCID" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def started_here() -> bool:
    """Whether the first process of a run has started this one, through Fabric, which sets all of these variables."""
    env = os.environ
    whole = all(name in env for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "WORLD_SIZE"))
    return whole and env.get("LOCAL_RANK", "0") != "0" and not launched().by


def start(device: str, processes: int) -> tuple[Fabric, MessagePrecision]:
    """Starts the other processes of a run, or joins them.

    Args:
        device: cpu or cuda, or auto.
        processes: on this machine, if no launcher says how many.

    Returns:
        The processes, and the precision of their messages, to be set.

    Raises:
        InputError: there is no such device here, or the processes do not fit the launcher's.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    from eqprop.runs.messages import MessagePrecision  # these imports take seconds

    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # else a GPU's convolutions of 32 bits keep 10 bits of the mantissa
    for name in ("lightning_fabric", "lightning.fabric", "lightning"):  # each process would say that it has begun
        logging.getLogger(name).setLevel(logging.WARNING)
    launch = launched()
    if launch.by and processes not in (1, launch.processes):
        raise InputError(
            f"--processes {processes}, but {launch.by} has started {launch.processes} on this machine: leave it out."
        )
    count, device = launch.processes or processes, chosen_device(device)
    if not launch.by and not started_here():  # of another program: they would name a group that does not exist
        for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
    messages = MessagePrecision(device)
    missing = f"No {device} device with {count} processes here: {{}}"
    with explained(missing, Exception):
        environment: ClusterEnvironment = LightningEnvironment()
        if launch.by == "torchrun":
            environment = TorchElasticEnvironment()
        elif launch.by == "srun":
            os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(launch.processes))
            environment = SLURMEnvironment(auto_requeue=False)
        fabric = Fabric(
            accelerator=device,
            devices=count,
            num_nodes=launch.nodes,
            strategy="ddp" if count * launch.nodes > 1 else "auto",
            plugins=[messages, environment],
        )
    with explained(
        "The processes of this run did not find each other ({}): start them again.", RuntimeError, ValueError, OSError
    ):
        if launch.by == "torchrun" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            meet(device, launch)
        fabric.launch()
    if fabric.world_size > 1:  # else threads of the group may still run when the process ends
        from torch import distributed

        atexit.register(distributed.destroy_process_group)
    return fabric, messages


def meet(device: str, launch: Launch) -> None:
    """Joins the other processes of ``torchrun`` in the store of its agent, under names of this restart.

    A static rendezvous keeps its store over restarts: without this, processes may look for others where those were
    before.
    """
    from torch import distributed

    env = os.environ
    world = launch.processes * launch.nodes
    store = distributed.TCPStore(env["MASTER_ADDR"], int(env["MASTER_PORT"]), world, is_master=False)  # type: ignore[attr-defined]
    mine = distributed.PrefixStore(f"eqprop/{launch.restarts}", store)  # type: ignore[attr-defined]
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, store=mine, rank=launch.rank, world_size=world)


def by_first(fabric: Fabric, decide: Callable[[], T]) -> T:
    """What the first process decides, in all.

    Raises:
        EqpropError: it raised one.
    """
    outcome: tuple[T | None, EqpropError | None] = None, None
    if fabric.is_global_zero:
        try:
            outcome = decide(), None
        except EqpropError as error:
            outcome = None, error
    value, wrong = fabric.broadcast(outcome)
    if wrong is not None:
        raise wrong
    return value  # type: ignore[return-value]
