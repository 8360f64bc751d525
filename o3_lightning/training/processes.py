"""Several processes that measure one model together: who takes which share, and how results come together."""

from __future__ import annotations

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
}
__all__ = ["ALONE", "Processes", "open_processes"]

Value = TypeVar("Value")
PATIENCE = timedelta(hours=12)  # one process may wait for another's share of a large model


@dataclass(frozen=True)
class Processes:
    """This process among its fellows.

    Args:
        rank: its number, from 0.
        count: how many there are, 1 or more.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def once(self, work: Callable[[], Value]) -> Value:
        """Has the first process do some work, and returns its result, or raises its error, in all of them."""
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
    """Joins the processes that torchrun, srun or `--trainer.devices` started; without them there is one.

    Results travel over gloo as Python objects between processes of one user on this machine or cluster; each
    process keeps its model on a GPU of its own where there is one, and gradients go from GPU to GPU.
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
    dist.init_process_group(backend, timeout=PATIENCE)
    processes = Processes(dist.get_rank(), dist.get_world_size())
    if not processes.is_first:
        logging.getLogger().setLevel(logging.WARNING)
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def read_slurm() -> None:
    """Takes over the places that srun gave to this process, where torchrun gave none.

    An interactive shell inside an allocation has SLURM's variables too, but no step of several tasks.
    """
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    environment = SLURMEnvironment()
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = (
        environment.main_address,
        str(environment.main_port),
    )
    os.environ.update({ours: os.environ[theirs] for ours, theirs in SLURM.items() if theirs in os.environ})
