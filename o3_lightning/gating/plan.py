"""From weights to what happens to each row: which adapters act how strongly, and which rows are refused.

Shapes: B rows, K requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from o3_lightning.common.checks import check_among
from o3_lightning.common.errors import InputError
from o3_lightning.gating.config import RULES, GateConfig


@dataclass(frozen=True)
class Plan:
    """What happens to each row.

    Args:
        weights: [B,K] of the requests, in [0, 1]; 1 where a detector failed.
        suspect: [B,K] weights of what stands in a chat besides its question, in [0, 1].
        strengths: [B,K] of the adapters; zeros in a refused row.
        refused: [B] whether a row is refused.
        failed: [B] whether it is refused because a detector failed.
    """

    weights: Tensor
    suspect: Tensor
    strengths: Tensor
    refused: Tensor
    failed: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def rows(self, chosen: list[int]) -> Plan:
        """Returns the plan of some rows."""
        return Plan(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @classmethod
    def stack(cls, plans: Sequence[Plan]) -> Plan:
        """Returns one plan with the rows of several plans for the same requests."""
        return cls(*(torch.cat([getattr(plan, name) for plan in plans]) for name in cls.__dataclass_fields__))


def plan_rows(
    weights: Tensor, has_adapter: Tensor, config: GateConfig, suspect: Tensor | None = None
) -> Plan:
    """Returns the strengths and refusals that weights lead to; a weight that is not finite refuses its row.

    Args:
        weights: [B,K] in [0, 1], or NaN where a detector failed.
        has_adapter: of each request [K]; a matching prompt of one without is refused.
        config: how weights combine, and which one refuses.
        suspect: [B,K], or NaN where a detector failed; None is zeros.
    """
    weights = weights.float()
    suspect = torch.zeros_like(weights) if suspect is None else suspect.float()
    failed = ~(torch.isfinite(weights) & torch.isfinite(suspect)).all(1)
    weights = torch.where(torch.isfinite(weights), weights, 1.0)
    owned = has_adapter.to(weights.device)
    refused = ((weights >= config.refuse_threshold) & ~owned).any(1) | failed
    strengths = torch.zeros_like(weights)
    strengths[:, owned] = combine_weights(weights[:, owned], config.combine, config.top_k)
    strengths = torch.where(refused[:, None], 0.0, strengths)
    return Plan(weights, torch.where(torch.isfinite(suspect), suspect, 1.0), strengths, refused, failed)


def combine_weights(weights: Tensor, rule: str = "routed", top_k: int = 1) -> Tensor:
    """Returns the strength of every request's adapter on every row.

    Args:
        weights: [B,K] in [0, 1], of the requests that have an adapter.
        rule: "routed" gives the weights as they are; "max" gives every request the row's largest weight;
            "top_k" keeps the `top_k` largest of a row and sets the others to 0 (of equal ones the earlier
            request is kept); "sum" divides a row by its sum where that is above 1; "last" gives the last
            request the row's largest weight and the others 0.
        top_k: at least 1; more than K keeps all.

    Returns:
        [B,K] in [0, 1], dtype of the weights. A row of zeros stays one under every rule.

    Raises:
        InputError: an unknown rule, `top_k` below 1, or weights that are not [B,K] in [0, 1].

    Source:
        O3 (ICLR 2025), section 3.3, is "max"; its official code is "last", with one weight per batch instead
        of one a row. The other rules are ours.

    Example:
        >>> combine_weights(torch.tensor([[0.75, 0.5, 0.0]]), "max").tolist()
        [[0.75, 0.75, 0.75]]
        >>> combine_weights(torch.tensor([[0.75, 0.5, 0.0]]), "top_k").tolist()
        [[0.75, 0.0, 0.0]]
    """
    check_weights(weights)
    check_among(rule, RULES, "gate.combine")
    if top_k < 1:
        raise InputError(f"expected 1 or more, got {top_k}", field="gate.top_k")
    if rule == "routed" or not weights.numel():
        return weights
    if rule == "max":
        return weights.amax(1, keepdim=True).expand_as(weights)
    if rule == "sum":
        return weights / weights.sum(1, keepdim=True).clamp(min=1)
    if rule == "last":
        return F.pad(weights.amax(1, keepdim=True), (weights.shape[1] - 1, 0))
    order = weights.argsort(dim=1, descending=True, stable=True)[:, :top_k]
    return torch.zeros_like(weights).scatter(1, order, weights.gather(1, order))


def check_weights(weights: Tensor) -> None:
    """Raises InputError unless the weights are floating [B,K] in [0, 1]; NaN is outside."""
    if weights.dim() != 2 or not weights.is_floating_point():
        message = f"expected floating [B,K], got {weights.dtype} {tuple(weights.shape)}"
        raise InputError(message, field="weights")
    if not bool(((weights >= 0) & (weights <= 1)).all()):
        low, high = weights.min().item(), weights.max().item()
        raise InputError(f"expected values in [0, 1], got {low} to {high}", field="weights")
