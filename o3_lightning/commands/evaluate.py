"""`python train.py evaluate`: measures the gated model of a run as its store stands now."""

from __future__ import annotations

import sys
from typing import Any

from o3_lightning.commands import evaluate_detector
from o3_lightning.commands.common import open_gated_model, read_arguments, run_parser
from o3_lightning.files import write_json

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Writes `evaluation.json` into the run's folder and prints the means; `--detector` measures detectors.

    Raises:
        InputError: the run has no store.
    """
    if evaluate_detector.SWITCH in arguments:
        evaluate_detector.main(arguments)
        return
    parser = run_parser("evaluate", "Measures the gated model of a run as its store stands now.")
    config, _, _ = read_arguments(parser, arguments)
    from o3_lightning.data.stream import load_stream
    from o3_lightning.evaluation.evaluate import evaluate_stream

    stream = load_stream(config.data, config.seed)
    _, gated = open_gated_model(config)
    result = evaluate_stream(gated, stream, config.evaluation)
    path = config.folder / "evaluation.json"
    write_json(path, {"active_requests": list(gated.ids), **result})
    sys.stdout.write("\n".join([*table(result), f"written to {path}"]) + "\n")


def table(result: dict[str, Any]) -> list[str]:
    """One line a split: its name and the mean of each metric."""
    rows = [
        (f"{name}/{split}", values["aggregate"])
        for name, splits in result["requests"].items()
        for split, values in splits.items()
    ]
    rows += [(split, values["aggregate"]) for split, values in result["utility"].items()]
    width = max(len(name) for name, _ in rows)
    return [
        f"{name:<{width}}  " + "  ".join(f"{metric} {value:.3f}" for metric, value in aggregate.items())
        for name, aggregate in rows
    ]
