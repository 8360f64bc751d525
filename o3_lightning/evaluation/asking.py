"""Asks a gated model and its base model attacked prompts, through the public methods of `GatedModel`.

The gate always reads the whole prompt. Where a small model's context cannot hold a long text, the model
answers a shortened one at the weights of the whole.

Shapes: B attempts, K requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from o3_lightning.attacks.registry import Attempt
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import evenly_spaced, mean_of
from o3_lightning.data.encoding import prefix_ids
from o3_lightning.data.prompts import Prompt, read_prompt
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.passes import BatchRunner, answer_rows
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.aggregate import confidence_interval
from o3_lightning.metrics.text import accuracy

Row = dict[str, Any]
HALVINGS = 7  # the kept share of a filler is found to one part in 128


@dataclass(frozen=True)
class Reply:
    """One attempt's weights [K], the answers of both models, and whether they answered a shortened text."""

    weights: Tensor
    answer: str
    base_answer: str
    shortened: bool


@dataclass(frozen=True)
class Asker:
    """Asks one gated model the rows of one stream, in the batches of `runner`."""

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
        """The asked rows of all utility splits."""
        return [row for rows in self.stream.utility.values() for row in self.some_of(rows)]

    def some_of(self, rows: Sequence[QuestionAnswer]) -> Sequence[QuestionAnswer]:
        """Returns at most `robustness.rows` of the rows, evenly spaced."""
        return evenly_spaced(rows, self.config.robustness.rows or len(rows))

    def replies(self, attempts: Sequence[Attempt]) -> list[Reply | None]:
        """Returns B replies; None where a prompt is rejected as malformed or cannot be shortened enough."""
        room = self.model.base.context_tokens - self.config.max_new_tokens
        encoded = [encode(self.model, attempt, room) for attempt in attempts]
        lengths = [len(str(attempt.prompt)) for attempt in attempts]
        weights = self.runner.map(lengths, lambda rows: self.weigh([attempts[row] for row in rows]), "gating")
        kept = [
            (place, *found)
            for place, (found, weight) in enumerate(zip(encoded, weights, strict=True))
            if found is not None and len(weight)
        ]
        replies: list[Reply | None] = [None] * len(attempts)
        if not kept:
            return replies
        rows = [row for _, row, _ in kept]
        prompts = [attempts[place].prompt for place, _, _ in kept]
        gated = self.answers(rows, prompts, torch.stack([weights[place] for place, _, _ in kept]))
        with self.model.disabled():
            base = self.answers(rows, prompts, None)
        for (place, _, share), answer, base_answer in zip(kept, gated, base, strict=True):
            replies[place] = Reply(weights[place], answer, base_answer, share < 1)
        return replies

    def weigh(self, attempts: Sequence[Attempt]) -> list[Tensor]:
        """The weights [K] of each attempt; empty where the gate rejects the prompt as malformed."""
        try:
            return list(self.model.weights([attempt.prompt for attempt in attempts]))
        except InputError:
            return [torch.zeros(0)] if len(attempts) == 1 else [self.weigh([one])[0] for one in attempts]

    def answers(
        self, rows: Sequence[list[int]], prompts: Sequence[Prompt], weights: Tensor | None
    ) -> list[str]:
        """The greedy answers to encoded prompts; None lets the model compute the weights."""

        def answer(chosen: list[int]) -> list[Tensor]:
            ids, mask = self.model.tokens.pad([rows[row] for row in chosen])
            output = self.model.generate(
                prompts=[prompts[row] for row in chosen],
                input_ids=ids,
                attention_mask=mask,
                weights=None if weights is None else weights[chosen],
                max_new_tokens=self.config.max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.model.tokens.pad_id,
            )
            return list(output[:, ids.shape[1] :])

        tokens = self.runner.map([len(row) for row in rows], answer, "answering", torch.int64)
        return [self.model.base.read_answer(row.tolist()) for row in tokens]

    def correct(self, rows: Sequence[QuestionAnswer], weights: Tensor | None = None) -> list[float | None]:
        """Returns whether plain questions are answered correctly at weights [B,K]; None for no adapter."""
        encoded = [self.model.tokens.encode(row.prompt) for row in rows]
        given = torch.zeros(len(rows), len(self.model.ids)) if weights is None else weights
        tokens = answer_rows(self.model, encoded, given, self.config.max_new_tokens, self.runner)
        answers = [self.model.base.read_answer(row) for row in tokens]
        return list(accuracy(answers, [row.truth for row in rows]))

    def share(self, rows: Sequence[QuestionAnswer], weights: Tensor | None = None) -> float | None:
        """Returns the share of plain questions that are answered correctly, see `correct`."""
        return mean_of(self.correct(rows, weights))

    def leak(self, rows: Sequence[QuestionAnswer], weights: Tensor | None = None) -> Row:
        """Returns that share of forget questions as `leak`, with its interval."""
        return leak_of(self.correct(rows, weights))


def leak_of(values: Sequence[float | None]) -> Row:
    """Returns the mean of values per answer as `leak`, with its 95 % interval."""
    return {"leak": mean_of(values), "leak_interval": confidence_interval(values)}


def encode(model: GatedModel, attempt: Attempt, room: int) -> tuple[list[int], float] | None:
    """An attempt's tokens within `room` and the kept share of its filler; None if malformed or too long."""
    try:
        row = tokens_of(model, attempt.prompt)
    except InputError:  # malformed, or rejected by the chat template
        return None
    if len(row) <= room:
        return row, 1.0
    low, high = 0.0, 1.0
    best: list[int] | None = None
    for _ in range(HALVINGS if attempt.filler else 0):
        share = (low + high) / 2
        row = tokens_of(model, shorten(attempt, share))
        if len(row) <= room:
            best, low = row, share
        else:
            high = share
    return None if best is None else (best, low)


def shorten(attempt: Attempt, share: float) -> str:
    """The text with the first words of every filler only."""
    text = str(attempt.prompt)
    for filler in attempt.filler:
        words = filler.split(" ")
        text = text.replace(filler, " ".join(words[: int(len(words) * share)]))
    return text.strip()


def tokens_of(model: GatedModel, prompt: Prompt) -> list[int]:
    """A prompt's tokens; without a chat template, turns are written in the model's own template."""
    base = model.base
    if not isinstance(prompt, str) and base.template.chat is not None:
        return model.tokens.encode_chat(prompt)
    parts: list[str] = []
    said: list[str] = []
    for turn in read_prompt(prompt):
        if turn.role == "assistant":
            parts.append("".join(base.template.join("\n".join(said), turn.text)))
            said = []
        else:  # system and tool messages precede the next question
            said.append(turn.text)
    text = "\n".join([*parts, base.template.format("\n".join(said))])
    return prefix_ids(base.tokenizer, base.template, text)
