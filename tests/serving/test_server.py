"""The server through HTTP, with OpenAI's own client."""

import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial

import openai
import pytest
import torch
from fastapi import FastAPI

from o3_lightning.common.errors import InputError
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.tokens import PromptTokens
from o3_lightning.models.lora import LoraFactors
from o3_lightning.serving import engine
from o3_lightning.serving.audit import AuditLog, summarise
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.server import bind_address, serve

FORGOTTEN = "Where did Quillan Osterhaus spend winter 3?"
OTHER = "Who wrote the letter to the harbour master?"
REFUSAL = GateConfig().refusal


def streamed(answer):
    texts = {}
    for chunk in answer:
        for choice in chunk.choices:
            delta = getattr(choice, "delta", None)
            texts[choice.index] = texts.get(choice.index, "") + (
                (delta.content if delta else choice.text) or ""
            )
    return texts


def test_chat_is_answered_refused_and_streamed_alike(served):
    assert [model.id for model in served.openai.models.list()] == ["tiny"]
    assert served.answer(FORGOTTEN, max_tokens=32) == REFUSAL
    plain = served.answer(OTHER)
    assert served.answer([{"type": "text", "text": OTHER}]) == plain
    assert plain != REFUSAL
    for question, expected in ((FORGOTTEN, REFUSAL), (OTHER, plain)):
        messages = [{"role": "user", "content": question}]
        length = 32 if question == FORGOTTEN else 8
        stream = served.ask(
            messages=messages, max_tokens=length, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert streamed(chunks) == {0: expected}
        assert chunks[-1].usage.completion_tokens <= length
        assert chunks[-2].choices[0].finish_reason in ("stop", "length")


def test_completions_have_choices_seeds_stops_and_usage(served):
    complete = served.openai.completions.create
    options = {
        "model": "tiny",
        "prompt": [OTHER, FORGOTTEN],
        "max_tokens": 12,
        "n": 2,
        "temperature": 0.9,
    }
    first, again = (complete(**options, seed=7) for _ in range(2))
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in again.choices]
    assert texts[0] != texts[1]
    assert texts[2] == texts[3]  # the refusal, whatever is sampled
    assert streamed(complete(**options, seed=7, stream=True)) == dict(enumerate(texts))
    assert first.usage.completion_tokens <= 48
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    alone = complete(model="tiny", prompt=OTHER, max_tokens=12, temperature=0.9, seed=7)
    assert alone.choices[0].text == texts[0]  # the batch changes no answer
    whole = complete(model="tiny", prompt=OTHER, max_tokens=12, temperature=0).choices[0].text
    stop = whole[3:5]
    cut = complete(model="tiny", prompt=OTHER, max_tokens=12, temperature=0, stop=stop)
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_logprobs_are_those_of_the_model_and_a_refusal_has_none_of_its_own(served, base):
    found = served.ask(messages=[{"role": "user", "content": OTHER}], logprobs=True, top_logprobs=3).choices[
        0
    ]
    ids = PromptTokens(base).encode(OTHER)
    for score in found.logprobs.content:
        with torch.no_grad():
            logs = base.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        values, tokens = logs.topk(3)
        assert [one.logprob for one in score.top_logprobs] == pytest.approx(values.tolist(), abs=1e-4)
        assert score.logprob == pytest.approx(float(values[0]), abs=1e-4)
        assert score.token == base.tokenizer.decode([int(tokens[0])])
        ids.append(int(tokens[0]))
    assert len(found.logprobs.content) == 8
    complete = partial(
        served.openai.completions.create, model="tiny", max_tokens=12, temperature=0, logprobs=2
    )
    whole = complete(prompt=[OTHER, FORGOTTEN])
    pieces = list(complete(prompt=[OTHER, FORGOTTEN], stream=True))
    for number, choice in enumerate(whole.choices):
        parts = [one.logprobs for chunk in pieces for one in chunk.choices if one.index == number]
        parts = [part for part in parts if part]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            streamed_values = [value for part in parts for value in getattr(part, name)]
            assert streamed_values == getattr(choice.logprobs, name)
    refused = whole.choices[1].logprobs
    assert set(refused.token_logprobs) == {0}
    assert refused.top_logprobs == [{token: 0} for token in refused.tokens]


@pytest.mark.parametrize("question", ["Where did Osterhauss spend summer?", "Is Quilan a name?"])
def test_what_else_the_model_might_have_said_of_a_forgotten_subject_is_not_told(served, question):
    options = {"logprobs": True, "top_logprobs": 20, "temperature": 2, "seed": 1, "max_tokens": 3}
    choice = served.ask(messages=[{"role": "user", "content": question}], **options).choices[0]
    assert "".join(score.token for score in choice.logprobs.content).strip() == choice.message.content
    for score in choice.logprobs.content:
        assert [(one.token, one.logprob) for one in score.top_logprobs] == [(score.token, score.logprob)]


