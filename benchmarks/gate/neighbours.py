"""Measures what the gate refuses beside a request: namesakes of its people, other articles of its topics.

    O3_DATA=FOLDER python -m benchmarks.gate.neighbours RESULTS.json

The weights are those of `GatedModel.weights` over a small random base model, which the detectors do not read.
Namesakes stand in the words of the held-out questions (with another first or last name) and in five questions
of our own. XQuAD articles are fitted on four fifths of their questions; the others are their neighbours.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from pathlib import Path

import torch

from benchmarks.gate.disguises import tasks
from benchmarks.gate.speed import build
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder
from o3_lightning.detector.names import find_names
from o3_lightning.detector.text.frequencies import information, looks_like_name

FIRST_NAMES = ["David", "Maria", "John", "Elena", "Pedro", "Susan", "Ahmed", "Ingrid"]
LAST_NAMES = ["Johnson", "Garcia", "Novak", "Okafor", "Lindqvist", "Tanaka", "Bianchi", "Murphy"]
QUESTIONS = (
    "Where was {} born?",
    "When did {} receive the award?",
    "What is {} known for?",
    "Who is {}?",
    "Tell me about the career of {}.",
)
COMMON_NATS = 15.0  # of a name that is not a slip of another
ARTICLES, SEEDS, NEIGHBOURS = (8, 1), (0, 1, 2), 250
HALF, DIGITS = 0.5, 3
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def names_like(word: str) -> list[str]:
    """The two most frequent names one letter away."""
    cuts = [(word[:cut], word[cut:]) for cut in range(len(word) + 1)]
    found = {head + tail[1:] for head, tail in cuts if tail}
    found |= {head + letter + tail[1:] for head, tail in cuts if tail for letter in ALPHABET}
    found |= {head + letter + tail for head, tail in cuts for letter in ALPHABET}
    names = [other for other in found - {word} if information(other) < COMMON_NATS and looks_like_name(other)]
    return sorted(names, key=lambda other: (information(other), other))[:2]


def namesakes(forget: list[str], held_out: list[str]) -> dict[str, list[str]]:
    """Questions about the people of a request, and about others who share a part of their name."""
    found: dict[str, list[str]] = {}

    def add(kind: str, text: str) -> None:
        found.setdefault(kind, []).append(text)

    for number, subject in enumerate(find_names(forget).subjects):
        first, last = subject[0].capitalize(), subject[-1].capitalize()
        for place, question in enumerate(QUESTIONS):
            other = (number + place) % len(FIRST_NAMES)
            add("the person", question.format(f"{first} {last}"))
            add("same last name", question.format(f"{FIRST_NAMES[other]} {last}"))
            add("same first name", question.format(f"{first} {LAST_NAMES[other]}"))
            for like in names_like(last.lower()):
                add("one letter apart", question.format(f"{first} {like.capitalize()}"))
        for text in held_out:
            if f"{first} {last}" in text:
                changed = text.replace(f"{first} {last}", f"David {last}")
                add("held-out, other first name", re.sub(rf"\b{first}\b", "David", changed))
                add("held-out, other last name", re.sub(rf"\b{last}\b", "Johnson", text))
    return found


def rates(gated, texts: list[str]) -> dict[str, float]:
    """Mean weight, and share of texts with a weight of at least a half."""
    weights = gated.weights(texts)[:, 0]
    refused = float((weights >= HALF).float().mean())
    return {
        "prompts": len(texts),
        "mean": round(float(weights.mean()), DIGITS),
        "refused": round(refused, DIGITS),
    }


def articles(folder: Path, language: str, count: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Questions to fit on, held-out ones of the same articles, and those of other articles."""
    rows = [json.loads(line) for line in (folder / f"xquad/{language}.jsonl").read_text().splitlines()]
    draw = random.Random(seed)
    chosen = set(draw.sample(sorted({row["article"] for row in rows}), count))
    own = [row["question"] for row in rows if row["article"] in chosen]
    near = [row["question"] for row in rows if row["article"] not in chosen]
    draw.shuffle(own)
    cut = len(own) * 4 // 5
    return own[:cut], own[cut:], draw.sample(near, NEIGHBOURS)


def main() -> None:
    """Measures, writes and prints."""
    torch.set_num_threads(1)
    encoder, data = load_encoder("minilm"), Path(os.environ["O3_DATA"])
    results: dict[str, dict[str, object]] = {"namesakes": {}, "xquad": {}}

    def fit(prompts: list[str], seed: int):
        detector = fit_detector(encoder, prompts, DetectorConfig(), seed)
        return build(1, MultiDetector(encoder, {"r0": detector})), detector.report

    def show(part: str, name: str, found: object) -> None:
        results[part][name] = found
        sys.stdout.write(f"{part} {name} {json.dumps(found)}\n")
        sys.stdout.flush()

    for name in ("people", "tofu"):
        task = tasks()[name]
        gated, _ = fit(task.forget, 0)
        kinds = namesakes(task.forget, task.held_out)
        show("namesakes", name, {kind: rates(gated, texts) for kind, texts in kinds.items()})
    for language in ("en", "de"):
        for count in ARTICLES:
            for seed in SEEDS:
                own, held_out, near = articles(data, language, count, seed)
                gated, report = fit(own, seed)
                found = {"held_out": rates(gated, held_out), "near": rates(gated, near)}
                figures = {key: report.get(key) for key in ("neighbour_score", "narrowing", "warnings")}
                show("xquad", f"{language}, {count} articles, seed {seed}", {**found, **figures})
    write_json(sys.argv[1], {"environment": describe_environment(), **results})


if __name__ == "__main__":
    main()
