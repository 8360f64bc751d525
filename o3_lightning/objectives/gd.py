"""GD: keep learning the retained answers."""

from torch import Tensor

from o3_lightning.objectives.batch_views import RETAIN, Objective
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["RETAIN_OBJECTIVE", "gd_loss"]


def gd_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean negative log-likelihood of retained answers.

    Args:
        logits: [B, T, V].
        labels: [B, T], the retained answers.

    Source:
        TOFU (Maini et al. 2024), "gradient difference".
    """
    return mean_nll(logits, labels)


RETAIN_OBJECTIVE = Objective(
    "gd", lambda views, _: gd_loss(views[RETAIN].logits, views[RETAIN].labels), (RETAIN,)
)
