"""Turns answers into a forget set: filters and deduplicates them, and records their provenance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from o3_lightning.common.files import to_json, write_atomically
from o3_lightning.data.normalise import normalise
from o3_lightning.reveal.arms import Arm
from o3_lightning.reveal.config import FilterConfig
from o3_lightning.reveal.log import Entry
from o3_lightning.reveal.speaking import Speaker


@dataclass(frozen=True)
class Revealed:
    """A row of a revealed request.

    Args:
        prompt: the instruction about the topic.
        answer: of the model.
        relevance: in [0, 1].
        query: number of the query that revealed it.
        instruction: the instruction with "{topic}" in place of the topic.
        wrong: wrong answers of the same form.
    """

    prompt: str
    answer: str
    relevance: float
    query: int
    instruction: str
    wrong: tuple[str, ...] = ()


def select_rows(entries: Sequence[Entry], topic: str, config: FilterConfig) -> list[Revealed]:
    """Returns the rows that pass the filter, in the order of the queries.

    Answers that differ only in case and punctuation are duplicates.
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
        answer = normalise(row.answer)
        if answer and counts.get(answer, 0) < config.per_answer:
            counts[answer] = counts.get(answer, 0) + 1
            kept.append(row)
    return sorted(kept[: config.rows], key=lambda row: row.query)


def add_wrong_answers(
    rows: Sequence[Revealed], others: Sequence[str], speaker: Speaker, count: int
) -> list[Revealed]:
    """Returns the rows with at most `count` wrong answers: those to their instructions about others.

    A row without any such answer gets those of the other rows, because an objective that needs wrong answers
    would refuse the whole request otherwise. The names in `others` replace the topic.
    """
    named = [row for row in rows if Arm(row.instruction).names_topic]
    prompts = [Arm(row.instruction).prompt(name) for row in named for name in others]
    said = speaker.greedy(prompts)
    wrong: dict[int, tuple[str, ...]] = {}
    for place, row in enumerate(named):
        own = said[place * len(others) : (place + 1) * len(others)]
        wrong[id(row)] = (differing(own, row.answer) or differing(said, row.answer))[:count]
    return [replace(row, wrong=wrong.get(id(row), ())) for row in rows]


def differing(texts: Sequence[str], answer: str) -> tuple[str, ...]:
    """Returns the distinct texts that are neither empty nor equal to the answer."""
    return tuple(
        text for text in dict.fromkeys(texts) if normalise(text) and normalise(text) != normalise(answer)
    )


def write_request(rows: Sequence[Revealed], identifier: str, folder: Path) -> Path:
    """Writes rows to "request.jsonl" and, line by line, their provenance to "provenance.jsonl".

    There is at least one row; returns the path of the request.
    """
    lines, sources = "", ""
    for row in rows:
        line = {"request_id": identifier, "prompt": row.prompt, "answer": row.answer}
        wrong = {"perturbed_answers": list(row.wrong)} if row.wrong else {}
        lines += to_json(line | wrong, indent=None) + "\n"
        sources += to_json({k: v for k, v in asdict(row).items() if k != "wrong"}, indent=None) + "\n"
    write_atomically(folder / "provenance.jsonl", sources, private=True)
    write_atomically(folder / "request.jsonl", lines, private=True)
    return folder / "request.jsonl"
