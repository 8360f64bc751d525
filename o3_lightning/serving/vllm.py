"""The gate inside vLLM's OpenAI server: a plug-in that loads weighted adapters, and a middleware.

vLLM knows adapters by name and has no weight per row. The middleware asks the gate about a prompt, rounds the
strengths to multiples of 1 / `steps`, writes their exact sum as one adapter, and puts its name into the call.
The name is the digest of the adapter's content, because vLLM keys its prefix cache by name. The command
`o3-lightning export --target vllm` writes the settings; the environment variable `O3_VLLM` holds their path.
"""

import asyncio
import importlib.util
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any, Self, cast

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json, read_result
from o3_lightning.data.prompts import Prompt, read_prompts
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.loading import StoreLoader, load_encoder_of
from o3_lightning.gating.plan import Plan
from o3_lightning.gating.routing import Router, describe
from o3_lightning.gating.tokens import PromptTokens
from o3_lightning.gating.watching import StoreWatcher
from o3_lightning.models.base import digest_weights
from o3_lightning.models.lora import LORA_CONFIG
from o3_lightning.serving.audit import AuditLog
from o3_lightning.serving.composing import PREFIX, Composer
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.judging import WARM_UP, Judged, judge_prompts
from o3_lightning.serving.replies import END, Reply, check_model, error_body, first_problem
from o3_lightning.serving.rows import Delta, Done
from o3_lightning.serving.schemas import ChatBody, CompletionBody
from o3_lightning.store.view import StoreView

logger = logging.getLogger(__name__)
VARIABLE = "O3_VLLM"
BODIES: dict[str, type[ChatBody] | type[CompletionBody]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
}
READ_ONLY = ("/health", "/metrics", "/ping", "/v1/models", "/version")  # everything else gets 404


@dataclass(frozen=True)
class VllmConfig:
    """Settings of the gate in vLLM.

    Args:
        store: folder of the store; several servers may share it.
        model: folder of the base model's weights, checked against the store's digest.
        name: of the model in the interface.
        adapters: folder for the combined adapters; several servers may share it.
        gate: fields of `GateConfig`. Answers are not checked (`check_answers` has no effect).
        steps: strengths are rounded to multiples of 1 / steps, those above 0 to at least one.
        max_rank: largest rank of a combined adapter, as in `--max-lora-rank`; prompts that need a larger one
            are refused.
        refresh_seconds: time between two looks at the store, in seconds.
        audit: file of the audit log; empty writes none.
        audit_bytes: size at which it is rotated, in bytes.
        audit_files: rotated files that are kept.
    """

    store: str
    model: str
    name: str
    adapters: str
    gate: Mapping[str, Any]
    steps: int = 20
    max_rank: int = 64
    refresh_seconds: float = ServeConfig.refresh_seconds
    audit: str = ""
    audit_bytes: int = ServeConfig.audit_bytes
    audit_files: int = ServeConfig.audit_files

    @classmethod
    def load(cls) -> Self:
        """Returns the settings that the environment variable names.

        Raises:
            InputError: the variable is unset, or the file cannot be read or lacks a field.
        """
        path = os.environ.get(VARIABLE, "")
        if not path:
            raise InputError(f"expected the path of vllm.json in the environment variable {VARIABLE}")
        try:
            return cls(**read_result(path))
        except TypeError as error:
            raise InputError(f"not settings of the gate: {error}", path=path) from error


