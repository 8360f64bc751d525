"""Asks the gate about prompts and describes its decisions; fails closed."""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple, Protocol

import torch

from o3_lightning.data.prompts import Prompt
from o3_lightning.gating.plan import Plan
from o3_lightning.gating.routing import describe

logger = logging.getLogger(__name__)
DIGITS = 4
WARM_UP = "Does a first prompt load libraries and word lists, which takes seconds?"


class Judged(NamedTuple):
    """What the gate decided: "base", "adapter" or "refuse".

    Args:
        decision: what happens to the prompt.
        weights: of each request, in [0, 1].
        suspect: weights of the other turns of a chat.
        failed: whether it is refused because the gate failed.
        gate_seconds: time that the gate took for the batch.
        store_head: digest of the store's journal at that time.
    """

    decision: str
    weights: dict[str, float]
    suspect: dict[str, float]
    failed: bool
    gate_seconds: float
    store_head: str

    def entry(self) -> dict[str, Any]:
        """Returns what the audit log keeps of the decision; weights of 0 are left out."""
        return {
            "decision": self.decision,
            "failed": self.failed,
            "weights": above_zero(self.weights),
            "suspect": above_zero(self.suspect),
            "store": self.store_head,
            "gate_ms": round(1000 * self.gate_seconds, 1),
        }


class Planner(Protocol):
    """What decides on prompts; `GatedModel` does."""

    ids: tuple[str, ...]
    store_head: str

    def plan(self, prompts: Sequence[Prompt]) -> Plan:
        """Returns what happens to each prompt."""


def judge_prompts(gate: Planner, prompts: Sequence[Prompt]) -> tuple[Plan, list[Judged]]:
    """Returns what happens to each prompt; all are refused where the gate raises an error."""
    began = monotonic()
    try:
        plan = gate.plan(prompts)
    except Exception as error:
        logger.error("the gate failed on %d rows: %s", len(prompts), describe(error))
        zeros, yes = torch.zeros(len(prompts), len(gate.ids)), torch.ones(len(prompts), dtype=torch.bool)
        plan = Plan(zeros, zeros, zeros, yes, yes)
    seconds = monotonic() - began
    acting = plan.strengths.gt(0).any(1).tolist()
    judged = []
    for number, refused in enumerate(plan.refused.tolist()):
        decision = "refuse" if refused else "adapter" if acting[number] else "base"
        weights, suspect = (
            dict(zip(gate.ids, part[number].tolist(), strict=True)) for part in (plan.weights, plan.suspect)
        )
        failed = bool(plan.failed[number])
        judged.append(Judged(decision, weights, suspect, failed, seconds, gate.store_head))
    return plan, judged


def above_zero(weights: dict[str, float]) -> dict[str, float]:
    """Returns the weights above 0, rounded."""
    return {id: round(weight, DIGITS) for id, weight in weights.items() if weight > 0}
