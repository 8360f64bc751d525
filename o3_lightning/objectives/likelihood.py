"""Objectives on the likelihood of answers: refusal, random labels, GA and its variants, GD."""

from collections.abc import Mapping

from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, REFUSAL, RETAIN, WRONG, Parameter, Settings, View
from o3_lightning.objectives.registry import forget_objective, retain_objective
from o3_lightning.objectives.tokens import mean_nll, mean_of_tokens, token_nll

Views = Mapping[str, View]


@forget_objective("random_labels", WRONG)
def random_labels_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean negative log-likelihood of wrong answers to the forget prompts.

    Source:
        O3 (Gao et al. 2025). The official code draws a letter out of A to E, the true one included; ours
        draws among the wrong options of the row (`targets.draw_wrong_answers`).
    """
    return mean_nll(views[WRONG])


@forget_objective("refusal", REFUSAL)
def refusal_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean negative log-likelihood of refusals to the forget prompts.

    Source:
        TOFU (Maini et al. 2024), "IDK".
    """
    return mean_nll(views[REFUSAL])


@forget_objective("ga", ANSWER)
def ga_loss(views: Views, settings: Settings) -> Tensor:
    """Returns minus the mean negative log-likelihood of the true answers; unbounded below.

    Source:
        TOFU (Maini et al. 2024), "gradient ascent".
    """
    return -mean_nll(views[ANSWER])


@forget_objective(
    "llmu", ANSWER, WRONG, parameters=[Parameter("beta", 1.0, "weight of the wrong answers, at least 0")]
)
def llmu_loss(views: Views, settings: Settings) -> Tensor:
    """Returns GA on the true answers plus `beta` times the mean negative log-likelihood of wrong ones.

    Source:
        Yao et al. 2023. The third term of the paper, a divergence on retained data, is the retain objective
        "kl": it is added only if a configuration declares retained data.
    """
    return ga_loss(views, settings) + float(settings.beta) * mean_nll(views[WRONG])


@forget_objective(
    "wga", ANSWER, parameters=[Parameter("beta", 1.0, "exponent of the weight, at least 0; 0 is ga")]
)
def wga_loss(views: Views, settings: Settings) -> Tensor:
    """Returns -mean(p^beta nll) over the answers' tokens; the weight p^beta carries no gradient.

    Source:
        Wang et al. 2025, weighted gradient ascent.
    """
    answer = views[ANSWER]
    nll, _ = token_nll(answer.logits, answer.labels)
    return -mean_of_tokens((-settings.beta * nll.detach()).exp() * nll, answer)


@forget_objective(
    "satimp",
    ANSWER,
    parameters=[
        Parameter("beta", 5.0, "exponent of the saturation, at least 0"),
        Parameter("second_beta", 1.0, "exponent of the importance, at least 0"),
    ],
)
def satimp_loss(views: Views, settings: Settings) -> Tensor:
    """Returns -mean(p^beta (1-p)^second_beta nll) over the answers' tokens; the weights carry no gradient.

    p is the saturation, 1-p the importance.

    Source:
        Yang et al. 2025; 5 and 1 as in open-unlearning.
    """
    answer = views[ANSWER]
    nll, _ = token_nll(answer.logits, answer.labels)
    p = (-nll.detach()).exp()
    weights = p**settings.beta * (1 - p).clamp(min=0) ** settings.second_beta
    return -mean_of_tokens(weights * nll, answer)


@retain_objective("gd", RETAIN)
def gd_loss(views: Views, settings: Settings) -> Tensor:
    """Returns the mean negative log-likelihood of the retained answers.

    Source:
        TOFU (Maini et al. 2024), "gradient difference".
    """
    return mean_nll(views[RETAIN])
