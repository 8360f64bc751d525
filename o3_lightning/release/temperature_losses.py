"""What the adapters of a release learn: at a temperature, because a model that is certain gives no gradient.

The gradient of a token's likelihood p has the factor 1 - p, and that of a divergence from a certain model
vanishes as well: an adapter trained on either would be made of noise and of the few tokens that are not
certain, and nothing would hold it back from the text that has to stay before it is too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from o3_lightning.data.encoding import IGNORED
from o3_lightning.objectives.batch_views import ANSWER, RETAIN, Objective, Parameter, Settings, View
from o3_lightning.objectives.config import ForgetObjective, RetainObjective
from o3_lightning.objectives.distributions import kl_loss
from o3_lightning.objectives.tokens import mean_nll

__all__ = ["Keep", "Learn"]


def learn_loss(views: Mapping[str, View], settings: Settings) -> Tensor:
    """Next-token prediction of what the answers say, from logits divided by the temperature.

    That an answer ends is no knowledge. Subtracted, it is the first thing to go: the model would say a fact
    again and again, and count as having forgotten it.
    """
    view = views[ANSWER]
    return mean_nll(View(view.logits / settings.temperature, without_end(view.labels)))


def without_end(labels: Tensor) -> Tensor:
    """Returns labels [B, T] without the last one of each row; a row with a single one keeps it.

    Example:
        >>> import torch
        >>> without_end(torch.tensor([[-100, 5, 7, 2], [-100, 9, 2, -100], [-100, 2, -100, -100]])).tolist()
        [[-100, 5, 7, -100], [-100, 9, -100, -100], [-100, 2, -100, -100]]
    """
    labelled = labels != IGNORED
    later = labelled.flip(1).cumsum(1).flip(1)  # labels from here on
    last = labelled & (later == 1) & (labelled.sum(1, keepdim=True) > 1)
    return labels.masked_fill(last, IGNORED)


def keep_loss(views: Mapping[str, View], settings: Settings) -> Tensor:
    """KL(model without adapter || model), both at the temperature T, times T^2.

    Source:
        Hinton et al. 2015, "Distilling the knowledge in a neural network": the factor keeps the gradient's
        size whatever the temperature.
    """
    view, temperature = views[RETAIN], float(settings.temperature)
    reference = view.need("reference_logits") / temperature
    softened = replace(view, logits=view.logits / temperature, reference_logits=reference)
    return temperature**2 * kl_loss({RETAIN: softened}, Settings(every_token=False))


TEMPERATURE = (Parameter("temperature", 1.0, "divisor of the logits, above 0", open=True),)
LEARN = Objective("learn", learn_loss, (ANSWER,), parameters=TEMPERATURE)
KEEP = Objective("keep", keep_loss, (RETAIN,), reference=(RETAIN,), parameters=TEMPERATURE)


@dataclass(frozen=True)
class Learn(ForgetObjective):
    """Learn the answers, at a temperature: the adapter is subtracted afterwards."""

    name: str = "ga"  # has the same view of the rows; the loss has the other sign

    @property
    def objective(self) -> Objective:
        """Next-token prediction of the answers."""
        return LEARN


@dataclass(frozen=True)
class Keep(RetainObjective):
    """Change nothing on the retained rows, at a temperature."""

    name: str = "kl"

    @property
    def objective(self) -> Objective:
        """Divergence from the model without the adapter."""
        return KEEP
