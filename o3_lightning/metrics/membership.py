"""Membership inference: values per example that tell training data from unseen data, and their AUC.

Every value has the sign of a loss: lower = looks more like training data. Shared arguments, for B examples:
`losses`, mean losses per token of the true answers, nats; `scores`, their token scores, of which the last
(the end token) is left out, as in OpenUnlearning. Lists of different length raise ValueError.
"""

import zlib
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from o3_lightning.metrics.detection import area_under_roc
from o3_lightning.metrics.registry import metric
from o3_lightning.metrics.token_scores import TokenScores

KINDS = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradient_norm")
MEMBERSHIP_METRICS = (*(f"mia_{kind}" for kind in KINDS), "mia_gradient_norm@openunlearning")
"""The metrics whose values `membership_auc` and `privacy_leak` compare."""
SHARE = 0.4
SMALLEST_DEVIATION = 1e-3  # OpenUnlearning holds the variance at 1e-6 or more
SMALLEST_REFERENCE = 1e-10
CHANCE = 0.5

membership_metric = partial(metric, forget=None, keep=None)


@membership_metric("mia_zlib", "losses", "truths", meaning="membership value: loss over compressed length")
def zlib_ratio(losses: ArrayLike, texts: Sequence[str]) -> list[float]:
    """Returns each answer's mean loss per token over the length of its zlib-compressed text, nats per byte.

    Source:
        Carlini et al. 2021; OpenUnlearning `mia/zlib.py`.
    """
    pairs = zip(np.asarray(losses, float).tolist(), texts, strict=True)
    return [loss / len(zlib.compress(text.encode())) for loss, text in pairs]


@membership_metric("mia_min_k", "token_scores", meaning="membership value: the 40 % least likely tokens")
def min_k(scores: Sequence[TokenScores], share: float = SHARE) -> list[float]:
    """Returns minus the mean log-probability of the least likely tokens; B values >= 0, nats.

    `share` of the tokens counts, rounded down but at least one; OpenUnlearning's runs use 0.4.

    Raises:
        ValueError: a share outside (0, 1].

    Source:
        Shi et al. 2024 (Min-K% Prob); OpenUnlearning `mia/min_k.py`.
    """
    return [least_likely(part.without_last().log_probs, share) for part in scores]


@membership_metric("mia_min_k_plus_plus", "token_scores", meaning="membership value: the same, standardised")
def min_k_plus_plus(scores: Sequence[TokenScores], share: float = SHARE) -> list[float]:
    """Returns `min_k` of log-probabilities standardised over the vocabulary at each position.

    The values have no unit; a standard deviation below 0.001 counts as 0.001.

    Source:
        Zhang et al. 2025 (Min-K%++); OpenUnlearning `mia/min_k_plus_plus.py`, whose variance E[x^2] - E[x]^2
        loses about 1e-5 of the value in float32; ours is computed around the mean.
    """
    return [
        least_likely(
            (part.log_probs - part.vocabulary_mean) / part.vocabulary_deviation.clamp_min(SMALLEST_DEVIATION),
            share,
        )
        for part in (each.without_last() for each in scores)
    ]


def least_likely(values: Tensor, share: float) -> float:
    """Minus the mean of the smallest `share` of the values."""
    if not 0 < share <= 1:
        raise ValueError(f"expected a share in (0, 1], got {share}")
    count = max(1, int(len(values) * share))
    return -float(values.double().sort().values[:count].mean())


@membership_metric("mia_reference", "losses", "reference_losses", meaning="membership value: loss difference")
def reference_difference(losses: ArrayLike, reference_losses: ArrayLike) -> list[float]:
    """Returns L - L_reference of each example, nats; the reference model never saw the data.

    Source:
        Carlini et al. 2021; OpenUnlearning `mia/reference.py`.
    """
    pairs = zip(np.asarray(losses, float).tolist(), np.asarray(reference_losses, float).tolist(), strict=True)
    return [loss - reference for loss, reference in pairs]


def gradient_norm(loss: Tensor, parameters: Sequence[Tensor]) -> float:
    """Returns the mean, over parameters, of the Euclidean norm of one example's gradient, >= 0.

    Args:
        loss: scalar, the mean loss of one example's answer tokens, with its graph.
        parameters: with `requires_grad`; those that the loss does not depend on are left out of the mean.
            Their `grad` is not touched, where the reference code zeroes it.

    Raises:
        ValueError: the loss depends on no parameter.

    Source:
        Duan et al. 2024; OpenUnlearning `mia/gradnorm.py`: the mean of the parameters' norms, not the norm
        of the whole gradient.
    """
    gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    norms = [float(part.detach().float().norm(p=2.0)) for part in gradients if part is not None]
    if not norms:
        raise ValueError("expected the gradient of at least one parameter")
    return sum(norms) / len(norms)


def membership_auc(forget: ArrayLike, unseen: ArrayLike) -> float:
    """Returns the probability that an unseen example has a higher value than a forgotten one, ties half.

    A value in [0, 1]: 1 = the forget set still looks like training data, 0.5 = like unseen data (a holdout),
    below 0.5 = less familiar than unseen data.

    Source:
        OpenUnlearning `mia/utils.py`: forget = 0, holdout = 1.
    """
    return area_under_roc(np.asarray(unseen, float).tolist(), np.asarray(forget, float).tolist())


def privacy_leak(auc: float, reference_auc: float = CHANCE) -> float:
    """Returns privleak: the relative difference of 1 - AUC to that of a retrained model, in percent.

    Args:
        auc: of the unlearned model, in [0, 1], see `membership_auc`.
        reference_auc: of a model retrained without the forget set; 0.5 where there is none.

    Returns:
        A percentage; 0 is best, below 0 the forget set is still recognised, above 0 it is over-unlearned.

    Source:
        MUSE, "PrivLeak"; OpenUnlearning `privleak` and `rel_diff`, which also add 1e-10 to the denominator.
    """
    value, reference = 1 - auc, 1 - reference_auc
    return (value - reference) / (reference + SMALLEST_REFERENCE) * 100


membership_metric("mia_loss", "losses", meaning="membership value: mean loss per token")(list)
membership_metric("mia_gradient_norm", "gradient_norms", meaning="membership value: mean gradient norm")(list)
membership_metric(
    "mia_gradient_norm@openunlearning",
    "short_gradient_norms",
    meaning="membership value: mean gradient norm without the last token",
)(list)
