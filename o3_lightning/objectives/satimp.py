"""SatImp: gradient ascent, weighted by saturation and importance."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import token_nll

__all__ = ["satimp_loss"]


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


@forget_objective(
    "satimp",
    ANSWER,
    parameters=[
        Parameter("beta", 5.0, "exponent of the saturation, at least 0"),
        Parameter("second_beta", 1.0, "exponent of the importance, at least 0"),
    ],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return satimp_loss(views[ANSWER].logits, views[ANSWER].labels, settings.beta, settings.second_beta)
