"""Reads anew what is mostly letters outside of any word: leet, reversed, rotated, spaced and joined text."""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

from o3_lightning.detector.text.frequencies import UNLISTED, information
from o3_lightning.detector.text.normalise import LEET, fold_accents

__all__ = ["respell_text", "segment_letters"]

STRANGE_SHARE = 0.35  # of the letters, from which a sentence is read anew
MOST_LETTERS = 240  # of one sentence
MOST_SENTENCES = 6
LEAST_LETTERS = 8
LONGEST_WORD = 18
MOST_NATS = 2.7  # per letter; English runs at about 2.2, wrong keys above 3
SAME_NATS = 0.02  # per letter; the order of the words costs nothing
WORD_COST = 1.0  # nats for each further word
UNLISTED_COST = (16.0, 4.0)  # of a word no list has: at least, and per letter
RARE_COST = 6.0  # of a rare word, as lists hold joined names
SINGLE_COST = {"a": 6.0, "i": 6.0}
OTHER_SINGLE = 16.0
STRANGE_NATS = 15.0
SHORT_STRANGE_NATS = 9.0  # of words of two and three letters
SHORT = 3
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
WORD = re.compile(r"[^\W_]+")
NOT_LETTER = re.compile(r"[^a-z]")


def respell_text(text: str) -> list[str]:
    """Returns the likeliest reading of each strange sentence, and of a strange text as a whole; often none.

    Example:
        >>> respell_text("?nrob drawoH noR saw erehW")
        ['where was ron howard born', 'born howard ron was where']
    """
    text = fold_accents(text[: MOST_LETTERS * MOST_SENTENCES * 4])
    parts = [part for part in SENTENCE.split(text) if part]
    found = [again for part in dict.fromkeys([text, *parts][: MOST_SENTENCES + 1]) for again in respell(part)]
    return list(dict.fromkeys(found))


def respell(text: str) -> list[str]:
    """Returns the likeliest readings of a strange sentence, two if they are as likely; else none."""
    low = text.lower()
    if strange_share(low) < STRANGE_SHARE:
        return []
    turned = " ".join(word[::-1] for word in low.split())
    leet, other_leet = low.translate(LEET), low.replace("1", "i").translate(LEET)
    keys = [low, leet, other_leet, codecs.encode(low, "rot13"), low[::-1], turned, leet[::-1]]
    letters = dict.fromkeys(NOT_LETTER.sub("", key)[:MOST_LETTERS] for key in keys)
    readings = [segment_letters(key) for key in letters if len(key) >= LEAST_LETTERS]
    best = min((cost for cost, _ in readings), default=MOST_NATS)
    likely = [" ".join(words) for cost, words in readings if cost < min(MOST_NATS, best + SAME_NATS)]
    return likely[:2]


def strange_share(low: str) -> float:
    """Returns the share of a text's letters that stand in no listed word, or alone."""
    words = WORD.findall(low)
    total = sum(map(len, words))
    return sum(len(word) for word in words if is_strange(word)) / total if total else 0.0


def is_strange(word: str) -> bool:
    """Whether a word is a single letter, holds digits between letters, or is in no list or hardly so."""
    if len(word) == 1 or not word.isalpha():
        return not word.isdigit()
    return information(word) >= (SHORT_STRANGE_NATS if len(word) <= SHORT else STRANGE_NATS)


@lru_cache(maxsize=4096)  # an evaluation reads the same prompts after each request
def segment_letters(letters: str) -> tuple[float, list[str]]:
    """Returns the likeliest words of a run of letters and their cost in nats per letter.

    Source:
        Viterbi segmentation under a unigram model.

    Example:
        >>> segment_letters("wherewashe")[1]
        ['where', 'was', 'he']
    """
    best, back = [0.0], [0]
    for end in range(1, len(letters) + 1):
        first = max(0, end - LONGEST_WORD)
        costs = [best[start] + word_cost(letters[start:end]) for start in range(first, end)]
        least = min(costs)
        best.append(least)
        back.append(first + costs.index(least))
    words, end = [], len(letters)
    while end:
        words.append(letters[back[end] : end])
        end = back[end]
    return best[-1] / max(1, len(letters)), words[::-1]


def word_cost(word: str) -> float:
    """Returns the cost of a word in nats."""
    if len(word) == 1:
        return SINGLE_COST.get(word, OTHER_SINGLE)
    nats = information(word)
    if nats == UNLISTED:
        return UNLISTED_COST[0] + UNLISTED_COST[1] * len(word)
    return nats + WORD_COST + (RARE_COST if nats >= STRANGE_NATS - 1 else 0)
