"""Gradient ascent with a weight for each token that carries no gradient: WGA and SatImp."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Parameter, Settings, View
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import mean_of_tokens, token_nll

__all__ = ["satimp_loss", "wga_loss"]


@forget_objective(
    "wga", ANSWER, parameters=[Parameter("beta", 1.0, "exponent of the weight, at least 0; 0 is ga")]
)
def wga_loss(views: Mapping[str, View], settings: Settings) -> Tensor:
    """Returns -mean(p^beta nll) over the answers' tokens.

    Source:
        Wang et al. 2025, weighted gradient ascent.
    """
    answer = views[ANSWER]
    nll, _ = token_nll(answer.logits, answer.labels)
    return -mean_of_tokens((-settings.beta * nll.detach()).exp() * nll, answer)


@forget_objective(
    "satimp",
    ANSWER,
    parameters=[
        Parameter("beta", 5.0, "exponent of the saturation, at least 0"),
        Parameter("second_beta", 1.0, "exponent of the importance, at least 0"),
    ],
)
def satimp_loss(views: Mapping[str, View], settings: Settings) -> Tensor:
    """Returns -mean(p^beta (1-p)^second_beta nll) over the answers' tokens: saturation p, importance 1-p.

    Source:
        Yang et al. 2025; 5 and 1 as in open-unlearning.
    """
    answer = views[ANSWER]
    nll, _ = token_nll(answer.logits, answer.labels)
    p = (-nll.detach()).exp()
    weights = p**settings.beta * (1 - p).clamp(min=0) ** settings.second_beta
    return -mean_of_tokens(weights * nll, answer)
