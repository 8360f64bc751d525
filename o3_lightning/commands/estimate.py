"""`o3-lightning estimate`: how long a run will take and how much memory, before it starts."""

from __future__ import annotations

import sys

from o3_lightning.commands.common import read_run

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Prints seconds by kind of stage and the peak of memory, after measuring a few steps; writes nothing.

    Raises:
        InputError: what a run would refuse.
    """
    description = "Measures a few steps of a run and predicts its time and memory."
    config, trainer, _ = read_run("estimate", description, arguments)
    from o3_lightning.run.estimate import estimate_run

    found = estimate_run(config, trainer)
    lines = [f"{name:<12} {seconds:10.1f} s" for name, seconds in found.seconds.items()]
    lines += [
        f"{'in all':<12} {found.total:10.1f} s",
        f"{'memory':<12} {found.memory_mib:10.0f} MiB at its peak",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
