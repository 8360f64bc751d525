"""How well the detectors of a store tell their requests from everything else, by the prompts' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.data.stream import RequestStream
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.metrics.separation import separation

__all__ = ["detector_splits", "evaluate_detectors"]

OWN = ("seen", "held_out")
UNDEFINED = {"auroc": None, "aupr": None, "fpr95": None}


def detector_splits(stream: RequestStream) -> dict[str, dict[str, list[str]]]:
    """Returns, per request, its prompts by split: its own, the other requests', utility and probes."""
    shared = {name: [row.prompt for row in rows] for name, rows in stream.utility.items()}
    shared.update({name: list(prompts) for name, prompts in stream.probes.items()})
    splits: dict[str, dict[str, list[str]]] = {}
    for request in stream.requests:
        others = [prompt for other in stream.requests if other.id != request.id for prompt in other.prompts]
        own = {"seen": request.prompts, "held_out": [row.prompt for row in request.held_out]}
        splits[request.id] = {
            name: prompts for name, prompts in {**own, "other_requests": others, **shared}.items() if prompts
        }
    return splits


def evaluate_detectors(
    detectors: MultiDetector, stream: RequestStream
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, dict[str, list[float]]]]:
    """Returns the separation of each request from each split, and the weights behind it.

    Scores rank the prompts, for weights tie at 0 and 1; the sign is fixed. For the request's own splits
    there is nothing to tell apart, so `auroc`, `aupr` and `fpr95` are None there.

    Args:
        detectors: of all requests of the stream.
        stream: requests, utility and probes.

    Returns:
        `[request][split]` = `auroc`, `aupr`, `fpr95` (held-out prompts against the split where the request
        has some, else its seen prompts) and `mean_weight`; and `[request][split]` = weights per prompt.
    """
    splits = detector_splits(stream)
    prompts = list(
        dict.fromkeys(prompt for own in splits.values() for part in own.values() for prompt in part)
    )
    place = {prompt: index for index, prompt in enumerate(prompts)}
    scores, weights = (values.tolist() for values in detectors.judge(prompts))
    table: dict[str, dict[str, dict[str, Any]]] = {}
    histograms: dict[str, dict[str, list[float]]] = {}
    for column, name in enumerate(detectors.ids):
        if name not in splits:
            continue
        own = {
            split: [scores[place[prompt]][column] for prompt in part] for split, part in splits[name].items()
        }
        histograms[name] = {
            split: [weights[place[prompt]][column] for prompt in part] for split, part in splits[name].items()
        }
        table[name] = separate(own, histograms[name])
    return table, histograms


def separate(
    scores: Mapping[str, Sequence[float]], weights: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """The row of each split of one request."""
    inside = scores.get("held_out") or scores["seen"]
    rows: dict[str, dict[str, Any]] = {}
    for split, outside in scores.items():
        rows[split] = {
            **(UNDEFINED if split in OWN else separation(inside, outside)),
            "mean_weight": sum(weights[split]) / len(weights[split]),
            "prompts": len(weights[split]),
        }
    return rows
