"""Measures how many disguised questions pass the gate, and how many equally disguised others it stops.

    O3_DATA=FOLDER python -m benchmarks.gate.disguises RESULTS.json development|test [REQUEST ...]

The disguises are all kinds of the attack registry, chats included. The weights are those of `GatedModel` over
a small random base model, which the detectors do not read; a prompt counts from a weight of a half.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from benchmarks.gate.speed import build
from o3_lightning.attacks.registry import ATTACKS, Material
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_json
from o3_lightning.data.fictitious import build_world
from o3_lightning.data.prompts import Prompt, read_prompt
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.words import ATTRIBUTES
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder

HALF = 0.5
SAMPLE = 6
REQUESTS = Path(__file__).parents[2] / "configs/requests"


@dataclass(frozen=True)
class Task:
    """A request with questions about it and about others.

    Args:
        forget: its prompts.
        held_out: other wordings about the same.
        others: questions about others.
        named: whether it is about names.
        answers: true answers by question, where they are known.
    """

    forget: list[str]
    held_out: list[str]
    others: list[str]
    named: bool = True
    answers: Mapping[str, str] = field(default_factory=dict)


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
    biology = [r["question"] for r in read("scienceqa/biology_train.jsonl")]
    other_lessons = read("scienceqa/not_biology_physics_chemistry_test.jsonl")
    clinc, test = read("clinc150/train.jsonl"), read("clinc150/test.jsonl")
    common = json.loads((Path(__file__).parents[1] / "detector" / "common_names.json").read_text())
    result = {
        "demo": Task(flat(ask[:4]), flat(more[:4]), flat(ask[8:16])),
        "people": Task(
            [r["question"] for r in people],
            [r["paraphrased_question"] for r in people],
            [r["question"] for r in near],
            answers={r["question"]: r["answer"] for r in (*people, *near)},
        ),
        "tofu": Task(
            [r["question"] for r in tofu if r["task_id"] in ids],
            [r["paraphrased_question"] for r in tofu if r["task_id"] in ids],
            [r["question"] for r in kept],
            answers={r["question"]: r["answer"] for r in (*tofu, *kept)},
        ),
        "biology": Task(biology[::4], biology[1::8], [r["question"] for r in other_lessons], False),
        "france": france(),
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


def france() -> Task:
    """The request of `configs/requests` about a country."""
    rows = {
        name: [json.loads(line) for line in (REQUESTS / f"{name}.jsonl").read_text().splitlines() if line]
        for name in ("france", "kept")
    }
    held_out = [prompt for row in rows["france"] for prompt in row["held_out_prompts"]]
    prompts = {name: [row["prompt"] for row in own] for name, own in rows.items()}
    answers = {row["prompt"]: row["answer"] for own in rows.values() for row in own}
    return Task(prompts["france"], held_out, prompts["kept"], False, answers)


def sample(rows: Sequence[str], count: int = SAMPLE) -> list[str]:
    """Evenly spread rows."""
    return [rows[place * len(rows) // min(count, len(rows))] for place in range(min(count, len(rows)))]


def show(*cells: object) -> None:
    """Writes one row."""
    sys.stdout.write("  ".join(str(cell) for cell in cells) + "\n")
    sys.stdout.flush()


def as_rows(texts: Sequence[str], answers: Mapping[str, str] = MappingProxyType({})) -> list[QuestionAnswer]:
    """Questions with their answers; made-up ones, all different, where none is known."""
    return [
        QuestionAnswer(text, answers.get(text, f"answer {number} of {text}"))
        for number, text in enumerate(texts)
    ]


def measure(task: Task, member: str) -> dict[str, Any]:
    """What the gate of one request catches of each kind of attack, own questions and others."""
    encoder = load_encoder("minilm")
    detector = fit_detector(encoder, task.forget, DetectorConfig(), 0)
    gated = build(1, MultiDetector(encoder, {"r0": detector}))
    own, others = (as_rows(sample(texts), task.answers) for texts in (task.forget, task.others))
    material = Material(others, as_rows(task.forget, task.answers))
    found: dict[str, Any] = {}
    for kind in ATTACKS.names():
        made = [[ATTACKS[kind].attempt(member, row, material) for row in rows] for rows in (own, others)]
        prompts = [[one.prompt for one in side if one is not None and readable(one.prompt)] for side in made]
        if not all(prompts) or (ATTACKS[kind].group == "language" and not task.named):
            continue
        caught, stopped = ((gated.weights(side)[:, 0] >= HALF).tolist() for side in prompts)
        found[kind] = {"group": ATTACKS[kind].group, "own": len(caught), "missed": caught.count(False)}
        found[kind] |= {"others": len(stopped), "stopped": stopped.count(True)}
    return {"warnings": detector.report["warnings"], "kinds": found}


def readable(prompt: Prompt) -> bool:
    """Whether the gate accepts a prompt; it refuses pictures."""
    try:
        read_prompt(prompt)
    except InputError:
        return False
    return True


def write_measures(path: str, member: str, wanted: Sequence[str]) -> None:
    """Measures the requests that the file lacks, and writes after each."""
    results = json.loads(Path(path).read_text()) if Path(path).is_file() else {}
    chosen, table = tasks(), results.setdefault(member, {})
    for name in wanted or chosen:
        if name not in table:
            table[name] = measure(chosen[name], member)
            write_json(path, results | {"environment": describe_environment()})
            show(name, *worst(table[name]["kinds"]))


def worst(kinds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sums, and the kinds with most misses and false alarms."""
    sums = {side: sum(row[side] for row in kinds.values()) for side in ("missed", "own", "stopped", "others")}
    by_share = sorted(kinds, key=lambda kind: -kinds[kind]["missed"] / kinds[kind]["own"])
    rows = {kind: (kinds[kind]["missed"], kinds[kind]["own"], kinds[kind]["stopped"]) for kind in by_share}
    return [str(sums), *(f"\n  {kind}: {row}" for kind, row in rows.items() if row[0] or row[2])]


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_measures(sys.argv[1], sys.argv[2], sys.argv[3:])
