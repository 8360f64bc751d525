"""SimNPO: negative preference optimisation without a reference, normalised by length."""

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import logsigmoid

from o3_lightning.objectives.batch_views import ANSWER, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_rows
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import row_nll

__all__ = ["simnpo_loss"]


def simnpo_loss(logits: Tensor, labels: Tensor, beta: float, delta: float = 0.0) -> Tensor:
    """Returns -(2/beta) mean log sigmoid(beta (L - delta)), L a row's mean negative log-likelihood a token.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers.
        beta: inverse temperature, above 0.
        delta: margin in nats a token.

    Source:
        Fan et al. 2024, equation 4; beta 4.5 and delta 0 as published for TOFU.
    """
    gap = row_nll(logits, labels, per_token=True) - delta
    return -2 / beta * mean_of_rows(logsigmoid(beta * gap), labels)


@forget_objective(
    "simnpo",
    ANSWER,
    parameters=[
        Parameter("beta", 4.5, "inverse temperature, above 0", open=True),
        Parameter("delta", 0.0, "margin in nats a token", low=-math.inf),
    ],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return simnpo_loss(views[ANSWER].logits, views[ANSWER].labels, settings.beta, settings.delta)
