"""Times the gate and weighs its memory with 1 to 10,000 requests, and a fit of 100,000 prompts, on the CPU.

    O3_DATA=FOLDER python -m benchmarks.detector.scale RESULTS.json [threads]

Run it on a quiet machine with 8 GB of free memory; no network is needed. Nine requests of a store in ten
have 20 prompts, about a real person or an intent of CLINC150; the tenth has 400, about made-up authors. Some
fifty fitted detectors stand in for all. Prompts of two kinds are asked: about other made-up authors, which
are near many requests, and of OpenBookQA, which are near few. Seconds are those of the processor, rounds of
all sizes taking turns, the smallest of several counting. The largest fit is measured where the file has
none.
"""

import copy
import json
import os
import random
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.detector.tasks import column, read_lines
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.data.config import DataConfig
from o3_lightning.data.stream import load_stream
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.detector import fit_detector
from o3_lightning.detector.encoder import load_configured_encoder
from o3_lightning.detector.multi import MultiDetector

REQUESTS, BATCHES, REPEATS = (1, 32, 100, 1_000, 10_000), (1, 32), 3
SMALL, LARGE, LARGEST, EVERY = 20, 400, 100_000, 10
INTENTS, FITTED, AUTHORS = 30, 4, 5  # intents of small requests; large requests, and authors of each
SINGLES, SEED = 6, 0
WORDS = ("born", "raised", "taught", "married", "praised", "painted", "jailed", "crowned", "buried", "seen")


def made_up_prompts(count):
    """Distinct questions about numbered people."""
    asked = [f"Where was settler {n} of the {n % 97} valleys {WORDS[n % len(WORDS)]}?" for n in range(count)]
    return list(dict.fromkeys(asked))


def small_requests(data):
    """Prompts of each person and, in part, of each intent."""
    groups = {}
    for file, key, text in (("real_world/forget", "name", "question"), ("clinc150/train", "intent", "text")):
        for row in read_lines(data / f"{file}.jsonl"):
            groups.setdefault((file, row[key]), []).append(row[text])
    named = [rows for (file, _), rows in groups.items() if file.startswith("real")]
    intents = [rows for (file, _), rows in groups.items() if file.startswith("clinc")]
    return [rows[:SMALL] for rows in (*named, *intents[:: len(intents) // INTENTS])]


def large_requests(stream):
    """Samples of prompts about made-up authors."""
    rows = [row.prompt for request in stream.requests for row in (*request.rows, *request.held_out)]
    return [random.Random(seed).sample(rows, LARGE) for seed in range(FITTED)]


def copy_of(detector):
    """A detector that a gate may stack, over the same tensors."""
    return replace(detector, parts={name: copy.copy(part) for name, part in detector.parts.items()})


def gate_times(gates, prompts):
    """Milliseconds a prompt takes, by batch and by number of requests."""
    times = {}
    for size in BATCHES:
        calls = [prompts[n : n + 1] for n in range(SINGLES)] if size == 1 else [prompts[:size]]
        seconds = {count: [] for count in gates}
        for _ in range(REPEATS):
            for count, gate in gates.items():
                start = time.process_time()
                for texts in calls:
                    gate.weights(texts)
                seconds[count].append(time.process_time() - start)
        asked = sum(map(len, calls))
        times[f"batch of {size}"] = {
            count: round(min(taken) * 1000 / asked, 3) for count, taken in seconds.items()
        }
    return times


def memory_bytes(gate):
    """Bytes of the memory behind all tensors of a gate for each of its requests."""
    states = [part.state for detector in gate.detectors.values() for part in detector.parts.values()]
    tensors = [value for state in states for value in vars(state).values()]
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors}
    return round(sum(storages.values()) / len(gate.ids))


def store_bytes(detector):
    """Bytes of one request's detector on disk."""
    with tempfile.TemporaryDirectory() as folder:
        detector.save(folder)
        return sum(path.stat().st_size for path in Path(folder).iterdir())


def fit_largest(encoder, config):
    """Seconds and memory of a fit of `LARGEST` prompts, and the bytes of its detector."""
    prompts = made_up_prompts(LARGEST)
    start = time.process_time()
    detector = fit_detector(encoder, prompts, config, SEED)
    seconds = time.process_time() - start
    return {
        "prompts": detector.report["prompts"],
        "seconds": round(seconds, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "bytes": store_bytes(detector),
    }


def main():
    """Measures, writes and prints."""
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    path, data, config = Path(sys.argv[1]), Path(os.environ["O3_DATA"]), DetectorConfig()
    encoder = load_configured_encoder(config)
    stream = load_stream(DataConfig(count=FITTED, authors_per_request=AUTHORS), SEED)
    small, large = (
        [fit_detector(encoder, prompts, config, SEED) for prompts in requests]
        for requests in (small_requests(data), large_requests(stream))
    )

    def gate(count):
        chosen = [small[n % len(small)] if (n + 1) % EVERY else large[n % len(large)] for n in range(count)]
        own = {f"r{n}": copy_of(detector) for n, detector in enumerate(chosen)}
        return MultiDetector(encoder, own)

    gates = {str(count): gate(count) for count in REQUESTS}
    asked = {
        "made-up authors": [row.prompt for row in stream.utility["retained_authors"]][: BATCHES[-1]],
        "science": column(data / "scienceqa/openbookqa_test.jsonl", "instruction")[: BATCHES[-1]],
    }
    found = {
        "environment": describe_environment(),
        "requests_fitted": {str(SMALL): len(small), str(LARGE): len(large)},
        "milliseconds_a_prompt": {name: gate_times(gates, prompts) for name, prompts in asked.items()},
        "memory_bytes_a_request": {str(count): memory_bytes(gates[str(count)]) for count in REQUESTS},
        "stored_bytes_a_request": {str(SMALL): store_bytes(small[0]), str(LARGE): store_bytes(large[0])},
    }
    former = json.loads(path.read_text()) if path.exists() else {}
    found["largest_fit"] = former.get("largest_fit") or fit_largest(encoder, config)
    write_json(path, found)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