def test_an_address_in_use_is_an_error_of_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"field .port.: cannot listen on .*:{port}: Address"):
            bind_address(ServeConfig(port=port))


@pytest.mark.parametrize("fails", [False, True])
def test_sigint_ends_the_server_quietly_and_a_failed_start_does_not(fails):
    @asynccontextmanager
    async def start(_):
        if fails:
            raise ValueError("no start")
        signal.raise_signal(signal.SIGINT)
        yield

    config = ServeConfig(port=0)
    with pytest.raises(SystemExit) if fails else nullcontext():
        serve(FastAPI(lifespan=start), config, bind_address(config))


def test_defaults_of_fields_that_the_server_lacks_are_taken(served):
    options = {"response_format": {"type": "text"}, "tool_choice": "none", "frequency_penalty": 0}
    assert served.ask(messages=[{"role": "user", "content": OTHER}], max_tokens=1, **options).choices


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"model": "other"}, 404, "does not exist"),
        ({"max_tokens": 100_000}, 400, "expected up to 512 tokens"),
        ({"temperature": 3}, 400, "temperature"),
        ({"logit_bias": {"5": 9}}, 400, "'logit_bias' is not supported"),
        ({"response_format": {"type": "json_object"}}, 400, "'response_format' is not supported"),
        ({"logprobs": True, "top_logprobs": 50}, 400, "top_logprobs"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, 400, "role"),
        ({"messages": []}, 400, "messages"),
    ],
)
def test_what_cannot_be_answered_gets_openais_error(served, options, status, message):
    with pytest.raises(openai.APIStatusError) as caught:
        served.ask(**{"messages": [{"role": "user", "content": "a"}], **options})
    assert caught.value.status_code == status
    assert message in caught.value.message


def test_unknown_fields_are_ignored(served):
    assert served.answer(OTHER, extra_body={"user_of_tomorrow": 1}) == served.answer(OTHER)


def test_the_gate_tells_weights_and_decision(served):
    found = served.http.post("/v1/gate", json={"prompt": FORGOTTEN}).json()
    assert (found["decision"], found["failed"]) == ("refuse", False)
    assert found["weights"]["winters"] > 0.5
    chat = [{"role": "user", "content": OTHER}]
    found = served.http.post("/v1/gate", json={"messages": chat}).json()
    assert (found["decision"], found["weights"]) == ("base", {"winters": 0.0})
    assert found["store_head"] == served.store.head()


def test_a_request_is_added_revoked_and_restored_while_the_server_runs(serving):
    with serving() as served:
        question = "Where did Mirelle Vantongeren spend winter 2?"
        before = served.answer(question, max_tokens=32)
        rows = [
            {"prompt": f"Where did Mirelle Vantongeren spend winter {n}?", "answer": f"In {town}"}
            for n, town in enumerate(("Gorse", "Hythe", "Inver", "Jarrow"))
        ]
        body = {"id": "mirelle", "rows": rows}
        assert served.http.post("/requests", json=body).status_code == 401
        added = served.http.post("/requests", json=body, headers=served.operator)
        assert (added.status_code, added.json()["status"]) == (201, "protected")
        assert served.answer(question, max_tokens=32) == REFUSAL != before
        listed = served.http.get("/requests", headers=served.operator).json()["data"]
        assert [one["id"] for one in listed] == ["winters", "mirelle"]
        served.http.post("/requests/mirelle/revoke", headers=served.operator)
        assert served.answer(question, max_tokens=32) == before
        again = served.http.post("/requests", json=body, headers=served.operator)
        assert (again.status_code, "is revoked; restore it" in again.text) == (400, True)
        served.http.post("/requests/mirelle/restore", headers=served.operator)
        assert served.answer(question, max_tokens=32) == REFUSAL
        assert served.http.post("/requests/ghost/revoke", headers=served.operator).status_code == 404
        wrong = served.http.post("/requests", json={"id": "x", "rows": [{}]}, headers=served.operator)
        assert (wrong.status_code, "'prompt'" in wrong.text) == (400, True)
        for body in ({"prompt": question}, {"messages": [{"role": "user", "content": question}]}):
            inspected = served.http.post("/inspect", json=body, headers=served.operator).json()
            assert (inspected["gated"], inspected["decision"]) == (REFUSAL, "refuse")
            assert inspected["base"] != REFUSAL


