"""Times protection and detection on the CPU with the real encoder and the embedded base model.

    python -m benchmarks.gate.protection [threads]

Prints as JSON: seconds from registering 400 prompts to the first refusal, and milliseconds to answer a
prompt with 20 requests in the store against 1, singly and in a batch. Run it on a quiet machine; no network
is needed, and the base model is trained once if it is not cached. An answer's figure is the smallest of
several runs.
"""

import json
import sys
import tempfile
import time
import timeit
from pathlib import Path

import torch

from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.data.stream import load_stream
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.detector import fit_detector
from o3_lightning.detector.encoder import load_configured_encoder
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.store.store import Store

PROMPTS, REQUESTS, BATCH, NEW_TOKENS, REPEATS = 400, 20, 32, 8, 6
SEED = 0


def protect(store, request, encoder):
    """Registers a request and fits its detector."""
    store.register(request, {})
    store.protect(request.id, fit_detector(encoder, request.prompts, DetectorConfig(), SEED).save)


def open_store(folder, base, encoder):
    """A new store for the base model and the encoder."""
    return Store.create(folder, base.id, base.digest, encoder.id, encoder.digest)


def time_to_refusal(folder, base, encoder, request):
    """Seconds from a request's arrival to the refusal of one of its prompts."""
    config = GateConfig(max_new_tokens=NEW_TOKENS)
    start = time.perf_counter()
    store = open_store(folder, base, encoder)
    protect(store, request, encoder)
    answer = GatedModel.from_store(folder, base, encoder, config).answer([request.prompts[0]])
    seconds = time.perf_counter() - start
    if not config.refusal.startswith(answer[0]):
        raise SystemExit(f"expected a refusal, got {answer[0]!r}")
    return seconds


def fastest(action):
    """The smallest time in seconds of several runs."""
    return min(timeit.repeat(action, number=1, repeat=REPEATS))


def answer_times(gated, prompts):
    """Milliseconds to answer a prompt, singly and in a batch."""
    single = fastest(lambda: [gated.answer([prompt], NEW_TOKENS) for prompt in prompts[:8]]) / 8
    batch = fastest(lambda: gated.answer(prompts, NEW_TOKENS, BATCH)) / len(prompts)
    return {"single_ms": single * 1000, "batch_ms": batch * 1000}


def main():
    """Prints the figures."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    base, encoder = load_base(BaseConfig(), SEED), load_configured_encoder(DetectorConfig())
    stream = load_stream(DataConfig(count=REQUESTS, authors_per_request=1), SEED)
    rows = [row for request in stream.requests for row in (*request.rows, *request.held_out)]
    kept = [row.prompt for row in stream.utility["general_knowledge"]][:BATCH]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        encoder.encode(kept)  # the first call of a process pays for what is loaded lazily
        request = UnlearningRequest("large", tuple(rows[:PROMPTS]))
        figures = {"register_to_refusal_s": time_to_refusal(root / "refusal", base, encoder, request)}
        for count in (1, REQUESTS):
            store = open_store(root / str(count), base, encoder)
            for request in stream.requests[:count]:
                protect(store, request, encoder)
            gated = GatedModel.from_store(store.path, base, encoder)
            figures |= {f"{count}_requests_{name}": ms for name, ms in answer_times(gated, kept).items()}
    for kind in ("single", "batch"):
        ratio = figures[f"{REQUESTS}_requests_{kind}_ms"] / figures[f"1_requests_{kind}_ms"]
        figures[f"{REQUESTS}_over_1_{kind}"] = ratio
    sys.stdout.write(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
