"""Bodies of the calls, in OpenAI's form; fields that do not change the answer are ignored."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from o3_lightning.data.prompts import Prompt, leaves

UNSUPPORTED: dict[str, tuple[Any, ...]] = {  # fields, with the values that change nothing, which clients send
    "best_of": (1,),
    "echo": (),
    "frequency_penalty": (),
    "function_call": ("none", "auto"),
    "functions": (),
    "logit_bias": (),
    "presence_penalty": (),
    "response_format": ({"type": "text"},),
    "suffix": (),
    "tool_choice": ("none", "auto"),
    "tools": (),
}
NO_PROMPT = frozenset({"metadata", "model", "stop", "stream_options", "user"})  # texts the model never reads
MOST_CHOICES, MOST_STOPS, HOTTEST = 16, 4, 2.0
MOST_CHAT_LOGPROBS, MOST_LOGPROBS = 20, 5
Messages = list[dict[str, Any]]


class StreamOptions(BaseModel):
    """Whether a stream ends with the numbers of tokens."""

    include_usage: bool = False


class Sampling(BaseModel):
    """Fields that both kinds of completion have."""

    model_config = ConfigDict(extra="allow")

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=HOTTEST)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def check(self) -> Sampling:
        """Refuses fields that would change the answer, and that this server does not have."""
        given = self.model_extra or {}
        for name, neutral in UNSUPPORTED.items():
            if given.get(name) and given[name] not in neutral:
                raise ValueError(f"'{name}' is not supported by this server")
        if len(self.stops) > MOST_STOPS or not all(self.stops):
            raise ValueError(f"expected up to {MOST_STOPS} stop texts, none of them empty")
        return self

    @property
    def likeliest(self) -> int | None:
        """How many likely tokens to report with each token; None for no log-probabilities."""
        return None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatBody(Sampling):
    """The body of `/v1/chat/completions`."""

    messages: Messages = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_CHAT_LOGPROBS)

    @property
    def likeliest(self) -> int | None:
        """How many likely tokens to report with each token; None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Sampling):
    """The body of `/v1/completions`: one text, or several."""

    prompt: str | list[str] = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)

    @property
    def likeliest(self) -> int | None:
        """How many likely tokens to report with each token; None for no log-probabilities."""
        return self.logprobs


class GateBody(BaseModel):
    """The body of `/v1/gate` and `/inspect`: a text without template, or a chat."""

    prompt: str | None = None
    messages: Messages | None = None

    @model_validator(mode="after")
    def check(self) -> GateBody:
        """Asks for one of both."""
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("expected either 'prompt' or 'messages'")
        return self

    @property
    def content(self) -> str | Messages:
        """The text or the chat."""
        return self.prompt if self.prompt is not None else self.messages or []


class ClassifyBody(BaseModel):
    """The body of `/classify`: a text without template."""

    inputs: str


class CheckBody(BaseModel):
    """The body of `/check`: that of a chat or text completion. Texts of other fields are judged, too."""

    model_config = ConfigDict(extra="allow")

    messages: Messages | None = None
    prompt: str | list[str] | None = None

    @model_validator(mode="after")
    def check(self) -> CheckBody:
        """Refuses a body of another interface."""
        if not (self.messages or self.prompt):
            raise ValueError("expected 'messages' or 'prompt'")
        return self

    @property
    def contents(self) -> list[Prompt]:
        """The chat and the texts; what is not judged must not pass, such as a question in `tools`."""
        texts = [self.prompt] if isinstance(self.prompt, str) else self.prompt or []
        given = {name: value for name, value in (self.model_extra or {}).items() if name not in NO_PROMPT}
        others = "\n".join(
            leaves([value for value in given.values() if isinstance(value, str | list | dict)])
        )
        return [*([self.messages] if self.messages else []), *texts, *([others] if others else [])]


class RequestBody(BaseModel):
    """The body of `/requests`: a forget set, rows as in its JSON-lines file."""

    id: str
    rows: list[dict[str, Any]] = Field(min_length=1)
