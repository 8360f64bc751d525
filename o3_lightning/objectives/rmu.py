"""RMU: push one layer's states on forget data to a random direction, hold them on retained data."""

from collections.abc import Mapping

import torch
from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, RETAIN, Parameter, Settings, View
from o3_lightning.objectives.registry import forget_objective, retain_objective
from o3_lightning.objectives.tokens import mean_of_tokens, to_float32


def control_vector(width: int, steering: float, seed: int) -> Tensor:
    """Returns a random direction with entries of one sign and length `steering`, [D] float32."""
    draw = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    vector: Tensor = steering * draw / draw.norm()
    return vector


@forget_objective(
    "rmu",
    ANSWER,
    hidden=True,
    parameters=[
        Parameter("steering", 2.0, "length of the target, above 0; 2 as in open-unlearning", open=True),
        Parameter("layer", None, "hidden layer, counted from 0 for the embedding; null takes the middle one"),
    ],
)
def rmu_loss(views: Mapping[str, View], settings: Settings) -> Tensor:
    """Returns the mean squared distance of the states at the answers' tokens to a random target vector.

    Source:
        Li et al. 2024 (WMDP), equation 1.
    """
    answer = views[ANSWER]
    hidden = to_float32(answer.need("hidden"))
    target = control_vector(hidden.shape[-1], settings.steering, settings.seed).to(hidden)
    return mean_of_tokens((hidden - target).square().mean(-1), answer)


@retain_objective("rmu", RETAIN, reference=(RETAIN,), hidden=True)
def rmu_retain_loss(views: Mapping[str, View], settings: Settings) -> Tensor:
    """Returns the mean squared change of the states at the tokens of retained answers.

    Source:
        Li et al. 2024 (WMDP), equation 2.
    """
    retain = views[RETAIN]
    hidden, before = (to_float32(retain.need(name)) for name in ("hidden", "reference_hidden"))
    return mean_of_tokens((hidden - before.detach()).square().mean(-1), retain)
