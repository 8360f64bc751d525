"""WGA: gradient ascent, weighted by how sure the model still is."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import token_nll

__all__ = ["wga_loss"]


def wga_loss(logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Returns -mean(p^beta nll) over the answers' tokens; the weight p^beta carries no gradient.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers.
        beta: at least 0; 0 is gradient ascent.

    Source:
        Wang et al. 2025, weighted gradient ascent.
    """
    nll, _ = token_nll(logits, labels)
    return -mean_of_tokens((-beta * nll.detach()).exp() * nll, labels)


@forget_objective(
    "wga", ANSWER, parameters=[Parameter("beta", 1.0, "exponent of the weight, at least 0; 0 is ga")]
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return wga_loss(views[ANSWER].logits, views[ANSWER].labels, settings.beta)
