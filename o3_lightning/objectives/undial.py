"""UNDIAL: self-distillation towards the reference with the true token's logit lowered."""

from collections.abc import Mapping

import torch
from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import shift

__all__ = ["undial_loss"]


def undial_loss(logits: Tensor, labels: Tensor, reference_logits: Tensor, beta: float) -> Tensor:
    """Returns the mean cross entropy of the model to softmax(z_ref - beta onehot(y)) at the answers' tokens.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers y.
        reference_logits: [B, T, V], z_ref before unlearning.
        beta: how far the true token's logit is lowered, at least 0.

    Source:
        Dong et al. 2024; open-unlearning's code averages over prompt and padding too, ours does not.
    """
    kept, targets, _ = shift(logits, labels)
    goal, _, _ = shift(reference_logits, labels)
    lowered = torch.full_like(targets, beta, dtype=goal.dtype).unsqueeze(-1)
    goal = goal.scatter_add(-1, targets.unsqueeze(-1), -lowered).softmax(-1).detach()
    return mean_of_tokens(-(goal * kept.log_softmax(-1)).sum(-1), labels)


@forget_objective(
    "undial",
    ANSWER,
    reference=(ANSWER,),
    parameters=[Parameter("beta", 10.0, "how far the true token's logit is lowered, at least 0")],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on the true answers."""
    view = views[ANSWER]
    return undial_loss(view.logits, view.labels, view.need("reference_logits"), settings.beta)