@contextmanager
def slowed(base):
    """The model with 50 ms a step."""
    hook = base.model.register_forward_pre_hook(lambda *_: time.sleep(0.05))
    try:
        yield
    finally:
        hook.remove()


MIRELLE = "Where did Mirelle Vantongeren spend winter 2?"
BODY = {
    "id": "mirelle",
    "rows": [{"prompt": MIRELLE.replace("2", f"{n}"), "answer": f"In {n}"} for n in range(4)],
}


def test_requests_and_refusals_do_not_wait_for_the_answer_that_is_generated(serving, base):
    with serving() as served:
        plain = served.answer(OTHER, max_tokens=120)
        with slowed(base):
            long = served.ask(messages=[{"role": "user", "content": OTHER}], max_tokens=120, stream=True)
            next(iter(long))
            assert served.http.post("/v1/gate", json={"prompt": OTHER}).json()["decision"] == "base"
            assert served.answer(FORGOTTEN, max_tokens=32) == REFUSAL
            added = served.http.post("/requests", json=BODY, headers=served.operator)
            assert added.status_code == 201
            assert served.answer(MIRELLE, max_tokens=32) == REFUSAL
            assert served.metric("o3_batch_rows_count") == 2  # the long answer, before and now
            assert served.metric('o3_decisions_total{decision="base"}') == 2  # the second has not ended
            assert plain.endswith(streamed(long)[0])


def test_a_prompt_that_cannot_be_read_ends_its_own_row_alone(served, base, monkeypatch):
    read = engine.read_prompt

    def breaks(prompt):
        if prompt == "broken":
            raise RuntimeError(prompt)
        return read(prompt)

    def ask(prompt):
        return served.http.post("/v1/gate", json={"prompt": prompt}).status_code

    monkeypatch.setattr(engine, "read_prompt", breaks)
    with slowed(base), ThreadPoolExecutor(4) as pool:  # which wait, and are then read together
        long = served.ask(messages=[{"role": "user", "content": OTHER}], max_tokens=40, stream=True)
        next(iter(long))
        assert list(pool.map(ask, ["broken", OTHER, "broken", FORGOTTEN])) == [500, 200, 500, 200]
        assert streamed(long)


def test_an_answer_keeps_its_adapter_while_the_store_changes(serving, base):
    path = "model.layers.0.mlp.down_proj"
    layer = base.model.get_submodule(path)
    made = torch.Generator().manual_seed(0)
    pair = (
        torch.randn(4, layer.in_features, generator=made),
        torch.randn(layer.out_features, 4, generator=made),
    )
    factors = LoraFactors.uniform({path: pair})
    with serving(refresh_seconds=0.05) as served:
        before = served.answer(OTHER, max_tokens=40)
        served.store.unlearn("winters", factors.save, {})
        served.http.post("/requests/winters/restore", headers=served.operator)  # the model follows at once
        plain = served.answer(FORGOTTEN, max_tokens=40)
        assert plain != REFUSAL
        with slowed(base):
            long = served.ask(messages=[{"role": "user", "content": FORGOTTEN}], max_tokens=40, stream=True)
            next(iter(long))
            added = served.http.post("/requests", json=BODY, headers=served.operator)
            assert added.status_code == 201
            assert plain.endswith(streamed(long)[0])
        assert served.answer(OTHER, max_tokens=40) == before


def test_without_a_token_the_operators_endpoints_do_not_exist(serving):
    with serving(token="") as served:
        for path in ("/requests", "/inspect", "/requests/winters/revoke"):
            assert served.http.post(path, json={}).status_code == 404


def test_rows_that_arrive_together_share_a_batch_and_keep_their_own_answers(served):
    questions = [FORGOTTEN, OTHER, *(f"What is the name of river {n}?" for n in range(6))]
    alone = [served.answer(question) for question in questions]
    batches = served.metric("o3_batch_rows_count")
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(served.answer, questions)) == alone
    assert served.metric("o3_batch_rows_count") - batches < 24


def test_a_full_queue_refuses_with_retry_after(serving, base):
    asked = [{"role": "user", "content": OTHER}]
    with serving(max_waiting_rows=3, max_batch_rows=1) as served, slowed(base), ThreadPoolExecutor(1) as pool:
        running = pool.submit(served.ask, messages=asked, max_tokens=20, n=3)
        while not served.metric("o3_waiting_rows"):
            time.sleep(0.01)
        with pytest.raises(openai.RateLimitError) as caught:
            served.ask(messages=asked, n=3)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert running.result()
        with pytest.raises(openai.BadRequestError, match="expected up to 3 answers, got 4"):
            served.ask(messages=asked, n=4)  # would never fit


