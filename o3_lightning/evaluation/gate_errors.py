"""Where the gate errs: prompts on the wrong side, requests that are taken for others, weights that mislead.

Everything is read off the weights that the separation table was made from; no prompt is encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.detector import OWN, detector_splits
from o3_lightning.metrics.calibration import HALF, calibration_error, request_confusion

__all__ = ["gate_errors"]

NONE = "none"
Weights = Mapping[str, Mapping[str, Sequence[float]]]


def gate_errors(stream: RequestStream, weights: Weights, listed: int) -> dict[str, Any]:
    """Returns what went wrong at the gate.

    Args:
        stream: requests, utility and probes.
        weights: `[request][split]`, the second result of `evaluate_detectors` of all requests of the stream.
        listed: how many misses and how many false alarms of each request are kept as text, the worst first;
            0 keeps no text.

    Returns:
        `mistakes[request]`: prompts with `split` and `weight`, misses below one half on its own splits, false
        alarms from one half on others. `calibration[request]`: balanced calibration error in [0, 1], its own
        prompts against all others. `confusion`: `rows` (owners; the last are utility prompts), `columns`
        (the request of the largest weight, or "none") and `values`, counts of prompts.
    """
    splits = detector_splits(stream)
    return {
        "mistakes": {name: mistakes(splits[name], weights[name], listed) for name in weights},
        "calibration": {name: calibration(own) for name, own in weights.items()},
        "confusion": confusion(stream, weights),
    }


def mistakes(
    splits: Mapping[str, Sequence[str]], weights: Mapping[str, Sequence[float]], listed: int
) -> list[dict[str, Any]]:
    """A request's worst misses, then its worst false alarms."""
    rows: list[dict[str, Any]] = [
        {"split": split, "prompt": prompt, "weight": weight}
        for split, prompts in splits.items()
        for prompt, weight in zip(prompts, weights[split], strict=True)
    ]
    missed = [row for row in rows if row["split"] in OWN and row["weight"] < HALF]
    alarms = [row for row in rows if row["split"] not in OWN and row["weight"] >= HALF]
    missed.sort(key=lambda row: row["weight"])
    alarms.sort(key=lambda row: -row["weight"])
    return [*missed[:listed], *alarms[:listed]]


def calibration(weights: Mapping[str, Sequence[float]]) -> float | None:
    """A request's calibration error; None where there is nothing else than its own prompts."""
    inside, outside = (
        [weight for split, values in weights.items() if (split in OWN) == own for weight in values]
        for own in (True, False)
    )
    return calibration_error(inside, outside) if inside and outside else None


def confusion(stream: RequestStream, weights: Weights) -> dict[str, Any]:
    """Which request the forget prompts of each request, and the utility prompts, are taken for."""
    names = [request.id for request in stream.requests]
    columns = []
    for name in names:
        others = iter(weights[name].get("other_requests", ()))
        column: list[float] = []
        for request in stream.requests:
            own = request.id == name
            column += weights[name]["seen"] if own else [next(others) for _ in request.prompts]
        columns.append([*column, *(weight for split in stream.utility for weight in weights[name][split])])
    owners: list[int | None] = [i for i, request in enumerate(stream.requests) for _ in request.prompts]
    owners += [None] * sum(len(rows) for rows in stream.utility.values())
    counts = request_confusion(list(zip(*columns, strict=True)), owners)
    return {"rows": [*names, "utility"], "columns": [*names, NONE], "values": counts}
