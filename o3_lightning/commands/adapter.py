"""`o3-lightning adapter`: trains the adapter of one request alone, outside any store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from o3_lightning.commands.choices import RequestChoice
from o3_lightning.commands.common import Call, choose_request, request_folder, run_in_processes

if TYPE_CHECKING:
    from o3_lightning.training.processes import Processes


def main(arguments: list[str]) -> None:
    """Writes a plain PEFT adapter to `<run>/single/<id>/adapter/` and prints its numbers."""
    run_in_processes("adapter", arguments, train, RequestChoice)


def train(call: Call, processes: Processes) -> list[str]:
    """Trains with all processes, saves with the first, and returns the lines to print."""
    from o3_lightning.adapter.history import AdapterHistory
    from o3_lightning.data.stream import RETAIN
    from o3_lightning.models.base import load_base
    from o3_lightning.run.unlearner import train_request
    from o3_lightning.training.loggers import RunLogger

    config = call.config
    stream, request = choose_request(config, call.namespace["request"])
    base = load_base(config.base, config.seed)
    loggers = RunLogger([])
    if processes.is_first:
        loggers = RunLogger.open(config.logging, config.folder / "logs", config.name)
    trained = train_request(
        base,
        request,
        AdapterHistory(),
        config,
        call.trainer,
        stream.utility.get(RETAIN),
        logger=loggers.stage(f"{request.id}/adapter"),
    )
    loggers.close()
    folder = request_folder(config, request.id) / "adapter"
    processes.once(lambda: trained.save(folder))
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in trained.metrics.items())
    return [f"{request.id}: {numbers}", str(folder)]