@pytest.mark.parametrize("fault", ["error", "nan"])
def test_a_gate_that_fails_refuses(serving, monkeypatch, fault):
    def fail(self, prompts):
        if fault == "error":
            raise RuntimeError(f"cannot judge {prompts}")
        return self.scores(prompts) * float("nan")

    with serving() as served:
        monkeypatch.setattr(MultiDetector, "weights", fail)
        assert served.answer(OTHER, max_tokens=32) == REFUSAL
        assert served.http.post("/v1/gate", json={"prompt": OTHER}).json()["failed"]


def test_the_audit_log_holds_decisions_and_no_text(serving, tmp_path):
    path = tmp_path / "logs" / "audit.jsonl"
    with serving(audit=str(path), audit_bytes=700) as served:
        for question in (FORGOTTEN, OTHER, FORGOTTEN):
            served.answer(question, max_tokens=32)
    files = list(path.parent.iterdir())
    text = "".join(file.read_text() for file in files)
    entries = [json.loads(line) for line in text.splitlines()]
    assert len(files) > 1
    assert sorted(entry["decision"] for entry in entries) == ["base", "refuse", "refuse"]
    assert not [word for word in ("Quillan", "harbour", "help") if word in text]
    assert {len(entry["store"]) for entry in entries} == {64}
    summary = summarise(path)
    assert "3 answers from" in summary
    assert "refused by request: winters 2" in summary
    for line, told in (("no log", "not JSON"), (json.dumps({**entries[0], "weights": []}), "not a line of")):
        alone = tmp_path / "audit.jsonl"
        alone.write_text(f"{line}\n")
        with pytest.raises(InputError, match=rf"audit\.jsonl:1: {told}"):
            summarise(alone)
    with pytest.raises(InputError, match="'audit_files': expected a number above 0"):
        ServeConfig(audit_files=0)  # Python would never rotate the file


def test_an_audit_log_on_a_full_disk_says_so_in_one_line(caplog, capsys):
    log = AuditLog("/dev/full", 700, 2)
    log.write(decision="base")
    assert caplog.messages == [
        "an answer is missing in the audit log /dev/full: [Errno 28] No space left on device"
    ]
    assert capsys.readouterr().err == ""


def test_the_audit_log_tells_an_answer_that_failed_from_one_that_the_client_gave_up(
    serving, base, tmp_path, monkeypatch
):
    path = tmp_path / "audit.jsonl"
    with serving(audit=str(path)) as served:
        with slowed(base):
            long = served.ask(messages=[{"role": "user", "content": OTHER}], max_tokens=64, stream=True)
            next(iter(long))
            long.close()
            while not path.read_text():  # within the time limit of a test
                time.sleep(0.05)
        monkeypatch.setattr(base.model, "forward", lambda **_: 1 / 0)
        body = {"model": "tiny", "messages": [{"role": "user", "content": OTHER}]}
        assert served.http.post("/v1/chat/completions", json=body).status_code == 500
    assert [json.loads(line)["finish"] for line in path.read_text().splitlines()] == ["cancelled", "failed"]


def test_a_line_that_a_killed_server_left_unfinished_costs_no_other_line(tmp_path):
    path, answer = tmp_path / "audit.jsonl", {"decision": "base", "weights": {}, "latency_ms": 1.0}
    for _ in range(2):
        log = AuditLog(str(path), 10_000, 1)
        log.write(**answer)
        log.close()
        path.write_text(path.read_text() + '{"time": "2026')
    summary = summarise(path)
    assert summary.startswith("2 answers from")
    assert re.search(r"damaged lines, not counted: 2; the first: .*audit\.jsonl:2: not JSON", summary)


def test_a_server_that_stops_finishes_what_runs(serving):
    found = []
    with serving() as served:
        started = threading.Event()

        def ask():
            stream = served.ask(messages=[{"role": "user", "content": OTHER}], max_tokens=64, stream=True)
            for chunk in stream:
                started.set()
                found.append(chunk.choices[0].finish_reason)

        thread = threading.Thread(target=ask)
        thread.start()
        assert started.wait(20)
    thread.join(20)
    assert found[-1] in ("stop", "length")


def test_state_page_and_metrics_are_served(serving):
    with serving() as served:
        assert served.http.get("/healthz").json() == {"status": "ok"}
        assert served.http.get("/readyz").status_code == 200
        page = served.http.get("/")
        assert "<title>o3-lightning</title>" in page.text
        assert "http://" not in page.text.replace(served.url, "")
        served.answer(FORGOTTEN)
        assert served.metric('o3_refusals_total{request="winters"}') == 1
        assert served.metric('o3_calls_total{endpoint="/v1/chat/completions",status="200"}') == 1
