"""The trainer of one fit, on one process or on all that have joined (`training/processes.py`)."""

import logging
import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from o3_lightning.common.errors import InputError
from o3_lightning.common.progress import Progress
from o3_lightning.training.processes import processes_at_work

QUIET: dict[str, Any] = {
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}
NOISY_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda")
SHARDING = "fsdp"
REPLICATING = ("auto", "ddp")


class StepLog(Callback):
    """Shows the progress of a fit where Lightning's bar is off."""

    def __init__(self, what: str = "training") -> None:
        self.what = what

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Begins to measure the time of steps."""
        total = trainer.estimated_stepping_batches
        shown = trainer.is_global_zero and math.isfinite(total)
        self.steps = Progress(self.what, int(total) if shown else 0, "steps", shown=shown)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Counts an optimizer step."""
        self.steps.advance(trainer.global_step - self.steps.done)

    def on_train_end(self, *_: Any) -> None:
        """Removes the line from the terminal."""
        self.steps.stack.close()


def build_trainer(
    trainer_options: Mapping[str, Any],
    *,
    max_epochs: int | None = None,
    logger: Logger | Sequence[Logger] | None = None,
) -> Trainer:
    """Returns a trainer for one fit: no checkpoints, no summary, a progress bar only on a terminal.

    Args:
        trainer_options: options of `lightning.Trainer`; those that are not None override all defaults, but
            the joined processes decide on devices and nodes.
        max_epochs: passes over the data, unless the options say otherwise.
        logger: where the curves go; None for nowhere.

    Raises:
        InputError: the trainer refuses its options, or sharding is wanted with one process only.
    """
    given = {key: value for key, value in trainer_options.items() if value is not None}
    options = {**QUIET, "max_epochs": max_epochs, "enable_progress_bar": sys.stderr.isatty()} | given
    options["logger"] = given.get("logger") or logger or False
    log = [] if sys.stderr.isatty() else [StepLog()]
    options["callbacks"] = [*as_list(given.get("callbacks")), *log]
    options |= placement(options)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*The number of training batches.*")
    try:
        return Trainer(**options)
    except (TypeError, ValueError, ImportError, MisconfigurationException) as error:
        raise InputError(" ".join(str(error).split()), field="trainer") from error


def as_list(value: Any) -> list[Any]:
    """Returns an option that may be None, one item or several as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def placement(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that follow from the joined processes; none for a single process.

    The joined processes override devices and nodes, whoever started them. The loader shares out the rows
    (`adapter/batches.py`), so Lightning's sampler stays off.
    """
    wanted = options.get("strategy") or "auto"
    count = processes_at_work()
    if count == 1:
        if wanted == SHARDING:
            raise InputError("sharding needs two processes or more", field="trainer.strategy")
        return {}
    local = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    return {
        "devices": local,
        "num_nodes": count // local,
        "strategy": strategy_for(wanted, count),
        "plugins": [*as_list(options.get("plugins")), TorchElasticEnvironment()],
        "use_distributed_sampler": False,
    }


def strategy_for(wanted: Any, count: int) -> str | Strategy:
    """Returns the strategy for "auto", "ddp" and "fsdp"; hands others through."""
    if wanted in REPLICATING:
        return DDPStrategy(find_unused_parameters=True)  # objectives on hidden states leave layers unused
    if wanted == SHARDING:
        return ModelParallelStrategy(data_parallel_size=count, tensor_parallel_size=1)
    strategy: str | Strategy = wanted
    return strategy
