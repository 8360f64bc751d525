"""Times the gate and weighs the store with 1 to 256 requests, and a fit of 100,000 prompts, on the CPU.

    python -m benchmarks.detector.scale RESULTS.json [threads]

Run it on a quiet machine; no network is needed. A few detectors, fitted on prompts enough to fill every
statistic, stand in for all requests: what a score costs does not depend on their values. Seconds are those of
the processor, rounds of all sizes taking turns, the smallest of several counting.
"""

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.data.config import DataConfig
from o3_lightning.data.stream import load_stream
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.detector import fit_detector
from o3_lightning.detector.encoder import load_configured_encoder
from o3_lightning.detector.multi import MultiDetector

REQUESTS, BATCHES, REPEATS = (1, 4, 16, 64, 256), (1, 32, 128), 9
FITTED, AUTHORS, PROMPTS, LARGEST = 4, 5, 400, 100_000
SEED = 0
WORDS = ("born", "raised", "taught", "married", "praised", "painted", "jailed", "crowned", "buried", "seen")


def made_up_prompts(count):
    """Distinct questions about numbered people."""
    asked = [f"Where was settler {n} of the {n % 97} valleys {WORDS[n % len(WORDS)]}?" for n in range(count)]
    return list(dict.fromkeys(asked))


def gate_times(encoder, detectors, prompts):
    """Milliseconds a prompt takes, by batch and by number of requests."""
    gates = {
        count: MultiDetector(encoder, {f"r{n}": detectors[n % len(detectors)] for n in range(count)})
        for count in REQUESTS
    }
    times = {}
    for size in BATCHES:
        batch = (prompts * (size // len(prompts) + 1))[:size]
        seconds = {count: [] for count in REQUESTS}
        for _ in range(REPEATS + 1):
            for count, gate in gates.items():
                start = time.process_time()
                gate.weights(batch)
                seconds[count].append(time.process_time() - start)
        times[size] = {count: min(taken[1:]) * 1000 / size for count, taken in seconds.items()}
    return times


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
    config = DetectorConfig()
    encoder = load_configured_encoder(config)
    stream = load_stream(DataConfig(count=FITTED, authors_per_request=AUTHORS), SEED)
    rows = [row.prompt for request in stream.requests for row in (*request.rows, *request.held_out)]
    requests = [random.Random(seed).sample(rows, PROMPTS) for seed in range(FITTED)]
    detectors = [fit_detector(encoder, prompts, config, SEED) for prompts in requests]
    asked = [row.prompt for row in stream.utility["retained_authors"]]
    times = gate_times(encoder, detectors, asked)
    size = store_bytes(detectors[0])
    tokens = encoder.tokenize(asked)
    found = {
        "environment": describe_environment(),
        "prompts_a_request": PROMPTS,
        "tokens_a_prompt": round(sum(map(len, tokens)) / len(tokens), 1),
        "milliseconds_a_prompt": {
            f"batch of {batch}": {str(count): round(ms, 3) for count, ms in row.items()}
            for batch, row in times.items()
        },
        "growth_1_to_256": {
            f"batch of {batch}": round(row[REQUESTS[-1]] / row[REQUESTS[0]], 2)
            for batch, row in times.items()
        },
        "detector_bytes": {str(count): size * count for count in REQUESTS},
        "largest_fit": fit_largest(encoder, config),
    }
    write_json(sys.argv[1], found)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
