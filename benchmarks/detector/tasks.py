"""The tasks of the detector benchmark: forget prompts to fit on, prompts to find, prompts to leave alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError

__all__ = ["DEVELOPMENT", "TASKS", "BenchmarkTask", "load_task"]

FIT_FRACTION = 0.8
SUCCESSIVE_REQUESTS = 10
CLINC_DOMAINS = (
    "banking",
    "credit_cards",
    "auto_and_commute",
    "kitchen_and_dining",
    "meta",
    "small_talk",
    "utility",
)
ADJACENT_DOMAIN = {"banking": "credit_cards", "credit_cards": "banking"}
FICTITIOUS = "fictitious"
TASKS = (
    FICTITIOUS,
    "tofu_forget01",
    "tofu_forget10",
    "tofu_ten_requests",
    "tofu_union",
    "real_world",
    *(f"clinc_{domain}" for domain in CLINC_DOMAINS),
    "scienceqa_biology",
    "scienceqa_chemistry",
)


# settings were chosen on these; the others were looked at only to report them
DEVELOPMENT = (
    FICTITIOUS,
    "tofu_forget01",
    "tofu_forget10",
    "tofu_ten_requests",
    "real_world",
    "clinc_banking",
    "clinc_auto_and_commute",
    "scienceqa_chemistry",
)


@dataclass(frozen=True)
class BenchmarkTask:
    """One seed of a task.

    Args:
        requests: forget prompts to fit on, one list a request.
        inside: prompts that must be found, by split: "forget", "held_out", "paraphrase".
        outside: prompts that must not, by split: "near", "adjacent", "mid", "far".
        seed: which request or split.
    """

    requests: tuple[list[str], ...]
    inside: dict[str, list[str]]
    outside: dict[str, list[str]]
    seed: int


def load_task(name: str, data: Path, seed: int) -> BenchmarkTask:
    """Reads a task.

    Args:
        name: out of `TASKS`.
        data: folder of local benchmark data.
        seed: which request of TOFU (modulo their number), which split elsewhere.

    Raises:
        InputError: the name is unknown.
        FileNotFoundError: a file of the task is not there.
    """
    if name not in TASKS:
        raise InputError(f"expected tasks out of {', '.join(TASKS)}, got {name!r}", field="tasks")
    if name.startswith("clinc_"):
        return clinc(name.removeprefix("clinc_"), data, seed)
    if name.startswith("scienceqa_"):
        return scienceqa(name.removeprefix("scienceqa_"), data, seed)
    loaders: dict[str, Callable[[Path, int], BenchmarkTask]] = {
        FICTITIOUS: fictitious,
        "tofu_forget01": lambda folder, number: tofu("forget01", folder, number),
        "tofu_forget10": lambda folder, number: tofu("forget10", folder, number),
        "tofu_ten_requests": ten_requests,
        "tofu_union": union,
        "real_world": real_world,
    }
    return loaders[name](data, seed)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def column(path: Path, key: str) -> list[str]:
    """Returns one column of a JSON-lines file."""
    return [row[key] for row in read_lines(path)]


def split_rows(rows: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Returns 80 % of the rows to fit on and 20 % held out."""
    mixed = list(rows)
    random.Random(seed).shuffle(mixed)
    cut = int(FIT_FRACTION * len(mixed))
    return mixed[:cut], mixed[cut:]


def tofu_outside(data: Path) -> dict[str, list[str]]:
    """Returns what surrounds every TOFU request."""
    return {
        "near": column(data / "tofu/retain_perturbed.json", "question"),
        "mid": column(data / "tofu/real_authors_perturbed.json", "question"),
        "far": column(data / "tofu/world_facts_perturbed.json", "question"),
    }


