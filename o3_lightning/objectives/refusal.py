"""Refusal: learn to say "I don't know" to the forget prompts."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import REFUSAL, Settings, View
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["refusal_loss"]


def refusal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean negative log-likelihood of the refusals given the forget prompts.

    Args:
        logits: [B, T, V] on prompts with refusals.
        labels: [B, T], the refusals.

    Source:
        TOFU (Maini et al. 2024), "IDK".
    """
    return mean_nll(logits, labels)


@forget_objective("refusal", REFUSAL)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return refusal_loss(views[REFUSAL].logits, views[REFUSAL].labels)
