"""One row of a batch: what a client asked for, and the text that its tokens become.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from o3_lightning.data.prompts import Prompt
from o3_lightning.gating.calls import BROKEN
from o3_lightning.gating.plan import Plan
from o3_lightning.models.base import BaseModel
from o3_lightning.serving.judging import Judged


class TokenScore(NamedTuple):
    """One token of an answer.

    Args:
        text: of the token.
        logprob: its log-probability before temperature and top_p; 0 in a refusal, which is not sampled.
        top: the likeliest tokens with their log-probabilities.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]


class Delta(NamedTuple):
    """A further piece of the answer, and its tokens where their log-probabilities are asked for."""

    text: str
    scores: tuple[TokenScore, ...] = ()


class Done(NamedTuple):
    """The end of an answer: "stop" or "length", and how many tokens were read and generated."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class Failed(NamedTuple):
    """The end of a row without an answer: an HTTP status and what to tell the client."""

    status: int
    message: str


Event = Judged | Delta | Done | Failed


@dataclass(eq=False)
class Row:
    """One answer to one prompt.

    Args:
        prompt: a chat, or a text.
        emit: receives the row's events, in the engine's thread.
        max_tokens: longest answer; 0 only asks the gate. The engine lowers it when the row has to end early.
        is_raw: continue the text as it stands, without the model's template.
        temperature: 0 takes the likeliest token.
        top_p: smallest probability mass to sample from, in (0, 1].
        seed: of sampling; the same seed gives the same answer, whatever else is in the batch.
        stop: texts that end the answer and are left out of it.
        top_logprobs: number of likeliest tokens to report with each token; None reports no log-probabilities.
        ungated: whether the base model answers alone.
        deadline: clock time (`time.monotonic`) at which the row ends.
        cancelled: set when the client has disconnected.
        ids: token ids of the prompt, set by the engine.
        judged: what the gate decided, set by the engine.
        plan: the strengths that follow from it [1,K], set by the engine.
    """

    prompt: Prompt
    emit: Callable[[Event], None] = lambda event: None
    max_tokens: int = 0
    is_raw: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    ungated: bool = False
    deadline: float = math.inf
    cancelled: bool = False
    ids: list[int] = field(default_factory=list)
    judged: Judged | None = None
    plan: Plan | None = None

    def is_judged_at(self, head: str) -> bool:
        """Whether the gate judged the prompt by the store as it is at a head of its journal."""
        return self.judged is not None and self.judged.store_head == head

    @property
    def is_refused(self) -> bool:
        """Whether the gate refuses the prompt."""
        return self.judged is not None and self.judged.decision == "refuse"


class RowText:
    """Turns the tokens of one answer into text, piece by piece, and knows where it ends.

    White space before the first word is dropped. What may be the beginning of a stop text or of an incomplete
    character is held back.
    """

    def __init__(self, row: Row, base: BaseModel) -> None:
        self.row, self.base = row, base
        self.stop = (*row.stop, *base.end_texts)
        self.tokens: list[int] = []
        self.sent, self.finish_reason = 0, ""

    def feed(self, token: int) -> str:
        """Adds a token and returns the text that it completes; nothing after the end."""
        if self.finish_reason:
            return ""
        if len(self.tokens) >= self.row.max_tokens:  # lowered since the last token
            self.finish_reason = "length"
        elif token in self.base.end_ids:
            self.finish_reason = "stop"
        else:
            self.tokens.append(token)
            if len(self.tokens) >= self.row.max_tokens:
                self.finish_reason = "length"
        return self._flush()

    def _flush(self) -> str:
        text: str = self.base.tokenizer.decode(self.tokens, skip_special_tokens=True).lstrip()
        found = [place for place in (text.find(stop) for stop in self.stop) if place >= 0]
        if found:
            text, self.finish_reason = text[: min(found)], "stop"
        end = len(text)
        if not self.finish_reason:
            end -= max((overlap(text, stop) for stop in self.stop), default=0)
            end = min(end, len(text.rstrip(BROKEN)))
        piece, self.sent = text[self.sent : end], max(self.sent, end)
        return piece


def overlap(text: str, stop: str) -> int:
    """Returns the length of the longest end of a text with which a stop text begins."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class RowStop(StoppingCriteria):
    """Ends each row at its own stop texts, length and deadline, or when its client has disconnected.

    Args:
        rows: of the batch.
        base: decodes tokens.
        prompt_length: of the padded prompts.
        between_steps: called after each step.
    """

    def __init__(
        self, rows: Sequence[Row], base: BaseModel, prompt_length: int, between_steps: Callable[[], None]
    ) -> None:
        self.rows, self.base, self.prompt_length = rows, base, prompt_length
        self.between_steps = between_steps
        self.texts: list[RowText] = []

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        """Returns which rows are finished [B]."""
        self.between_steps()
        if input_ids.shape[1] == self.prompt_length + 1:  # a new attempt
            self.texts = [RowText(row, self.base) for row in self.rows]
        now = monotonic()
        for row, text, token in zip(self.rows, self.texts, input_ids[:, -1].tolist(), strict=True):
            if row.cancelled or now > row.deadline:
                row.max_tokens = min(row.max_tokens, input_ids.shape[1] - self.prompt_length)
            text.feed(token)
        return torch.tensor([bool(text.finish_reason) for text in self.texts], device=input_ids.device)


