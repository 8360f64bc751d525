"""Words as they are written, and the full names of people among them, whoever they are."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from o3_lightning.detector.text.frequencies import has_plural, information, looks_like_name
from o3_lightning.detector.text.normalise import fold_accents, visible_text

WORD = re.compile(r"[^\W\d_]+")
GENITIVE = re.compile(r"['’]s\b")
SENTENCE_MARKS = frozenset('.!?:;\n"“')
BREAKS = frozenset(',;:!?()[]\n"“/')
PARTICLES_TEXT = "de van von bin del da el ibn der den la le di du dos das st ii iii jr sr"
PARTICLES = frozenset(PARTICLES_TEXT.split())
LEAST_NATS = 7.9  # of a word of a name; function words lie below
MOST_READ = 20_000  # characters of a prompt whose people are looked for; bounds time and memory
RARE_NATS = 13.0  # of a word that may be a name whatever its forms


class Token(NamedTuple):
    """A word of a prompt, folded: has it a capital, does a sentence begin, and what stands before it."""

    word: str
    capital: bool
    starts: bool
    gap: str


def read_tokens(prompt: str) -> list[Token]:
    """Returns the words of the first `MOST_READ` characters of a prompt."""
    text = GENITIVE.sub("  ", fold_accents(visible_text(prompt[:MOST_READ])))
    found: list[Token] = []
    end = 0
    for match in WORD.finditer(text):
        gap = text[end : match.start()]
        initial = bool(found) and len(found[-1].word) == 1 and gap.strip(" ") == "."
        starts = not found or (not initial and not SENTENCE_MARKS.isdisjoint(gap))
        found.append(Token(match.group().lower(), match.group()[0].isupper(), starts, gap))
        end = match.end()
    return found


def named_people(text: str) -> list[tuple[str, ...]]:
    """Returns the words of each full name in a text, in lower case; initials and particles are left out.

    A full name is two adjacent words or more, each with a capital where the text uses capitals, of which one
    is used like a proper name; without capitals all of them are.

    Example:
        >>> named_people("What did David Crichton think of Jurassic Park?")
        [('david', 'crichton')]
    """
    tokens = read_tokens(text)
    cased = any(token.capital for token in tokens) and not all(token.capital for token in tokens)
    return [
        tuple(token.word for token in run)
        for run in runs_of_names(tokens, cased)
        if len(run) > 1 and (all if not cased else any)(is_proper(token.word) for token in run)
    ]


def runs_of_names(tokens: Sequence[Token], cased: bool) -> Iterator[list[Token]]:
    """Yields adjacent words that may be parts of a name."""
    run: list[Token] = []
    for token in tokens:
        if run and (token.starts or not BREAKS.isdisjoint(token.gap)):
            yield run
            run = []
        if run and (len(token.word) == 1 or token.word in PARTICLES):
            continue
        if may_be_name(token, cased):
            run.append(token)
        else:
            yield run
            run = []
    yield run


def may_be_name(token: Token, cased: bool) -> bool:
    """Whether a word may be part of a name; the first of a sentence only if it is used like one."""
    if len(token.word) == 1 or information(token.word) < LEAST_NATS or (cased and not token.capital):
        return False
    return not (cased and token.starts) or is_proper(token.word)


def is_proper(word: str) -> bool:
    """Whether a word is used like a proper name, or is rare and no common noun."""
    return looks_like_name(word) or (information(word) >= RARE_NATS and not has_plural(word))
