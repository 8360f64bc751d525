"""Answers in OpenAI's form: whole objects and pieces of a stream."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.exceptions import HTTPException

from o3_lightning.serving.rows import Delta, Done, TokenScore

END = "data: [DONE]\n\n"


def check_model(asked: str, served: str) -> None:
    """Raises HTTPException if a call names another model than the one that is served."""
    if asked != served:
        raise HTTPException(404, f"the model '{asked}' does not exist; this server has '{served}'")


def error_body(status: int, message: str) -> dict[str, Any]:
    """Returns an error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = message.encode(errors="backslashreplace").decode()  # may quote half of a character
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def first_problem(errors: Sequence[Any]) -> str:
    """Returns the first of pydantic's errors of a body: its field and what is wrong."""
    place = ".".join(str(part) for part in errors[0]["loc"] if part != "body")
    return f"{place}: {errors[0]['msg']}" if place else str(errors[0]["msg"])


def event_line(value: dict[str, Any]) -> str:
    """Returns one server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


@dataclass
class Reply:
    """Builds the answer to one call.

    Args:
        model: name in the interface.
        is_chat: of which kind of completion.
        id: of the answer; also in the audit log.
        created: seconds since 1970.
    """

    model: str
    is_chat: bool
    id: str = field(default_factory=lambda: f"o3-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    offsets: Counter[int] = field(default_factory=Counter)  # length of the reported tokens, by choice

    def whole(
        self, answers: Sequence[Delta], ends: Sequence[Done], choices_per_prompt: int
    ) -> dict[str, Any]:
        """Returns the object of an answer that is not streamed."""
        choices = [
            self._choice(number, answer, end.finish_reason)
            for number, (answer, end) in enumerate(zip(answers, ends, strict=True))
        ]
        return {**self._head(""), "choices": choices, "usage": usage(ends, choices_per_prompt)}

    def piece(self, number: int, piece: Delta | None, finish_reason: str | None = None) -> str:
        """Returns the event of a piece of one choice; a chat opens with the role, before any piece."""
        choice = self._choice(number, piece or Delta(""), finish_reason)
        if self.is_chat:
            opening = piece is None and finish_reason is None
            delta = (
                {"role": "assistant", "content": ""} if opening else {"content": piece.text} if piece else {}
            )
            del choice["message"]
            choice["delta"] = delta
        return event_line({**self._head(".chunk"), "choices": [choice]})

    def last_usage(self, ends: Sequence[Done], choices_per_prompt: int) -> str:
        """Returns the event with the numbers of tokens."""
        return event_line({**self._head(".chunk"), "choices": [], "usage": usage(ends, choices_per_prompt)})

    def _head(self, suffix: str) -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if self.is_chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _choice(self, number: int, piece: Delta, finish_reason: str | None) -> dict[str, Any]:
        content: dict[str, Any]
        if self.is_chat:
            content = {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
            logprobs = {"content": [chat_score(one) for one in piece.scores], "refusal": None}
        else:
            content, logprobs = {"text": piece.text}, self._text_scores(number, piece.scores)
        given = logprobs if piece.scores else None
        return {"index": number, **content, "finish_reason": finish_reason, "logprobs": given}

    def _text_scores(self, number: int, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """Returns the tokens of a text completion with their log-probabilities and places."""
        offsets = []
        for score in scores:
            offsets.append(self.offsets[number])
            self.offsets[number] += len(score.text)
        return {
            "tokens": [score.text for score in scores],
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": [dict(score.top) for score in scores],
            "text_offset": offsets,
        }


def chat_score(score: TokenScore) -> dict[str, Any]:
    """Returns one token of a chat completion with its log-probabilities."""

    def entry(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {**entry(score.text, score.logprob), "top_logprobs": [entry(*other) for other in score.top]}


def usage(ends: Sequence[Done], choices_per_prompt: int) -> dict[str, int]:
    """Returns the numbers of tokens; a prompt counts once for all of its choices."""
    read = sum(end.prompt_tokens for end in ends[::choices_per_prompt])
    written = sum(end.completion_tokens for end in ends)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
