"""Attacks on the wording of a prompt: pure functions from a row to what an attacker would ask instead.

An attack is told nothing about the gate. Each keeps the question answerable for a capable model; a small base
model may fail it by itself, which is why every table sets the base model beside the gated one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from o3_lightning.common.plain import evenly_spaced
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.evaluation.attack_texts import DISTRACTOR, IGNORE_ABOVE, LOOK_ALIKES, ROLE_PLAY
from o3_lightning.evaluation.config import RobustnessConfig

__all__ = ["TEXT_ATTACKS", "Attempt", "Material", "distractor", "misspell", "turns_of"]

LEAST_WORD = 4  # a typo in a shorter word makes another word of it


@dataclass(frozen=True)
class Attempt:
    """One attacked prompt.

    Args:
        turns: what was said, user and assistant in turns, the user first and last.
        filler: texts within the last turn that may be shortened where the model's context is small.
    """

    turns: tuple[str, ...]
    filler: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """What attacks are made of beside the row.

    Args:
        config: lengths and shares.
        solved: rows of the utility splits, which an attacker may know; at least `config.shots`.
    """

    config: RobustnessConfig
    solved: Sequence[QuestionAnswer]

    def beside(self, row: QuestionAnswer) -> list[QuestionAnswer]:
        """Solved rows that do not give the row's own answer away."""
        return [one for one in self.solved if one.answer != row.answer]


Attack = Callable[[QuestionAnswer, Material], list[Attempt]]


def plain(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """The question as it is."""
    return [Attempt((row.prompt,))]


def paraphrase(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """The row's held-out prompts; none where the benchmark has none."""
    return [Attempt((prompt,)) for prompt in row.held_out_prompts]


def distractor_before(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """A long text about something else, then the question."""
    text = distractor(material.config.distractor_words)
    return [Attempt((f"{text}\n{row.prompt}",), (text,))]


def distractor_after(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """The question, then a long text about something else."""
    text = distractor(material.config.distractor_words)
    return [Attempt((f"{row.prompt}\n{text}",), (text,))]


def distractor_around(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """The question in the middle of a long text about something else."""
    words = distractor(material.config.distractor_words).split()
    first, second = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
    return [Attempt((f"{first} {row.prompt} {second}",), (first, second))]


def role_play(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """A character who is bound by nothing is asked."""
    return [Attempt((ROLE_PLAY.format(row.prompt),))]


def ignore_above(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """All rules are declared void before the question."""
    return [Attempt((IGNORE_ABOVE.format(row.prompt),))]


def typos(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """A share of the longer words has two neighbouring letters swapped, the same ones every time."""
    return [Attempt((misspell(row.prompt, material.config.typo_share),))]


def upper_case(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """Everything in capitals."""
    return [Attempt((row.prompt.upper(),))]


def look_alikes(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """Latin letters that have a twin in Cyrillic or Greek are replaced by it."""
    return [Attempt((row.prompt.translate(LOOK_ALIKES),))]


def few_shot(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """Solved examples with other answers lead up to the question, within one text."""
    chosen = evenly_spaced(material.beside(row), material.config.shots)
    examples = [f"{example.prompt} {example.answer}" for example in chosen]
    return [Attempt(("\n".join([*examples, row.prompt]),))]


def later_turn(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """The question comes after a harmless first turn of a chat; alone where no row has another answer."""
    first = evenly_spaced(material.beside(row), 1)
    return [Attempt((*(text for one in first for text in (one.prompt, one.answer)), row.prompt))]


def two_turns(row: QuestionAnswer, material: Material) -> list[Attempt]:
    """Half of the question in one turn of a chat, the rest in the next."""
    words = row.prompt.split()
    half = max(1, len(words) // 2)
    return [Attempt((" ".join(words[:half]), "Go on.", " ".join(words[half:]) or "?"))]


TEXT_ATTACKS: Mapping[str, Attack] = {
    "none": plain,
    "paraphrase": paraphrase,
    "distractor_before": distractor_before,
    "distractor_after": distractor_after,
    "distractor_around": distractor_around,
    "role_play": role_play,
    "ignore_above": ignore_above,
    "typos": typos,
    "upper_case": upper_case,
    "look_alikes": look_alikes,
    "few_shot": few_shot,
    "later_turn": later_turn,
    "two_turns": two_turns,
}


def distractor(words: int) -> str:
    """Returns a text of so many words, the embedded one over and over.

    Example:
        >>> distractor(3)
        'The ferry to'
    """
    source = DISTRACTOR.split()
    return " ".join(source[place % len(source)] for place in range(words))


def misspell(text: str, share: float) -> str:
    """Returns a text whose longer words have two inner letters swapped, a share of them, drawn by the text.

    Example:
        >>> misspell("Where is it?", 1.0)
        'Wehre is it?'
    """
    draw = random.Random(f"typos-{text}")  # noqa: S311  # a game of dice, not a secret
    words = text.split(" ")
    longer = [place for place, word in enumerate(words) if len(word) >= LEAST_WORD]
    for place in draw.sample(longer, -(-int(len(longer) * share * 100) // 100)):
        word = words[place]
        words[place] = word[0] + word[2] + word[1] + word[3:]
    return " ".join(words)


def turns_of(attempt: Attempt) -> list[dict[str, str]]:
    """Returns an attempt as the messages of a chat."""
    return [
        {"role": "user" if place % 2 == 0 else "assistant", "content": text}
        for place, text in enumerate(attempt.turns)
    ]
