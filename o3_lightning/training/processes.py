"""Joining the processes of a run, and work that only the first of them does."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from o3_lightning.common.errors import O3Error

SLURM = {
    "RANK": "SLURM_PROCID",
    "LOCAL_RANK": "SLURM_LOCALID",
    "WORLD_SIZE": "SLURM_NTASKS",
    "LOCAL_WORLD_SIZE": "SLURM_NTASKS_PER_NODE",
    "GROUP_RANK": "SLURM_NODEID",
}
Value = TypeVar("Value")
TIMEOUT = timedelta(hours=12)  # a process may wait that long for the others' share of a large model


@dataclass(frozen=True)
class Processes:
    """The rank of this process, from 0, and the number of processes."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0

    def once(self, work: Callable[[], Value]) -> Value:
        """Runs `work` in the first process and returns its result, or raises its error, in all of them."""
        if self.count == 1:
            return work()
        holder: list[Any] = [None, None]
        if self.is_first:
            try:
                holder[0] = work()
            except O3Error as error:
                holder[1] = error
        dist.broadcast_object_list(holder, src=0)
        if holder[1] is not None:
            raise holder[1]
        result: Value = holder[0]
        return result


ALONE = Processes()


@contextmanager
def open_processes() -> Iterator[Processes]:
    """Joins the processes that torchrun, srun or `--trainer.devices` started; otherwise yields `ALONE`.

    Results are exchanged as pickled objects over gloo, between processes of one user. Each process has a GPU
    of its own if there are any; gradients are exchanged over NCCL.
    """
    read_slurm()
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)
    processes = Processes(dist.get_rank(), dist.get_world_size())
    if not processes.is_first:
        logging.getLogger().setLevel(logging.WARNING)
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def read_slurm() -> None:
    """Sets torchrun's variables from those of srun, unless torchrun started this process.

    An interactive shell inside an allocation has SLURM's variables too, but no step of several tasks.
    """
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    slurm = SLURMEnvironment()
    os.environ.update({ours: os.environ[theirs] for ours, theirs in SLURM.items() if theirs in os.environ})
    os.environ.update(MASTER_ADDR=slurm.main_address, MASTER_PORT=str(slurm.main_port))


def processes_at_work() -> int:
    """Returns how many processes have joined; 1 if none have."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
