"""NPO: negative preference optimisation."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import logsigmoid

from o3_lightning.objectives.batch_views import ANSWER, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_rows
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import row_nll

__all__ = ["npo_loss"]


def npo_loss(logits: Tensor, labels: Tensor, reference_logits: Tensor, beta: float) -> Tensor:
    """Returns -(2/beta) mean log sigmoid(beta (L - L_ref)), L a row's summed negative log-likelihood.

    Args:
        logits: [B, T, V].
        labels: [B, T], the true answers.
        reference_logits: [B, T, V] before unlearning.
        beta: inverse temperature, above 0; towards 0 it becomes gradient ascent.

    Source:
        Zhang et al. 2024, equation 3.
    """
    gap = row_nll(logits, labels) - row_nll(reference_logits, labels)
    return -2 / beta * mean_of_rows(logsigmoid(beta * gap), labels)


@forget_objective(
    "npo",
    ANSWER,
    reference=(ANSWER,),
    parameters=[Parameter("beta", 0.1, "inverse temperature, above 0", open=True)],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on the true answers."""
    view = views[ANSWER]
    return npo_loss(view.logits, view.labels, view.need("reference_logits"), settings.beta)
