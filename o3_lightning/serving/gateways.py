"""The gate in the forms of gateways: semantic-router's classifier and Envoy's authorization check."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from o3_lightning.data.prompts import Prompt
from o3_lightning.data.records import unique
from o3_lightning.serving.calls import Calls
from o3_lightning.serving.judging import Judged
from o3_lightning.serving.replies import Reply, error_body
from o3_lightning.serving.rows import Row
from o3_lightning.serving.schemas import CheckBody, ClassifyBody, GateBody

DECISION_HEADER = "x-o3-decision"
SEVERITY = ("base", "adapter", "refuse")


def add_gate(app: FastAPI, calls: Calls) -> None:
    """Adds the endpoints that return what the gate decides on a prompt."""

    @app.post("/v1/gate")
    async def gate(body: GateBody, request: Request) -> dict[str, Any]:
        id, judged = await judge(calls, [body.content], "gate", request)
        return {"id": id, **judged[0]._asdict(), "gate_digest": calls.gate_digest}

    @app.post("/classify")
    async def classify(body: ClassifyBody, request: Request) -> list[dict[str, Any]]:
        _, judged = await judge(calls, [body.inputs], "classify", request)
        found = judged[0]
        score = 1.0 if found.decision == "refuse" else max(found.weights.values(), default=0.0)
        return [{"label": "forget", "score": score}, {"label": "retain", "score": 1 - score}]

    @app.get("/check/{path:path}")
    async def pass_reading(path: str) -> Response:
        return Response(headers={DECISION_HEADER: SEVERITY[0]})

    @app.post("/check/{path:path}")
    async def check(path: str, body: CheckBody, request: Request) -> Response:
        try:
            json.loads(await request.body(), object_pairs_hook=unique)
        except ValueError as error:  # the engine behind the gateway may read the one that is not judged
            raise HTTPException(400, str(error)) from error
        _, judged = await judge(calls, body.contents, "check", request)
        decision = max((found.decision for found in judged), key=SEVERITY.index)
        headers = {DECISION_HEADER: decision}
        if decision == "refuse":
            return JSONResponse(error_body(403, calls.refusal), 403, headers)
        return Response(headers=headers)


async def judge(
    calls: Calls, contents: list[Prompt], endpoint: str, request: Request
) -> tuple[str, list[Judged]]:
    """Returns the id of the answer in the audit log, and what the gate decides on each prompt.

    Raises:
        HTTPException: the queue is full, a prompt cannot be read, or the time is over.
    """
    id, found = Reply(calls.name, is_chat=False).id, {}
    rows = [Row(content) for content in contents]
    async with aclosing(calls.run(rows, id, endpoint, request.is_disconnected)) as events:
        async for number, event in events:
            if isinstance(event, Judged):
                found[number] = event
    return id, [found[number] for number in range(len(rows))]
