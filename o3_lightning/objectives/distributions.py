"""Objectives on whole next-token distributions: ME, UNDIAL, CE-U, EUL, PDU, imitation, retained KL."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED
from o3_lightning.objectives.batch_views import (
    ANSWER,
    DUAL_STEP,
    IMITATED,
    RETAIN,
    STRANGER,
    Parameter,
    Settings,
    View,
)
from o3_lightning.objectives.registry import forget_objective, retain_objective
from o3_lightning.objectives.tokens import mean_nll, mean_of_rows, mean_of_tokens, shift, to_float32

Views = Mapping[str, View]
DIRECTIONS = ("uniform_to_model", "model_to_uniform")


@forget_objective(
    "me",
    ANSWER,
    parameters=[
        Parameter(
            "direction",
            DIRECTIONS[0],
            "divergence as in the code, or model_to_uniform as in the paper",
            choices=DIRECTIONS,
        ),
        Parameter("floor", 0.0, "added to a probability before its logarithm; 1e-12 in the code"),
    ],
)
def me_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean over the answers' tokens of the divergence between model P and uniform U.

    The direction "uniform_to_model" is KL(U || P), what the authors' code computes; "model_to_uniform" is
    KL(P || U), what their paper writes.

    Source:
        Yuan et al. 2024, "A closer look at machine unlearning". Its code adds 1e-12 to P (here `floor`),
        which bounds the loss and its gradient where P vanishes, and counts the prompt when its `mask` is off
        (here `objective.prompt_tokens`).
    """
    answer = views[ANSWER]
    kept, _, _ = shift(answer.logits, answer.labels)
    log_p, log_u = kept.log_softmax(-1), -math.log(kept.shape[-1])
    if settings.direction == "uniform_to_model":
        floored = (log_p.exp() + settings.floor).log() if settings.floor else log_p
        return mean_of_tokens(log_u - floored.mean(-1), answer)
    return mean_of_tokens((log_p.exp() * (log_p - log_u)).sum(-1), answer)


@forget_objective(
    "undial",
    ANSWER,
    reference=(ANSWER,),
    parameters=[Parameter("beta", 10.0, "how far the true token's logit is lowered, at least 0")],
)
def undial_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean cross entropy to softmax(z_ref - beta onehot(y)) at the answers' tokens y.

    Source:
        Dong et al. 2024; open-unlearning's code averages over prompt and padding too, ours does not.
    """
    answer = views[ANSWER]
    kept, targets, _ = shift(answer.logits, answer.labels)
    goal, _, _ = shift(answer.need("reference_logits"), answer.labels)
    lowered = torch.full_like(targets, settings.beta, dtype=goal.dtype).unsqueeze(-1)
    goal = goal.scatter_add(-1, targets.unsqueeze(-1), -lowered).softmax(-1).detach()
    return mean_of_tokens(-(goal * kept.log_softmax(-1)).sum(-1), answer)


@forget_objective(
    "ceu",
    ANSWER,
    parameters=[
        Parameter("skip_first", False, "leave out each answer's first token, as open-unlearning's code does")
    ],
)
def ceu_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean cross entropy to softmax(z with the true logit at minus infinity), z held fixed.

    Source:
        Yang 2025, CE-U; open-unlearning's code leaves out the first token (`ignore_first_n` 1).
    """
    answer = without_first_token(views[ANSWER]) if settings.skip_first else views[ANSWER]
    kept, targets, _ = shift(answer.logits, answer.labels)
    goal = kept.detach().scatter(-1, targets.unsqueeze(-1), float("-inf")).softmax(-1)
    return mean_of_tokens(-(goal * kept.log_softmax(-1)).sum(-1), answer)


def without_first_token(view: View) -> View:
    """Returns a view in which the first labelled token of each row is none."""
    labelled = view.labels != IGNORED
    first = labelled & (labelled.cumsum(-1) == 1)
    counts = view.counts
    if counts is not None:  # each row with a label loses one token; where none is left all values are 0
        left = counts[0] - counts[1]
        counts = torch.stack([torch.where(left > 0, left, torch.ones_like(left)), counts[1]])
    return replace(view, labels=view.labels.masked_fill(first, IGNORED), counts=counts)


