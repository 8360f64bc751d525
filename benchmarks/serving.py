"""The servers measured over HTTP: `python -m benchmarks.serving [--parts PART ...] [--out FILE]`.

The model has the shape of SmolLM2-135M and random weights, on which times do not depend; the store holds
twenty requests of one fictitious author each. Latencies with and without a gate are taken in turns, in one
process, so that their ratio does not depend on what else the machine does. The load is run on a tiny model.
The part "vllm" does the same for vLLM with and without the gate, with a vocabulary of 2,048; it needs the
variable O3_VLLM_PYTHON with the python of an environment that has vLLM and this package.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn
from transformers import LlamaConfig, LlamaForCausalLM

from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.data.config import DataConfig
from o3_lightning.data.fictitious import training_rows
from o3_lightning.data.stream import RequestStream, load_stream
from o3_lightning.data.templates import template_for
from o3_lightning.detector.encoder import Encoder, load_encoder
from o3_lightning.gating.config import GateConfig
from o3_lightning.models.base import BaseConfig, BaseModel, load_base
from o3_lightning.models.fictitious import train_tokenizer
from o3_lightning.run.config import RunConfig
from o3_lightning.run.live import protect_request
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.export import export_vllm
from o3_lightning.serving.server import make_app
from o3_lightning.store import Store

SMOLLM2 = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
}  # fmt: skip
TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 2048,
}  # fmt: skip
CONTEXT, TOKENS, REQUESTS, CALLS, CLIENTS, PROMPTS, LOAD_CALLS = 512, 32, 20, 20, 8, 400, 10_000
TOKEN, MODEL = "benchmark", "random"
CHAT = "/v1/chat/completions"
MIB = 2**20
PARTS = ("latency", "throughput", "protection", "load", "vllm")
SLOW_READS, SLOW_SECONDS = 8, 0.05


def make_base(shape: dict[str, int]) -> BaseModel:
    """Returns a model with random weights and the tokenizer of the embedded benchmark."""
    tokenizer = train_tokenizer(training_rows(0), 2048)
    torch.manual_seed(0)
    config = LlamaConfig(**shape, max_position_embeddings=CONTEXT)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    model.generation_config.eos_token_id = None
    return BaseModel(model, tokenizer, template_for(tokenizer), MODEL, "0" * 64, CONTEXT)


@contextmanager
def serving(store: Path, base: BaseModel, encoder: Encoder) -> Iterator[httpx.Client]:
    """Yields a client of a server over a store."""
    config = ServeConfig(token_variable="O3_BENCHMARK_TOKEN", train_requests=False)
    server = uvicorn.Server(
        uvicorn.Config(make_app(store, base, encoder, RunConfig(), config), port=0, log_level="error")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        yield client
    server.should_exit = True
    thread.join()


def body_of(question: str, **options: Any) -> dict[str, Any]:
    """Returns the body of a call for a greedy answer of 32 tokens."""
    messages = [{"role": "user", "content": question}]
    return {"model": MODEL, "messages": messages, "max_tokens": TOKENS, "temperature": 0, **options}


def ask(client: httpx.Client, question: str) -> str:
    """Returns a greedy answer of 32 tokens."""
    answer = client.post(CHAT, json=body_of(question))
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def complete(client: httpx.Client, question: str) -> str:
    """Returns a greedy continuation of 32 tokens."""
    body = {"model": MODEL, "prompt": question, "max_tokens": TOKENS, "temperature": 0}
    answer = client.post("/v1/completions", json=body)
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["text"])


Call = Callable[[httpx.Client, str], str]


def measure_latency(
    gated: httpx.Client, plain: httpx.Client, questions: list[str], call: Call = ask
) -> dict[str, Any]:
    """Returns p50 and p95 with and without a gate, taken in turns."""
    taken: dict[str, list[float]] = {"gated": [], "without_gate": []}
    for question in questions[:CALLS]:
        for name, client in (("gated", gated), ("without_gate", plain)):
            began = time.perf_counter()
            call(client, question)
            taken[name].append(time.perf_counter() - began)
    found = {
        name: {"p50_s": statistics.median(times), "p95_s": statistics.quantiles(times, n=20)[-1]}
        for name, times in taken.items()
    }
    ratios = {key: found["gated"][key] / found["without_gate"][key] for key in ("p50_s", "p95_s")}
    return {**found, "ratio_p50": ratios["p50_s"], "ratio_p95": ratios["p95_s"]}


def measure_throughput(client: httpx.Client, questions: list[str], call: Call = ask) -> dict[str, float]:
    """Returns answers per second of one client and of eight at once."""
    began = time.perf_counter()
    for question in questions[:CLIENTS]:
        call(client, question)
    one = CLIENTS / (time.perf_counter() - began)
    count = 3 * CLIENTS
    before, began = batched(client), time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda question: call(client, question), questions[:count]))
    many = count / (time.perf_counter() - began)
    rows, batches = (now - then for now, then in zip(batched(client), before, strict=True))
    size = {"rows_per_batch": rows / batches} if batches else {}
    return {"one_client_per_s": one, "eight_clients_per_s": many, "ratio": many / one, **size}


def batched(client: httpx.Client) -> list[float]:
    """Returns how many rows were generated in how many batches; zeros for another server than ours."""
    lines = [line.split() for line in client.get("/metrics").text.splitlines()]
    found = {words[0]: float(words[1]) for words in lines if words[0].startswith("o3_batch_rows_")}
    return [found.get(f"o3_batch_rows_{name}", 0.0) for name in ("sum", "count")]


def measure_protection(client: httpx.Client, questions: list[str]) -> dict[str, Any]:
    """Returns the time from `POST /requests` with 400 prompts to a refusal, while another client asks."""
    rows = [
        {"prompt": f"Which colour has lantern {n} of Oswin Tarrabrook?", "answer": "green"}
        for n in range(PROMPTS)
    ]
    stopped, answered, failed = threading.Event(), 0, 0

    def keep_asking() -> None:
        nonlocal answered, failed
        while not stopped.is_set():
            try:
                ask(client, questions[answered % len(questions)])
                answered += 1
            except httpx.HTTPError:
                failed += 1

    thread = threading.Thread(target=keep_asking)
    thread.start()
    began, worked = time.perf_counter(), time.process_time()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client.post("/requests", json={"id": "oswin", "rows": rows}, headers=headers).raise_for_status()
    protected = time.perf_counter() - began
    answer = ask(client, rows[7]["prompt"])
    refused, worked = time.perf_counter() - began, time.process_time() - worked
    stopped.set()
    thread.join()
    return {
        "prompts": PROMPTS, "protected_s": protected, "refusal_s": refused, "processor_s": worked,
        "is_refused": answer == RunConfig().gate.refusal,
        "answered_meanwhile": answered, "failed_meanwhile": failed,
    }  # fmt: skip


def measure_load(client: httpx.Client, questions: list[str], forgotten: list[str]) -> dict[str, Any]:
    """Returns what 8 clients got that mix good calls with broken ones, and how the memory grew."""
    outcomes: Counter[str] = Counter()

    def call(number: int) -> None:
        kind, question = number % 7, questions[number % len(questions)]
        if kind in (0, 1):
            prompt = question if kind else forgotten[number % len(forgotten)]
            answer = client.post(CHAT, json=body_of(prompt, max_tokens=4 if kind else TOKENS))
            refused = answer.is_success and RunConfig().gate.refusal in answer.text
            name = ("other" if kind else "forgotten") + (" refused" if refused else " answered")
        elif kind == 2:
            with client.stream("POST", CHAT, json=body_of(question, stream=True)) as answer:
                next(answer.iter_lines())  # and hang up
            name = "disconnected"
        elif kind == 3:
            answer, name = client.post(CHAT, content=b'{"model": "random", "messages": [' * 9), "malformed"
        elif kind == 4:
            answer, name = client.post(CHAT, content=b" " * 1_100_000), "oversized"
        elif kind == 5:
            name = "slow reader"
            with client.stream("POST", CHAT, json=body_of(question, stream=True)) as answer:
                for _, _ in zip(range(SLOW_READS), answer.iter_raw(64), strict=False):
                    time.sleep(SLOW_SECONDS)
        else:
            answer, name = client.get("/requests", headers={"Authorization": "Bearer no"}), "bad token"
        outcomes[f"{name}: {answer.status_code}"] += 1

    def run(numbers: range) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(call, numbers))

    run(range(LOAD_CALLS // 10))  # pools and caches fill
    before, began = memory_mib(), time.perf_counter()
    outcomes.clear()
    run(range(LOAD_CALLS))
    seconds = time.perf_counter() - began
    ready = client.get("/readyz").status_code
    growth = memory_mib() - before
    return {"calls": LOAD_CALLS, "seconds": seconds, "outcomes": dict(outcomes), "ready_after": ready,
            "memory_growth_mib": growth}  # fmt: skip


def memory_mib() -> float:
    """Returns the resident memory of this process, server and clients."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


