"""AP: answer preservation, retained questions keep their answers rather than a refusal."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import logsigmoid

from o3_lightning.objectives.batch_views import RETAIN, RETAIN_REFUSAL, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_rows
from o3_lightning.objectives.registry import retain_objective
from o3_lightning.objectives.tokens import row_nll

__all__ = ["ap_loss"]


def ap_loss(answer: View, refusal: View, beta: float) -> Tensor:
    """Returns -(1/beta) mean log sigmoid(beta (L_refusal - L_answer)), L summed over a row's answer.

    Args:
        answer: retained prompts with their answers.
        refusal: the same prompts with refusals.
        beta: inverse temperature, above 0.

    Source:
        Yuan et al. 2024, "A closer look at machine unlearning"; there is no factor 2, unlike in NPO and DPO.
    """
    gap = row_nll(refusal.logits, refusal.labels) - row_nll(answer.logits, answer.labels)
    return -1 / beta * mean_of_rows(logsigmoid(beta * gap), answer.labels)


@retain_objective(
    "ap",
    RETAIN,
    RETAIN_REFUSAL,
    parameters=[Parameter("beta", 0.1, "inverse temperature, above 0", open=True)],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return ap_loss(views[RETAIN], views[RETAIN_REFUSAL], settings.beta)
