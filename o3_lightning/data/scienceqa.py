"""ScienceQA in the format of O3: each topic is a request, two other question sets are utility."""

import re

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.records import Record
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.sources import HubFile, load_records, local_root, read_hub, try_records
from o3_lightning.data.stream import RequestStream, check_known, with_retain

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


@BENCHMARKS.register("scienceqa")
def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns one request per topic, and CommonsenseQA, OpenbookQA and other topics as utility.

    Topics are read from local files "<topic>_train.jsonl"; if there are none, the text-only rows of the Hub
    are converted to the format of O3. Wrong answers are the other options of the question; O3's own random
    labels also include the right letter and letters that are not options.

    Args:
        config: `requests` lists topics in order; empty takes the order of O3.
        seed: not used.

    Raises:
        InputError: a file is missing or malformed, or a topic is unknown.

    Source: Lu et al. 2022; O3 (Gao et al. 2025), `preprocess_scienceqa.py`.
    """
    by_topic = local_topics(config) or hub_topics(config)
    order = [topic for topic in O3_ORDER if topic in by_topic]
    order += sorted(topic for topic in by_topic if topic not in O3_ORDER)
    check_known(config.requests, order, "topic")
    forgotten = list(config.requests) or order[: config.count or None]
    requests = tuple(UnlearningRequest(topic, by_topic[topic]) for topic in forgotten)
    kept = [row for topic, rows in by_topic.items() if topic not in forgotten for row in rows]
    splits, test = test_splits(config, forgotten)
    utility = with_retain(splits, kept, config.retain_rows)
    return RequestStream("scienceqa", requests, utility, test=test, other_tasks=tuple(HUB_CHOICES))


def local_topics(config: DataConfig) -> dict[str, tuple[QuestionAnswer, ...]]:
    """Returns the rows of each local topic file, by topic."""
    folder = local_root(config) / "scienceqa"
    topics = {}
    for path in sorted(folder.glob("*_train.jsonl")):
        records = load_records(config, f"scienceqa/{path.name}", FIELDS)
        topics[path.name.removesuffix("_train.jsonl")] = tuple(to_row(record) for record in records)
    return topics


def hub_topics(config: DataConfig) -> dict[str, tuple[QuestionAnswer, ...]]:
    """Returns the text-only rows of the topics of O3 on the Hub, by topic."""
    if not config.download:
        folder = local_root(config) / "scienceqa"
        raise InputError("no *_train.jsonl here, and data.download is off", path=folder)
    topics: dict[str, list[QuestionAnswer]] = {}
    for record in read_hub(HubFile(HUB)):
        if record.values.get("image") is None and record.values.get("topic") in O3_ORDER:
            topics.setdefault(record.text("topic"), []).append(to_row(in_o3_form(record)))
    return {topic: tuple(rows) for topic, rows in topics.items()}


def in_o3_form(record: Record) -> Record:
    """Returns a row of ScienceQA on the Hub in the format of O3."""
    choices = record.texts("choices")
    index = record.values.get("answer")
    if not isinstance(index, int) or not 0 <= index < len(choices) <= len(LETTERS):
        raise record.error("expected the index of an option", "answer")
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    hint = record.values.get("hint") or "N/A"
    instruction = f"Context: {hint}\nQuestion: {record.text('question')}\nOptions: {options}\n"
    return o3_record(record, instruction, LETTERS[index])


def o3_record(record: Record, instruction: str, letter: str) -> Record:
    """Returns a question in the format of O3 at the position of another record."""
    values = {"instruction": instruction, "output": ANSWER.format(letter), "answer": letter}
    return Record(values, record.path, record.line)


def test_splits(
    config: DataConfig, forgotten: list[str]
) -> tuple[dict[str, tuple[QuestionAnswer, ...]], dict[str, tuple[QuestionAnswer, ...]]]:
    """Returns the utility splits, and the test rows about each forgotten topic."""
    splits: dict[str, tuple[QuestionAnswer, ...]] = {}
    test: dict[str, tuple[QuestionAnswer, ...]] = {}
    for path in sorted((local_root(config) / "scienceqa").glob("*_test.jsonl")):
        records = try_records(config, f"scienceqa/{path.name}", FIELDS) or []
        by_topic: dict[str, list[QuestionAnswer]] = {name: [] for name in forgotten}
        kept: list[QuestionAnswer] = []
        for record in records:
            by_topic.get(str(record.values.get("topic")), kept).append(to_row(record))
        test |= {topic: (*test.get(topic, ()), *rows) for topic, rows in by_topic.items() if rows}
        name = path.name.removesuffix("_test.jsonl")
        if kept:
            split = name if name in HUB_CHOICES else "other_topics"
            splits[split] = (*splits.get(split, ()), *kept)
    for name, hub in HUB_CHOICES.items():
        if name not in splits:
            found = try_records(config, f"scienceqa/{name}.hub.jsonl", ("question", "choices"), hub)
            splits.update({name: tuple(to_row(choice_row(record)) for record in found)} if found else {})
    return splits, test


def choice_row(record: Record) -> Record:
    """Returns a row of CommonsenseQA or OpenbookQA on the Hub in the format of O3."""
    choices = record.values.get("choices")
    if not isinstance(choices, dict) or not isinstance(choices.get("text"), list):
        raise record.error("expected labels and texts", "choices")
    options = " ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, choices["text"], strict=False))
    instruction = f"Question: {record.text('question')}\nOptions: {options}\n"
    return o3_record(record, instruction, record.text("answer"))


def options_of(instruction: str) -> tuple[str, ...]:
    """Returns the letters of the options of a question.

    Example:
        >>> options_of("Which? Options: (A) this (B) that")
        ('A', 'B')
    """
    options = instruction.rpartition("Options:")[2]
    return tuple(dict.fromkeys(re.findall(r"\(([A-H])\)", options)))


def to_row(record: Record) -> QuestionAnswer:
    """Returns a multiple-choice row with its other options as wrong answers."""
    instruction, letter = record.text("instruction"), record.text("answer")
    letters = options_of(instruction)
    if letter not in letters:
        raise record.error(f"expected one of the options {', '.join(letters)}, got {letter!r}", "answer")
    wrong = tuple(ANSWER.format(other) for other in letters if other != letter)
    return QuestionAnswer(instruction, record.text("output"), (), wrong)
