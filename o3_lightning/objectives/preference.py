"""Objectives on differences of log-likelihoods: NPO, SimNPO, DPO, and AP on retained data."""

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import logsigmoid

from o3_lightning.objectives.batch_views import (
    ANSWER,
    REFUSAL,
    RETAIN,
    RETAIN_REFUSAL,
    Parameter,
    Settings,
    View,
)
from o3_lightning.objectives.registry import forget_objective, retain_objective
from o3_lightning.objectives.tokens import mean_of_rows, row_nll

Views = Mapping[str, View]
BETA = Parameter("beta", 0.1, "inverse temperature, above 0", open=True)


def nll_gap(view: View) -> Tensor:
    """Returns L - L_ref, L the summed negative log-likelihood of each answer, [B]."""
    return row_nll(view.logits, view.labels) - row_nll(view.need("reference_logits"), view.labels)


@forget_objective("npo", ANSWER, reference=(ANSWER,), parameters=[BETA])
def npo_loss(views: Views, settings: Settings) -> Tensor:
    """Returns -(2/beta) mean log sigmoid(beta (L - L_ref)), L a row's summed negative log-likelihood.

    Towards beta = 0 it becomes gradient ascent.

    Source:
        Zhang et al. 2024, equation 3.
    """
    answer, beta = views[ANSWER], float(settings.beta)
    return -2 / beta * mean_of_rows(logsigmoid(beta * nll_gap(answer)), answer)


@forget_objective(
    "simnpo",
    ANSWER,
    parameters=[
        Parameter("beta", 4.5, "inverse temperature, above 0", open=True),
        Parameter("delta", 0.0, "margin in nats a token", low=-math.inf),
    ],
)
def simnpo_loss(views: Views, settings: Settings) -> Tensor:
    """Returns -(2/beta) mean log sigmoid(beta (L - delta)), L a row's mean negative log-likelihood a token.

    Source:
        Fan et al. 2024, equation 4; beta 4.5 and delta 0 as published for TOFU.
    """
    answer, beta = views[ANSWER], float(settings.beta)
    gap = row_nll(answer.logits, answer.labels, per_token=True) - settings.delta
    return -2 / beta * mean_of_rows(logsigmoid(beta * gap), answer)


@forget_objective("dpo", ANSWER, REFUSAL, reference=(ANSWER, REFUSAL), parameters=[BETA])
def dpo_loss(views: Views, settings: Settings) -> Tensor:
    """Returns -(2/beta) mean log sigmoid(beta (log-ratio of the refusal - log-ratio of the true answer)).

    A log-ratio is the answer's log-likelihood minus that of the reference.

    Source:
        Rafailov et al. 2023, equation 7, with the factor 2 of the unlearning code of TOFU and its followers.
    """
    gap, beta = nll_gap(views[ANSWER]) - nll_gap(views[REFUSAL]), float(settings.beta)
    return -2 / beta * mean_of_rows(logsigmoid(beta * gap), views[ANSWER])


@retain_objective("ap", RETAIN, RETAIN_REFUSAL, parameters=[BETA])
def ap_loss(views: Views, settings: Settings) -> Tensor:
    """Returns -(1/beta) mean log sigmoid(beta (L_refusal - L_answer)), L summed over a row's answer.

    Answer preservation: retained questions keep their answers rather than a refusal.

    Source:
        Yuan et al. 2024, "A closer look at machine unlearning"; there is no factor 2, unlike in NPO and DPO.
    """
    answer, refusal, beta = views[RETAIN], views[RETAIN_REFUSAL], float(settings.beta)
    gap = row_nll(refusal.logits, refusal.labels) - row_nll(answer.logits, answer.labels)
    return -1 / beta * mean_of_rows(logsigmoid(beta * gap), answer)
