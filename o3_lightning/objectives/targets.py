"""The answers an objective trains on instead of the true ones: refusals and wrong answers, drawn by row."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import read_lines
from o3_lightning.data.names import split_name
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.words import REFUSALS, STRANGERS
from o3_lightning.objectives.batch_views import (
    ANSWER,
    IMITATED,
    REFUSAL,
    RETAIN,
    RETAIN_REFUSAL,
    STRANGER,
    WRONG,
)
from o3_lightning.objectives.config import ObjectiveConfig

Pairs = tuple[list[str], list[str]]
LETTERS = "ABCDE"  # what the official code draws from, however many options a question has
LETTER = re.compile(r"(?<![A-Za-z])[A-E](?![A-Za-z'])")


def load_refusals(path: str | Path | None = None) -> tuple[str, ...]:
    """Returns refusals: of a file with one per line, see `read_lines`, or the embedded ones."""
    if path is None:
        return REFUSALS
    return tuple(read_lines(path, "refusal", "objective.forget.refusals"))


def draw_refusals(
    rows: Sequence[QuestionAnswer], refusals: Sequence[str], seed: int, count: int = 0
) -> list[str]:
    """Returns a refusal for each row; it depends on the seed and the row's index alone.

    At most `count` different refusals are used, chosen by the seed; 0 for all.
    """
    if 0 < count < len(refusals):
        refusals = random.Random(f"{seed}/refusals").sample(list(refusals), count)  # noqa: S311
    return [draw(seed, "refusal", index).choice(refusals) for index in range(len(rows))]


def draw_wrong_answers(rows: Sequence[QuestionAnswer], seed: int, *, official: bool = False) -> list[str]:
    """Returns a wrong answer for each row; it depends on the seed and the row's index alone.

    Args:
        rows: with `perturbed_answers`, unless `official`.
        seed: an integer.
        official: replace the letter of the answer by one from A to E, the true one included.

    Raises:
        InputError: a row has no wrong answer, or no letter where one is to be replaced.

    Example:
        >>> draw_wrong_answers([QuestionAnswer("Who?", "Ann", perturbed_answers=("Ann", "Bob"))], 0)
        ['Bob']
    """
    answers = []
    for index, row in enumerate(rows):
        chance = draw(seed, "wrong", index)
        if official:
            answers.append(replace_letter(row, chance.choice(LETTERS), index))
        else:
            answers.append(chance.choice(wrong_options(row, index)))
    return answers


def draw(seed: int, kind: str, index: int) -> random.Random:
    """Returns the random generator of one row."""
    return random.Random(f"{seed}/{kind}/{index}")  # noqa: S311 not for secrets


def draw_strangers(rows: Sequence[QuestionAnswer], seed: int) -> list[str]:
    """Returns each prompt with its name replaced by a made-up one, drawn by the seed and the row's index.

    Raises:
        InputError: a prompt has no name of two words.
    """
    prompts = []
    for index, row in enumerate(rows):
        name = split_name(row.prompt)
        if name is None:
            message = (
                f"'imitate' replaces the name in each prompt, row {index + 1} has none: {row.prompt[:60]!r}"
            )
            raise InputError(message, field="prompt")
        first, last = draw(seed, "stranger", index).sample(STRANGERS, 2)  # a pair that no model was shown
        prompts.append(row.prompt.replace(" ".join(name), f"{first.split()[0]} {last.split()[-1]}"))
    return prompts


def wrong_options(row: QuestionAnswer, index: int) -> list[str]:
    """Returns a row's wrong answers, without any that equals the true one."""
    options = [option for option in row.perturbed_answers if option.strip() != row.answer.strip()]
    if not options:
        message = f"random labels need wrong answers: row {index + 1} has no perturbed_answers"
        raise InputError(message, field="perturbed_answers")
    return options


def replace_letter(row: QuestionAnswer, letter: str, index: int) -> str:
    """Returns a row's answer with its last option letter replaced."""
    found = list(LETTER.finditer(row.answer))
    if not found:
        message = f"official labels need an answer with a letter from A to E: row {index + 1} has none"
        raise InputError(message, field="answer")
    return row.answer[: found[-1].start()] + letter + row.answer[found[-1].end() :]


def check_needs(
    objective: ObjectiveConfig, rows: Sequence[QuestionAnswer], retain: Sequence[QuestionAnswer] | None
) -> None:
    """Raises InputError if an objective lacks wrong answers, refusals, names or retained data it needs."""
    if WRONG in objective.forget.objective.views:
        draw_wrong_answers(rows, 0, official=objective.forget.official_labels)
    if STRANGER in objective.forget.objective.views:
        draw_strangers(rows, 0)
    load_refusals(objective.forget.refusals)
    if objective.needs_retained_data and (retain is None or len(retain) == 0):
        message = f"'{objective.retain.name}' needs retained data, none was given; 'none' does without"
        raise InputError(message, field="objective.retain.name")


def build_texts(
    objective: ObjectiveConfig, rows: Sequence[QuestionAnswer], seed: int, *, retained: bool = False
) -> dict[str, Pairs]:
    """Returns prompts and answers for each view that the forget (or retain) objective reads."""
    chosen, forget = (objective.retain if retained else objective.forget).objective, objective.forget
    true_view, refusal_view = (RETAIN, RETAIN_REFUSAL) if retained else (ANSWER, REFUSAL)
    prompts, texts = [row.prompt for row in rows], dict[str, Pairs]()
    for view in () if chosen is None else chosen.views:
        if view == true_view:
            texts[view] = prompts, [row.answer for row in rows]
        elif view == refusal_view:
            refusals = load_refusals(forget.refusals)
            texts[view] = prompts, draw_refusals(rows, refusals, seed, forget.refusal_count)
        elif view in (IMITATED, STRANGER):
            refusals = load_refusals(forget.refusals)
            answers = [
                draw(seed, "answer", index).choice(
                    [row.answer, *row.perturbed_answers[:1], refusals[index % len(refusals)]]
                )
                for index, row in enumerate(rows)
            ]
            texts[view] = prompts if view == IMITATED else draw_strangers(rows, seed), answers
        elif view == WRONG and not retained:
            texts[view] = prompts, draw_wrong_answers(rows, seed, official=forget.official_labels)
    return texts
