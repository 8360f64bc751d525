"""Cuts a text into spans that are judged as short texts of their own, so that nothing hides a question."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

Part = TypeVar("Part")
MOST_SPANS = 64  # windows are thinned first
MOST_CUT = 640  # sentences, and windows, from which these are taken
PENALTY, PENALTY_GROWTH = 0.25, 0.15  # deviations, and for each factor e in the number of spans
LEAST_WORDS = 4  # a shorter span says too little, unless it is of a script without spaces
SHORT_LEAST_WORDS = 3  # of a short text, where what is asked may be "Select the bird."
LEAST_CHARACTERS = 12  # of such a span
WINDOW_WORDS, WINDOW_STRIDE = 16, 8
SHORT_WINDOW_WORDS, SHORT_WINDOW_STRIDE, SHORT_TEXT_WORDS = 8, 4, 60
LONG_SENTENCE_WORDS = 40  # a longer one has windows alone
MOST_STARTS = 4  # of question words, and of capitals, nearest the end of a sentence
MARK, CLOSING, FULL_STOP = r"[.!?;:\n。！？]", r"[\"')\]]", r"(?<=[。！？])"
# space after a mark and what closes there, or lines; a pattern that begins with a character is searched fast
GAP = rf"[\"')\]\s](?:(?<={MARK}{CLOSING}){CLOSING}*\s+|(?<={MARK}\s)\s*|(?<=\n)\n*)"
SENTENCE_END, ASCII_SENTENCE_END = re.compile(f"{GAP}|{FULL_STOP}"), re.compile(GAP)
QUESTION_WORDS_TEXT = (
    "who whom whose what which when where why how is are was were do does did can could tell name "
    "list describe explain give write has have had will would should please in at for wer wen wem "
    "wessen was welche welcher welches wann wo warum wie nenne quien quién que qué cual cuál cuando "
    "cuándo donde dónde como cómo qui quoi quel quelle quand où ou pourquoi comment"
)
QUESTION_WORDS = frozenset(QUESTION_WORDS_TEXT.split())


def span_penalty(count: int) -> float:
    """Returns the standard deviations by which one of so many spans must be closer than a whole text."""
    return PENALTY + PENALTY_GROWTH * math.log(max(count, 1))


def cut_spans(text: str) -> list[str]:
    """Returns the spans of a text: sentences, their ends from question words and capitals on, windows.

    Args:
        text: without markup, its case kept.

    Returns:
        At most `MOST_SPANS` distinct spans, sentences first; never the whole text.

    Example:
        >>> cut_spans("I like tea a lot. Where was Ada born?")[:2]
        ['I like tea a lot.', 'Where was Ada born?']
    """
    words = text.split()
    whole = " ".join(words)
    least = LEAST_WORDS if len(words) > SHORT_TEXT_WORDS else SHORT_LEAST_WORDS
    end = ASCII_SENTENCE_END if text.isascii() else SENTENCE_END
    parts = thin([part for part in end.split(text) if part.strip()], MOST_CUT)
    sentences = [" ".join(part.split()) for part in parts]
    exact = [*sentences, *(rest for sentence in sentences for rest in rests(sentence))]
    found = dict.fromkeys(span for span in exact if span != whole and is_judged(span, least))
    rest = [span for span in dict.fromkeys(windows(words)) if span != whole and span not in found]
    kept = thin(list(found), MOST_SPANS)
    return kept + thin(rest, MOST_SPANS - len(kept))


def is_judged(span: str, least: int) -> bool:
    """Whether a span is long enough to be judged."""
    return span.count(" ") + 1 >= least or (len(span) >= LEAST_CHARACTERS and not span.isascii())


def rests(sentence: str) -> Iterator[str]:
    """Yields the sentence from each of its last question words and capitals to its end.

    Example:
        >>> list(rests("He lived there when Ada Lovelace was born"))
        ['when Ada Lovelace was born', 'Ada Lovelace was born', 'was born']
    """
    words = sentence.split(" ")
    if len(words) > LONG_SENTENCE_WORDS:
        return
    low = sentence.lower().split(" ")
    asks = [place for place, word in enumerate(low) if place and word.strip(",:'\"") in QUESTION_WORDS]
    upper = [word[:1].isupper() for word in words]
    capitals = [place for place in range(1, len(words)) if upper[place] and not upper[place - 1]]
    for place in sorted({*asks[-MOST_STARTS:], *capitals[-MOST_STARTS:]}):
        yield " ".join(words[place:])


def windows(words: Sequence[str]) -> Iterator[str]:
    """Yields overlapping windows of a long text, shorter ones of a short text."""
    for size, stride, least, most in (
        (SHORT_WINDOW_WORDS, SHORT_WINDOW_STRIDE, SHORT_WINDOW_WORDS + SHORT_WINDOW_STRIDE, SHORT_TEXT_WORDS),
        (WINDOW_WORDS, WINDOW_STRIDE, WINDOW_WORDS + WINDOW_STRIDE, len(words)),
    ):
        if least < len(words) <= most:
            for start in thin([*range(0, len(words) - size, stride), len(words) - size], MOST_CUT):
                yield " ".join(words[start : start + size])


def thin(parts: Sequence[Part], most: int) -> list[Part]:
    """Returns at most so many of the parts, evenly spread."""
    if len(parts) <= most:
        return list(parts)
    return [parts[index * len(parts) // most] for index in range(most)]
