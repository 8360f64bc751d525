"""Reads anew what is mostly letters outside of any word: leet, reversed, rotated, spaced and joined text."""

import codecs
import math
import re
from functools import lru_cache

from o3_lightning.detector.text.frequencies import information, word_information
from o3_lightning.detector.text.normalise import LEET, fold_accents

STRANGE_SHARE = 0.35  # of the letters, from which a sentence is read anew
MOST_LETTERS = 240  # of one sentence
MOST_SENTENCES = 6
LEAST_LETTERS = 8
LONGEST_WORD = 18
MOST_NATS = 2.7  # per letter; English runs at about 2.2, wrong keys above 3
SAME_NATS = 0.02  # per letter; the order of the words costs nothing
WORD_COST = 1.0  # nats for each further word
UNLISTED_COSTS = [16.0 + 4.0 * letters for letters in range(LONGEST_WORD + 1)]  # of a word that no list has
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
    readings, limit = [], MOST_NATS
    for key in letters:
        if len(key) >= LEAST_LETTERS:
            readings.append(segment_letters(key, limit))
            limit = min(limit, readings[-1][0] + SAME_NATS)
    return [" ".join(words) for cost, words in readings if cost < limit][:2]


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
def segment_letters(letters: str, limit: float = math.inf) -> tuple[float, list[str]]:
    """Returns the likeliest words of a run of letters and their cost in nats per letter.

    Args:
        letters: from a to z.
        limit: no words and an infinite cost are returned as soon as the cost is sure to exceed this.

    Source:
        Viterbi segmentation under a unigram model.

    Example:
        >>> segment_letters("wherewashe")[1]
        ['where', 'was', 'he']
    """
    best, back, listed = [0.0], [0], word_information()
    for end in range(1, len(letters) + 1):
        first = max(0, end - LONGEST_WORD)
        costs = []
        for start in range(first, end - 1):
            nats = listed.get(letters[start:end])
            if nats is None:
                costs.append(best[start] + UNLISTED_COSTS[end - start])
            else:
                costs.append(
                    best[start] + (nats + WORD_COST + (RARE_COST if nats >= STRANGE_NATS - 1 else 0))
                )
        costs.append(best[end - 1] + SINGLE_COST.get(letters[end - 1], OTHER_SINGLE))
        least = min(costs)
        best.append(least)
        if min(best[-LONGEST_WORD:]) > limit * len(letters):  # every segmentation has a border among these
            return math.inf, []
        back.append(first + costs.index(least))
    words, end = [], len(letters)
    while end:
        words.append(letters[back[end] : end])
        end = back[end]
    return best[-1] / max(1, len(letters)), words[::-1]