class Choice(NamedTuple):
    """The token that the model chose at one step, and log-probabilities."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class RowSampler(LogitsProcessor):
    """Samples each row with its own temperature, top_p and seed, so that a batch changes no answer.

    Args:
        rows: of the batch.
        prompt_length: of the padded prompts.
        watched: numbers of the rows whose answers the answer gate checks; what else the model might have said
            is not checked, so that it is not reported.

    Attributes:
        choices: of each row that asks for log-probabilities, one a step.
        attempts: how often the answers were generated; more than once where the answer gate acted.
    """

    def __init__(self, rows: Sequence[Row], prompt_length: int, watched: Container[int] = ()) -> None:
        self.rows, self.prompt_length, self.watched = rows, prompt_length, watched
        self.generators: dict[int, torch.Generator] = {}
        self.choices: dict[int, list[Choice]] = {}
        self.attempts = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns scores [B,V] that leave each sampled row one token."""
        sampled = [number for number, row in enumerate(self.rows) if row.temperature > 0]
        if input_ids.shape[1] == self.prompt_length:
            self.attempts += 1
            self.generators = {
                number: torch.Generator().manual_seed(self.rows[number].seed) for number in sampled
            }
            self.choices = {
                number: [] for number, row in enumerate(self.rows) if row.top_logprobs is not None
            }
        raw, scores = scores, scores.clone()
        for number in sampled:
            row = self.rows[number]
            raised = scores[number].double().cpu()  # and at most 0: the least temperature divides it
            likely, order = ((raised - raised.max()) / row.temperature).softmax(-1).sort(descending=True)
            likely[likely.cumsum(-1) - likely >= row.top_p] = 0
            token = int(order[torch.multinomial(likely, 1, generator=self.generators[number])])
            scores[number] = -math.inf
            scores[number, token] = 0
        for number, steps in self.choices.items():
            logs = raw[number].float().log_softmax(-1)
            token = int(scores[number].argmax())
            count = self.rows[number].top_logprobs or 0
            tokens = torch.tensor([token][:count]) if number in self.watched else logs.topk(count).indices
            top = tuple((other, float(logs[other])) for other in tokens.tolist())
            steps.append(Choice(token, float(logs[token]), top))
        return scores


class RowStreamer:
    """Receives the tokens of a batch from `generate`, and emits each row's text.

    Args:
        rows: of the batch.
        base: its tokenizer decodes.
        sampler: of the same rows; knows their log-probabilities. None where nothing is generated.
        refusal: tokens of the refusal; it is forced, and the model's own choices beside it are not reported.
    """

    def __init__(
        self, rows: Sequence[Row], base: BaseModel, sampler: RowSampler | None, refusal: Sequence[int]
    ) -> None:
        self.rows, self.tokenizer, self.sampler, self.refusal = rows, base.tokenizer, sampler, list(refusal)
        self.texts = [RowText(row, base) for row in rows]
        self.reported = [0] * len(rows)

    def put(self, value: Tensor) -> None:
        """Takes the prompts [B,T], which are passed over, or the next token of each row [B]."""
        if value.dim() > 1:
            return
        for number, (text, token) in enumerate(zip(self.texts, value.tolist(), strict=True)):
            if not text.finish_reason:
                self.emit(number, text, token)

    def refuse(self) -> None:
        """Emits the refusal as the whole answer of each row."""
        for token in self.refusal:
            self.put(torch.tensor([token] * len(self.rows)))
        self.end()

    def emit(self, number: int, text: RowText, token: int) -> None:
        """Emits what a token completes, and the end of the answer."""
        row, piece = self.rows[number], text.feed(token)
        if piece:
            row.emit(Delta(piece, self.scores(number, text.tokens)))
        if text.finish_reason:
            row.emit(Done(text.finish_reason, len(row.ids), len(text.tokens)))

    def scores(self, number: int, tokens: Sequence[int]) -> tuple[TokenScore, ...]:
        """Returns the tokens of a row that were not reported yet, if it asks for log-probabilities."""
        row, first = self.rows[number], self.reported[number]
        if row.top_logprobs is None:
            return ()
        self.reported[number] = len(tokens)
        found = []
        for place in range(first, len(tokens)):
            token = tokens[place]
            choice = Choice(token, 0.0, ((token, 0.0),)[: row.top_logprobs])  # of a forced token
            if self.sampler is not None and not self.is_forced(tokens[: place + 1]):
                sampled = self.sampler.choices[number][place]
                choice = sampled if sampled.token == token else choice
            top = tuple((self.tokenizer.decode([other]), value) for other, value in choice.top)
            found.append(TokenScore(self.tokenizer.decode([token]), choice.logprob, top))
        return tuple(found)

    def is_forced(self, tokens: Sequence[int]) -> bool:
        """Whether an answer that begins with these tokens may be a refusal of the answer gate."""
        is_later_attempt = self.sampler is not None and self.sampler.attempts > 1
        return is_later_attempt and list(tokens) == self.refusal[: len(tokens)]

    def end(self) -> None:
        """Ends the rows that have no end yet."""
        for row, text in zip(self.rows, self.texts, strict=True):
            if not text.finish_reason:
                text.finish_reason = "length"
                row.emit(Done("length", len(row.ids), len(text.tokens)))
