"""Metrics of teacher-forced answers: likelihood, truth ratio and memorization, one value per example.

Shared arguments, for B examples: `losses` or `true_losses`, mean negative log-likelihoods per token of the
true answers, nats, each >= 0; `perturbed_losses`, P >= 1 such losses of the wrong answers of each example;
`scores`, the token scores of the true answers, of which the last (the end token) is left out, as in
OpenUnlearning. Lists that differ in length, or an example without wrong answers, raise ValueError.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from o3_lightning.metrics.registry import Direction, Kind, metric
from o3_lightning.metrics.token_scores import TokenScores

TruthRatioVersion = Literal["tofu", "openunlearning", "closer_look"]
TRUTH_RATIO_VERSIONS: tuple[TruthRatioVersion, ...] = get_args(TruthRatioVersion)
OPENUNLEARNING_EPSILON = 1e-10
PERTURBED = ("paraphrased_losses", "perturbed_losses")


@metric("probability", "losses", meaning="probability of the true answer, per token")
def probability(losses: ArrayLike) -> list[float]:
    """Returns p = exp(-L) in (0, 1], the geometric mean of an answer's token probabilities.

    Source:
        TOFU, equation of "Probability": p(a|q)^(1/|a|).
    """
    values: list[float] = np.exp(-np.asarray(losses, float)).tolist()
    return values


@metric("perplexity", "losses", meaning="perplexity of the true answer", forget="higher", keep="lower")
def perplexity(losses: ArrayLike) -> list[float]:
    """Returns exp(L) >= 1 of each answer; infinite where the loss is beyond float64."""
    with np.errstate(over="ignore"):
        values: list[float] = np.exp(np.asarray(losses, float)).tolist()
    return values


@metric("normalised_probability", "losses", "perturbed_losses", meaning="probability among the given answers")
def normalised_probability(true_losses: ArrayLike, perturbed_losses: Sequence[ArrayLike]) -> list[float]:
    """Returns p / (p + sum_p p_wrong) in [0, 1], of length-normalised probabilities.

    Source:
        TOFU `aggregate_eval_stat.py`, for real authors and world facts; OpenUnlearning
        `probability_w_options` adds 1e-10 to the denominator.
    """
    values = []
    for loss, wrong in paired(true_losses, perturbed_losses):
        # relative to the most likely answer, so that no exponential underflows
        shares = np.exp(min(loss, wrong.min()) - np.append(wrong, loss))
        values.append(float(shares[-1] / shares.sum()))
    return values


@metric(
    "truth_ratio_raw", *PERTURBED, meaning="how much more likely wrong answers are", forget=None, keep=None
)
def truth_ratio(
    true_losses: ArrayLike, perturbed_losses: Sequence[ArrayLike], version: TruthRatioVersion = "tofu"
) -> list[float]:
    """Returns R = exp(-mean_p L_p) / exp(-L) >= 0, how much more likely wrong answers are than the true one.

    Args:
        true_losses: TOFU scores a paraphrase of the true answer, or the answer itself where there is none.
        perturbed_losses: of wrong answers of the same form; their mean makes it a geometric mean.
        version: "openunlearning" adds 1e-10 to the denominator; the others do not.

    Raises:
        ValueError: an unknown version.

    Source:
        TOFU `aggregate_eval_stat.py` (the paper averages arithmetically, the code geometrically as here);
        OpenUnlearning `memorization.py`; closer-look `metrics.py`.
    """
    check_version(version)
    pairs = [(loss, float(wrong.mean())) for loss, wrong in paired(true_losses, perturbed_losses)]
    right, wrong = np.asarray(pairs, float).reshape(-1, 2).T
    with np.errstate(over="ignore"):
        if version == "openunlearning":
            ratios = np.exp(-wrong) / (np.exp(-right) + OPENUNLEARNING_EPSILON)
        else:
            ratios = np.exp(right - wrong)
    values: list[float] = ratios.tolist()
    return values


def truth_ratio_quality(ratios: ArrayLike, split: Kind, version: TruthRatioVersion = "tofu") -> list[float]:
    """Returns B values in [0, 1] that score raw truth ratios as a source defines it.

    Args:
        ratios: B raw ratios, each >= 0, of the same version.
        split: "forget" gives min(R, 1/R), 1 = forgotten (true and wrong answers are equally likely); "keep"
            gives max(0, 1 - R), 1 = kept.
        version: on the forget split "closer_look" gives 1 - min(R, 1/R), 0 = forgotten, and
            "openunlearning" replaces 1/R by 1 / (R + 1e-10).

    Raises:
        ValueError: an unknown version.

    Source:
        As in `truth_ratio`.

    Example:
        >>> truth_ratio_quality([0.25, 4.0], "forget"), truth_ratio_quality([0.25, 4.0], "keep")
        ([0.25, 0.25], [0.75, 0.0])
        >>> truth_ratio_quality([0.25, 4.0], "forget", "closer_look")
        [0.75, 0.75]
    """
    check_version(version)
    raw = np.asarray(ratios, float)
    if split == "keep":
        read = np.maximum(0.0, 1 - raw)
    else:
        with np.errstate(divide="ignore"):
            read = np.minimum(raw, 1 / (raw + (OPENUNLEARNING_EPSILON if version == "openunlearning" else 0)))
        read = 1 - read if version == "closer_look" else read
    values: list[float] = read.tolist()
    return values


def read_truth_ratio(
    true_losses: ArrayLike, perturbed_losses: Sequence[ArrayLike], split: Kind, version: TruthRatioVersion
) -> list[float]:
    """The scores of a version's own raw ratios."""
    return truth_ratio_quality(truth_ratio(true_losses, perturbed_losses, version), split, version)


