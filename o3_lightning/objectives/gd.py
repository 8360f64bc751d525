"""GD: keep learning the retained answers."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import RETAIN, Settings, View
from o3_lightning.objectives.registry import retain_objective
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["gd_loss"]


def gd_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean negative log-likelihood of retained answers.

    Args:
        logits: [B, T, V].
        labels: [B, T], the retained answers.

    Source:
        TOFU (Maini et al. 2024), "gradient difference".
    """
    return mean_nll(logits, labels)


@retain_objective("gd", RETAIN)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return gd_loss(views[RETAIN].logits, views[RETAIN].labels)
