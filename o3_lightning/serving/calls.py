"""From one HTTP call to rows of the engine and back: events, time limits, disconnects, audit."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from time import monotonic
from typing import Any

from starlette.exceptions import HTTPException

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json
from o3_lightning.data.prompts import Prompt, read_content
from o3_lightning.serving.audit import AuditLog
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.engine import Engine
from o3_lightning.serving.judging import Judged
from o3_lightning.serving.metrics import Metrics
from o3_lightning.serving.replies import check_model
from o3_lightning.serving.rows import Delta, Done, Event, Failed, Row
from o3_lightning.serving.schemas import Sampling

POLL_SECONDS, MARGIN_SECONDS = 0.5, 10.0
CLIENT_GONE = 499  # a status that servers log and never send


class Calls:
    """Runs calls on an engine and notes each answer."""

    def __init__(
        self, engine: Engine, config: ServeConfig, audit: AuditLog, metrics: Metrics, name: str
    ) -> None:
        self.engine, self.config, self.audit, self.metrics, self.name = engine, config, audit, metrics, name
        self.refusal = engine.model.gate_config.refusal
        self.gate_digest = digest_json(asdict(engine.model.gate_config))

    def prompt(self, messages: list[dict[str, Any]]) -> Prompt:
        """Returns a chat; for a model without a chat template a single user message becomes a plain text."""
        has_template = bool(getattr(self.engine.model.tokenizer, "chat_template", None))
        content = messages[0].get("content") if messages else None
        if not has_template and content is not None and [each.get("role") for each in messages] == ["user"]:
            with suppress(InputError):  # of a picture, say, which the engine refuses
                return read_content(content)
        return messages

    def rows(
        self, prompts: Sequence[Prompt], body: Sampling, longest: int | None, *, is_raw: bool
    ) -> list[Row]:
        """Returns the rows of a call: each prompt `n` times.

        Raises:
            HTTPException: the call names another model, or asks for more tokens than are allowed.
        """
        check_model(body.model, self.name)
        most = self.config.max_completion_tokens
        if longest is not None and longest > most:
            raise HTTPException(400, f"expected up to {most} tokens, got {longest}")
        seed = secrets.randbits(62) if body.seed is None else body.seed % 2**62
        count = body.n or 1
        return [
            Row(
                prompt,
                max_tokens=longest or most,
                is_raw=is_raw,
                temperature=1.0 if body.temperature is None else body.temperature,
                top_p=body.top_p or 1.0,
                seed=seed + choice,
                stop=body.stops,
                top_logprobs=body.likeliest,
            )
            for prompt in prompts
            for choice in range(count)
        ]

    async def run(
        self, rows: Sequence[Row], id: str, endpoint: str, is_gone: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[tuple[int, Event]]:
        """Yields the events of some rows with their numbers, until every row is done.

        Args:
            rows: of one call; they are cancelled when the iterator is closed.
            id: for the audit log.
            endpoint: for the audit log.
            is_gone: whether the client has disconnected.

        Raises:
            HTTPException: too many rows, the queue is full, a prompt cannot be read, the time is over, or the
                model failed.
        """
        if len(rows) > self.config.max_waiting_rows:  # would never fit: trying again is in vain
            raise HTTPException(
                400, f"expected up to {self.config.max_waiting_rows} answers, got {len(rows)}"
            )
        queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        loop, began = asyncio.get_running_loop(), monotonic()
        for number, row in enumerate(rows):
            row.deadline, row.emit = began + self.config.timeout_seconds, sender(loop, queue, number)
        self.engine.submit(rows)
        texts, judged, unfinished, end = [""] * len(rows), {}, set(range(len(rows))), "cancelled"
        try:
            while unfinished:
                number, event = await self._next(queue, began, is_gone)
                if isinstance(event, Failed):
                    raise HTTPException(event.status, event.message)
                if isinstance(event, Judged):
                    judged[number] = event
                elif isinstance(event, Delta):
                    texts[number] += event.text
                if isinstance(event, Done) or (isinstance(event, Judged) and not rows[number].max_tokens):
                    unfinished.discard(number)
                    self._note(judged.get(number), texts[number], event, (id, endpoint, began))
                yield number, event
        except HTTPException as error:
            end = "cancelled" if error.status_code == CLIENT_GONE else "failed"
            raise
        finally:
            for number in unfinished:  # what was sent is noted
                rows[number].cancelled = True
                self._note(judged.get(number), texts[number], Done(end, 0, 0), (id, endpoint, began))

    async def _next(
        self, queue: asyncio.Queue[tuple[int, Event]], began: float, is_gone: Callable[[], Awaitable[bool]]
    ) -> tuple[int, Event]:
        """Returns the next event; HTTPException when the client has disconnected or the time is over."""
        while True:
            if await is_gone():
                raise HTTPException(CLIENT_GONE, "the client disconnected")
            if monotonic() - began > self.config.timeout_seconds + MARGIN_SECONDS:
                raise HTTPException(503, "the call timed out")
            with suppress(TimeoutError):
                return await asyncio.wait_for(queue.get(), POLL_SECONDS)

    def _note(self, judged: Judged | None, text: str, event: Event, call: tuple[str, str, float]) -> None:
        """Counts one answer and writes its line of the audit log."""
        if judged is None:  # the base model alone, for an operator
            return
        id, endpoint, began = call
        if text and text.strip() == self.refusal.strip():  # of the answer gate, too
            judged = judged._replace(decision="refuse")
        entry = judged.entry()
        self.metrics.decisions.labels(judged.decision).inc()
        if judged.decision == "refuse" and entry["weights"] and not judged.failed:
            self.metrics.refusals.labels(max(entry["weights"], key=entry["weights"].__getitem__)).inc()
        end = event if isinstance(event, Done) else Done("", 0, 0)
        self.metrics.tokens.labels("prompt").inc(end.prompt_tokens)
        self.metrics.tokens.labels("completion").inc(end.completion_tokens)
        self.audit.write(
            id=id,
            endpoint=endpoint,
            model=self.name,
            **entry,
            gate=self.gate_digest,
            latency_ms=round(1000 * (monotonic() - began), 1),
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            finish=end.finish_reason,
        )


def sender(
    loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[tuple[int, Event]], number: int
) -> Callable[[Event], None]:
    """Returns a function that hands events of the engine's thread to the loop; none once that is closed."""

    def send(event: Event) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(queue.put_nowait, (number, event))

    return send
