"""The arms of the bandit: instructions, as text from a generated pool or as soft prompts.

Shapes: S soft tokens, D width of the model's embeddings, Z dimensions of a soft prompt's point.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.reveal.phrases import (
    GENERAL_SUBJECTS,
    HEADS,
    PROPERTIES,
    STYLES,
    TOPIC_SUBJECTS,
    VERBS,
    WH_WORDS,
)

__all__ = ["TOPIC", "Arm", "ArmsConfig", "build_arms", "general_texts", "topic_texts"]

TOPIC = "{topic}"
FAMILIES = ("text", "soft")


@dataclass(frozen=True)
class ArmsConfig:
    """Which instructions there are to choose from.

    Args:
        family: "text" (questions from a generated pool) or "soft" (points of a Sobol sequence, mapped to
            soft tokens before a fixed question, as INSTINCT does).
        pool: instructions in all, at least 1; 10000 in INSTINCT.
        general_subjects: how many subjects that have nothing to do with the topic compete with it for a
            place in an instruction, 0 to 90; 0 names the topic in every instruction. More is a harder
            search.
        phrases: a text file with one instruction a line, "{topic}" standing for the topic, in place of the
            generated pool; None generates.
        rewrites: instructions of the pool that the model itself says in other words; what still names the
            topic joins the pool. For models that follow instructions; 0 for none.
        rewrite_prompt: what asks for a rewrite; "{instruction}" stands for the instruction.
        soft_tokens: S, at least 1; 5 as in INSTINCT.
        soft_dimensions: Z, 1 to 1000; 10 as in INSTINCT.
        soft_scale: factor of the soft tokens; the projection's entries are uniform in (-1, 1) as in INSTINCT.
        soft_question: the question that follows the soft tokens.

    Raises:
        InputError: an unknown family, or a number outside its range.
    """

    family: str = "text"
    pool: int = 10_000
    general_subjects: int = 0
    phrases: str | None = None
    rewrites: int = 0
    rewrite_prompt: str = "Say this in other words, and nothing else: {instruction}"
    soft_tokens: int = 5
    soft_dimensions: int = 10
    soft_scale: float = 1.0
    soft_question: str = "{topic}?"

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            refuse("family", f"one of {', '.join(FAMILIES)}", repr(self.family))
        for field in ("pool", "soft_tokens", "soft_dimensions"):
            if getattr(self, field) < 1:
                refuse(field, "1 or more", getattr(self, field))
        if not 0 <= self.general_subjects <= len(GENERAL_SUBJECTS):
            refuse("general_subjects", f"0 to {len(GENERAL_SUBJECTS)}", self.general_subjects)
        if self.rewrites < 0:
            refuse("rewrites", "0 or more", self.rewrites)
        if not 0 < self.soft_scale < float("inf"):
            refuse("soft_scale", "a number above 0", self.soft_scale)


def refuse(field: str, expected: str, value: object) -> None:
    """Raises the error of a field."""
    raise InputError(f"expected {expected}, got {value}", field=f"arms.{field}")


@dataclass(frozen=True)
class Arm:
    """One instruction.

    Args:
        text: with "{topic}" where the topic stands; an arm may do without.
        soft: soft tokens [S, D] that stand before it; None for text alone.
    """

    text: str
    soft: Tensor | None = None

    @property
    def names_topic(self) -> bool:
        """Whether the instruction mentions the topic."""
        return TOPIC in self.text

    def prompt(self, topic: str) -> str:
        """Returns the instruction about a topic.

        Example:
            >>> Arm("What is {topic}?").prompt("a lemon")
            'What is a lemon?'
        """
        return self.text.replace(TOPIC, topic)


def build_arms(config: ArmsConfig, seed: int, width: int) -> list[Arm]:
    """Returns the pool of a seed.

    Args:
        config: family and size; a smaller supply gives a smaller pool.
        seed: draws the pool.
        width: D, of soft tokens.

    Raises:
        InputError: the file of phrases is missing, or holds no instruction.
    """
    if config.family == "soft":
        return soft_arms(config, seed, width)
    texts = (
        generated_texts(config.general_subjects) if config.phrases is None else read_phrases(config.phrases)
    )
    draw = random.Random(f"arms-{seed}")  # noqa: S311  # a game of dice, not a secret
    chosen = draw.sample(texts, min(config.pool, len(texts)))
    return [Arm(text) for text in chosen]


def generated_texts(general_subjects: int) -> list[str]:
    """Returns every instruction of the grammar; each subject has as many as any other.

    With general subjects the topic alone competes with them, and what belongs to it ("the mother of ...")
    shares its place, so that one instruction in 1 + `general_subjects` is about the topic.
    """
    texts = questions(TOPIC_SUBJECTS)
    if general_subjects:
        others = questions(GENERAL_SUBJECTS[:general_subjects])
        draw = random.Random(0)  # noqa: S311
        wanted = len(others) // general_subjects
        texts = draw.sample(texts, min(wanted, len(texts))) + others
    return [style.format(q=text) for style in STYLES for text in texts]


def topic_texts() -> list[str]:
    """Returns every question about the topic, without styles."""
    return questions(TOPIC_SUBJECTS)


def general_texts() -> list[str]:
    """Returns every question about general subjects, without styles."""
    return questions(GENERAL_SUBJECTS)


def questions(subjects: Sequence[str]) -> list[str]:
    """Returns every question about some subjects."""
    return [
        text
        for subject in subjects
        for text in (
            *(head.replace("{p}", item).replace("{s}", subject) for head in HEADS for item in PROPERTIES),
            *(f"{word} {verb.replace('{s}', subject)}?" for word in WH_WORDS for verb in VERBS),
        )
    ]


def read_phrases(path: str) -> list[str]:
    """Returns the instructions of a file, each once."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", path=path, field="arms.phrases") from error
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise InputError("expected one instruction a line, found none", path=path, field="arms.phrases")
    return texts


def soft_arms(config: ArmsConfig, seed: int, width: int) -> list[Arm]:
    """Returns points of a Sobol sequence, mapped to soft tokens by one fixed random projection.

    Source:
        INSTINCT: z in [0, 1]^Z from a scrambled Sobol sequence times a U(-1, 1) matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    engine: Any = torch.quasirandom.SobolEngine
    points = engine(config.soft_dimensions, scramble=True, seed=seed).draw(config.pool)
    projection = 2 * torch.rand(config.soft_dimensions, config.soft_tokens * width, generator=generator) - 1
    tokens = (points @ projection).view(config.pool, config.soft_tokens, width) * config.soft_scale
    return [Arm(config.soft_question, soft) for soft in tokens]
