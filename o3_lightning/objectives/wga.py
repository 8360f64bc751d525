"""WGA: gradient ascent, weighted by how sure the model still is."""

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, Objective
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.tokens import token_nll

__all__ = ["OBJECTIVE", "wga_loss"]


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


OBJECTIVE = Objective(
    "wga",
    lambda views, settings: wga_loss(views[ANSWER].logits, views[ANSWER].labels, settings.beta),
    (ANSWER,),
)