def paired(true_losses: ArrayLike, perturbed_losses: Sequence[ArrayLike]) -> list[tuple[float, np.ndarray]]:
    """Each example's loss of the true answer and losses [P] of the wrong ones."""
    wrong = [np.asarray(losses, float).reshape(-1) for losses in perturbed_losses]
    if any(not len(losses) for losses in wrong):
        raise ValueError("expected at least one perturbed answer for each example")
    return list(zip(np.asarray(true_losses, float).reshape(-1).tolist(), wrong, strict=True))


def check_version(version: str) -> None:
    """Refuses an unknown version."""
    if version not in TRUTH_RATIO_VERSIONS:
        expected = ", ".join(TRUTH_RATIO_VERSIONS)
        raise ValueError(f"expected a truth ratio version out of {expected}, got {version!r}")


VERSIONS: tuple[tuple[TruthRatioVersion, Direction, str], ...] = (
    ("tofu", "higher", "TOFU: min(R, 1/R) on forget splits, max(0, 1 - R) on utility splits"),
    ("openunlearning", "higher", "as TOFU's, with 1e-10 in both denominators"),
    ("closer_look", "lower", "1 - min(R, 1/R) on forget splits, max(0, 1 - R) on utility splits"),
)
for version, direction, meaning in VERSIONS:
    metric(f"truth_ratio@{version}", *PERTURBED, "kind", meaning=meaning, forget=direction)(
        partial(read_truth_ratio, version=version)
    )


@metric(
    "truth_ratio@prob_mean",
    *PERTURBED,
    meaning="share of the true answer in its probability plus that of the wrong ones",
    forget="lower",
)
def truth_share(true_losses: ArrayLike, perturbed_losses: Sequence[ArrayLike]) -> list[float]:
    """Returns p / (p + p_wrong) = 1 / (1 + R) in [0, 1], 0.5 = true and wrong answers are equally likely.

    Args:
        true_losses: mean loss per token of B paraphrased true answers, nats.
        perturbed_losses: of the wrong answers of each; p_wrong is their geometric mean.

    Source:
        OpenUnlearning's proposed aggregator `prob_mean` (its pull request 163), off by default there.
    """
    return [1 / (1 + ratio) for ratio in truth_ratio(true_losses, perturbed_losses)]


@metric("exact_memorization", "token_scores", meaning="share of the answer's tokens that are the argmax")
def exact_memorization(scores: Sequence[TokenScores]) -> list[float]:
    """Returns the share in [0, 1] of answer tokens that are the model's argmax.

    Source:
        OpenUnlearning `exact_memorization`; Tirumala et al. 2022.
    """
    return [float(part.without_last().is_argmax.double().mean()) for part in scores]


@metric("extraction_strength@openunlearning", "token_scores", meaning="the same, of one token at least")
def extraction_strength(scores: Sequence[TokenScores], *, floor: bool = True) -> list[float]:
    """Returns 1 - k / T in [0, 1], k being the shortest prefix after which every token is the argmax.

    Args:
        scores: B answers of T tokens each.
        floor: give 1 / T to an answer of which not even the last token is the argmax, as OpenUnlearning's
            code does (its loop ends one step early); False gives 0, as the definition says.

    Source:
        Carlini et al. 2021; OpenUnlearning `extraction_strength`.

    Example:
        >>> import torch
        >>> none, hits = torch.zeros(5), torch.tensor([True, False, True, True, False])
        >>> extraction_strength([TokenScores(none, none, none, hits)])
        [0.5]
    """
    values = []
    for part in scores:
        correct = part.without_last().is_argmax.tolist()
        run = next((number for number, hit in enumerate(reversed(correct)) if not hit), len(correct))
        values.append((max(run, 1) if floor else run) / len(correct))
    return values


metric(
    "extraction_strength",
    "token_scores",
    meaning="share of the answer that greedy decoding completes from the shortest sufficient prefix",
)(partial(extraction_strength, floor=False))
