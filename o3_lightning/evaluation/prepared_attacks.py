"""Attacked prompts as a model sees them: tokens that fit its context, and what the gate is asked.

The gate always sees the whole attempt. Where the context of a small model cannot hold a long text, the model
is asked with a shortened one, at the weights of the whole.

Shapes: B attempts, K requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from o3_lightning.data.encoding import encode_prompts, prefix_ids
from o3_lightning.evaluation.attacks import Attempt, turns_of
from o3_lightning.evaluation.passes import BatchRunner, answer_rows, weigh
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.routing import Prompt
from o3_lightning.models.base import BaseModel

__all__ = ["Attempted", "prepare"]

HALVINGS = 7  # the kept share of a filler is found to one part in 128


@dataclass(frozen=True)
class Attempted:
    """Attempts that fit, ready to be asked.

    Args:
        rows: token ids of each attempt.
        owners: which row each attempt is about.
        weights: [B,K] of the whole attempts.
        too_long: how many attempts fit no context, however much was cut.
        shortened: how many were cut.
    """

    rows: list[list[int]]
    owners: list[int]
    weights: Tensor
    too_long: int
    shortened: int

    def answers(
        self, model: GatedModel, weights: Tensor, max_new_tokens: int, runner: BatchRunner
    ) -> list[str]:
        """Returns the greedy answers at some weights [B,K]; zeros are the base model."""
        tokens = answer_rows(model, self.rows, weights, max_new_tokens, runner)
        return [model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]


def prepare(
    model: GatedModel,
    attempts: Sequence[Attempt],
    owners: Sequence[int],
    max_new_tokens: int,
    runner: BatchRunner,
) -> Attempted:
    """Encodes attempts and asks the gate about them.

    Args:
        model: its base model is asked, its gate weighs.
        attempts: B of them.
        owners: which row each is about.
        max_new_tokens: room that an answer needs.
        runner: shares the gate's work.
    """
    room = model.base.context_tokens - max_new_tokens
    encoded = [encode(model, attempt, room) for attempt in attempts]
    kept = [place for place, (row, _) in enumerate(encoded) if row is not None]
    weights = weigh(model, [prompt_of(attempts[place]) for place in kept], runner)
    rows = [row for row, _ in encoded if row is not None]
    cut = sum(share < 1 for row, share in encoded if row is not None)
    return Attempted(rows, [owners[place] for place in kept], weights, len(attempts) - len(kept), cut)


def prompt_of(attempt: Attempt) -> Prompt:
    """What the gate is asked: a text, or a chat of several turns."""
    return attempt.turns[0] if len(attempt.turns) == 1 else turns_of(attempt)


def encode(model: GatedModel, attempt: Attempt, room: int) -> tuple[list[int] | None, float]:
    """Returns an attempt's tokens within `room`, or None, and the share of its filler that was kept."""
    row = tokens_of(model, attempt)
    if len(row) <= room:
        return row, 1.0
    if not attempt.filler:
        return None, 0.0
    low, high = 0.0, 1.0
    best: list[int] | None = None
    for _ in range(HALVINGS):
        share = (low + high) / 2
        row = tokens_of(model, shorten(attempt, share))
        if len(row) <= room:
            best, low = row, share
        else:
            high = share
    return best, low


def shorten(attempt: Attempt, share: float) -> Attempt:
    """Keeps the first words of every filler."""
    *before, last = attempt.turns
    for text in attempt.filler:
        words = text.split(" ")
        last = last.replace(text, " ".join(words[: int(len(words) * share)]))
    return Attempt((*before, last.strip()))


def tokens_of(model: GatedModel, attempt: Attempt) -> list[int]:
    """Returns an attempt's tokens; several turns in the chat template, or in the model's own one in a row."""
    base = model.base
    if len(attempt.turns) == 1:
        return encode_prompts(base.tokenizer, base.template, attempt.turns, 10**9)[0]
    if getattr(base.tokenizer, "chat_template", None):
        return model.tokens.encode(turns_of(attempt))
    return prefix_ids(base.tokenizer, base.template, dialogue(base, attempt))


def dialogue(base: BaseModel, attempt: Attempt) -> str:
    """The turns in a prompt template without chats, one exchange after the other."""
    *earlier, last = attempt.turns
    pairs = zip(earlier[::2], earlier[1::2], strict=True)
    said = ["".join(base.template.join(question, answer)) for question, answer in pairs]
    return "\n".join([*said, base.template.format(last)])


def one_hot(count: int, requests: int, number: int) -> Tensor:
    """Returns weights [count, requests] with 1 for one request."""
    weights = torch.zeros(count, requests)
    weights[:, number] = 1
    return weights
