"""CEU: cross entropy to the model's own distribution without the true token."""

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Objective
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.tokens import shift

__all__ = ["OBJECTIVE", "ceu_loss"]


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


OBJECTIVE = Objective("ceu", lambda views, _: ceu_loss(views[ANSWER].logits, views[ANSWER].labels), (ANSWER,))
