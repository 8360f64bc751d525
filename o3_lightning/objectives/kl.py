"""KL: stay close to the reference on retained data."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import RETAIN, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_rows, mean_of_tokens
from o3_lightning.objectives.registry import retain_objective
from o3_lightning.objectives.tokens import log_probabilities

__all__ = ["kl_loss"]


def kl_loss(logits: Tensor, labels: Tensor, reference_logits: Tensor, *, every_token: bool = False) -> Tensor:
    """Returns the mean of KL(reference || model) over the tokens of retained answers.

    Args:
        logits: [B, T, V].
        labels: [B, T], the retained answers.
        reference_logits: [B, T, V] before unlearning.
        every_token: average over prompt, answer and padding, as the published codes do.

    Source:
        TOFU (Maini et al. 2024), "KL minimisation"; its code has no mask, which `every_token` reproduces.
    """
    log_p, log_q = log_probabilities(logits), log_probabilities(reference_logits).detach()
    divergence = (log_q.exp() * (log_q - log_p)).sum(-1)
    if every_token:
        return mean_of_rows(divergence.mean(-1), labels)
    return mean_of_tokens(divergence[:, :-1], labels)  # a token is predicted one place before it


@retain_objective(
    "kl",
    RETAIN,
    reference=(RETAIN,),
    parameters=[
        Parameter("every_token", False, "average over prompt and padding too, as the published codes do")
    ],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on retained data."""
    view = views[RETAIN]
    reference = view.need("reference_logits")
    return kl_loss(view.logits, view.labels, reference, every_token=settings.every_token)
