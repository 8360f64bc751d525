"""GA: gradient ascent on the true answers."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Settings, View
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["ga_loss"]


def ga_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns minus the mean negative log-likelihood of the true answers; unbounded below.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers.

    Source:
        TOFU (Maini et al. 2024), "gradient ascent".
    """
    return -mean_nll(logits, labels)


@forget_objective("ga", ANSWER)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return ga_loss(views[ANSWER].logits, views[ANSWER].labels)
