"""The operator's endpoints, behind a bearer token: requests of the store, and both answers to a prompt."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Request
from starlette.exceptions import HTTPException

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.data.records import Record
from o3_lightning.data.requests import UnlearningRequest, parse_row
from o3_lightning.detector.encoder import Encoder
from o3_lightning.run.config import RunConfig
from o3_lightning.run.live import protect_request
from o3_lightning.serving.background import BackgroundTraining
from o3_lightning.serving.calls import Calls
from o3_lightning.serving.engine import Engine
from o3_lightning.serving.judging import Judged
from o3_lightning.serving.replies import Reply
from o3_lightning.serving.rows import Delta, Row
from o3_lightning.serving.schemas import GateBody, RequestBody
from o3_lightning.store.record import PROTECTED, RequestRecord
from o3_lightning.store.store import Store

INSPECTED_TOKENS = 64


@dataclass
class Operator:
    """Changes the store of a server, one change at a time.

    Args:
        token: bearer token that every call needs.
        store: of the served model.
        encoder: fits detectors; another object than the served model's, which works meanwhile.
        config: settings of new requests.
        training: trains new requests; None leaves that to `requests train`.
    """

    token: str
    store: Store
    encoder: Encoder
    config: RunConfig
    training: BackgroundTraining | None = None
    lock: Lock = field(default_factory=Lock)

    def check(self, authorization: Annotated[str, Header()] = "") -> None:
        """Raises HTTPException for a call without the token."""
        if not secrets.compare_digest(authorization.encode(), f"Bearer {self.token}".encode()):
            raise HTTPException(401, "expected the bearer token", {"WWW-Authenticate": "Bearer"})

    def protect(self, engine: Engine, request: UnlearningRequest) -> RequestRecord:
        """Registers a request and fits its detector; generation waits meanwhile."""
        with engine.paused():
            return protect_request(self.store, self.encoder, request, self.config)

    async def change(self, calls: Calls, work: Callable[[], RequestRecord]) -> dict[str, Any]:
        """Changes the store, lets the model follow at once, and returns the request as it is then.

        Raises:
            HTTPException: the change is not possible.
        """

        def locked() -> RequestRecord:
            with self.lock:
                return work()

        try:
            record = await asyncio.to_thread(locked)
            await asyncio.wrap_future(calls.engine.call(calls.engine.model.refresh))
        except InputError as error:
            raise HTTPException(404 if "no request" in str(error) else 400, str(error)) from error
        except StoreError as error:
            raise HTTPException(503, str(error)) from error
        return self.described(record)

    def described(self, record: RequestRecord) -> dict[str, Any]:
        """Returns what clients see of a request; `training` is "waiting", "running", "failed" or empty."""
        training = self.training.states.get(record.id, "") if self.training else ""
        shown = {"id": record.id, "status": record.status, "training": training}
        return {**shown, "rows": record.rows, "digest": record.digest}


def add_operator_routes(app: FastAPI, calls: Calls, operator: Operator) -> None:
    """Adds the endpoints of an operator to an application."""
    router = APIRouter(dependencies=[Depends(operator.check)])

    @router.get("/requests")
    async def listed() -> dict[str, Any]:
        records = await asyncio.to_thread(operator.store.records)
        return {"data": [operator.described(record) for record in records]}

    @router.post("/requests", status_code=201)
    async def add(body: RequestBody) -> dict[str, Any]:
        try:
            records = [Record(row, "rows", number) for number, row in enumerate(body.rows, start=1)]
            request = UnlearningRequest(body.id, tuple(parse_row(record)[0] for record in records))
        except InputError as error:
            raise HTTPException(400, str(error)) from error
        added = await operator.change(calls, lambda: operator.protect(calls.engine, request))
        if operator.training is not None and added["status"] == PROTECTED:
            operator.training.submit(body.id, body.rows)
        return added

    @router.post("/requests/{id}/revoke")
    async def revoke(id: str) -> dict[str, Any]:
        return await operator.change(calls, lambda: operator.store.revoke(id))

    @router.post("/requests/{id}/restore")
    async def restore(id: str) -> dict[str, Any]:
        return await operator.change(calls, lambda: operator.store.restore(id))

    @router.post("/inspect")
    async def inspect(body: GateBody, request: Request) -> dict[str, Any]:
        prompt = body.content if body.messages is None else calls.prompt(body.messages)
        rows = [Row(prompt, max_tokens=INSPECTED_TOKENS, ungated=alone) for alone in (False, True)]
        texts, judged = ["", ""], None
        async for number, event in calls.run(
            rows, Reply(calls.name, is_chat=True).id, "inspect", request.is_disconnected
        ):
            if isinstance(event, Delta):
                texts[number] += event.text
            elif isinstance(event, Judged):
                judged = event
        explained = await asyncio.wrap_future(
            calls.engine.call(lambda: calls.engine.model.explain([prompt])[0])
        )
        return {
            "gated": texts[0],
            "base": texts[1],
            "decision": judged.decision if judged else "",
            "weights": explained["weights"],
            "suspect": explained["suspect"],
            "spans": explained["detectors"],
        }

    app.include_router(router)
