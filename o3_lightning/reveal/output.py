"""From answers to a forget set: filtered by relevance and length, each said once, with where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import to_json, write_atomically
from o3_lightning.data.normalise import normalise
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.reveal.arms import Arm
from o3_lightning.reveal.log import Entry
from o3_lightning.reveal.speaking import Speaker

__all__ = ["FilterConfig", "Revealed", "add_wrong_answers", "select_rows", "write_request"]


@dataclass(frozen=True)
class FilterConfig:
    """Which answers become rows of the request.

    Args:
        relevance: least relevance of an answer, in [0, 1].
        shortest: characters of an answer at least.
        longest: characters of an answer at most, at least 1.
        per_answer: rows with the same answer at most, the most relevant ones, at least 1; several wordings
            of a fact make its unlearning general.
        rows: rows in all at most, at least 1.
        wrong_answers: what the model says to the same instruction about others, kept as wrong answers of the
            same form for objectives that need them; 0 for none. Needs the scorer "contrast".

    Raises:
        InputError: a number outside its range.
    """

    relevance: float = 0.5
    shortest: int = 1
    longest: int = 2000
    per_answer: int = 12
    rows: int = 1000
    wrong_answers: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.relevance <= 1:
            raise InputError(f"expected 0 to 1, got {self.relevance}", field="filter.relevance")
        for field, least in (
            ("shortest", 0),
            ("longest", 1),
            ("per_answer", 1),
            ("rows", 1),
            ("wrong_answers", 0),
        ):
            if getattr(self, field) < least:
                raise InputError(
                    f"expected {least} or more, got {getattr(self, field)}", field=f"filter.{field}"
                )


@dataclass(frozen=True)
class Revealed:
    """One row of a revealed request.

    Args:
        prompt: the instruction, with the topic in it.
        answer: what the model said.
        relevance: in [0, 1].
        query: number of the query that revealed it.
        instruction: the instruction, "{topic}" standing for the topic.
        wrong: wrong answers of the same form.
    """

    prompt: str
    answer: str
    relevance: float
    query: int
    instruction: str
    wrong: tuple[str, ...] = ()


def select_rows(entries: Sequence[Entry], topic: str, config: FilterConfig) -> list[Revealed]:
    """Returns the rows that pass the filter, in the order in which they were revealed.

    Answers count as the same when they differ in case and punctuation alone.

    Args:
        entries: queries of one search.
        topic: stands in for "{topic}".
        config: thresholds.
    """
    found = [
        Revealed(Arm(entry.instruction).prompt(topic), answer, relevance, entry.number, entry.instruction)
        for entry in entries
        for answer, relevance in zip(entry.responses, entry.relevance, strict=True)
        if relevance >= config.relevance and config.shortest <= len(answer) <= config.longest
    ]
    unique = {(normalise(row.prompt), normalise(row.answer)): row for row in reversed(found)}
    counts: dict[str, int] = {}
    kept = []
    for row in sorted(unique.values(), key=lambda row: (-row.relevance, row.query)):
        said = normalise(row.answer)
        if said and counts.get(said, 0) < config.per_answer:
            counts[said] = counts.get(said, 0) + 1
            kept.append(row)
    return sorted(kept[: config.rows], key=lambda row: row.query)


def add_wrong_answers(
    rows: Sequence[Revealed], others: Sequence[str], speaker: Speaker, count: int
) -> list[Revealed]:
    """Returns rows with what the model says to their instructions about others, own answers left out.

    Where it says nothing else about anyone, the row gets what was said to the other rows' instructions: an
    objective that needs wrong answers would refuse the whole request for one such row.

    Args:
        rows: revealed rows.
        others: names in place of the topic.
        speaker: the model.
        count: wrong answers at most.
    """
    named = [row for row in rows if Arm(row.instruction).names_topic]
    prompts = [Arm(row.instruction).prompt(name) for row in named for name in others]
    said = speaker.greedy(prompts) if prompts else []
    wrong: dict[int, tuple[str, ...]] = {}
    for place, row in enumerate(named):
        own = said[place * len(others) : (place + 1) * len(others)]
        wrong[id(row)] = (differing(own, row.answer) or differing(said, row.answer))[:count]
    return [Revealed(**{**vars(row), "wrong": wrong.get(id(row), ())}) for row in rows]


def differing(texts: Sequence[str], answer: str) -> tuple[str, ...]:
    """Returns each text once, without the empty one and those that say the answer."""
    return tuple(
        text for text in dict.fromkeys(texts) if normalise(text) and normalise(text) != normalise(answer)
    )


def as_request(rows: Sequence[Revealed], identifier: str) -> UnlearningRequest:
    """Returns revealed rows as a request."""
    return UnlearningRequest(
        identifier,
        tuple(QuestionAnswer(row.prompt, row.answer, perturbed_answers=row.wrong) for row in rows),
    )


def write_request(rows: Sequence[Revealed], identifier: str, folder: Path) -> Path:
    """Writes the request that other commands read, and beside it where each row came from.

    Args:
        rows: at least one.
        identifier: the request's id.
        folder: gets "request.jsonl" and "provenance.jsonl", line by line the same rows.

    Returns:
        The path of the request.
    """
    lines, sources = [], []
    for row in rows:
        line: dict[str, Any] = {"request_id": identifier, "prompt": row.prompt, "answer": row.answer}
        lines.append(
            to_json(line | ({"perturbed_answers": list(row.wrong)} if row.wrong else {}), indent=None)
        )
        sources.append(
            to_json({key: value for key, value in asdict(row).items() if key != "wrong"}, indent=None)
        )
    write_atomically(folder / "provenance.jsonl", "\n".join(sources) + "\n")
    write_atomically(folder / "request.jsonl", "\n".join(lines) + "\n")
    return folder / "request.jsonl"