def questions(rows: Sequence[dict[str, Any]], fitted: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Returns the three splits to find."""
    return {
        "forget": [row["question"] for row in fitted],
        "held_out": [row["question"] for row in rows],
        "paraphrase": [row["paraphrased_question"] for row in fitted],
    }


def tofu(split: str, data: Path, seed: int) -> BenchmarkTask:
    """One request of TOFU, another for each seed."""
    parts = tofu_parts(split, data)
    return successive([parts[sorted(parts, key=int)[seed % len(parts)]]], data, seed)


def ten_requests(data: Path, seed: int) -> BenchmarkTask:
    """Ten successive requests of forget01, the largest weight counting."""
    parts = tofu_parts("forget01", data)
    return successive([parts[name] for name in sorted(parts, key=int)[:SUCCESSIVE_REQUESTS]], data, seed)


def union(data: Path, seed: int) -> BenchmarkTask:
    """One request of forget01, then those of forget10 that do not hold it, the largest weight counting."""
    small, large = tofu_parts("forget01", data), tofu_parts("forget10", data)
    names = sorted(small, key=int)
    first = small[names[seed % len(names)]]
    asked = {row["question"] for row in first}
    rest = [large[name] for name in sorted(large, key=int)]
    apart = [rows for rows in rest if asked.isdisjoint(row["question"] for row in rows)]
    return successive([first, *apart], data, seed)


def tofu_parts(split: str, data: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each request of a TOFU split by its number."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in read_lines(data / f"tofu/{split}_perturbed.json"):
        parts.setdefault(row["task_id"], []).append(row)
    return parts


def successive(requests: Sequence[Sequence[dict[str, Any]]], data: Path, seed: int) -> BenchmarkTask:
    """Several TOFU requests, each with a held-out fifth."""
    parts = [split_rows(rows, seed) for rows in requests]
    fitted, held = ([row for part in parts for row in part[side]] for side in (0, 1))
    prompts = tuple([row["question"] for row in part[0]] for part in parts)
    return BenchmarkTask(prompts, questions(held, fitted), tofu_outside(data), seed)


def real_world(data: Path, seed: int) -> BenchmarkTask:
    """Real people, against their neighbours."""
    fitted, held = split_rows(read_lines(data / "real_world/forget_perturbed.jsonl"), seed)
    outside = tofu_outside(data)
    outside = {
        "near": [
            *column(data / "real_world/neighbor.jsonl", "question"),
            *column(data / "real_world/neighbor_perturbed.jsonl", "question"),
        ],
        "mid": outside["mid"],
        "far": outside["far"],
    }
    requests = ([row["question"] for row in fitted],)
    return BenchmarkTask(requests, questions(held, fitted), outside, seed)


def clinc(domain: str, data: Path, seed: int) -> BenchmarkTask:
    """One domain of CLINC150, against all others, the adjacent one, and TOFU."""
    rows = read_lines(data / "clinc150/train.jsonl")
    fitted, held = split_rows([row["text"] for row in rows if row["domain"] == domain], seed)
    test = read_lines(data / "clinc150/test.jsonl")
    outside = {"near": [row["text"] for row in test if row["domain"] != domain]}
    if domain in ADJACENT_DOMAIN:
        outside["adjacent"] = [row["text"] for row in test if row["domain"] == ADJACENT_DOMAIN[domain]]
    outside["far"] = column(data / "tofu/retain_perturbed.json", "question")
    return BenchmarkTask((fitted,), {"forget": fitted, "held_out": held}, outside, seed)


def scienceqa(topic: str, data: Path, seed: int) -> BenchmarkTask:
    """One topic of ScienceQA, against the other topics, the other natural science, and OpenbookQA."""
    folder = data / "scienceqa"
    fitted, held = split_rows(column(folder / f"{topic}_train.jsonl", "instruction"), seed)
    other = "chemistry" if topic == "biology" else "biology"
    outside = {
        "near": column(folder / "not_biology_physics_chemistry_test.jsonl", "instruction"),
        "adjacent": column(folder / f"{other}_train.jsonl", "instruction"),
        "mid": column(folder / "openbookqa_test.jsonl", "instruction"),
        "far": column(folder / "commonsenseqa_test.jsonl", "instruction"),
    }
    return BenchmarkTask((fitted,), {"forget": fitted, "held_out": held}, outside, seed)


def fictitious(data: Path, seed: int) -> BenchmarkTask:
    """The embedded made-up authors: three requests against the retained authors; needs no files."""
    from o3_lightning.data.config import DataConfig
    from o3_lightning.data.stream import load_stream

    stream = load_stream(DataConfig(), seed)
    retained = stream.utility["retained_authors"]
    inside = {
        "forget": [prompt for request in stream.requests for prompt in request.prompts],
        "held_out": [row.prompt for request in stream.requests for row in request.held_out],
    }
    outside = {"near": [row.prompt for row in retained]}
    outside |= {name: list(prompts) for name, prompts in stream.probes.items()}
    return BenchmarkTask(tuple(request.prompts for request in stream.requests), inside, outside, seed)