class StoreGate:
    """The gate of a store without its base model; follows the store.

    Args:
        config: settings.
        with_zeros: prompts of the base model name an adapter of zeros once the store has had an adapter.

    Raises:
        StoreError: the store is damaged, or made for other weights than those of `config.model`.
        InputError: a setting is outside its range, or the encoder cannot be loaded.
    """

    def __init__(self, config: VllmConfig, *, with_zeros: bool = False) -> None:
        self.config, self.gate_config = config, GateConfig(**config.gate)
        self.with_zeros, self.base_name = with_zeros, ""
        encoder = load_encoder_of(StoreView.open(config.store))
        store = StoreView.open(config.store, digest_weights(Path(config.model)), encoder.digest)
        self.loader, self.lock = StoreLoader(store, encoder), RLock()
        self.store_head, self.ids = "", tuple[str, ...]()
        self.refresh()
        self.plan([WARM_UP])
        self.watcher, self.looked = StoreWatcher(self), monotonic()

    def refresh(self) -> bool:
        """Follows the store, and returns whether it had changed.

        Raises:
            StoreError: a file is damaged; the gate stays as it was.
        """
        if self.loader.store.head() == self.store_head:
            return False
        parts = self.loader.load()
        has_adapter = [adapter is not None for adapter in parts.adapters.values()]
        no_base = cast(PromptTokens, None)  # reads token ids, which this server refuses
        self.router = Router(parts.detectors, has_adapter, no_base, self.gate_config, self.lock)
        self.adapters = {id: adapter for id, adapter in parts.adapters.items() if adapter is not None}
        self.composer = Composer(Path(self.config.adapters), self.config.steps, self.config.max_rank)
        if self.with_zeros and self.adapters:
            nothing = {id: adapter.scaled(0.0) for id, adapter in [*self.adapters.items()][:1]}
            self.base_name = self.composer.name(nothing, dict.fromkeys(nothing, 1.0))
            self.composer.names.clear()
        self.ids, self.store_head = tuple(parts.detectors.ids), parts.head
        return True

    def plan(self, prompts: Sequence[Prompt]) -> Plan:
        """Returns what happens to each prompt."""
        return self.router.plan_prompts(prompts)

    def decide(self, prompts: list[Prompt]) -> tuple[list[Judged], str]:
        """Returns what the gate decides on each prompt, and the adapter for them; empty for none.

        If one prompt is refused, all are.

        Raises:
            HTTPException: the prompts of one call need different adapters.
        """
        with self.lock:
            if monotonic() - self.looked > self.config.refresh_seconds:
                self.watcher.look()
                self.looked = monotonic()
            plan, judged = judge_prompts(self, prompts)
            if any(one.decision == "refuse" for one in judged):
                return [one._replace(decision="refuse") for one in judged], ""
            try:
                names = {self._name(row) for row in plan.strengths.tolist()}
            except Exception as error:  # an adapter that cannot be made must not leave the base model alone
                logger.error("combining adapters failed: %s", describe(error))
                return [one._replace(decision="refuse", failed=True) for one in judged], ""
        if len(names) > 1:
            raise HTTPException(400, "the prompts of this call need different adapters; send them one by one")
        return judged, names.pop()

    def _name(self, strengths: list[float]) -> str:
        acting = {id: value for id, value in zip(self.ids, strengths, strict=True) if value > 0}
        return self.composer.name(self.adapters, acting) if acting else self.base_name


class GateMiddleware:
    """Judges every completion before vLLM sees it, and keeps out what it cannot judge.

    Args:
        app: vLLM's server.
        config: settings; None reads those that the environment names.
    """

    def __init__(self, app: ASGIApp, config: VllmConfig | None = None) -> None:
        self.app, self.config = app, config or VllmConfig.load()
        self.gate = StoreGate(self.config, with_zeros=runs_on_cpu())
        self.digest = digest_json(asdict(self.gate.gate_config))
        self.audit = AuditLog(self.config.audit, self.config.audit_bytes, self.config.audit_files)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a call on, changed or not, or answers it."""
        if scope["type"] == "lifespan" or (
            scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in READ_ONLY
        ):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            try:
                await self._complete(scope, receive, send)
            except HTTPException as error:
                body = error_body(error.status_code, error.detail)
                await JSONResponse(body, error.status_code)(scope, receive, send)

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a completion with the refusal, or passes it on to the base model or an adapter."""
        began, path = monotonic(), scope["path"]
        if path not in BODIES or scope["method"] != "POST":
            raise HTTPException(404, "not found")
        body = parse(BODIES[path], await read_body(receive))
        name = self.config.name
        check_model(body.model, name)
        prompts = prompts_of(body)
        judged, adapter = await asyncio.to_thread(self.gate.decide, prompts)
        reply = Reply(name, is_chat=isinstance(body, ChatBody))
        try:
            if judged[0].decision == "refuse":
                count = len(prompts) * (body.n or 1)
                await refuse(reply, self.gate.gate_config.refusal, count, body)(scope, receive, send)
            else:
                known = body.model_dump(include=set(type(body).model_fields), exclude_unset=True)
                content = json.dumps({**known, "model": adapter or name}).encode()
                headers = [head for head in scope["headers"] if head[0].lower() != b"content-length"]
                headers.append((b"content-length", b"%d" % len(content)))
                await self.app({**scope, "headers": headers}, replay(content, receive), send)
        finally:
            latency = round(1000 * (monotonic() - began), 1)
            call = {"id": reply.id, "endpoint": path, "model": adapter or name, "gate": self.digest}
            for one in judged:
                self.audit.write(**call, **one.entry(), latency_ms=latency)


