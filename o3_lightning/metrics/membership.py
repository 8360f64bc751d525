"""Membership inference: values that tell training data from unseen data, one per example, and what they show.

Every value has the sign of a loss: lower = looks more like training data.

Shapes: B examples, T tokens of an example's answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from o3_lightning.metrics.registry import metric
from o3_lightning.metrics.separation import area_under_roc
from o3_lightning.metrics.token_scores import TokenScores, counted

__all__ = [
    "MEMBERSHIP_METRICS",
    "membership_auc",
    "min_k",
    "min_k_plus_plus",
    "privacy_leak",
    "reference_difference",
    "relative_difference",
    "zlib_ratio",
]

MEMBERSHIP_METRICS = (
    "mia_loss",
    "mia_zlib",
    "mia_min_k",
    "mia_min_k_plus_plus",
    "mia_reference",
    "mia_gradient_norm",
)
"""The metrics whose values `membership_auc` and `privacy_leak` compare."""
SHARE = 0.4
SMALLEST_DEVIATION = 1e-3  # OpenUnlearning holds the variance at 1e-6 or more
SMALLEST_REFERENCE = 1e-10
CHANCE = 0.5


@metric(
    "mia_zlib",
    "losses",
    "truths",
    forget=None,
    keep=None,
    meaning="membership value: loss over compressed length",
)
def zlib_ratio(losses: ArrayLike, texts: Sequence[str]) -> list[float]:
    """Returns the mean loss per token over the length of the zlib-compressed text.

    Args:
        losses: B mean losses per token, nats.
        texts: B answers.

    Returns:
        B values, nats per byte.

    Raises:
        ValueError: the lists differ in length.

    Source:
        Carlini et al. 2021; OpenUnlearning `mia/zlib.py`.

    Example:
        >>> zlib_ratio([1.8], ["a"])
        [0.2]
    """
    sizes = [len(zlib.compress(text.encode())) for text in texts]
    pairs = zip(np.asarray(losses, float).tolist(), sizes, strict=True)
    return [loss / size for loss, size in pairs]


@metric(
    "mia_min_k",
    "token_scores",
    forget=None,
    keep=None,
    meaning="membership value: loss of the 40 % least likely tokens",
)
def min_k(scores: Sequence[TokenScores], share: float = SHARE, *, drop_last: bool = True) -> list[float]:
    """Returns minus the mean log-probability of the least likely tokens.

    Args:
        scores: B answers.
        share: of the tokens, rounded down but one at least; in (0, 1]. OpenUnlearning's runs use 0.4.
        drop_last: whether the last token (the end of the text) is left out, as OpenUnlearning does.

    Returns:
        B values >= 0, nats.

    Raises:
        ValueError: a share outside (0, 1].

    Source:
        Shi et al. 2024 (Min-K% Prob); OpenUnlearning `mia/min_k.py`.

    Example:
        >>> import torch
        >>> flat = torch.ones(4)
        >>> min_k([TokenScores(-torch.arange(4.0), -flat, flat, flat > 0)], 0.5, drop_last=False)
        [2.5]
    """
    return [least_likely(part.log_probs, share) for part in counted(scores, drop_last)]


@metric(
    "mia_min_k_plus_plus",
    "token_scores",
    forget=None,
    keep=None,
    meaning="membership value: the same, standardised over the vocabulary",
)
def min_k_plus_plus(
    scores: Sequence[TokenScores], share: float = SHARE, *, drop_last: bool = True
) -> list[float]:
    """Returns `min_k` of log-probabilities that are standardised over the vocabulary at each position.

    Args:
        scores: B answers.
        share: as in `min_k`.
        drop_last: as in `min_k`.

    Returns:
        B values without unit. A position's deviation counts as 0.001 at least.

    Raises:
        ValueError: a share outside (0, 1].

    Source:
        Zhang et al. 2025 (Min-K%++); OpenUnlearning `mia/min_k_plus_plus.py`.

    Example:
        >>> import torch
        >>> flat = torch.ones(1)
        >>> min_k_plus_plus([TokenScores(-3 * flat, -flat, 2 * flat, flat > 0)])
        [1.0]
    """
    return [
        least_likely(
            (part.log_probs - part.vocabulary_mean) / part.vocabulary_deviation.clamp_min(SMALLEST_DEVIATION),
            share,
        )
        for part in counted(scores, drop_last)
    ]


def least_likely(values: Tensor, share: float) -> float:
    """Minus the mean of the smallest values, of which `share` count."""
    if not 0 < share <= 1:
        raise ValueError(f"expected a share in (0, 1], got {share}")
    count = max(1, int(len(values) * share))
    return -float(values.double().sort().values[:count].mean())


@metric(
    "mia_reference",
    "losses",
    "reference_losses",
    forget=None,
    keep=None,
    meaning="membership value: loss less that of a reference model",
)
def reference_difference(losses: ArrayLike, reference_losses: ArrayLike) -> list[float]:
    """Returns L - L_reference, per example.

    Args:
        losses: B mean losses per token of the model, nats.
        reference_losses: B mean losses per token of a model that never saw the data, nats.

    Returns:
        B values, nats.

    Raises:
        ValueError: the lists differ in length.

    Source:
        Carlini et al. 2021; OpenUnlearning `mia/reference.py`.

    Example:
        >>> reference_difference([1.0], [3.0])
        [-2.0]
    """
    pairs = zip(np.asarray(losses, float).tolist(), np.asarray(reference_losses, float).tolist(), strict=True)
    return [loss - reference for loss, reference in pairs]


def membership_auc(forget: ArrayLike, unseen: ArrayLike) -> float:
    """Returns how often an unseen example has a higher value than a forgotten one, ties counting half.

    Args:
        forget: membership values of the forget set, at least one.
        unseen: the same of data that the model never saw (a holdout), at least one.

    Returns:
        A value in [0, 1]: 1 = the forget set still looks like training data, 0.5 = like unseen data,
        below 0.5 = even stranger than unseen data.

    Source:
        OpenUnlearning `mia/utils.py`: forget = 0, holdout = 1.

    Example:
        >>> membership_auc([1.0, 2.0], [3.0, 4.0])
        1.0
    """
    return area_under_roc(np.asarray(unseen, float).tolist(), np.asarray(forget, float).tolist())


def privacy_leak(auc: float, reference_auc: float = CHANCE) -> float:
    """Returns privleak: how far 1 - AUC is from that of a model that never saw the forget set, in percent.

    Args:
        auc: of the unlearned model, in [0, 1], signed as in `membership_auc`.
        reference_auc: of the retrained model; 0.5 where there is none.

    Returns:
        A percentage; 0 is best, below 0 the forget set is still recognised, above 0 it is over-unlearned.

    Source:
        MUSE, "PrivLeak"; OpenUnlearning `privleak`, which likewise adds 1e-10 to the denominator.

    Example:
        >>> round(privacy_leak(1.0), 6), round(privacy_leak(0.5), 6)
        (-100.0, 0.0)
    """
    return relative_difference(1 - auc, 1 - reference_auc)


def relative_difference(value: float, reference: float) -> float:
    """Returns (value - reference) / (reference + 1e-10) in percent.

    Source:
        OpenUnlearning `rel_diff`.

    Example:
        >>> round(relative_difference(0.75, 0.5), 6)
        50.0
    """
    return (value - reference) / (reference + SMALLEST_REFERENCE) * 100


metric("mia_loss", "losses", forget=None, keep=None, meaning="membership value: mean loss per token")(list)
metric(
    "mia_gradient_norm",
    "gradient_norms",
    forget=None,
    keep=None,
    meaning="membership value: mean norm of the parameters' gradients",
)(list)
