"""`o3-lightning adapter`: trains the adapter of one request alone, outside any store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from o3_lightning.commands.common import RequestChoice, choose_request, read_run, request_folder
from o3_lightning.run.config import RunConfig

if TYPE_CHECKING:
    from o3_lightning.training.processes import Processes

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Writes a plain PEFT adapter to `<run>/single/<id>/adapter/` and prints its numbers.

    Raises:
        InputError: no such request, or the objective lacks what it needs.
    """
    description = "Trains the adapter of one request alone, outside any store."
    config, trainer_options, namespace = read_run("adapter", description, arguments, RequestChoice)
    from o3_lightning.training.launch import launch

    if launch("adapter", arguments, trainer_options):
        return
    from o3_lightning.training.processes import open_processes

    with open_processes() as processes:
        lines = train(config, trainer_options, namespace["request"], processes)
        if processes.is_first:
            sys.stdout.write("\n".join(lines) + "\n")


def train(config: RunConfig, options: dict[str, Any], identifier: str, processes: Processes) -> list[str]:
    """Trains with all processes, saves with the first, and returns what to print."""
    from o3_lightning.adapter.history import AdapterHistory
    from o3_lightning.models.base import load_base
    from o3_lightning.run.inputs import RETAIN_SPLIT
    from o3_lightning.run.unlearner import train_request
    from o3_lightning.training.loggers import RunLogger

    stream, request = choose_request(config, identifier)
    base = load_base(config.base, config.seed)
    loggers = RunLogger([])
    if processes.is_first:
        loggers = RunLogger.open(config.logging, config.folder / "logs", config.name)
    trained = train_request(
        base,
        request,
        AdapterHistory(),
        config,
        options,
        stream.utility.get(RETAIN_SPLIT),
        logger=loggers.stage(f"{request.id}/adapter"),
    )
    loggers.close()
    folder = request_folder(config, request.id) / "adapter"
    processes.once(lambda: trained.save(folder))
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in trained.metrics.items())
    return [f"{request.id}: {numbers}", str(folder)]
