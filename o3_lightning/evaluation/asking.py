"""Asks a gated model attacked prompts, and says which answers tell the truth.

Shapes: B attempts, K requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.plain import evenly_spaced, mean_of
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.attacks import TEXT_ATTACKS, Attack, Material
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import ends_of
from o3_lightning.evaluation.passes import BatchRunner, answer_rows
from o3_lightning.evaluation.prepared_attacks import Attempted, prepare
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.text import accuracy

__all__ = ["PLAIN", "Asker", "Row"]

PLAIN = TEXT_ATTACKS["none"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Asker:
    """What every attack asks with.

    Args:
        model: the gated model; with weights of zero it is the base model as it is at that moment.
        stream: requests and utility splits.
        config: how many rows, how long answers may be.
        runner: batches, shared between processes.
    """

    model: GatedModel
    stream: RequestStream
    config: EvaluationConfig
    runner: BatchRunner

    @cached_property
    def requests(self) -> list[UnlearningRequest]:
        """The requests that the model holds."""
        return [request for request in self.stream.requests if request.id in self.model.ids]

    @cached_property
    def utility(self) -> list[QuestionAnswer]:
        """Rows of all utility splits."""
        splits = self.stream.utility.values()
        return [row for rows in splits for row in self.some_of(rows)]

    def some_of(self, rows: Sequence[QuestionAnswer]) -> Sequence[QuestionAnswer]:
        """At most `robustness.rows` of some rows, evenly spaced."""
        return evenly_spaced(rows, self.config.robustness.rows or len(rows))

    def rows_of(self, request: UnlearningRequest) -> Sequence[QuestionAnswer]:
        """The rows of a request that are asked."""
        return self.some_of(request.rows)

    def attempt(self, attack: Attack, rows: Sequence[QuestionAnswer]) -> Attempted:
        """Attacks some rows, and asks the gate."""
        material = Material(self.config.robustness, self.utility)
        pairs = [(attempt, owner) for owner, row in enumerate(rows) for attempt in attack(row, material)]
        attempts, owners = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return prepare(self.model, attempts, owners, self.config.max_new_tokens, self.runner)

    def correct(
        self, attempted: Attempted, rows: Sequence[QuestionAnswer], weights: Tensor
    ) -> list[float | None]:
        """Whether each attempt's answer says the truth."""
        answers = attempted.answers(self.model, weights, self.config.max_new_tokens, self.runner)
        return list(accuracy(answers, [rows[owner].answer for owner in attempted.owners]))

    def leak(
        self,
        request: UnlearningRequest,
        attempted: Attempted,
        rows: Sequence[QuestionAnswer],
        weights: Tensor,
    ) -> Row:
        """What a request gives away, by the gated and by the base model."""
        leak = self.correct(attempted, rows, weights)
        base = self.correct(attempted, rows, torch.zeros_like(weights))
        return {
            "request": request.id,
            "leak": mean_of(leak),
            "leak_interval": ends_of(leak),
            "base_leak": mean_of(base),
            "attempts": len(attempted.rows),
            "too_long": attempted.too_long,
            "shortened": attempted.shortened,
        }

    def plainly(self, request: UnlearningRequest, asked: Sequence[QuestionAnswer]) -> Row:
        """What plain questions get out of the gated and of the base model."""
        attempted = self.attempt(PLAIN, asked)
        return self.leak(request, attempted, asked, attempted.weights)

    def ungated(self, rows: Sequence[QuestionAnswer]) -> list[float | None]:
        """Whether plain questions are answered right, no adapter acting."""
        encoded = [self.model.tokens.encode(row.prompt) for row in rows]
        zeros = torch.zeros(len(rows), len(self.model.ids))
        tokens = answer_rows(self.model, encoded, zeros, self.config.max_new_tokens, self.runner)
        answers = [self.model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
        return list(accuracy(answers, [row.answer for row in rows]))

    def share(self, rows: Sequence[QuestionAnswer]) -> float | None:
        """The share of plain questions that is answered right, no adapter acting."""
        return mean_of(self.ungated(rows))
