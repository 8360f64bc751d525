"""ScienceQA in O3's preprocessing: a topic is one request, two other question sets are utility."""

from __future__ import annotations

import re
from collections.abc import Mapping

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.sources import HubFile, Record, load_records, local_root, read_hub, try_records
from o3_lightning.data.stream import RequestStream

__all__ = ["load", "options_of"]

O3_ORDER = ("biology", "physics", "chemistry", "economics", "earth-science")
FIELDS = ("instruction", "output", "answer")
LETTERS = "ABCDEFGH"
HUB = "derek-thomas/ScienceQA"
HUB_CHOICES = {
    "commonsenseqa": HubFile("tau/commonsense_qa", None, "validation", {"answerKey": "answer"}),
    "openbookqa": HubFile(
        "allenai/openbookqa", "main", "test", {"answerKey": "answer", "question_stem": "question"}
    ),
}
ANSWER = "Answer: The answer is {}."


def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns one request per topic, and CommonsenseQA, OpenbookQA and other topics as utility.

    A topic is a local file "<topic>_train.jsonl"; where there is none at all, the text-only rows of the Hub
    are brought into O3's form. Wrong answers are the other options that the question has; O3's own random
    labels also draw the right letter and letters that are no option.

    Args:
        config: `requests` names topics in order; empty takes O3's order.
        seed: not used; nothing is drawn.

    Raises:
        InputError: a file is missing or malformed, or a topic is unknown.

    Source: Lu et al. 2022; O3 (Gao et al. 2025), `preprocess_scienceqa.py`.
    """
    by_topic = local_topics(config) or hub_topics(config)
    order = [topic for topic in O3_ORDER if topic in by_topic]
    order += sorted(topic for topic in by_topic if topic not in O3_ORDER)
    forgotten = list(config.requests) or order
    unknown = [topic for topic in forgotten if topic not in by_topic]
    if unknown:
        message = f"no topic {unknown[0]!r}; there are {', '.join(order)}"
        raise InputError(message, field="data.requests")
    requests = tuple(UnlearningRequest(topic, by_topic[topic]) for topic in forgotten)
    return RequestStream("scienceqa", requests, utility_splits(config, forgotten))


def local_topics(config: DataConfig) -> dict[str, tuple[QuestionAnswer, ...]]:
    """Returns the rows of each local topic file, by topic."""
    folder = local_root(config) / "scienceqa"
    topics = {}
    for path in sorted(folder.glob("*_train.jsonl")):
        records = load_records(config, f"scienceqa/{path.name}", FIELDS)
        topics[path.name.removesuffix("_train.jsonl")] = tuple(to_row(record) for record in records)
    return topics


def hub_topics(config: DataConfig) -> dict[str, tuple[QuestionAnswer, ...]]:
    """Returns O3's topics from the Hub, text-only rows in O3's form."""
    if not config.download:
        folder = local_root(config) / "scienceqa"
        raise InputError("no *_train.jsonl here, and data.download is off", path=folder)
    topics: dict[str, list[QuestionAnswer]] = {}
    for record in read_hub(HubFile(HUB)):
        if record.values.get("image") is None and record.values.get("topic") in O3_ORDER:
            topics.setdefault(record.text("topic"), []).append(to_row(in_o3_form(record)))
    return {topic: tuple(rows) for topic, rows in topics.items()}


def in_o3_form(record: Record) -> Record:
    """Returns a row of the Hub with O3's instruction, output and letter."""
    choices = record.texts("choices")
    index = record.values.get("answer")
    if not isinstance(index, int) or not 0 <= index < len(choices) <= len(LETTERS):
        raise InputError("expected an option's index", path=record.path, line=record.line, field="answer")
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    hint = record.values.get("hint") or "N/A"
    instruction = f"Context: {hint}\nQuestion: {record.text('question')}\nOptions: {options}\n"
    values: Mapping[str, object] = {
        "instruction": instruction,
        "output": ANSWER.format(LETTERS[index]),
        "answer": LETTERS[index],
        "choices": list(choices),
    }
    return Record(values, record.path, record.line)


def utility_splits(config: DataConfig, forgotten: list[str]) -> dict[str, tuple[QuestionAnswer, ...]]:
    """Returns the local test sets that are not about a forgotten topic."""
    splits = {}
    for path in sorted((local_root(config) / "scienceqa").glob("*_test.jsonl")):
        records = try_records(config, f"scienceqa/{path.name}", FIELDS) or []
        kept = tuple(to_row(record) for record in records if record.values.get("topic") not in forgotten)
        name = path.name.removesuffix("_test.jsonl")
        if kept:
            splits[name if name in HUB_CHOICES else "other_topics"] = kept
    for name, hub in HUB_CHOICES.items():
        if name not in splits:
            found = try_records(config, f"scienceqa/{name}.hub.jsonl", ("question", "choices"), hub)
            splits.update({name: tuple(to_row(choice_row(record)) for record in found)} if found else {})
    return splits


def choice_row(record: Record) -> Record:
    """Returns a row of CommonsenseQA or OpenbookQA on the Hub in O3's form."""
    choices = record.values.get("choices")
    if not isinstance(choices, dict) or not isinstance(choices.get("text"), list):
        raise InputError("expected labels and texts", path=record.path, line=record.line, field="choices")
    options = " ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, choices["text"], strict=False))
    letter = record.text("answer")
    instruction = f"Question: {record.text('question')}\nOptions: {options}\n"
    values = {"instruction": instruction, "output": ANSWER.format(letter), "answer": letter}
    return Record(values, record.path, record.line)


def options_of(instruction: str) -> tuple[str, ...]:
    """Returns the letters that a question offers.

    Example:
        >>> options_of("Which? Options: (A) this (B) that")
        ('A', 'B')
    """
    listed = instruction.rpartition("Options:")[2]
    found = re.findall(r"\(([A-H])\)", listed)
    return tuple(dict.fromkeys(found))


def to_row(record: Record) -> QuestionAnswer:
    """Returns a multiple-choice row whose wrong answers are its other options."""
    instruction, letter = record.text("instruction"), record.text("answer")
    letters = options_of(instruction)
    if letter not in letters:
        message = f"expected one of the options {', '.join(letters)}, got {letter!r}"
        raise InputError(message, path=record.path, line=record.line, field="answer")
    wrong = tuple(ANSWER.format(other) for other in letters if other != letter)
    return QuestionAnswer(instruction, record.text("output"), (), wrong)