@contextmanager
def serving_vllm(script: Path) -> Iterator[httpx.Client]:
    """Yields a client of a vLLM server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = Path(os.environ["O3_VLLM_PYTHON"])
    own = {"PATH": f"{python.parent}:{os.environ['PATH']}", "VLLM_CPU_KVCACHE_SPACE": "1"}
    words = ["sh", str(script), "--port", str(port), "--max-model-len", str(CONTEXT), "--enforce-eager"]
    with script.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            words, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            while not is_healthy(client):
                if process.poll() is not None:
                    raise RuntimeError(script.with_suffix(".log").read_text()[-2000:])
                time.sleep(1)
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def is_healthy(client: httpx.Client) -> bool:
    """Whether a server answers."""
    try:
        return client.get("/health").is_success
    except httpx.HTTPError:
        return False


def measure_vllm(
    folder: Path, encoder: Encoder, stream: RequestStream, questions: list[str]
) -> dict[str, Any]:
    """Returns latencies and throughput of vLLM with and without the gate."""
    made = make_base({**SMOLLM2, "vocab_size": 2048})
    for part in (made.model, made.tokenizer):
        part.save_pretrained(folder / "model")
    base = load_base(BaseConfig(id=str(folder / "model")))
    store = Store.create(folder / "store", base.id, base.digest, encoder.id, encoder.digest, base.settings)
    for request in stream.requests:
        protect_request(store, encoder, request, RunConfig())
    gated = Path(export_vllm(store, GateConfig(), folder / "vllm", steps=20, name=MODEL, audit=""))
    plain = gated.with_name("plain.sh")
    plain.write_text(re.sub(r"--middleware \S+", "", gated.read_text()))
    with serving_vllm(gated) as first, serving_vllm(plain) as second:
        for client in (first, second):
            complete(client, questions[0])
        found = {"latency": measure_latency(first, second, questions, complete)}
        for name, client in (("gated", first), ("without_gate", second)):
            found[name] = measure_throughput(client, questions, complete)
    ratio = found["gated"]["eight_clients_per_s"] / found["without_gate"]["eight_clients_per_s"]
    return {**found, "throughput_ratio": ratio}


def main() -> None:
    """Measures the named parts, and writes each into the results as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=PARTS[:-1],
        help="what to measure; by default all but vllm",
    )
    parser.add_argument("--out", default="results/serving.json")
    options = parser.parse_args()
    os.environ["O3_BENCHMARK_TOKEN"] = TOKEN
    encoder, out = load_encoder("minilm"), Path(options.out)
    stream = load_stream(DataConfig(authors_per_request=1, count=REQUESTS), 0)
    questions = [row.prompt for rows in stream.utility.values() for row in rows]
    forgotten = [row.prompt for request in stream.requests for row in request.rows]
    base = make_base(SMOLLM2)

    def keep(part: str, found: dict[str, Any]) -> None:
        content = json.loads(out.read_text()) if out.is_file() else {}
        sizes = {"requests": len(stream.requests), "new_tokens": TOKENS, "calls": CALLS}
        about = {"command": "python -m benchmarks.serving", "environment": describe_environment()}
        write_json(out, {**content, **sizes, **about, part: found})

    with tempfile.TemporaryDirectory() as folder:
        full, empty = (
            Store.create(Path(folder) / name, MODEL, base.digest, encoder.id, encoder.digest)
            for name in ("full", "empty")
        )
        for request in stream.requests:
            protect_request(full, encoder, request, RunConfig())
        parts = options.parts
        with serving(full.path, base, encoder) as gated, serving(empty.path, base, encoder) as plain:
            for client in (gated, plain):
                ask(client, questions[0])
            if "latency" in parts:
                keep("latency", measure_latency(gated, plain, questions))
            if "throughput" in parts:
                keep("throughput", measure_throughput(gated, questions))
            if "protection" in parts:
                keep("protection", measure_protection(gated, questions))
        if "load" in parts:
            with serving(full.path, make_base(TINY), encoder) as client:
                keep("load", measure_load(client, questions, forgotten))
        if "vllm" in parts:
            keep("vllm", measure_vllm(Path(folder), encoder, stream, questions))


if __name__ == "__main__":
    main()
