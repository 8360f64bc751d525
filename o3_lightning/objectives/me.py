"""ME: maximum entropy, every token as likely as any other."""

import math
from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import shift

__all__ = ["DIRECTIONS", "me_loss"]

DIRECTIONS = ("uniform_to_model", "model_to_uniform")


def me_loss(logits: Tensor, labels: Tensor, direction: str = "uniform_to_model") -> Tensor:
    """Returns the mean over the answers' tokens of the divergence between model P and uniform U.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers; only where they stand matters.
        direction: "uniform_to_model" is KL(U || P), what the authors' code computes; "model_to_uniform" is
            KL(P || U), what their paper writes.

    Raises:
        ValueError: another direction.

    Source:
        Yuan et al. 2024, "A closer look at machine unlearning"; the code also counts the prompt when its
        `mask` is off, ours never does.
    """
    kept, _, _ = shift(logits, labels)
    log_p, log_u = kept.log_softmax(-1), -math.log(kept.shape[-1])
    if direction == "uniform_to_model":
        return mean_of_tokens(log_u - log_p.mean(-1), labels)
    if direction == "model_to_uniform":
        return mean_of_tokens((log_p.exp() * (log_p - log_u)).sum(-1), labels)
    raise ValueError(f"expected one of {', '.join(DIRECTIONS)}, got {direction!r}")


@forget_objective(
    "me",
    ANSWER,
    parameters=[
        Parameter(
            "direction",
            DIRECTIONS[0],
            "divergence as in the code, or model_to_uniform as in the paper",
            choices=DIRECTIONS,
        )
    ],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return me_loss(views[ANSWER].logits, views[ANSWER].labels, settings.direction)
