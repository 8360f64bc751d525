"""CEU: cross entropy to the model's own distribution without the true token."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Settings, View
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import shift

__all__ = ["ceu_loss"]


def ceu_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean cross entropy to softmax(z with the true logit at minus infinity), z held fixed.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers.

    Source:
        Yang 2025, CE-U.
    """
    kept, targets, _ = shift(logits, labels)
    goal = kept.detach().scatter(-1, targets.unsqueeze(-1), float("-inf")).softmax(-1)
    return mean_of_tokens(-(goal * kept.log_softmax(-1)).sum(-1), labels)


@forget_objective("ceu", ANSWER)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return ceu_loss(views[ANSWER].logits, views[ANSWER].labels)
