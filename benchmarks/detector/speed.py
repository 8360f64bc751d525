"""Times the detector on the CPU with the packaged encoder and the embedded made-up authors.

    python -m benchmarks.detector.speed [threads]

Prints as JSON: seconds to fit 400 prompts, milliseconds to score a prompt against 32 requests, singly and in
a batch of 32, and what a request keeps in MB. Run it on a quiet machine; no network is needed. A time is the
smallest of several runs.
"""

import json
import sys
import timeit

import torch

from o3_lightning.data.config import DataConfig
from o3_lightning.data.stream import load_stream
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder

AUTHORS, PROMPTS, REQUESTS, BATCH, SINGLES, FITS, REPEATS = 20, 400, 32, 32, 8, 3, 6
SEED = 0


def fastest(action, repeats):
    """The smallest time in seconds of several runs."""
    return min(timeit.repeat(action, number=1, repeat=repeats))


def main():
    """Prints the figures."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    encoder, config = load_encoder("minilm"), DetectorConfig()
    stream = load_stream(DataConfig(count=AUTHORS, authors_per_request=1), SEED)
    asked = [row.prompt for request in stream.requests for row in (*request.rows, *request.held_out)]
    large = asked[:PROMPTS]
    detector = fit_detector(encoder, large, config, SEED)
    multi = MultiDetector(encoder, {str(number): detector for number in range(REQUESTS)})
    other = [row.prompt for row in stream.utility["general_knowledge"]]
    batch = [*large[: BATCH // 2], *other[: BATCH // 2]]
    kept = sum(v.numel() * v.element_size() for v in detector.parts["fusion"].save().tensors.values())
    singles = [
        fastest(lambda prompt=prompt: multi.weights([prompt]), REPEATS)
        for prompt in batch[:: BATCH // SINGLES]
    ]
    figures = {
        "fit_400_prompts_s": fastest(lambda: fit_detector(encoder, large, config, SEED), FITS),
        "score_single_ms": 1000 * sum(singles) / len(singles),
        "score_batch_ms": 1000 * fastest(lambda: multi.weights(batch), REPEATS) / BATCH,
        "kept_mb": kept / 1e6,
    }
    sys.stdout.write(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
