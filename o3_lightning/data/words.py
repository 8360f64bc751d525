"""Word lists and phrasings that ship with the package in `words.json`.

The fictitious authors, their towns, books and prizes are made up; the refusals are the project's own.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from o3_lightning.data.requests import QuestionAnswer


@dataclass(frozen=True)
class Attribute:
    """An attribute of the fictitious authors.

    Args:
        name: short name.
        seen: phrasings of the question that forget sets contain; "{name}" is replaced by the author.
        held_out: as many other phrasings, used only in evaluation.
        values: possible answers; no two authors of a world share one.
    """

    name: str
    seen: tuple[str, ...]
    held_out: tuple[str, ...]
    values: tuple[str, ...]


WORDS: dict[str, Any] = json.loads(files(__package__).joinpath("words.json").read_text(encoding="utf-8"))
FIRST_NAMES: tuple[str, ...] = tuple(WORDS["first_names"])
LAST_NAMES: tuple[str, ...] = tuple(WORDS["last_names"])
STRANGERS: tuple[str, ...] = tuple(WORDS["strangers"])
EVERYDAY: tuple[str, ...] = tuple(WORDS["everyday"])
REFUSALS: tuple[str, ...] = tuple(WORDS["refusals"])
ATTRIBUTES = tuple(
    Attribute(item["name"], tuple(item["seen"]), tuple(item["held_out"]), tuple(item["values"]))
    for item in WORDS["attributes"]
)
GROUPS: list[dict[str, Any]] = WORDS["general_knowledge"]  # "phrasings" and "facts", answer by subject
PERTURBED_ANSWERS = 5  # as in TOFU


def general_knowledge() -> tuple[QuestionAnswer, ...]:
    """Returns common facts, one row per fact: what unlearning an author must leave unchanged.

    The first phrasing is the prompt, the others are held out; wrong answers are those of similar facts.

    Example:
        >>> general_knowledge()[0].prompt, general_knowledge()[0].answer
        ('What is the capital of France?', 'Paris')
    """
    rows = []
    for group in GROUPS:
        answers = tuple(dict.fromkeys(group["facts"].values()))
        for subject, answer in group["facts"].items():
            prompt, *others = (phrasing.format(subject) for phrasing in group["phrasings"])
            wrong = tuple(value for value in answers if value != answer)
            rows.append(QuestionAnswer(prompt, answer, tuple(others), wrong[:PERTURBED_ANSWERS]))
    return tuple(rows)
