"""What the report shows beside the metrics: weights, curves, answers, configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from o3_lightning.evaluation.combined import Place

__all__ = ["ReportDetails"]


@dataclass(frozen=True)
class ReportDetails:
    """What the report shows beside the metrics; every field is plain JSON, and every one may be empty.

    Args:
        title: the heading of the page, e.g. the run's name.
        weights: `[request][split]` = that request's weight of each prompt, each in [0, 1].
        mistakes: `[request]` = prompts on the wrong side of one half: "split", "prompt" and "weight".
        curves: `[request]` = one mapping per training step, loss name to value; "step" counts the steps,
            where it is missing the place in the list does.
        samples: answers before and after: "split", "request" ("" for utility), "prompt", "truth", "before",
            "after" and "weights" (request id to weight).
        configuration: the whole configuration, YAML text.
        overlaps: by name of the measure, "rows" (request ids) and "values" (a square matrix).
        robustness: rows of `evaluation.robustness.Robustness.run`, one per attack and request.
        comparisons: by model, how it compares with one that never knew: `comparison` of an evaluation.
        beside: other models on the plane by name, results of `place_on_plane`.
        notes: sentences at the top of the page, e.g. what a reader must know before comparing.
    """

    title: str
    weights: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    mistakes: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    configuration: str = ""
    overlaps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    robustness: Sequence[Mapping[str, Any]] = ()
    comparisons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    beside: Mapping[str, Place] = field(default_factory=dict)
    notes: Sequence[str] = ()
