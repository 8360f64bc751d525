"""What a call of the gated model was given, and what follows for each of its rows.

Shapes: B rows, T tokens, K requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.gating.combine import check_weights
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.plan import Plan, plan_rows
from o3_lightning.gating.routing import Detectors, Prompt, route_prompts, user_turns
from o3_lightning.gating.tokens import PromptTokens

__all__ = ["Router"]


class Router:
    """Decides by weights that a caller gives, by the caller's prompts, or by what the tokens say.

    Args:
        detectors: gives each prompt its weight per request.
        has_adapter: of each request; a matching prompt of one without is refused.
        tokens: reads prompts off token ids.
        config: how weights combine.
    """

    def __init__(
        self, detectors: Detectors, has_adapter: Sequence[bool], tokens: PromptTokens, config: GateConfig
    ) -> None:
        self.detectors, self.tokens, self.config = detectors, tokens, config
        self._has_adapter = torch.tensor(has_adapter, dtype=torch.bool)
        self.is_disabled = False

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within, every row is the base model's."""
        before, self.is_disabled = self.is_disabled, True
        try:
            yield
        finally:
            self.is_disabled = before

    def weights(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns the detectors' weights [B,K]; see `GatedModel.weights`."""
        return self._route(user_turns(prompts))

    def explain(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Returns what happens to each prompt, and why; see `GatedModel.explain`."""
        turns, ids = user_turns(prompts), self.detectors.ids
        weights = self._route(turns)
        plan = self._plan(weights)
        return [
            {
                "weights": dict(zip(ids, weights[row].tolist(), strict=True)),
                "strengths": dict(zip(ids, plan.strengths[row].tolist(), strict=True)),
                "refused": bool(plan.refused[row]),
                "detectors": self.detectors.explain(turns[row]) if ids else [],
            }
            for row in range(len(turns))
        ]

    def plan(
        self, weights: Tensor | None, prompts: Sequence[Prompt] | None, ids: Tensor, mask: Tensor
    ) -> Plan:
        """Returns what happens to each row of a call.

        Args:
            weights: [B,K] that the caller gives; None asks the detectors.
            prompts: what they are asked about, one a row; None decodes the tokens.
            ids: [B,T] of the call.
            mask: [B,T], 1 at the prompts' tokens.

        Raises:
            InputError: weights of another shape or range, or not one prompt a row.
        """
        if self.is_disabled:
            return self._plan(None)
        if weights is None:
            turns = self.tokens.user_turns(ids, mask) if prompts is None else user_turns(prompts)
            if len(turns) != len(ids):
                raise InputError(
                    f"expected one for each of {len(ids)} rows, got {len(turns)}", field="prompts"
                )
            return self._plan(self._route(turns))
        check_weights(weights)
        expected = (len(ids), len(self.detectors.ids))
        if tuple(weights.shape) != expected:
            message = f"expected [{expected[0]},{expected[1]}], got {tuple(weights.shape)}"
            raise InputError(message, field="weights")
        return self._plan(weights)

    def _route(self, turns: Sequence[Sequence[str]]) -> Tensor:
        return route_prompts(self.detectors, turns, self.config.floor)

    def _plan(self, weights: Tensor | None) -> Plan:
        return plan_rows(weights, self._has_adapter, self.config)
