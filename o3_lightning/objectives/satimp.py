"""SatImp: gradient ascent, weighted by saturation and importance."""

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Objective
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.tokens import token_nll

__all__ = ["OBJECTIVE", "satimp_loss"]


def satimp_loss(logits: Tensor, labels: Tensor, beta: float, second_beta: float) -> Tensor:
    """Returns -mean(p^beta (1-p)^second_beta nll) over the answers' tokens; the weights carry no gradient.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers.
        beta: exponent of the saturation p, at least 0.
        second_beta: exponent of the importance 1-p, at least 0.

    Source:
        Yang et al. 2025; 5 and 1 as in open-unlearning.
    """
    nll, _ = token_nll(logits, labels)
    p = (-nll.detach()).exp()
    return -mean_of_tokens(p**beta * (1 - p).clamp(min=0) ** second_beta * nll, labels)


OBJECTIVE = Objective(
    "satimp",
    lambda views, settings: satimp_loss(
        views[ANSWER].logits, views[ANSWER].labels, settings.beta, settings.second_beta
    ),
    (ANSWER,),
    beta=5.0,
    second_beta=1.0,
)
