"""RMU: push one layer's states on forget data to a random direction, hold them on retained data."""

from collections.abc import Mapping

import torch
from torch import Tensor

from o3_lightning.objectives.batch_views import ANSWER, RETAIN, Parameter, Settings, View
from o3_lightning.objectives.reductions import mean_of_tokens
from o3_lightning.objectives.registry import forget_objective, retain_objective

__all__ = ["control_vector", "rmu_loss", "rmu_retain_loss"]


def control_vector(width: int, steering: float, seed: int) -> Tensor:
    """Returns a random direction with entries of one sign and length `steering`, [D] float32."""
    draw = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    vector: Tensor = steering * draw / draw.norm()
    return vector


def rmu_loss(hidden: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Returns the mean squared distance of the answers' states to a target vector.

    Args:
        hidden: [B, T, D] states of the steered layer.
        labels: [B, T], the true answers; only where they stand matters.
        target: [D].

    Source:
        Li et al. 2024 (WMDP), equation 1.
    """
    distance = (hidden.to(target.dtype) - target).square().mean(-1)
    return mean_of_tokens(distance, labels)


def rmu_retain_loss(hidden: Tensor, labels: Tensor, reference_hidden: Tensor) -> Tensor:
    """Returns the mean squared change of the states on retained answers.

    Args:
        hidden: [B, T, D] states of the steered layer.
        labels: [B, T], the retained answers.
        reference_hidden: [B, T, D] before unlearning.

    Source:
        Li et al. 2024 (WMDP), equation 2.
    """
    distance = (hidden - reference_hidden.detach()).square().mean(-1)
    return mean_of_tokens(distance, labels)


@forget_objective(
    "rmu",
    ANSWER,
    hidden=True,
    parameters=[
        Parameter(
            "steering", 2.0, "length of the target vector, above 0; 2 as in open-unlearning", open=True
        ),
        Parameter("layer", None, "hidden layer, counted from 0 for the embedding; null takes the middle one"),
    ],
)
def compute(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on forget data."""
    view = views[ANSWER]
    hidden = view.need("hidden")
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    target = control_vector(hidden.shape[-1], settings.steering, settings.seed)
    return rmu_loss(hidden, view.labels, target.to(hidden.device, dtype))


@retain_objective("rmu", RETAIN, reference=(RETAIN,), hidden=True)
def compute_retain(views: Mapping[str, View], settings: Settings) -> Tensor:
    """The loss on retained data."""
    view = views[RETAIN]
    return rmu_retain_loss(view.need("hidden"), view.labels, view.need("reference_hidden"))
