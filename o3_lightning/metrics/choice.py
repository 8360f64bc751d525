"""Multiple-choice accuracy; an answer that names no option counts neither as right nor as wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

from o3_lightning.data.normalise import normalise
from o3_lightning.metrics.registry import metric

__all__ = ["chosen_letter", "multiple_choice", "unparseable"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STATEMENT = re.compile(r"\b[Aa]nswer(?:\s+is)?\s*:?\s*\(?([A-Z])(?=[.,;:!?)]|\s*$)", re.MULTILINE)
ALONE = re.compile(r"\(?([A-Z])\)?[.:)]?")


def chosen_letter(answer: str, options: Sequence[str]) -> str | None:
    """Returns the letter of the one option that an answer names; None if it names none or several.

    An answer names an option by "the answer is B" (also "Answer: B", "(B)"), by the letter alone, by letter
    and text ("B. Paris"), or by the option's text alone. Letters beyond the options do not count.

    Args:
        answer: the generated text.
        options: the option texts, "A" first; at least one.

    Source:
        O3's `eval_o3.py` accepts only one match of `The answer is ([A-Z]).` and counts everything else as
        wrong; here "Answer: The answer is B." and a repeated "The answer is B." are read as B.

    Example:
        >>> options = ["Rome", "Paris"]
        >>> chosen_letter("Answer: The answer is B.", options), chosen_letter("paris", options)
        ('B', 'B')
        >>> chosen_letter("The answer is A. The answer is B.", options) is None
        True
    """
    known, text = dict(zip(LETTERS, options, strict=False)), answer.strip()
    named = set(STATEMENT.findall(text))
    if not named:
        alone, said = ALONE.fullmatch(text), normalise(text)
        named = (
            {alone.group(1)}
            if alone
            else {
                letter
                for letter, option in known.items()
                if said and said in (normalise(option), normalise(f"{letter} {option}"))
            }
        )
    named &= known.keys()
    return named.pop() if len(named) == 1 else None


@metric(
    "multiple_choice",
    "answers",
    "truths",
    "choices",
    meaning="whether the answer names the right option; no value where it names none",
)
def multiple_choice(
    answers: Sequence[str], truths: Sequence[str], options: Sequence[Sequence[str]]
) -> list[float | None]:
    """Returns 1.0 where an answer names the right option, 0.0 for a wrong one, None where it names none.

    Args:
        answers: B generated texts.
        truths: B true answers; each has to name one of its options.
        options: per example the option texts, "A" first.

    Raises:
        ValueError: the lists differ in length, or a truth names no option.

    Example:
        >>> multiple_choice(["B", "A", "gl gl"], ["B", "B", "B"], [["Rome", "Paris"]] * 3)
        [1.0, 0.0, None]
    """
    values: list[float | None] = []
    for answer, truth, texts in zip(answers, truths, options, strict=True):
        right = chosen_letter(truth, texts)
        if right is None:
            raise ValueError(f"expected a truth that names one of {len(texts)} options, got {truth!r}")
        said = chosen_letter(answer, texts)
        values.append(None if said is None else float(said == right))
    return values


def unparseable(values: Sequence[float | None]) -> int:
    """Returns the number of examples without a value."""
    return sum(value is None for value in values)
