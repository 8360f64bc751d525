"""Random labels: learn wrong answers to the forget prompts."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import WRONG, Settings, View
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["random_labels_loss"]


def random_labels_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean negative log-likelihood of wrong answers given the forget prompts.

    Args:
        logits: [B, T, V] on prompts with wrong answers.
        labels: [B, T], the wrong answers.

    Source:
        O3 (Gao et al. 2025). The official code draws a letter out of A to E, the true one included; ours
        draws among the wrong options that a row has (`texts.wrong_answers`).
    """
    return mean_nll(logits, labels)


@forget_objective("random_labels", WRONG)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return random_labels_loss(views[WRONG].logits, views[WRONG].labels)
