"""What two groups of values say together, by name: against unseen data, another model, other prompts.

Shapes: B and C examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from o3_lightning.metrics.calibration import calibration_error
from o3_lightning.metrics.membership import membership_auc, privacy_leak
from o3_lightning.metrics.quality import forget_quality
from o3_lightning.metrics.separation import area_under_roc, average_precision, false_positive_rate

__all__ = ["COMPARISONS", "MEMBERSHIP_METRICS", "Comparison"]

Against = Literal["unseen", "retrained", "others"]


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Args:
        name: how results call it.
        against: what the second group is: "unseen" data that the model never saw, the same data under a
            "retrained" model, or the "others" among the prompts of a detector.
        compare: from both groups, the forget set first, to one number.
        best: the number that a perfect unlearning or a perfect detector has.
        meaning: one sentence for people.
    """

    name: str
    against: Against
    compare: Callable[[Sequence[float], Sequence[float]], float]
    best: float
    meaning: str


def leak_against_chance(forget: Sequence[float], unseen: Sequence[float]) -> float:
    """MUSE's leak where there is no retrained model."""
    return privacy_leak(membership_auc(forget, unseen))


def quality_p_value(ratios: Sequence[float], retrained: Sequence[float]) -> float:
    """The p-value alone."""
    return forget_quality(ratios, retrained).p_value


MEMBERSHIP_METRICS = (
    "mia_loss",
    "mia_zlib",
    "mia_min_k",
    "mia_min_k_plus_plus",
    "mia_reference",
    "mia_gradient_norm",
)
"""The metrics whose values `membership_auc` and `privacy_leak` compare."""
LISTED = (
    Comparison(
        "membership_auc",
        "unseen",
        membership_auc,
        0.5,
        "how often unseen data looks less familiar than the forget set; 1 = still looks like training data",
    ),
    Comparison(
        "privacy_leak",
        "unseen",
        leak_against_chance,
        0.0,
        "privleak in percent against chance; below 0 = still recognised, above 0 = over-unlearned",
    ),
    Comparison(
        "forget_quality",
        "retrained",
        quality_p_value,
        1.0,
        "p-value that raw truth ratios come from the same distribution as the retrained model's",
    ),
    Comparison(
        "auroc",
        "others",
        area_under_roc,
        1.0,
        "how often a forget prompt scores above another one",
    ),
    Comparison(
        "aupr",
        "others",
        average_precision,
        1.0,
        "area under precision and recall of the forget prompts",
    ),
    Comparison(
        "fpr95",
        "others",
        false_positive_rate,
        0.0,
        "share of other prompts above the score that catches 95 % of the forget prompts",
    ),
    Comparison(
        "calibration_error",
        "others",
        calibration_error,
        0.0,
        "distance of weights from the share of forget prompts among prompts of that weight",
    ),
)
COMPARISONS: dict[str, Comparison] = {comparison.name: comparison for comparison in LISTED}
