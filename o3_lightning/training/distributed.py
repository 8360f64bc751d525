"""Training on several processes: how Lightning learns of processes that have already found each other.

`training/processes.py` joins them; here a trainer is told to use them as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from o3_lightning.common.errors import InputError

__all__ = ["JoinedEnvironment", "processes_at_work", "trainer_placement"]

SHARDING = "fsdp"
REPLICATING = ("auto", "ddp")


def processes_at_work() -> int:
    """Returns how many processes have joined, 1 without any other."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class JoinedEnvironment(ClusterEnvironment):
    """The joined processes as Lightning wants to see them; it neither starts nor ends any."""

    @property
    def creates_processes_externally(self) -> bool:
        """They are there already."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first process listens."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """The port there."""
        return int(os.environ.get("MASTER_PORT", "0"))

    @staticmethod
    def detect() -> bool:
        """Whether processes have joined."""
        return processes_at_work() > 1

    def world_size(self) -> int:
        """How many there are."""
        return processes_at_work()

    def set_world_size(self, size: int) -> None:
        """Does nothing: the number is what it is."""

    def global_rank(self) -> int:
        """This process's number."""
        return dist.get_rank()

    def set_global_rank(self, rank: int) -> None:
        """Does nothing: the number is what it is."""

    def local_rank(self) -> int:
        """This process's number on its machine."""
        return int(os.environ.get("LOCAL_RANK", "0"))

    def node_rank(self) -> int:
        """The number of its machine."""
        return dist.get_rank() // local_count()


def local_count() -> int:
    """How many of the processes work on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes_at_work()))


def trainer_placement(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the trainer's options that follow from the processes at work; nothing for one process.

    The processes have the last word on devices and nodes, whoever started them. Rows are shared out by
    the loader (`adapter/batches.py`), so Lightning's own sampler stays off.

    Args:
        options: of `lightning.Trainer`; read are `strategy` and `plugins`.

    Raises:
        InputError: sharding is asked for with one process only.
    """
    wanted = options.get("strategy") or "auto"
    count = processes_at_work()
    if count == 1:
        if wanted == SHARDING:
            raise InputError("sharding needs two processes or more", field="trainer.strategy")
        return {}
    plugins = options.get("plugins") or []
    return {
        "devices": local_count(),
        "num_nodes": count // local_count(),
        "strategy": strategy_for(wanted, count),
        "plugins": [*(plugins if isinstance(plugins, list | tuple) else [plugins]), JoinedEnvironment()],
        "use_distributed_sampler": False,
    }


def strategy_for(wanted: Any, count: int) -> str | Strategy:
    """Returns Lightning's strategy for a name; others than ours are handed through."""
    if wanted in REPLICATING:
        return DDPStrategy(find_unused_parameters=True)  # objectives on hidden states leave layers unused
    if wanted == SHARDING:
        return ModelParallelStrategy(data_parallel_size=count, tensor_parallel_size=1)
    strategy: str | Strategy = wanted
    return strategy