def prompts_of(body: ChatBody | CompletionBody) -> list[Prompt]:
    """Returns the chat or the texts of a call.

    Raises:
        HTTPException: one of them cannot be judged.
    """
    texts: list[Prompt] = (
        [body.messages] if isinstance(body, ChatBody)
        else [body.prompt] if isinstance(body.prompt, str) else [*body.prompt]
    )  # fmt: skip
    try:
        read_prompts(texts)
    except InputError as error:
        raise HTTPException(400, str(error)) from error
    return texts


def runs_on_cpu() -> bool:
    """Whether this is vLLM for processors.

    Its LoRA operations (0.32: `lora/ops/torch_ops`) take -1, which means no adapter, as an index: a row of
    the base model runs at the adapter in the last slot.
    """
    if importlib.util.find_spec("vllm") is None:
        return False
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


async def read_body(receive: Receive) -> bytes:
    """Returns the body of a call.

    Raises:
        HTTPException: it is too large, or the client has disconnected.
    """
    content, is_whole = b"", False
    while not is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(499, "the client disconnected")
        content, is_whole = content + message.get("body", b""), not message.get("more_body")
        if len(content) > ServeConfig.max_body_bytes:
            raise HTTPException(413, f"expected a body of up to {ServeConfig.max_body_bytes} bytes")
    return content


def parse(kind: type[ChatBody] | type[CompletionBody], content: bytes) -> ChatBody | CompletionBody:
    """Returns a body as a checked object.

    Raises:
        HTTPException: it is not one.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise HTTPException(400, first_problem(error.errors())) from error


def replay(content: bytes, receive: Receive) -> Receive:
    """Returns a channel that gives another body, and then what the client sends."""
    messages: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def refuse(reply: Reply, refusal: str, count: int, body: ChatBody | CompletionBody) -> Response:
    """Returns the refusal, whole or as a stream; it has no tokens of the model."""
    text, end = Delta(refusal), Done("stop", 0, 0)
    if not body.stream:
        return JSONResponse(reply.whole([text] * count, [end] * count, 1))
    pieces = [
        piece
        for number in range(count)
        for piece in (
            *([reply.piece(number, None)] if reply.is_chat else []),
            reply.piece(number, text),
            reply.piece(number, None, end.finish_reason),
        )
    ]
    if body.stream_options and body.stream_options.include_usage:
        pieces.append(reply.last_usage([end] * count, 1))
    return StreamingResponse(iter([*pieces, END]), media_type="text/event-stream")


def register() -> None:
    """Registers the adapters' folder with vLLM: the entry point of the group `vllm.general_plugins`."""
    with suppress(InputError):  # vLLM without a gate loads plug-ins, too
        register_folder(Path(VllmConfig.load().adapters))


def register_folder(folder: Path) -> None:
    """Registers a folder of combined adapters with vLLM."""
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    class CombinedAdapters(LoRAResolver):  # type: ignore[misc] # vLLM is not installed beside mypy
        async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
            path = folder / lora_name
            is_known = lora_name.startswith(PREFIX) and lora_name.removeprefix(PREFIX).isalnum()
            if not (is_known and (path / LORA_CONFIG).exists()):
                return None
            return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(path))  # vLLM numbers it

    LoRAResolverRegistry.register_resolver("o3_lightning", CombinedAdapters())
