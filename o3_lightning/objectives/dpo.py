"""DPO: prefer a refusal to the true answer."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import logsigmoid

from o3_lightning.objectives.batch_views import ANSWER, REFUSAL, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_rows
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import row_nll

__all__ = ["dpo_loss"]


def dpo_loss(preferred: View, rejected: View, beta: float) -> Tensor:
    """Returns -(2/beta) mean log sigmoid(beta (preferred - rejected log-ratio to the reference)).

    Args:
        preferred: refusals, with reference logits.
        rejected: true answers to the same prompts, with reference logits.
        beta: inverse temperature, above 0.

    Raises:
        InputError: a view has no reference logits.

    Source:
        Rafailov et al. 2023, equation 7, with the factor 2 of the unlearning code of TOFU and its followers.
    """

    def log_ratio(view: View) -> Tensor:
        return row_nll(view.need("reference_logits"), view.labels) - row_nll(view.logits, view.labels)

    gap = log_ratio(preferred) - log_ratio(rejected)
    return -2 / beta * mean_of_rows(logsigmoid(beta * gap), rejected.labels)


@forget_objective(
    "dpo",
    ANSWER,
    REFUSAL,
    reference=(ANSWER, REFUSAL),
    parameters=[Parameter("beta", 0.1, "inverse temperature, above 0", open=True)],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return dpo_loss(views[REFUSAL], views[ANSWER], settings.beta)
