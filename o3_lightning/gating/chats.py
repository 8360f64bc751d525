"""Which texts of a chat the detectors judge, and how their weights become one weight and one suspicion.

The question of a chat is its last user turn and whatever follows that. It is judged alone, completed by the
fragments before it, and, where it refers back, together with the turns it may refer to. Everything else only
makes the chat suspect.

Shapes: N texts, K requests.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from o3_lightning.data.prompts import Turn
from o3_lightning.gating.references import Utterance, sentences_for

WINDOWS = (2, 3, 4, 6, 8, 12)  # turns over which one question may be spread
FRAGMENT_WORDS = 24  # of each turn in a window: a fragment of a question is short
PAIR_WORDS = 64  # a longer turn is judged alone: what surrounds a question does not raise its weight
HISTORY_WORDS = 256  # of the joined history
ASKING = ("system", "developer", "tool", "function")  # roles whose question a greeting lets through
EMERGES = 0.5  # a fragment below this weight does not tell the question by itself


class Completion(NamedTuple):
    """A question that only the last turn completes.

    Args:
        text: turns joined up to the last one.
        parts: what it is made of; it counts only where none of these has the weight of a question.
    """

    text: str
    parts: tuple[str, ...]


class Reading(NamedTuple):
    """The texts of one prompt that the detectors judge.

    Args:
        question: texts that count at full weight, at least one.
        completions: texts that count where they say more than their parts.
        context: texts that only make the prompt suspect.
    """

    question: tuple[str, ...]
    completions: tuple[Completion, ...] = ()
    context: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """Every text, each once."""
        parts = (text for each in self.completions for text in (each.text, *each.parts))
        return list(dict.fromkeys((*self.question, *parts, *self.context)))


@dataclass(frozen=True)
class Evidence:
    """What the detectors say of one prompt.

    Args:
        weights: [K] of the question; NaN where a detector failed.
        suspect: [K] of the rest of the chat.
    """

    weights: Tensor
    suspect: Tensor


def read_turns(turns: Sequence[Turn]) -> Reading:
    """Returns the texts by which a prompt is judged.

    Args:
        turns: of one prompt, as from `read_prompt`. Without a turn of the user all of them are the question.

    Example:
        >>> read_turns([Turn("user", "Who is Ada?"), Turn("user", "Where was she born?")]).question
        ('Where was she born?', 'Who is Ada? Where was she born?')
    """
    said = [turn for turn in turns if turn.text.strip()] or list(turns[:1])
    last = max((place for place, turn in enumerate(said) if turn.role == "user"), default=0)
    earlier, asked = said[:last], said[last:]
    if not any(turn.role == "user" for turn in said):
        earlier, asked = [], said
    question = [*(turn.text for turn in asked), " ".join(turn.text for turn in asked)]
    found = referred(earlier, Utterance(asked[0].text))
    short = [turn.text for turn in found if len(turn.text.split()) <= PAIR_WORDS]
    question += [turn.text for turn in found if len(turn.text.split()) > PAIR_WORDS]
    question += [" ".join([*texts, asked[0].text]) for texts in (short, *([text] for text in short))]
    history = [*(turn.text for turn in earlier), tail(" ".join(turn.text for turn in earlier), HISTORY_WORDS)]
    told = set(question)
    return Reading(
        distinct(question) or ("",),
        tuple(completions(earlier, [turn.text for turn in asked], points_back=bool(found))),
        distinct(text for text in history if text not in told),
    )


def weigh_reading(reading: Reading, weight_of: Callable[[str], Tensor]) -> Evidence:
    """Returns the evidence on one prompt from the weights [K] of its texts."""
    weights = largest([weight_of(text) for text in reading.question])
    for each in reading.completions:
        told = largest([weight_of(part) for part in each.parts])
        weights = torch.maximum(weights, torch.where(told >= EMERGES, 0.0, weight_of(each.text)))
    context = [weight_of(text) for text in reading.context]
    return Evidence(weights, largest(context) if context else torch.zeros_like(weights))


def largest(weights: Sequence[Tensor]) -> Tensor:
    """Returns the largest weights [K]; NaN wins, as a failure must."""
    return torch.stack(list(weights)).amax(0)


def referred(earlier: Sequence[Turn], asked: Utterance) -> list[Turn]:
    """Returns the turns that a question may refer to.

    These are the turns back to the last one of the user that names a subject, or all of them for "my first
    question", and of others the sentences that hold all that the question names. A greeting asks nothing of
    what a user said before, but lets the question of a system or tool message ask.
    """
    found: list[Turn] = []
    is_open = True
    for turn in reversed(earlier):
        may_ask = asked.refers_back or (asked.is_social and turn.role in ASKING and "?" in turn.text)
        if may_ask and is_open:
            found.append(turn)
        elif about := sentences_for(turn.text, asked):
            found.append(turn._replace(text=about))
        if is_open and not asked.reaches_far and turn.role == "user":
            said = Utterance(turn.text)
            is_open = said.refers_back or not said.names_subject
    return found[::-1]


def completions(earlier: Sequence[Turn], asked: Sequence[str], *, points_back: bool) -> Iterable[Completion]:
    """Yields the joined last turns, of the user alone and of all roles; a reference is to what they tell."""
    last = " ".join(asked)
    for texts in ([turn.text for turn in earlier if turn.role == "user"], [turn.text for turn in earlier]):
        for size in sorted({min(size - 1, len(texts)) for size in WINDOWS} if texts else ()):
            before = [tail(text, FRAGMENT_WORDS) for text in texts[-size:]]
            parts = (*before, last) if points_back else (*before, " ".join(before), last)
            yield Completion(" ".join([*before, last]), parts)


def tail(text: str, words: int) -> str:
    """Returns the last words of a text."""
    return " ".join(text.split()[-words:])


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """Returns the texts, each once, in order."""
    return tuple(dict.fromkeys(text for text in texts if text.strip()))
