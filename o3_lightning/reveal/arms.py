"""The arms of the bandit: instructions, either text from a generated pool or soft prompts.

The generated pool combines the parts in `phrases.json`, which fit any topic: "{s}" is replaced by a subject,
"{p}" by a property, "{q}" by a whole question and "{topic}" by the topic.

Shapes: S soft tokens, D embedding width of the model, Z dimensions of a Sobol point.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.checks import ANY_POSITIVE, AT_LEAST_0, AT_LEAST_1, check_choice, check_ranges
from o3_lightning.common.errors import InputError

__all__ = ["PHRASES", "TOPIC", "Arm", "ArmsConfig", "build_arms", "questions"]

TOPIC = "{topic}"
FAMILIES = ("text", "soft")
PHRASES: dict[str, list[str]] = json.loads(
    files(__package__).joinpath("phrases.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class ArmsConfig:
    """The pool of instructions.

    Args:
        family: "text" (questions from a generated pool) or "soft" (points of a Sobol sequence, mapped to
            soft tokens before a fixed question, as in INSTINCT).
        pool: number of instructions, at least 1; 10000 in INSTINCT.
        general_subjects: number of subjects unrelated to the topic that appear in instructions as often as
            the topic, 0 to 90; 0 names the topic in every instruction. More subjects make the search harder.
        phrases: text file with one instruction per line, in which "{topic}" is replaced by the topic; it
            replaces the generated pool. None generates the pool.
        rewrites: number of instructions that the model itself paraphrases; paraphrases that name the topic
            are added to the pool. For instruction-tuned models; 0 for none.
        rewrite_prompt: prompt that asks for a paraphrase; "{instruction}" is replaced by the instruction.
        soft_tokens: S, at least 1; 5 as in INSTINCT.
        soft_dimensions: Z, 1 to 1000; 10 as in INSTINCT.
        soft_scale: factor of the soft tokens, above 0; the entries of the projection are uniform in (-1, 1)
            as in INSTINCT.
        soft_question: question that follows the soft tokens.

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
        check_choice(self, "arms", "family", FAMILIES)
        check_ranges(
            self,
            "arms",
            pool=AT_LEAST_1,
            soft_tokens=AT_LEAST_1,
            soft_dimensions=AT_LEAST_1,
            general_subjects=(0, len(PHRASES["general_subjects"])),
            rewrites=AT_LEAST_0,
            soft_scale=ANY_POSITIVE,
        )


@dataclass(frozen=True)
class Arm:
    """One instruction.

    Args:
        text: the instruction, which may contain "{topic}".
        soft: soft tokens [S, D] that precede it; None for text alone.
    """

    text: str
    soft: Tensor | None = None

    @property
    def names_topic(self) -> bool:
        """Whether the instruction mentions the topic."""
        return TOPIC in self.text

    def prompt(self, topic: str) -> str:
        """Returns the instruction with the topic filled in.

        Example:
            >>> Arm("What is {topic}?").prompt("a lemon")
            'What is a lemon?'
        """
        return self.text.replace(TOPIC, topic)


def build_arms(config: ArmsConfig, seed: int, width: int) -> list[Arm]:
    """Returns the pool of instructions, smaller than configured if the grammar or file has fewer.

    `width` is D; it is used by soft prompts only.

    Raises:
        InputError: the file of phrases is missing, or contains no instruction.
    """
    if config.family == "soft":
        return soft_arms(config, seed, width)
    path = config.phrases
    texts = generated_texts(config.general_subjects) if path is None else read_phrases(path)
    draw = random.Random(f"arms-{seed}")  # noqa: S311
    return [Arm(text) for text in draw.sample(texts, min(config.pool, len(texts)))]


def generated_texts(general_subjects: int) -> list[str]:
    """Returns every instruction of the grammar.

    With general subjects, one instruction in 1 + `general_subjects` is about the topic: the topic and the
    subjects derived from it ("the mother of ...") share the number of questions of one general subject.
    """
    texts = questions("topic_subjects")
    if general_subjects:
        others = questions("general_subjects", general_subjects)
        draw = random.Random(0)  # noqa: S311
        wanted = len(others) // general_subjects
        texts = draw.sample(texts, min(wanted, len(texts))) + others
    return [style.format(q=text) for style in PHRASES["styles"] for text in texts]


def questions(subjects: str, count: int | None = None) -> list[str]:
    """Returns every question, without styles, about the "topic_subjects" or the first "general_subjects"."""
    heads = [head.replace("{p}", item) for head in PHRASES["heads"] for item in PHRASES["properties"]]
    forms = [*heads, *(f"{word} {verb}?" for word in PHRASES["wh_words"] for verb in PHRASES["verbs"])]
    return [form.replace("{s}", subject) for subject in PHRASES[subjects][:count] for form in forms]


def read_phrases(path: str) -> list[str]:
    """Returns the distinct instructions of a file."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", path=path, field="arms.phrases") from error
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise InputError("expected one instruction per line, got none", path=path, field="arms.phrases")
    return texts


def soft_arms(config: ArmsConfig, seed: int, width: int) -> list[Arm]:
    """Returns points of a scrambled Sobol sequence in [0, 1]^Z times a fixed U(-1, 1) matrix, as INSTINCT."""
    generator = torch.Generator().manual_seed(seed)
    engine: Any = torch.quasirandom.SobolEngine
    points = engine(config.soft_dimensions, scramble=True, seed=seed).draw(config.pool)
    projection = 2 * torch.rand(config.soft_dimensions, config.soft_tokens * width, generator=generator) - 1
    tokens = (points @ projection).view(config.pool, config.soft_tokens, width) * config.soft_scale
    return [Arm(config.soft_question, soft) for soft in tokens]
