"""`o3-lightning estimate`: predicts the time and memory of a run."""

import sys

from o3_lightning.commands.common import read_run


def main(arguments: list[str]) -> None:
    """Prints seconds by kind of stage and the peak memory, after measuring a few steps; writes no run."""
    config, trainer, _ = read_run("estimate", arguments)
    from o3_lightning.run.estimate import estimate_run

    found = estimate_run(config, trainer)
    lines = [f"{name:<12} {seconds:10.1f} s" for name, seconds in found.seconds.items()]
    lines += [
        f"{'in all':<12} {found.total:10.1f} s",
        f"{'memory':<12} {found.memory_mib:10.0f} MiB at its peak",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
