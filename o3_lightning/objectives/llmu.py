"""LLMU: gradient ascent on the true answers together with descent on wrong ones."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, WRONG, Parameter, Settings, View
from o3_lightning.objectives.ga import ga_loss
from o3_lightning.objectives.registry import forget_objective
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["llmu_loss"]


def llmu_loss(answer: View, wrong: View, beta: float = 1.0) -> Tensor:
    """Returns GA on true answers plus `beta` times the mean negative log-likelihood of wrong ones.

    Args:
        answer: forget prompts with true answers.
        wrong: forget prompts with wrong answers.
        beta: weight of the second term, at least 0.

    Source:
        Yao et al. 2023. The third term of the paper, a divergence on retained data, is the retain objective
        "kl": it is there only if a configuration declares retained data.
    """
    return ga_loss(answer.logits, answer.labels) + beta * mean_nll(wrong.logits, wrong.labels)


@forget_objective(
    "llmu", ANSWER, WRONG, parameters=[Parameter("beta", 1.0, "weight of the wrong answers, at least 0")]
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on its views."""
    return llmu_loss(views[ANSWER], views[WRONG], settings.beta)
