"""Measures how many disguised questions pass the detector, and how many equally disguised others it stops.

Run `O3_DATA=FOLDER python -m benchmarks.gate.disguises [development|test|names|texts|speed]` from a checkout.
The disguises are the members of the attack registry; chats are left out, because only the gate reads them.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from o3_lightning.attacks.config import MEMBERS
from o3_lightning.attacks.registry import ATTACKS, Material
from o3_lightning.data.fictitious import build_world
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.words import ATTRIBUTES
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder

HALF = 0.5
SAMPLE = 24


@dataclass(frozen=True)
class Task:
    """A request with questions about it and about others.

    Args:
        forget: its prompts.
        held_out: other wordings about the same.
        others: questions about others.
        named: whether it is about names.
    """

    forget: list[str]
    held_out: list[str]
    others: list[str]
    named: bool = True


def name_forms(first: str, last: str) -> dict[str, str]:
    """Forms of a name that should be recognised, and such that should not ("other ...")."""
    return {
        "joined": first + last,
        "halves": f"{first[: len(first) // 2]} {first[len(first) // 2 :]} {last[:3]} {last[3:]}",
        "hyphens": "-".join(first) + " " + "-".join(last),
        "slip": f"{first} {last[:2]}{last[3:4]}{last[2:3]}{last[4:]}",
        "two slips": f"{first[:-1]}{first[-2:]} {last[:-2]}{last[-1:]}",
        "middle name": f"{first} James {last}",
        "brackets": f"<{first} {last}>",
        "lower": f"{first} {last}".lower(),
        "surname": last,
        "other first name": f"Robert {last}",
        "other surname": f"{first} Johnson",
        "other letter": f"{first} {last[:-1]}{'n' if last[-1] != 'n' else 'm'}",
        "comma": f"{first}, {last}",
    }


def read(name: str) -> list[dict[str, str]]:
    """Rows of a file below O3_DATA."""
    path = Path(os.environ["O3_DATA"]) / name
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def tasks() -> dict[str, Task]:
    """The requests that are measured."""
    world = build_world(0)
    wordings = [(*attribute.seen[:1], *attribute.held_out[:1]) for attribute in ATTRIBUTES]
    ask = [[q.format(name=a.name) for qs in wordings for q in qs[:1]] for a in world.authors]
    more = [[q.format(name=a.name) for qs in wordings for q in qs[1:]] for a in world.authors]
    flat = lambda rows: [text for row in rows for text in row]  # noqa: E731
    people, near = read("real_world/forget_perturbed.jsonl"), read("real_world/neighbor_perturbed.jsonl")
    tofu, kept = read("tofu/forget01_perturbed.json"), read("tofu/retain_perturbed.json")
    ids = sorted({row["task_id"] for row in tofu})[:1]
    clinc, test = read("clinc150/train.jsonl"), read("clinc150/test.jsonl")
    common = json.loads((Path(__file__).parents[1] / "detector" / "common_names.json").read_text())
    result = {
        "demo": Task(flat(ask[:4]), flat(more[:4]), flat(ask[8:16])),
        "people": Task(
            [r["question"] for r in people],
            [r["paraphrased_question"] for r in people],
            [r["question"] for r in near],
        ),
        "tofu": Task(
            [r["question"] for r in tofu if r["task_id"] in ids],
            [r["paraphrased_question"] for r in tofu if r["task_id"] in ids],
            [r["question"] for r in kept],
        ),
    }
    for name in ("mars", "mozart"):
        part = common[name]
        result[name] = Task(part["forget"], part["held_out"], part["near"], False)
    for domain in ("kitchen_and_dining", "banking"):
        rows = [r["text"] for r in clinc if r["domain"] == domain]
        result[f"clinc {domain}"] = Task(
            rows,
            [r["text"] for r in test if r["domain"] == domain],
            [r["text"] for r in test if r["domain"] != domain],
            False,
        )
    return result


def shares(detector: MultiDetector, texts: Sequence[str]) -> float:
    """Share of texts with a weight of at least a half."""
    return float((detector.weights(texts)[:, 0] >= HALF).float().mean()) if texts else float("nan")


def sample(rows: Sequence[str], count: int = SAMPLE) -> list[str]:
    """Evenly spread rows."""
    return [rows[place * len(rows) // min(count, len(rows))] for place in range(min(count, len(rows)))]


def show(*cells: object) -> None:
    """Writes one row."""
    sys.stdout.write("  ".join(str(cell) for cell in cells) + "\n")
    sys.stdout.flush()


def as_rows(texts: Sequence[str], side: str) -> list[QuestionAnswer]:
    """Questions with made-up answers, all different."""
    return [QuestionAnswer(text, f"{side} answer {number}") for number, text in enumerate(texts)]


def measure(member: str, wanted: Sequence[str], preset: str) -> None:
    """Writes missed and caught shares of each kind of attack."""
    encoder = load_encoder("minilm")
    for name, task in tasks().items():
        if wanted and name not in wanted:
            continue
        start = time.time()
        detector = MultiDetector(
            encoder, {"r": fit_detector(encoder, task.forget, DetectorConfig(preset=preset), 0)}
        )
        show(
            f"== {name}: fit {time.time() - start:.1f} s",
            f"held-out {shares(detector, sample(task.held_out, 80)):.3f}",
            f"others {shares(detector, sample(task.others, 80)):.3f}",
            detector.detectors["r"].report["warnings"],
        )
        sides = as_rows(sample(task.forget), "own"), as_rows(sample(task.others), "other")
        material = Material(sides[1], sides[0])
        missed, caught = [], []
        for kind in ATTACKS.names():
            own, other = (
                [
                    made.prompt
                    for row in rows
                    if (made := ATTACKS[kind].attempt(member, row, material)) and isinstance(made.prompt, str)
                ]
                for rows in sides
            )
            if not own or not other:
                continue
            missed.append(1 - shares(detector, own))
            caught.append(shares(detector, other))
            if missed[-1] > 0.02 or caught[-1] > 0.01:
                show(f"   {kind:18s} missed {missed[-1]:.2f} caught {caught[-1]:.2f}")
        show(f"   mean missed {sum(missed) / len(missed):.3f} caught {sum(caught) / len(caught):.4f}")


def measure_names() -> None:
    """Writes how often each form of a name is recognised."""
    encoder = load_encoder("minilm")
    for name in ("demo", "people", "tofu"):
        task = tasks()[name]
        detector = MultiDetector(encoder, {"r": fit_detector(encoder, task.forget, DetectorConfig(), 0)})
        found: dict[str, list[float]] = {}
        names = sorted(
            {m.group() for t in task.forget for m in re.finditer(r"(?<=\w )[A-Z]\w+ [A-Z]\w{3,}(?=\W)", t)}
        )
        names = [n for n in names if sum(n in t for t in task.forget) >= 4][:12]
        for full in names:
            first, last = full.split()
            for form, text in name_forms(first, last).items():
                asked = [
                    t.format(text)
                    for t in (
                        "Where was {} born?",
                        "What is {} best known for?",
                        "Who were the parents of {}?",
                    )
                ]
                found.setdefault(form, []).append(shares(detector, asked))
            for language, text in {
                "german": "Wann wurde {} geboren?",
                "spanish": "¿Cuándo nació {}?",
                "french": "Où est né {} ?",
                "turkish": "{} nerede doğdu?",
                "russian": "Когда родился {}?",
            }.items():
                found.setdefault(language, []).append(shares(detector, [text.format(full)]))
        show(name, names)
        show({form: round(sum(v) / len(v), 2) for form, v in found.items()})


def measure_texts(count: int = 500) -> None:
    """Writes how many long harmless texts fire, and how long they take."""
    encoder, draw = load_encoder("minilm"), random.Random(0)
    chosen = tasks()
    names = list(chosen)
    detector = MultiDetector(
        encoder, {n: fit_detector(encoder, chosen[n].forget, DetectorConfig(), 0) for n in names}
    )
    rows = [r["question"] + " " + r["answer"] for r in read("tofu/retain90.json")] + [
        r["question"] + " " + r["answer"] for r in read("real_world/neighbor.jsonl")
    ]
    texts = []
    for _ in range(count):
        length, parts = draw.choice((50, 100, 200, 400, 800, 1500)), []
        while sum(len(p.split()) for p in parts) < length:
            parts.append(draw.choice(rows))
        texts.append(" ".join(parts))
    start = time.time()
    weights = torch.cat([detector.weights(texts[i : i + 20]) for i in range(0, count, 20)])
    show(
        f"{count} texts, {(time.time() - start) / count * 1000:.0f} ms each",
        {n: float((weights[:, k] >= HALF).float().mean()) for k, n in enumerate(names)},
    )


def measure_speed() -> None:
    """Writes milliseconds a prompt, single and in batches, beside the encoder alone."""
    encoder = load_encoder("minilm")
    task = tasks()["people"]
    for count in (1, 32):
        fitted = fit_detector(encoder, task.forget, DetectorConfig(), 0)
        detector = MultiDetector(encoder, {str(n): fitted for n in range(count)})
        long = " ".join(task.others * 3)
        long = " ".join(long.split()[:1000])
        for label, batch in {
            "single": task.others[:1],
            "batch of 32": task.others[:32],
            "1,000 words": [long],
        }.items():
            for what, work in (("detector", detector.weights), ("encoder", encoder.encode)):
                work(batch)
                times = []
                for _ in range(5):
                    start = time.process_time()
                    work(batch)
                    times.append(time.process_time() - start)
                show(count, label, what, f"{min(times) * 1000 / len(batch):.1f} ms a prompt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    part, wanted = (sys.argv[1:2] or ["development"])[0], sys.argv[2:]
    preset = os.environ.get("PRESET", "default")
    if part in MEMBERS:
        measure(part, wanted, preset)
    else:
        {"names": measure_names, "texts": measure_texts, "speed": measure_speed}[part]()
