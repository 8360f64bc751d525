"""Objectives of the adapters of a release, with a temperature.

The gradient of the likelihood p of a token has the factor 1 - p, and that of a divergence from a confident
model vanishes as well. At temperature 1 an adapter would be determined by noise and the few uncertain tokens,
and the divergence would not protect the retained text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from o3_lightning.data.encoding import IGNORED
from o3_lightning.objectives.batch_views import ANSWER, RETAIN, Objective, Parameter, Settings, View
from o3_lightning.objectives.config import ForgetObjective, RetainObjective
from o3_lightning.objectives.distributions import kl_loss
from o3_lightning.objectives.tokens import mean_nll


def learn_loss(views: Mapping[str, View], settings: Settings) -> Tensor:
    """Next-token prediction of the answers without end token, from logits divided by the temperature.

    The end token is not knowledge. It would be unlearned first: the model would repeat a fact without end,
    and the fact would count as forgotten.
    """
    view = views[ANSWER]
    return mean_nll(View(view.logits / settings.temperature, without_end(view.labels)))


def without_end(labels: Tensor) -> Tensor:
    """Returns labels [B, T] without the last label of each row, unless it is the only one.

    Example:
        >>> import torch
        >>> without_end(torch.tensor([[-100, 5, 7, 2], [-100, 9, 2, -100], [-100, 2, -100, -100]])).tolist()
        [[-100, 5, 7, -100], [-100, 9, -100, -100], [-100, 2, -100, -100]]
    """
    labelled = labels != IGNORED
    remaining = labelled.flip(1).cumsum(1).flip(1)
    last = labelled & (remaining == 1) & (labelled.sum(1, keepdim=True) > 1)
    return labels.masked_fill(last, IGNORED)


def keep_loss(views: Mapping[str, View], settings: Settings) -> Tensor:
    """KL(model without adapter || model), both at the temperature T, times T^2.

    Source:
        Hinton et al. 2015, "Distilling the knowledge in a neural network": the factor makes the magnitude of
        the gradient independent of the temperature.
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
    """Learns the answers at a temperature; the adapter is subtracted afterwards."""

    name: str = "ga"  # uses the same view of the rows

    @property
    def objective(self) -> Objective:
        """Next-token prediction of the answers."""
        return LEARN


@dataclass(frozen=True)
class Keep(RetainObjective):
    """Keeps the predictions on retained rows, at a temperature."""

    name: str = "kl"

    @property
    def objective(self) -> Objective:
        """Divergence from the model without the adapter."""
        return KEEP
