"""Every metric by name.

A metric here gives one value per example of one split; what compares two splits or two models starts from
these values and is in `metrics.quality`, `metrics.membership` and `metrics.continual`.
"""

from __future__ import annotations

from collections.abc import Sequence

from o3_lightning.metrics.catalogue import LISTED
from o3_lightning.metrics.evidence import Evidence
from o3_lightning.metrics.metric import Metric, Values

__all__ = ["METRICS", "find", "measure", "missing", "needs_of"]

METRICS: dict[str, Metric] = {metric.name: metric for metric in LISTED}


def missing(name: str, evidence: Evidence) -> list[str]:
    """Returns the needs of a metric that the evidence lacks; a metric that lacks one is left out, not faked.

    Raises:
        ValueError: no metric of this name.
    """
    return [need for need in find(name).needs if getattr(evidence, need) is None]


def needs_of(names: Sequence[str]) -> set[str]:
    """Returns all that some metrics need together.

    Raises:
        ValueError: no metric of a name.
    """
    return {need for name in names for need in find(name).needs}


def measure(name: str, evidence: Evidence) -> Values:
    """Returns one value per example, None where an example has none.

    Args:
        name: one of `METRICS`.
        evidence: of one split.

    Raises:
        ValueError: no metric of this name, or the evidence lacks what it needs; the message names it.

    Example:
        >>> measure("rouge1_recall", Evidence("keep", ["Where?"], ["in Paris"], answers=["Paris"]))
        [0.5]
    """
    lacking = missing(name, evidence)
    if lacking:
        raise ValueError(f"metric {name!r} needs {', '.join(lacking)}, which the evidence lacks")
    return find(name).compute(evidence)


def find(name: str) -> Metric:
    """Returns the metric of a name.

    Raises:
        ValueError: no metric of this name; the message lists them all.
    """
    if name not in METRICS:
        raise ValueError(f"expected a metric out of {', '.join(METRICS)}, got {name!r}")
    return METRICS[name]
