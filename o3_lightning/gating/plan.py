"""From weights to what happens to each row: which adapters act how strongly, and which rows are refused.

Shapes: B rows, K requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from o3_lightning.gating.combine import combine_weights
from o3_lightning.gating.config import GateConfig

__all__ = ["Plan", "plan_rows"]


@dataclass(frozen=True)
class Plan:
    """What happens to each row.

    Args:
        strengths: of the adapters [B,K]; zeros in a refused row.
        refused: whether a row is refused [B].
    """

    strengths: Tensor
    refused: Tensor


def plan_rows(weights: Tensor | None, has_adapter: Tensor, config: GateConfig) -> Plan:
    """Returns the strengths and refusals that weights lead to.

    Args:
        weights: [B,K] in [0, 1]; None is the base model, with one row that stands for any number.
        has_adapter: of each request [K]; a matching prompt of one without is refused.
        config: how weights combine, and which one refuses.
    """
    if weights is None:
        return Plan(torch.zeros(1, len(has_adapter)), torch.zeros(1, dtype=torch.bool))
    weights = weights.float()
    owned = has_adapter.to(weights.device)
    refused = ((weights >= config.refuse_threshold) & ~owned).any(1)
    strengths = torch.zeros_like(weights)
    strengths[:, owned] = combine_weights(weights[:, owned], config.combine, config.top_k)
    return Plan(torch.where(refused[:, None], 0.0, strengths), refused)
