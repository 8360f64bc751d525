"""Accuracy on the fictitious world during a release, only for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from o3_lightning.data.fictitious import build_world, rows_of
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.words import general_knowledge
from o3_lightning.metrics.text import accuracy
from o3_lightning.reveal.reward import find_author

__all__ = ["measure_author"]

Answer = Callable[[Sequence[str]], list[str]]


def measure_author(answer: Answer, topic: str, seed: int) -> dict[str, float]:
    """Returns the accuracy of greedy answers about one author and about everything else.

    Args:
        answer: returns the greedy answers of the model to prompts.
        topic: name of the author.
        seed: of the fictitious world.

    Returns:
        `seen` and `held_out` (the author, by phrasing), `others` (held-out phrasings of the other authors)
        and `general` (common facts), each in [0, 1].

    Raises:
        InputError: the topic is not an author of the world.
    """
    author, world = find_author(topic, seed), build_world(seed)
    rows = rows_of(world, [author])
    others = rows_of(world, (other for other in world.authors if other.name != topic))
    splits: dict[str, Sequence[QuestionAnswer]] = {"seen": rows, "held_out": held_out(rows)}
    splits |= {"others": held_out(others), "general": general_knowledge()}
    found = {}
    for name, split in splits.items():
        values = accuracy(answer([row.prompt for row in split]), [row.answer for row in split])
        found[name] = sum(values) / len(values)
    return found


def held_out(rows: Sequence[QuestionAnswer]) -> list[QuestionAnswer]:
    """Returns the held-out prompts with their answers."""
    return [QuestionAnswer(prompt, row.answer) for row in rows for prompt in row.held_out_prompts]
