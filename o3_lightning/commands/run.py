"""`o3-lightning run`: the whole continual unlearning of a configuration."""

from __future__ import annotations

from o3_lightning.commands.common import read_run

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Unlearns every request, evaluates after each, and writes metrics and report."""
    description = "Unlearns every request, one after the other, evaluates after each, and writes a report."
    config, trainer, _ = read_run("run", description, arguments)
    from o3_lightning.training.launch import launch

    if launch("run", arguments, trainer):
        return
    from o3_lightning.run.pipeline import run_stream
    from o3_lightning.training.processes import open_processes

    with open_processes() as processes:
        run_stream(config, trainer, processes)
