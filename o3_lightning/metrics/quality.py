"""What benchmarks combine from many metrics: forget quality, model utility, forget efficacy.

Shapes: B and C examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import hmean, ks_2samp

__all__ = [
    "CLOSER_LOOK_METRICS",
    "TOFU_METRICS",
    "TOFU_SPLITS",
    "Combined",
    "ForgetQuality",
    "closer_look_utility",
    "forget_efficacy",
    "forget_quality",
    "tofu_utility",
]

Aggregates = Mapping[str, Mapping[str, float | None]]

TOFU_SPLITS = {
    "retained_authors": "probability",
    "real_authors": "normalised_probability",
    "world_facts": "normalised_probability",
}
"""TOFU's utility splits, and the probability that each of them takes."""
TOFU_METRICS = ("rouge_l_recall", "truth_ratio@tofu")
CLOSER_LOOK_METRICS = (
    "rouge_l_recall",
    "truth_ratio@closer_look",
    "token_entropy",
    "cosine_similarity",
    "entailment",
)
EFFICACY_METRICS = ("probability", *(name for name in CLOSER_LOOK_METRICS if name != "token_entropy"))


@dataclass(frozen=True)
class ForgetQuality:
    """What the Kolmogorov-Smirnov test says.

    Args:
        p_value: in [0, 1]; 1 = the unlearned model cannot be told from the retrained one.
        statistic: largest distance of both distribution functions, in [0, 1].
    """

    p_value: float
    statistic: float


@dataclass(frozen=True)
class Combined:
    """A number made of several metrics.

    Args:
        value: in [0, 1], or None where a part is missing: a mean over fewer parts would be another metric.
        parts: by "split/metric" (or "metric"), what went in.
        missing: names of the parts that were not measured.
    """

    value: float | None
    parts: Mapping[str, float]
    missing: tuple[str, ...]


def forget_quality(ratios: ArrayLike, retrained_ratios: ArrayLike) -> ForgetQuality:
    """Returns how alike the truth ratios on the forget set are to those of a model that never saw it.

    Args:
        ratios: B raw truth ratios of the unlearned model on the forget set.
        retrained_ratios: C raw truth ratios of the model retrained without it.

    Returns:
        p-value and statistic of the two-sided two-sample test.

    Source:
        TOFU `aggregate_eval_stat.py`: `scipy.stats.ks_2samp`. TOFU tests the inverse ratios, which gives the
        same values.

    Example:
        >>> forget_quality([0.1, 0.2], [0.1, 0.2])
        ForgetQuality(p_value=1.0, statistic=0.0)
    """
    result = ks_2samp(np.asarray(ratios, float), np.asarray(retrained_ratios, float))
    return ForgetQuality(float(result.pvalue), float(result.statistic))


def tofu_utility(aggregates: Aggregates) -> Combined:
    """Returns TOFU's model utility: the harmonic mean of three metrics on three splits.

    Args:
        aggregates: `[split][metric]`, with the splits and probabilities of `TOFU_SPLITS` and the metrics of
            `TOFU_METRICS`; anything else is not looked at.

    Returns:
        The nine parts and their harmonic mean, 0 as soon as one part is 0.

    Source:
        TOFU, "Model utility", and `aggregate_eval_stat.py`.
    """
    wanted = [(split, metric) for split, chance in TOFU_SPLITS.items() for metric in (chance, *TOFU_METRICS)]
    return harmonic(aggregates, wanted)


def closer_look_utility(aggregates: Aggregates, probabilities: Mapping[str, str] = TOFU_SPLITS) -> Combined:
    """Returns closer-look's model utility: the harmonic mean of six metrics on every split.

    Args:
        aggregates: `[split][metric]`.
        probabilities: the splits, and the probability that each takes; TOFU's by default. Its real-world
            benchmark takes `{"neighbours": "probability"}` and adds general tasks of another harness.

    Returns:
        The parts and their harmonic mean.

    Source:
        closer-look `metrics.py`, `get_eval_results`.
    """
    wanted = [
        (split, metric)
        for split, chance in probabilities.items()
        for metric in (chance, *CLOSER_LOOK_METRICS)
    ]
    return harmonic(aggregates, wanted)


def harmonic(aggregates: Aggregates, wanted: Sequence[tuple[str, str]]) -> Combined:
    """The harmonic mean of some parts."""
    found = {f"{split}/{metric}": aggregates.get(split, {}).get(metric) for split, metric in wanted}
    parts = {name: value for name, value in found.items() if value is not None}
    lacking = tuple(name for name in found if name not in parts)
    return Combined(None if lacking else float(hmean(list(parts.values()))), parts, lacking)


def forget_efficacy(aggregates: Mapping[str, float | None]) -> Combined:
    """Returns closer-look's forget efficacy: 1 - mean of five metrics on the forget split, 1 = forgotten.

    Args:
        aggregates: by metric, on one forget split: probability, ROUGE-L recall, `truth_ratio@closer_look`,
            cosine similarity and entailment; token entropy is not part of it.

    Returns:
        The five parts and the value in [0, 1].

    Source:
        closer-look `metrics.py`, `get_eval_results`.

    Example:
        >>> forget_efficacy({"probability": 0.5}).missing[0]
        'rouge_l_recall'
    """
    parts = {name: value for name in EFFICACY_METRICS if (value := aggregates.get(name)) is not None}
    lacking = tuple(name for name in EFFICACY_METRICS if name not in parts)
    return Combined(None if lacking else 1 - sum(parts.values()) / len(parts), parts, lacking)
