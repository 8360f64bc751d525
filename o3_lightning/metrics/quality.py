"""Numbers that benchmarks combine from many metrics, over splits, models or a sequence of requests.

Shapes: B and C examples; K requests. A persistence matrix is [K, K + 1]: column 0 is the base model, column j
the model after request j.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from o3_lightning.common.plain import mean_of
from o3_lightning.metrics.text import unparseable

Aggregates = Mapping[str, Mapping[str, float | None]]
Groups = Mapping[str, Sequence[float | None]]
TOFU_SPLITS = {
    "retained_authors": "probability",
    "real_authors": "normalised_probability",
    "world_facts": "normalised_probability",
}
"""TOFU's utility splits, and the probability metric of each."""
TOFU_METRICS = ("rouge_l_recall", "truth_ratio@tofu")
CLOSER_LOOK_METRICS = (
    "rouge_l_recall",
    "truth_ratio@closer_look",
    "token_entropy",
    "cosine_similarity",
    "entailment",
)
SMALLEST_DROP = 0.01
EFFICACY_METRICS = ("probability", *(name for name in CLOSER_LOOK_METRICS if name != "token_entropy"))


@dataclass(frozen=True)
class ForgetQuality:
    """A Kolmogorov-Smirnov test: p-value in [0, 1], and largest distance of the distributions in [0, 1]."""

    p_value: float
    statistic: float


@dataclass(frozen=True)
class Combined:
    """A number combined from several metrics.

    Args:
        value: in [0, 1]; None where a part is missing, because a mean over fewer parts is another metric.
        parts: the combined values by "split/metric" (or "metric").
    """

    value: float | None
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Pooled:
    """One metric over several groups of examples.

    Args:
        pooled: mean over all examples, as O3 reports it; None where there is no value.
        mean: mean of the groups' means, so that small and large requests count alike.
        groups: mean of each group; None where a group has no value.
        unparseable: number of examples without a value; they are in no mean.
    """

    pooled: float | None
    mean: float | None
    groups: Mapping[str, float | None]
    unparseable: int


def forget_quality(ratios: ArrayLike, retrained_ratios: ArrayLike) -> ForgetQuality:
    """Returns the two-sided two-sample KS test of the raw truth ratios [B] and [C] of two models.

    Source:
        TOFU `aggregate_eval_stat.py`: `scipy.stats.ks_2samp` of the inverse ratios, which gives the same
        values.
    """
    result = scipy.stats.ks_2samp(np.asarray(ratios, float), np.asarray(retrained_ratios, float))
    return ForgetQuality(float(result.pvalue), float(result.statistic))


def tofu_utility(aggregates: Aggregates) -> Combined:
    """Returns TOFU's model utility: the harmonic mean of three metrics on three splits; 0 if one part is 0.

    Of `[split][metric]` it reads `TOFU_METRICS` and the probabilities of `TOFU_SPLITS`.

    Source:
        TOFU, "Model utility", and `aggregate_eval_stat.py`.
    """
    return harmonic(aggregates, TOFU_METRICS)


def closer_look_utility(aggregates: Aggregates) -> Combined:
    """Returns closer-look's model utility: the harmonic mean of six metrics on every split of TOFU.

    Source:
        closer-look `metrics.py`, `get_eval_results`.
    """
    return harmonic(aggregates, CLOSER_LOOK_METRICS)


def harmonic(aggregates: Aggregates, metrics: Iterable[str]) -> Combined:
    """The harmonic mean of each split's probability and the other metrics."""
    found = {
        f"{split}/{name}": aggregates.get(split, {}).get(name)
        for split, chance in TOFU_SPLITS.items()
        for name in (chance, *metrics)
    }
    parts = {name: value for name, value in found.items() if value is not None}
    whole = len(parts) == len(found)
    return Combined(float(scipy.stats.hmean(list(parts.values()))) if whole else None, parts)


def forget_efficacy(aggregates: Mapping[str, float | None]) -> Combined:
    """Returns closer-look's forget efficacy: 1 - mean of five metrics on a forget split, 1 = forgotten.

    The metrics are probability, ROUGE-L recall, `truth_ratio@closer_look`, cosine similarity and entailment.

    Source:
        closer-look `metrics.py`, `get_eval_results`.
    """
    parts = {name: value for name in EFFICACY_METRICS if (value := aggregates.get(name)) is not None}
    whole = len(parts) == len(EFFICACY_METRICS)
    return Combined(1 - sum(parts.values()) / len(parts) if whole else None, parts)


def pool(groups: Groups) -> Pooled:
    """Returns a metric's means over several groups of values.

    Example:
        >>> pool({"a": [1.0, 0.0, 0.0], "b": [1.0, None]})
        Pooled(pooled=0.5, mean=0.6666666666666666, groups={'a': 0.3333333333333333, 'b': 1.0}, unparseable=1)
    """
    means = {name: mean_of(values) for name, values in groups.items()}
    everything = [value for values in groups.values() for value in values]
    return Pooled(mean_of(everything), mean_of(means.values()), means, unparseable(everything))


def official_accuracies(
    seen: Groups, held_out: Groups, retained: Groups, utility: Groups
) -> dict[str, Pooled]:
    """Returns the accuracies in O3's tables by the names of the arguments, from accuracies per example.

    Args:
        seen: S.U., by unlearned request, on its own prompts; lower is better.
        held_out: D.U., by unlearned request, on other prompts of the same knowledge; lower is better.
        retained: R.D., by split of the same benchmark, on prompts that are kept; higher is better.
        utility: U.1, U.2 ..., by other benchmark; higher is better.

    Source:
        O3, section 5.1; its code counts an unreadable answer as wrong, hence as forgotten; here it is counted
        separately. `official_series` does as the code.
    """
    groups = {"seen": seen, "held_out": held_out, "retained": retained, "utility": utility}
    return {name: pool(values) for name, values in groups.items()}


def backward_transfer(values: Sequence[Sequence[float]]) -> float | None:
    """Returns the mean change of earlier requests from their own unlearning to the end of the sequence.

    Of a persistence matrix M [K, K + 1]: mean_i (M[i, K] - M[i, i]) over the first K - 1 requests (counted
    from 1); for accuracies a positive value means that forgotten answers came back. None with one request.

    Source:
        Backward transfer of continual learning (Lopez-Paz and Ranzato, 2017), here on forgetting.
    """
    return mean_of(row[-1] - row[number] for number, row in enumerate(values[:-1], start=1))


def unlearning_to_utility_ratio(
    forget: Sequence[tuple[float, float]], utility: Sequence[tuple[float, float]]
) -> float | None:
    """Returns U2R: the mean accuracy drop on forget prompts over the mean drop on utility prompts.

    Both sides are (base, now) accuracies by split. The ratio is at most 100 because a utility drop counts as
    0.01 or more; None where a side is empty.

    Source:
        O3, figure 2. The paper gives the equation as an image only; this form follows its text.
    """
    gain, loss = (mean_of(before - after for before, after in pairs) for pairs in (forget, utility))
    return None if gain is None or loss is None else round(gain / max(loss, SMALLEST_DROP), 10)
