"""What the fictitious world says about a release: read for the report, never to decide anything."""

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
        answer: the model as it is now: from prompts to its likeliest answers.
        topic: the author's name.
        seed: of the fictitious world.

    Returns:
        `seen` and `held_out` (the author, by phrasing), `others` (held-out phrasings of the other authors)
        and `general` (common facts), each in [0, 1].

    Raises:
        InputError: the topic is no author of the world.
    """
    author = find_author(topic, seed)
    others = [other for other in build_world(seed).authors if other.name != topic]
    rows = rows_of(build_world(seed), [author])
    splits = {
        "seen": [(row.prompt, row.answer) for row in rows],
        "held_out": held_out(rows),
        "others": held_out(rows_of(build_world(seed), others)),
        "general": [(row.prompt, row.answer) for row in general_knowledge()],
    }
    return {name: mean_accuracy(answer, pairs) for name, pairs in splits.items()}


def held_out(rows: Sequence[QuestionAnswer]) -> list[tuple[str, str]]:
    """Returns held-out prompts with their answers."""
    return [(prompt, row.answer) for row in rows for prompt in row.held_out_prompts]


def mean_accuracy(answer: Answer, pairs: Sequence[tuple[str, str]]) -> float:
    """Returns the share of prompts whose answer says the truth."""
    values = accuracy(answer([prompt for prompt, _ in pairs]), [truth for _, truth in pairs])
    return sum(values) / len(values)
