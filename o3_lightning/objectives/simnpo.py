"""SimNPO: negative preference optimisation without a reference, normalised by length."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from o3_lightning.objectives.batch_views import ANSWER, Objective
from o3_lightning.objectives.reductions import mean_of_rows
from o3_lightning.objectives.tokens import row_nll

__all__ = ["OBJECTIVE", "simnpo_loss"]


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


OBJECTIVE = Objective(
    "simnpo",
    lambda views, settings: simnpo_loss(
        views[ANSWER].logits, views[ANSWER].labels, settings.beta, settings.delta
    ),
    (ANSWER,),
    beta=4.5,
)
