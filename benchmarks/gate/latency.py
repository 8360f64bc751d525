"""Times the gate at `GatedModel.weights` with 32 requests, and the reading of long and hostile texts.

    python -m benchmarks.gate.latency RESULTS.json [LABEL]

The requests are the people of the fictitious world, the encoder is the packaged MiniLM, in float32 and with
linear layers in bfloat16; nothing is downloaded. Figures are milliseconds of processor time on one thread,
which other work on the machine disturbs little; every prompt is asked once, so that nothing remembered from
an earlier one counts. Each label is a row of the file: measure another commit by running this file from its
checkout, in the same session.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gate.speed import build
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.data.fictitious import build_world
from o3_lightning.data.words import ATTRIBUTES, EVERYDAY
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder
from o3_lightning.detector.names import find_names
from o3_lightning.detector.reading import Reading
from o3_lightning.detector.text.frequencies import information
from o3_lightning.detector.text.people import named_people
from o3_lightning.gating.references import Utterance

BATCH, SINGLES, BATCHES, LONG_TEXTS = 32, 48, 6, 4
LONG_WORDS, CHARACTERS, REPEATS = 1_000, 100_000, 3
OTHERS = ("Maria Lindqvist", "John Okafor", "Ingrid Tanaka", "Pedro Murphy", "Susan Novak", "Ahmed Bianchi")
HOSTILE = {
    "prose": "Where was the novelist Maria Lindqvist born, and which prize did her second book win? ",
    "one word": "x",
    "tags": "<b>a</b> ",
    "open tags": "<a ",
    "escapes": "\\u0041 %41 &amp; ",
    "digits": "0123456789abcdef ",
    "base64": "dGhlIHF1aWNrIGJyb3du ",
    "camel case": "whereWasAdaBorn",
    "spelt out": "a-b c.d ",
    "accents": "e\u0301\u00e9 ",
    "symbols": "#*=_~ ",
    "reversed": "nrob drawoH noR saw erehW ",
    "lines": "1. a\n> b\n",
    "names": "Ada Skarnholt ",
}


def milliseconds(action: Callable[[], Any]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    action()
    return 1000 * (time.process_time() - start)


def peak_mb(action: Callable[[], Any]) -> float:
    """Most memory that Python objects and NumPy arrays of a call take at once."""
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def time_gate(encoder_name: str) -> dict[str, float]:
    """Milliseconds a prompt at the gate's door: single prompts, batches, long texts."""
    world, encoder = build_world(0), load_encoder(encoder_name)
    names = [*(author.name for author in world.authors), *world.unknown]
    fitted = {
        f"r{number}": fit_detector(
            encoder,
            [text.format(name=name) for each in ATTRIBUTES for text in each.seen],
            DetectorConfig(encoder=encoder_name),
            0,
        )
        for number, name in enumerate(names)
    }
    gated = build(len(names), MultiDetector(encoder, fitted))
    held_out = [text for each in ATTRIBUTES for text in each.held_out]
    draw = random.Random(0)
    own = [text.format(name=name) for text in held_out for name in names]
    others = [*(text.format(name=name) for text in held_out for name in OTHERS), *EVERYDAY]
    draw.shuffle(own)
    draw.shuffle(others)
    mixed = [text for pair in zip(own, others * (1 + len(own) // len(others)), strict=False) for text in pair]
    long = []
    for number in range(LONG_TEXTS + 1):
        words: list[str] = []
        while len(words) < LONG_WORDS:
            words += draw.choice(others).split()
        long.append(" ".join([*words[:LONG_WORDS], *(own[:1] if number % 2 else ())]))
    gated.weights([*mixed[-3:], long[-1]])  # loads the word lists
    singles = [milliseconds(lambda text=text: gated.weights([text])) for text in mixed[:SINGLES]]
    batches = [
        milliseconds(lambda start=start: gated.weights(mixed[start : start + BATCH])) / BATCH
        for start in range(SINGLES, SINGLES + BATCHES * BATCH, BATCH)
    ]
    texts = [milliseconds(lambda text=text: gated.weights([text])) for text in long[:-1]]
    return {
        "single_ms": statistics.median(singles),
        "batch_ms_a_prompt": statistics.median(batches),
        "thousand_words_ms": statistics.median(texts),
    }


def time_reading() -> dict[str, dict[str, float]]:
    """Milliseconds and megabytes of each part of reading and fitting for texts of 100,000 characters."""

    def forms(text: str) -> None:
        reading = Reading(text)
        _ = reading.forms, reading.wholes, reading.spans

    parts = {"reading": forms, "people": named_people, "names": lambda text: find_names([text]),
             "references": lambda text: Utterance(text).refers_back}  # fmt: skip
    rows: dict[str, dict[str, float]] = {}
    for kind, unit in HOSTILE.items():
        text = (unit * (1 + CHARACTERS // len(unit)))[:CHARACTERS]
        row = rows[kind] = {}
        for name, part in parts.items():
            call = partial(part, text)
            row[f"{name}_ms"] = min(milliseconds(call) for _ in range(REPEATS))
            row[f"{name}_mb"] = peak_mb(call)
    return rows


def rounded(value: Any) -> Any:
    """The figures with two decimals."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, 2)


def main() -> None:
    """Measures, and writes the row."""
    path, label = Path(sys.argv[1]), (sys.argv[2:] or ["now"])[0]
    torch.set_num_threads(1)
    lists = milliseconds(lambda: information("the"))
    reading = time_reading()
    gates = {**time_gate("minilm"), "bfloat16": time_gate("minilm:bfloat16")}
    figures = {"word_lists_ms": lists, **gates, "worst_reading": {
        key: max(row[key] for row in reading.values()) for key in next(iter(reading.values()))
    }, "reading": reading}  # fmt: skip
    results = json.loads(path.read_text()) if path.exists() else {}
    results["environment"] = describe_environment()
    results[label] = rounded(figures)
    write_json(path, results)
    sys.stdout.write(json.dumps({k: v for k, v in results[label].items() if k != "reading"}, indent=2) + "\n")


if __name__ == "__main__":
    main()
