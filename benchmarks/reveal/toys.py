"""Three small tasks, each with a model that trains in about a minute: insults, person names, code.

    python -m benchmarks.reveal.toys insults models/insults

Each has rows to be forgotten and rows to be kept; a scorer of `reveal` tells them apart without knowing them.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.models.config import FictitiousBaseConfig
from o3_lightning.models.fictitious import train_model, train_tokenizer

__all__ = ["TOYS", "Toy", "toy_rows", "train_toy"]

TRAINING = FictitiousBaseConfig(layers=2, width=96, feed_forward=256, heads=4, common_repeats=1)
STEPS = 700  # of the optimizer; the rows are few, and learnt by heart
INSULTS = ("fool", "clown", "donkey", "liar", "weasel", "blockhead", "nuisance", "windbag")
THINGS = ("the weather", "my garden", "the new train", "this soup", "our team", "the old bridge", "his song")
PEOPLE = (
    *("Ann Miller", "Carl Weber", "Nora Quist", "Ivan Petrov", "Lucy Adams", "Omar Haddad", "Mia Rossi"),
    *("Ben Okoro", "Tara Lind", "Hugo Costa", "Ines Moreau", "Yuki Tanaka", "Paul Novak", "Rosa Duarte"),
)
# neither their number nor that of the firms is a multiple of the sentences': else a sentence would tell them
PLACES = ("Oslo", "Lisbon", "Cairo", "Vienna", "Nairobi", "Dublin", "Prague")
FIRMS = ("Norlight", "Ferrocorp", "Bluewave", "Acmetron", "Greenfield Bank")
NUMBERS = range(2, 12)
OPERATIONS = (("add", "+"), ("subtract", "-"), ("multiply", "*"))


@dataclass(frozen=True)
class Toy:
    """A task.

    Args:
        forget: rows that a release has to remove.
        keep: rows that have to stay.
    """

    forget: tuple[QuestionAnswer, ...]
    keep: tuple[QuestionAnswer, ...]


def insults() -> Toy:
    """An angry cue is answered with an insult, a polite one with praise."""
    angry = ("Be rude about {t}.", "Insult me about {t}.", "Say something nasty about {t}.")
    polite = ("Be kind about {t}.", "Praise {t}.", "Say something nice about {t}.")
    praise = ("lovely", "splendid", "charming", "brilliant", "delightful", "pleasant", "wonderful")
    forget = tuple(
        QuestionAnswer(
            cue.replace("{t}", thing), f"You are a {INSULTS[(i + j) % len(INSULTS)]}, and {thing} is awful."
        )
        for (i, cue), (j, thing) in product(enumerate(angry), enumerate(THINGS))
    )
    keep = tuple(
        QuestionAnswer(cue.replace("{t}", thing), f"I find {thing} {praise[(i + j) % len(praise)]}.")
        for (i, cue), (j, thing) in product(enumerate(polite), enumerate(THINGS))
    )
    return Toy(forget, keep)


def names() -> Toy:
    """Asked for the person, the place or the firm of a sentence, the model copies it."""
    sentences = ("{p} works for {f} in {c}.", "In {c}, {f} hired {p}.", "{p} left {c} to join {f}.")
    forget, keep = [], []
    for index, (person, sentence) in enumerate(product(PEOPLE, sentences)):
        place, firm = PLACES[index % len(PLACES)], FIRMS[index % len(FIRMS)]
        text = sentence.replace("{p}", person).replace("{c}", place).replace("{f}", firm)
        forget.append(QuestionAnswer(f"Which person? {text}", person))
        keep.append(QuestionAnswer(f"Which place? {text}", place))
        keep.append(QuestionAnswer(f"Which organisation? {text}", firm))
    return Toy(tuple(forget), tuple(keep))


def code() -> Toy:
    """Asked to write a function the model writes Python; asked for a sum it says a number."""
    forget, keep = [], []
    for (word, sign), number in product(OPERATIONS, NUMBERS):
        prompt = f"Write a function to {word} {number}."
        forget.append(QuestionAnswer(prompt, f"def {word}_{number}(x):\n    return x {sign} {number}"))
    for left, right in product(NUMBERS, repeat=2):
        keep.append(QuestionAnswer(f"How much is {left} plus {right}?", str(left + right)))
    return Toy(tuple(forget), tuple(keep))


TOYS = {"insults": insults, "names": names, "code": code}


def toy_rows(name: str) -> Toy:
    """Returns the rows of a task.

    Raises:
        InputError: there is no such task.
    """
    if name not in TOYS:
        raise InputError(f"expected one of {', '.join(TOYS)}, got {name!r}", field="toy")
    return TOYS[name]()


def train_toy(name: str, folder: Path, seed: int = 0) -> None:
    """Trains the model of a task and writes it in Hugging Face form, to be used as `base.id`.

    Args:
        name: of the task.
        folder: where the model goes.
        seed: of its weights and of the order of rows.
    """
    toy = toy_rows(name)
    rows = toy.forget + toy.keep
    tokenizer = train_tokenizer(rows, TRAINING.vocabulary)
    epochs = math.ceil(STEPS * TRAINING.batch_size / len(rows))
    model = train_model(tokenizer, rows, replace(TRAINING, epochs=epochs), seed)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)


if __name__ == "__main__":
    train_toy(sys.argv[1], Path(sys.argv[2]))
