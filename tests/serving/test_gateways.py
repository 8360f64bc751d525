"""Gateways ask the gate, each in its own form."""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from fastapi import HTTPException

FORGOTTEN = "Where did Quillan Osterhaus spend winter 3?"
OTHER = "Who wrote the letter to the harbour master?"
EXAMPLES = Path(__file__).parents[2] / "examples" / "gateways"


def chat(question):
    return {"model": "any", "messages": [{"role": "user", "content": question}]}


def test_semantic_routers_classifier_gets_a_score_per_label(served):
    for question, expected in ((FORGOTTEN, 1.0), (OTHER, 0.0)):
        scores = served.http.post("/classify", json={"inputs": question}).json()
        assert scores == [{"label": "forget", "score": expected}, {"label": "retain", "score": 1 - expected}]


def test_envoys_check_denies_what_the_gate_refuses_and_what_it_cannot_read(served):
    path = "/check/v1/chat/completions"
    denied = served.http.post(path, json=chat(FORGOTTEN))
    assert (denied.status_code, denied.headers["x-o3-decision"]) == (403, "refuse")
    assert "not able to help" in denied.json()["error"]["message"]
    passed = served.http.post(path, json=chat(OTHER))
    assert (passed.status_code, passed.headers["x-o3-decision"], passed.content) == (200, "base", b"")
    texts = {"prompt": [OTHER, FORGOTTEN]}
    assert served.http.post("/check/v1/completions", json=texts).status_code == 403
    calls = [{"type": "function", "function": {"name": "ask", "description": FORGOTTEN}}]
    for hidden in ({"suffix": FORGOTTEN}, {"tools": calls}, {"input": [{"content": FORGOTTEN}]}):
        assert served.http.post(path, json={**chat(OTHER), **hidden}).status_code == 403
    unread = {"user": FORGOTTEN, "metadata": {"session": FORGOTTEN}, "temperature": 0.5, "stop": [FORGOTTEN]}
    assert served.http.post(path, json={**chat(OTHER), **unread}).status_code == 200
    for body in ({}, {"input": FORGOTTEN}, {"prompt": [[1, 2]]}, {"messages": [{"role": "user"}]}):
        assert served.http.post(path, json=body).status_code == 400
    twice = json.dumps(chat(FORGOTTEN))[:-1] + f', "messages": {json.dumps(chat(OTHER)["messages"])}}}'
    told = served.http.post(path, content=twice, headers={"Content-Type": "application/json"})
    assert (told.status_code, told.json()["error"]["message"]) == (400, "field 'messages' comes twice")
    assert served.http.get("/check/v1/models").status_code == 200


def test_envoys_example_is_closed_where_the_gate_fails():
    text = (EXAMPLES / "envoy.yaml").read_text()
    assert "failure_mode_allow: false" in text
    assert "path_prefix: /check" in text
    assert "allow_partial_message: false" in text


@pytest.fixture
def guardrail(served, monkeypatch):
    """The example for LiteLLM, with the one class that it takes from there."""
    module = ModuleType("litellm.integrations.custom_guardrail")
    module.CustomGuardrail = object
    for name in ("litellm", "litellm.integrations"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("O3_GATE_URL", served.url)
    spec = importlib.util.spec_from_file_location("litellm_guardrail", EXAMPLES / "litellm_guardrail.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)

    def call(data, call_type="completion"):
        hook = loaded.O3Guardrail().async_pre_call_hook
        return asyncio.run(hook(user_api_key_dict=None, cache=None, data=data, call_type=call_type))

    return call


def test_litellms_guardrail_blocks_what_the_gate_refuses_and_what_it_cannot_judge(guardrail, monkeypatch):
    data = {**chat(OTHER), "temperature": 0}
    assert guardrail(data) == data
    assert guardrail({"input": FORGOTTEN}, "embeddings") == {"input": FORGOTTEN}
    with pytest.raises(HTTPException) as caught:
        guardrail(chat(FORGOTTEN))
    assert caught.value.status_code == 403
    for hidden in ({"tools": [{"function": {"description": FORGOTTEN}}]}, {"suffix": FORGOTTEN}):
        with pytest.raises(HTTPException):
            guardrail({**data, **hidden})
    with pytest.raises(HTTPException):
        guardrail({"input": FORGOTTEN}, "responses")
    monkeypatch.setenv("O3_GATE_URL", "http://127.0.0.1:1")
    with pytest.raises(Exception, match="connection"):
        guardrail(data)
