"""LLMU: gradient ascent on the true answers together with descent on wrong ones."""

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, WRONG, Objective, View
from o3_lightning.objectives.ga import ga_loss
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["OBJECTIVE", "llmu_loss"]


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


OBJECTIVE = Objective(
    "llmu", lambda views, settings: llmu_loss(views[ANSWER], views[WRONG], settings.beta), (ANSWER, WRONG)
)
