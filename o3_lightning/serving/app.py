"""The endpoints of the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o3_lightning.gating.routing import describe
from o3_lightning.serving.calls import Calls
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.gateways import add_gate
from o3_lightning.serving.judging import Judged
from o3_lightning.serving.metrics import Metrics
from o3_lightning.serving.operator import Operator, add_operator_routes
from o3_lightning.serving.replies import END, Reply, error_body, event_line, first_problem
from o3_lightning.serving.rows import Delta, Done, Row
from o3_lightning.serving.schemas import ChatBody, CompletionBody, Sampling

logger = logging.getLogger(__name__)
PAGE_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"


def build_app(calls: Calls, config: ServeConfig, operator: Operator | None = None) -> FastAPI:
    """Returns the application; it starts and stops the engine.

    Args:
        calls: answers calls, with the engine behind it.
        config: limits.
        operator: the store's requests and the token that protects them; None leaves these endpoints out.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        calls.engine.start()
        yield
        calls.engine.stop()
        if operator is not None and operator.training is not None:
            await asyncio.to_thread(operator.training.stop)
        calls.audit.close()

    app = FastAPI(title="o3-lightning", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, metrics=calls.metrics, config=config)
    add_error_handlers(app)
    add_completions(app, calls)
    add_gate(app, calls)
    add_state(app, calls)
    if operator is not None:
        add_operator_routes(app, calls, operator)
    return app


class Guard:
    """Counts calls by route and status, limits bodies, and logs errors without their message."""

    def __init__(self, app: ASGIApp, metrics: Metrics, config: ServeConfig) -> None:
        self.app, self.metrics, self.config = app, metrics, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a call to the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        left: int | None = self.config.max_body_bytes
        until = asyncio.get_running_loop().time() + self.config.timeout_seconds

        async def limited() -> Message:
            nonlocal left
            if left is None:  # the body is complete; what comes next is the disconnect
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, "the body did not arrive in time") from error
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"expected a body of up to {self.config.max_body_bytes} bytes")
            left = left if message.get("more_body") else None
            return message

        async def counted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.calls.labels(route, message["status"]).inc()
            await send(message)

        try:
            await self.app(scope, limited, counted)
        except Exception as error:  # its message may quote a prompt
            logger.error("a call failed: %s", describe(error))
            if not started:
                await JSONResponse(error_body(500, "internal error"), 500)(scope, receive, counted)


def add_error_handlers(app: FastAPI) -> None:
    """Answers every error of a call with a JSON object in OpenAI's form."""

    async def on_http(request: Request, error: Any) -> Response:
        return JSONResponse(
            error_body(error.status_code, str(error.detail)), error.status_code, error.headers
        )

    async def on_body(request: Request, error: Any) -> Response:
        return JSONResponse(error_body(400, first_problem(error.errors())), 400)

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_body)


def add_completions(app: FastAPI, calls: Calls) -> None:
    """Adds the endpoints of OpenAI's interface."""

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, request: Request) -> Response:
        longest = body.max_completion_tokens or body.max_tokens
        rows = calls.rows([calls.prompt(body.messages)], body, longest, is_raw=False)
        return await respond(calls, rows, body, Reply(calls.name, is_chat=True), request)

    @app.post("/v1/completions")
    async def complete(body: CompletionBody, request: Request) -> Response:
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        rows = calls.rows(prompts, body, body.max_tokens, is_raw=True)
        return await respond(calls, rows, body, Reply(calls.name, is_chat=False), request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": calls.name, "object": "model", "created": 0, "owned_by": "o3-lightning"}
        return {"object": "list", "data": [model]}


async def respond(calls: Calls, rows: list[Row], body: Sampling, reply: Reply, request: Request) -> Response:
    """Returns the answer to a completion call, whole or as a stream."""
    endpoint = "chat" if reply.is_chat else "completions"
    events = calls.run(rows, reply.id, endpoint, request.is_disconnected)
    if body.stream:
        first = await anext(events)  # a call that is refused gets its status, not a broken stream
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        stream = stream_events(first, events, reply, len(rows), body.n or 1 if with_usage else 0)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
    answers, ends = [Delta("")] * len(rows), [Done("length", 0, 0)] * len(rows)
    async with aclosing(events):
        async for number, event in events:
            if isinstance(event, Delta):
                answer = answers[number]
                answers[number] = Delta(answer.text + event.text, answer.scores + event.scores)
            elif isinstance(event, Done):
                ends[number] = event
    return JSONResponse(reply.whole(answers, ends, body.n or 1))


async def stream_events(
    first: Any, events: Any, reply: Reply, count: int, usage_choices: int
) -> AsyncIterator[str]:
    """Yields the server-sent events of an answer; with `usage_choices` the numbers of tokens at the end."""
    ends = [Done("length", 0, 0)] * count

    def pieces(number: int, event: Any) -> str:
        if isinstance(event, Judged):
            return reply.piece(number, None) if reply.is_chat else ""
        if isinstance(event, Delta):
            return reply.piece(number, event)
        ends[number] = event
        return reply.piece(number, None, event.finish_reason)

    try:
        async with aclosing(events):
            if text := pieces(*first):
                yield text
            async for number, event in events:
                if text := pieces(number, event):
                    yield text
    except HTTPException as error:
        yield event_line(error_body(error.status_code, error.detail))
        return
    if usage_choices:
        yield reply.last_usage(ends, usage_choices)
    yield END


def add_state(app: FastAPI, calls: Calls) -> None:
    """Adds the endpoints for monitoring, and the inspector page."""

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        problem = calls.engine.watcher.problem
        ready = calls.engine.is_running and not problem
        said = "the store is damaged" if problem else ""
        state = {"status": "ready" if ready else "not ready", "problem": said}
        return JSONResponse(state, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(calls.metrics.registry), media_type="text/plain; version=0.0.4")

    page = files("o3_lightning.serving").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/")
    async def inspector() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})