@forget_objective(
    "imitate",
    IMITATED,
    STRANGER,
    reference=(STRANGER,),
    parameters=[Parameter("keep", 1.0, "weight of the divergence on the strangers themselves, at least 0")],
)
def imitate_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean of KL(reference about a stranger || model) over the tokens of some answers.

    The model learns to answer about the forgotten person as it answered before unlearning about one whom it
    never knew. `keep` times the same divergence on the prompts about the stranger is added.

    Raises:
        InputError: an answer was cut after one of the two prompts.
    """
    answer, stranger = views[IMITATED], views[STRANGER]
    mask, place = (view.labels[:, 1:] != IGNORED for view in (answer, stranger))
    if not torch.equal(mask.sum(-1), place.sum(-1)):
        raise InputError("'imitate' needs answers as long after both prompts", field="adapter.max_tokens")
    goal = torch.zeros_like(answer.logits)
    goal[:, :-1][mask] = stranger.need("reference_logits")[:, :-1][place]
    kept: Tensor = settings.keep * mean_divergence(stranger)
    return mean_divergence(replace(answer, reference_logits=goal)) + kept


@retain_objective(
    "kl",
    RETAIN,
    reference=(RETAIN,),
    parameters=[
        Parameter("every_token", False, "average over prompt and padding too, as the published codes do")
    ],
)
def kl_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean of KL(reference || model) over the tokens of the retained answers.

    Source:
        TOFU (Maini et al. 2024), "KL minimisation"; its code has no mask, which `every_token` reproduces.
    """
    retain = views[RETAIN]
    if settings.every_token:
        return mean_of_rows(divergence_from_reference(retain).mean(-1), retain)
    return mean_divergence(retain)


def divergence_from_reference(view: View) -> Tensor:
    """Returns KL(reference || model) at every position of a view, [B, T]."""
    log_p = to_float32(view.logits).log_softmax(-1)
    log_q = to_float32(view.need("reference_logits")).log_softmax(-1).detach()
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def mean_divergence(view: View) -> Tensor:
    """Returns the mean of KL(reference || model) over the tokens of the answers."""
    return mean_of_tokens(divergence_from_reference(view)[:, :-1], view)  # logits predict the next token


@forget_objective(
    "eul",
    ANSWER,
    reference=(ANSWER,),
    parameters=[
        Parameter("alpha", 0.8, "weight of the divergence from the model before"),
        Parameter("gamma", 0.2, "weight of the likelihood that is lowered"),
    ],
)
def eul_loss(views: Views, settings: Settings) -> Tensor:
    """Returns -alpha KL(reference || model) - gamma NLL on the forget answers; unbounded below.

    Source:
        Chen & Yang 2023, "Unlearn What You Want to Forget": the forget part of its selective teacher-student
        loss, with the adapter as unlearning layer; `eul_retain_loss` is the other part. Its masked-LM term is
        the next-token one here, and both parts are minimised in each step. The authors' repository holds no
        training objective (SALT-NLP/Efficient_Unlearning, 6abab5b); 0.8, 0.2 and `task` 1 are alpha, gamma
        and lambda of re-implementations, some of which give the divergence on forget answers the weight 1.
    """
    answer = views[ANSWER]
    loss: Tensor = -settings.alpha * mean_divergence(answer) - settings.gamma * mean_nll(answer)
    return loss


@retain_objective(
    "eul",
    RETAIN,
    reference=(RETAIN,),
    parameters=[Parameter("task", 1.0, "weight of the likelihood of the retained answers")],
)
def eul_retain_loss(views: Views, settings: Settings) -> Tensor:
    """Returns KL(reference || model) + task NLL on the retained answers; see `eul_loss`."""
    loss: Tensor = mean_divergence(views[RETAIN]) + settings.task * mean_nll(views[RETAIN])
    return loss


@forget_objective(
    "pdu",
    ANSWER,
    parameters=[
        Parameter("unshifted", False, "use the logits at the labels, as open-unlearning's code does")
    ],
)
def pdu_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean of (largest logit - mean logit)^2 over the answers' tokens; 0 for a uniform model.

    Source:
        Entesari et al. 2025, "Constrained entropic unlearning" (PDU). The mask of open-unlearning's code is
        one token late: it counts the logits after each token of the answer, not those that predict it.
    """
    answer = views[ANSWER]
    logits = to_float32(answer.logits if settings.unshifted else answer.logits[:, :-1])
    return mean_of_tokens((logits.amax(-1) - logits.mean(-1)).square(), answer)


@retain_objective(
    "pdu",
    RETAIN,
    parameters=[
        Parameter("slack", 0.3, "allowed mean negative log-likelihood of retained answers; 0.3 for TOFU"),
        Parameter(DUAL_STEP, 1.0, "growth of the coefficient per batch and unit of excess; 5 for TOFU"),
        Parameter("dual_warmup", 0.5, "share of the training before the coefficient first changes"),
    ],
)
def pdu_retain_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the excess of the retained answers' mean negative log-likelihood over the slack.

    Training multiplies it by a coefficient that dual ascent adapts: max(0, coefficient + dual_step * excess).

    Source:
        Entesari et al. 2025 and open-unlearning's `PDU`, whose slack has no default: it should lie a little
        above the loss before unlearning. Its scripts start with a coefficient of 100 (TOFU) or 50 (MUSE) and
        warm up for 5 of 10 to 30 epochs, or 3 of 10.
    """
    slack: float = settings.slack
    return mean_nll(views[RETAIN]) - slack
