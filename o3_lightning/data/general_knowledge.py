"""Short common facts in our own words: what unlearning an author must leave untouched."""

from __future__ import annotations

from dataclasses import dataclass

from o3_lightning.data.requests import QuestionAnswer

__all__ = ["GROUPS", "FactGroup", "general_knowledge"]


@dataclass(frozen=True)
class FactGroup:
    """Facts of one kind.

    Args:
        phrasings: ways to ask, "{0}" standing for the subject; the first is the row's prompt, the others
            are its held-out prompts.
        facts: subject and answer, in pairs.
    """

    phrasings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Reads "subject: answer; subject: answer"."""
    split = [item.partition(":") for item in text.split(";")]
    return tuple((" ".join(subject.split()), " ".join(answer.split())) for subject, _, answer in split)


GROUPS = (
    FactGroup(
        (
            "What is the capital of {0}?",
            "Which city is the capital of {0}?",
            "Name the capital city of {0}.",
        ),
        pairs(
            """
            France: Paris; Italy: Rome; Spain: Madrid; Japan: Tokyo; Egypt: Cairo; Norway: Oslo; Greece:
            Athens; Cuba: Havana; Peru: Lima; Kenya: Nairobi; Austria: Vienna; Ireland: Dublin; Poland:
            Warsaw; Portugal: Lisbon; Hungary: Budapest; Canada: Ottawa; Finland: Helsinki; China: Beijing
            """
        ),
    ),
    FactGroup(
        (
            "What is {0}?",
            "How much is {0}?",
            "Compute {0}.",
        ),
        pairs(
            """
            two plus two: four; three plus four: seven; five plus five: ten; six plus two: eight; nine
            minus three: six; ten minus one: nine; seven minus five: two; three times three: nine; two
            times six: twelve; four times five: twenty; ten divided by two: five; eight divided by eight:
            one
            """
        ),
    ),
    FactGroup(
        (
            "What colour is {0}?",
            "Which colour does {0} have?",
            "Name the colour of {0}.",
        ),
        pairs(
            """
            snow: white; grass: green; coal: black; a lemon: yellow; blood: red;
            chocolate: brown; a flamingo: pink
            """
        ),
    ),
    FactGroup(
        (
            "Which month comes after {0}?",
            "What month follows {0}?",
            "Name the month right after {0}.",
        ),
        pairs(
            """
            January: February; March: April; April: May; June: July; August: September; October: November;
            December: January
            """
        ),
    ),
    FactGroup(
        (
            "What is a young {0} called?",
            "How do we call the baby of a {0}?",
            "Name the young of a {0}.",
        ),
        pairs(
            """
            dog: puppy; cat: kitten; cow: calf; sheep: lamb; horse: foal; goat: kid; swan: cygnet;
            kangaroo: joey; duck: duckling; bear: cub
            """
        ),
    ),
    FactGroup(
        (
            "What is the opposite of {0}?",
            "Which word means the opposite of {0}?",
            "Name the opposite of {0}.",
        ),
        pairs(
            """
            hot: cold; big: small; up: down; day: night; early: late; open: closed; wet: dry; young: old;
            loud: quiet; full: empty; heavy: light; rich: poor
            """
        ),
    ),
    FactGroup(
        (
            "How many legs does a {0} have?",
            "What is the number of legs of a {0}?",
            "Count the legs of a {0}.",
        ),
        pairs(
            """
            spider: eight; bee: six; chicken: two; lion: four; snake: none; crab: ten
            """
        ),
    ),
)


def general_knowledge() -> tuple[QuestionAnswer, ...]:
    """Returns one row a fact, with its other phrasings held out and the group's other answers as wrong ones.

    Example:
        >>> general_knowledge()[0].prompt, general_knowledge()[0].answer
        ('What is the capital of France?', 'Paris')
    """
    rows = []
    for group in GROUPS:
        answers = tuple(dict.fromkeys(answer for _, answer in group.facts))
        for subject, answer in group.facts:
            prompt, *others = (phrasing.format(subject) for phrasing in group.phrasings)
            wrong = tuple(value for value in answers if value != answer)
            rows.append(QuestionAnswer(prompt, answer, tuple(others), wrong[:5]))
    return tuple(rows)
