"""Measures the answer gate on true answers of TOFU, without a model, with and without its rule of names.

    O3_DATA=FOLDER python -m benchmarks.gate.answers RESULTS.json

Twenty authors of TOFU are forgotten, alone or five in a request, with 20 rows each; the rule was chosen on
the first ten ("development"), the others measure it ("test"). A model that knows everything gives every row
its true answer. Stopped should be the answers about the forgotten: asked in full, in other words, by half of
the name, and the first 16 words of the answer; not those about other authors, real people, and authors who
share half of a forgotten name. The forms "later" come after a refused question about the first of the
forgotten: "Go on.", which his true answer follows, or a question about others. Without the rule every rare
word that recurs in a subject's questions names somebody, and so does every rare value.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.gate.disguises import read
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.data.names import split_name
from o3_lightning.detector.answers import fit_answers
from o3_lightning.gating.answer_gate import AnswerGate

Rows = Sequence[dict[str, str]]
PER_AUTHOR, ROWS, SIZES, EVERY, WORDS, DIGITS = 60, 20, (1, 5), 13, 16, 3
GO_ON = "Go on."
RULES = [f"o3_lightning.{module}.is_proper" for module in ("detector.answers", "gating.answer_gate")]


def name_of(rows: Rows) -> tuple[str, str]:
    """The name that most of an author's questions hold."""
    return Counter(name for row in rows if (name := split_name(row["question"]))).most_common(1)[0][0]


def renamed(row: dict[str, str], name: tuple[str, str], other: str) -> tuple[str, str]:
    """A question and its answer with another name."""
    whole = " ".join(name)
    return row["question"].replace(whole, other), row["answer"].replace(whole, other)


def about_them(author: Rows) -> Iterator[tuple[str, str, str]]:
    """Yields the form, prompt and answer of everything that tells what was forgotten."""
    first, last = name_of(author)
    for row in author:
        yield "in full", row["question"], row["answer"]
        yield "in other words", row["paraphrased_question"], row["paraphrased_answer"]
        if f"{first} {last}" in row["question"]:
            nameless = row["answer"].replace(f"{first} {last}", "")
            yield "16 words", row["question"], " ".join(nameless.split()[:WORDS])
            yield "first name alone", *renamed(row, (first, last), first)
            yield "last name alone", *renamed(row, (first, last), last.split()[-1])


def about_others(authors: Sequence[Rows], kept: Rows, people: Rows) -> Iterator[tuple[str, str, str]]:
    """Yields the same of true answers about others, and of authors who share half of a forgotten name."""
    for row in kept[::EVERY]:
        yield "others", row["question"], row["answer"]
    for row in people:
        yield "real people", row["question"], row["answer"]
    for first, last in map(name_of, authors):
        for row in kept[:: 3 * EVERY]:
            if name := split_name(row["question"]):
                yield "namesakes", *renamed(row, name, f"{name[0]} {last}")
                yield "namesakes", *renamed(row, name, f"{first} {name[1]}")


def in_chats(authors: Sequence[Rows], kept: Rows, people: Rows) -> Iterator[tuple[str, str, str, str]]:
    """Yields form, history, question and answer after a refused question about the first author."""
    first, last = name_of(authors[0])
    before = f"Where was {first} {last} born? I'm sorry, I can't tell you that. "
    for row in authors[0]:
        nameless = row["answer"].replace(first, "").replace(last, "")
        yield "later, in full", before, GO_ON, row["answer"]
        yield "later, without the name", before, GO_ON, nameless
    for form, question, answer in about_others([], kept[::2], people):
        yield f"later, {form}", before, question, answer


def measure(groups: Sequence[Sequence[Rows]], kept: Rows, people: Rows) -> dict[str, dict[str, float]]:
    """The share of answers that the gates of some requests stop, by form."""
    found: dict[str, list[bool]] = defaultdict(list)
    for authors in groups:
        rows = [row for author in authors for row in author]
        gate = AnswerGate([fit_answers([row["question"] for row in rows], [row["answer"] for row in rows])])
        told = [one for author in authors for one in about_them(author)]
        for form, prompt, answer in [*told, *about_others(authors, kept, people)]:
            found[form].append(bool(gate.judge(prompt, answer).any()))
        for form, before, asked, answer in in_chats(authors, kept, people):
            found[form].append(bool(gate.judge(before + asked, answer, asked).any()))
    return {
        form: {"answers": len(hits), "stopped": round(sum(hits) / len(hits), DIGITS)}
        for form, hits in found.items()
    }


def main(path: str) -> None:
    """Writes the figures of both members, with and without the rule."""
    rows = list({row["question"]: row for row in read("tofu/forget10_perturbed.json")}.values())
    authors = [rows[start : start + ROWS] for start in range(0, len(rows), PER_AUTHOR)]
    names = {" ".join(name) for row in rows if (name := split_name(row["question"]))}
    kept = [row for row in read("tofu/retain90.json") if not any(name in json.dumps(row) for name in names)]
    people = read("real_world/neighbor.jsonl")[::9]
    half = len(authors) // 2
    found: dict[str, dict[str, Any]] = {}
    for member, own in (("development", authors[:half]), ("test", authors[half:])):
        for rule in ("with", "without"):
            for size in SIZES:
                groups = [own[start : start + size] for start in range(0, half, size)]
                with ExitStack() as stack:
                    for target in RULES if rule == "without" else ():
                        stack.enter_context(patch(target, lambda _: True))
                    table = found.setdefault(member, {}).setdefault(rule, {})
                    table[f"authors in a request: {size}"] = measure(groups, kept, people)
    write_json(Path(path), {**found, "environment": describe_environment()})


if __name__ == "__main__":
    main(*sys.argv[1:])
