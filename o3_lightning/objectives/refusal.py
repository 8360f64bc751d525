"""Refusal: learn to say "I don't know" to the forget prompts."""

from torch import Tensor

from o3_lightning.objectives.batch_views import REFUSAL, Objective
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["OBJECTIVE", "refusal_loss"]


def refusal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean negative log-likelihood of the refusals given the forget prompts.

    Args:
        logits: [B, T, V] on prompts with refusals.
        labels: [B, T], the refusals.

    Source:
        TOFU (Maini et al. 2024), "IDK".
    """
    return mean_nll(logits, labels)


OBJECTIVE = Objective(
    "refusal", lambda views, _: refusal_loss(views[REFUSAL].logits, views[REFUSAL].labels), (REFUSAL,)
)
