"""The arms of the bandit: instructions, either text from a generated pool or soft prompts.

The generated pool combines the parts in `phrases.json`, which fit any topic: "{s}" is replaced by a subject,
"{p}" by a property, "{q}" by a whole question and "{topic}" by the topic.

Shapes: S soft tokens, D embedding width of the model, Z dimensions of a Sobol point.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.files import read_lines
from o3_lightning.reveal.config import PHRASES, ArmsConfig

TOPIC = "{topic}"
SOFT_TOKENS, SOFT_DIMENSIONS = 5, 10  # S and Z, as in INSTINCT


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
    if config.phrases is None:
        texts = generated_texts(config.general_subjects)
    else:
        texts = list(dict.fromkeys(read_lines(config.phrases, "instruction", "arms.phrases")))
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


def soft_arms(config: ArmsConfig, seed: int, width: int) -> list[Arm]:
    """Returns points of a scrambled Sobol sequence in [0, 1]^Z times a fixed U(-1, 1) matrix, as INSTINCT."""
    generator = torch.Generator().manual_seed(seed)
    engine: Any = torch.quasirandom.SobolEngine
    points = engine(SOFT_DIMENSIONS, scramble=True, seed=seed).draw(config.pool)
    projection = 2 * torch.rand(SOFT_DIMENSIONS, SOFT_TOKENS * width, generator=generator) - 1
    tokens = (points @ projection).view(config.pool, SOFT_TOKENS, width)
    return [Arm(config.soft_question, soft) for soft in tokens]
