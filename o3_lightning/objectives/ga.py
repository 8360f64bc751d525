"""GA: gradient ascent on the true answers."""

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Objective
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["OBJECTIVE", "ga_loss"]


def ga_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns minus the mean negative log-likelihood of the true answers; unbounded below.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers.

    Source:
        TOFU (Maini et al. 2024), "gradient ascent".
    """
    return -mean_nll(logits, labels)


OBJECTIVE = Objective("ga", lambda views, _: ga_loss(views[ANSWER].logits, views[ANSWER].labels), (ANSWER,))
