"""How well detectors separate their requests from other prompts, and which prompts the gate gets wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.data.stream import RequestStream
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.metrics.detection import HALF, calibration_error, request_confusion, separation

Weights = Mapping[str, Mapping[str, Sequence[float]]]
OWN = ("seen", "held_out")
UNDEFINED = {"auroc": None, "aupr": None, "fpr95": None}


def detector_splits(stream: RequestStream) -> dict[str, dict[str, list[str]]]:
    """Returns, per request, prompts by split: its own, those of other requests, utility splits, probes."""
    shared = {name: [row.prompt for row in rows] for name, rows in stream.utility.items()}
    shared.update({name: list(prompts) for name, prompts in stream.probes.items()})
    splits: dict[str, dict[str, list[str]]] = {}
    for request in stream.requests:
        others = [other for other in stream.requests if other.id != request.id]
        named = {
            "seen": request.prompts,
            "held_out": [row.prompt for row in request.held_out],
            "other_requests": [prompt for other in others for prompt in other.prompts],
            "other_held_out": [row.prompt for other in others for row in other.held_out],
            **shared,
        }
        splits[request.id] = {name: prompts for name, prompts in named.items() if prompts}
    return splits


def evaluate_detectors(
    detectors: MultiDetector, stream: RequestStream
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, dict[str, list[float]]]]:
    """Returns the separation of each request from each split, and the weights of all prompts.

    Prompts are ranked by score, because weights tie at 0 and 1. `detectors` holds all requests of the stream.

    Returns:
        `[request][split]` = `mean_weight`, `prompts` (their number), and `auroc`, `aupr` and `fpr95` of
        held-out prompts (seen ones where the request has none) against the split, None for the request's own
        splits; and `[request][split]` = weights per prompt.
    """
    splits = detector_splits(stream)
    prompts = list(
        dict.fromkeys(prompt for own in splits.values() for part in own.values() for prompt in part)
    )
    place = {prompt: index for index, prompt in enumerate(prompts)}
    judged = [values.tolist() for values in detectors.judge(prompts)]
    table: dict[str, dict[str, dict[str, Any]]] = {}
    histograms: dict[str, dict[str, list[float]]] = {}
    for column, name in enumerate(detectors.ids):
        if name not in splits:
            continue
        scores, weights = (
            {split: [values[place[one]][column] for one in part] for split, part in splits[name].items()}
            for values in judged
        )
        inside = scores.get("held_out") or scores["seen"]
        histograms[name] = weights
        table[name] = {
            split: {
                **(UNDEFINED if split in OWN else separation(inside, outside)),
                "mean_weight": sum(weights[split]) / len(weights[split]),
                "prompts": len(weights[split]),
            }
            for split, outside in scores.items()
        }
    return table, histograms


def gate_errors(stream: RequestStream, weights: Weights, listed: int) -> dict[str, Any]:
    """Returns mistakes, calibration and confusion of the gate.

    `weights` are the second result of `evaluate_detectors` of all requests of the stream; `listed` misses and
    as many false alarms per request are kept as text, worst first.

    Returns:
        `mistakes[request]`: prompts with `split` and `weight`: misses (below 0.5 on its own splits) and
        false alarms (0.5 or more on others). `calibration[request]`: balanced calibration error in [0, 1] of
        its own prompts against all others, None without others. `confusion`: `rows` (owners; the last are
        utility prompts), `columns` (the request of the largest weight, or "none") and `values`, counts of
        held-out prompts; of seen ones where a request has no others.
    """
    splits = detector_splits(stream)
    return {
        "mistakes": {name: mistakes(splits[name], weights[name], listed) for name in weights},
        "calibration": {name: calibration(own) for name, own in weights.items()},
        "confusion": confusion(stream, splits, weights),
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
    """A request's calibration error; None without prompts of others."""
    inside, outside = (
        [weight for split, values in weights.items() if (split in OWN) == own for weight in values]
        for own in (True, False)
    )
    return calibration_error(inside, outside) if inside and outside else None


def confusion(
    stream: RequestStream, splits: Mapping[str, Mapping[str, Sequence[str]]], weights: Weights
) -> dict[str, Any]:
    """Counts of the prompts of each request, and of utility prompts, by the request of the largest weight."""
    names = [request.id for request in stream.requests]
    asked = [[row.prompt for row in request.held_out] or request.prompts for request in stream.requests]
    utility = [row.prompt for rows in stream.utility.values() for row in rows]
    columns = []
    for name in names:
        own = {
            prompt: weight
            for split, prompts in splits[name].items()
            for prompt, weight in zip(prompts, weights[name][split], strict=True)
        }
        columns.append([own[prompt] for prompts in (*asked, utility) for prompt in prompts])
    owners: list[int | None] = [i for i, prompts in enumerate(asked) for _ in prompts]
    owners += [None] * len(utility)
    counts = request_confusion(list(zip(*columns, strict=True)), owners)
    return {"rows": [*names, "utility"], "columns": [*names, "none"], "values": counts}
