"""`o3-lightning run`: the whole continual unlearning of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from o3_lightning.commands.common import Call, run_in_processes

if TYPE_CHECKING:
    from o3_lightning.training.processes import Processes


def main(arguments: list[str]) -> None:
    """Unlearns every request, evaluates after each, and writes metrics and report."""
    run_in_processes("run", arguments, run)


def run(call: Call, processes: Processes) -> list[str]:
    """The run, which logs its progress and prints nothing."""
    from o3_lightning.run.pipeline import run_stream

    run_stream(call.config, call.trainer, processes)
    return []
