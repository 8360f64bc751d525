"""Answers in OpenAI's form: whole objects and pieces of a stream."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from o3_lightning.serving.rows import Done

__all__ = ["CallError", "Reply", "error_body", "event_line"]

END = "data: [DONE]\n\n"


class CallError(Exception):
    """A call that gets no answer.

    Args:
        status: of HTTP.
        message: one sentence for the client.
        headers: of the response.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


def error_body(status: int, message: str) -> dict[str, Any]:
    """Returns an error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


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

    def whole(self, texts: Sequence[str], ends: Sequence[Done], choices_per_prompt: int) -> dict[str, Any]:
        """Returns the object of an answer that is not streamed."""
        choices = [
            self._choice(number, text, end.finish_reason)
            for number, (text, end) in enumerate(zip(texts, ends, strict=True))
        ]
        return {**self._head(""), "choices": choices, "usage": usage(ends, choices_per_prompt)}

    def piece(self, number: int, text: str | None, finish_reason: str | None = None) -> str:
        """Returns the event of a piece of one choice; a chat without text opens with the role."""
        if self.is_chat:
            opening = text is None and finish_reason is None
            delta = {"role": "assistant", "content": ""} if opening else {"content": text} if text else {}
            choice = {"index": number, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        else:
            choice = self._choice(number, text or "", finish_reason)
        return event_line({**self._head(".chunk"), "choices": [choice]})

    def last_usage(self, ends: Sequence[Done], choices_per_prompt: int) -> str:
        """Returns the event with the numbers of tokens."""
        return event_line({**self._head(".chunk"), "choices": [], "usage": usage(ends, choices_per_prompt)})

    def _head(self, suffix: str) -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if self.is_chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _choice(self, number: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        content = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if self.is_chat
            else {"text": text}
        )
        return {"index": number, **content, "finish_reason": finish_reason, "logprobs": None}


def usage(ends: Sequence[Done], choices_per_prompt: int) -> dict[str, int]:
    """Returns the numbers of tokens; a prompt counts once for all of its choices."""
    read = sum(end.prompt_tokens for end in ends[::choices_per_prompt])
    written = sum(end.completion_tokens for end in ends)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
