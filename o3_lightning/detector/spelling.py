"""Reads a mistyped word as the vocabulary word one slip away, so that a typing error hides nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from string import ascii_lowercase

from torch import Tensor

__all__ = ["SpellingTable"]

WORD = re.compile(r"[^\W\d_]+")
SHORTEST_WORD = 4  # shorter words are one slip away from too many others


class SpellingTable:
    """The whole words of an encoder's vocabulary, and how rare each is.

    Args:
        pieces: the vocabulary by id; word-internal pieces ("##ing") are no words.
        information: -log p by id [V].
    """

    def __init__(self, pieces: Sequence[str], information: Tensor) -> None:
        marked = any(piece.startswith(("Ġ", "▁")) for piece in pieces)
        rarity = information.tolist()
        self.rarity: dict[str, float] = {}
        self.ids: dict[str, int] = {}
        for index, piece in enumerate(pieces):
            word = piece.lstrip("Ġ▁").lower()
            whole = word.isascii() and word.isalpha() and (not marked or piece[0] in "Ġ▁")
            if whole and rarity[index] < self.rarity.get(word, math.inf):
                self.rarity[word], self.ids[word] = rarity[index], index

    def repair(self, text: str, matters: Callable[[int], bool] = lambda token: True) -> str:
        """Returns the text with unknown words read as the most frequent word one slip away, if any.

        A slip is two letters exchanged, one missing, one too many or one wrong.

        Args:
            text: any text.
            matters: whether a word may take the place of another, by its token id; words that no request
                knows cannot bring a prompt closer to one.
        """
        return WORD.sub(lambda match: self.repair_word(match.group(), matters), text)

    def repair_word(self, word: str, matters: Callable[[int], bool]) -> str:
        """Returns a known word as it is, and an unknown one as the nearest word that matters."""
        folded = word.lower()
        if len(word) < SHORTEST_WORD or folded in self.rarity or not folded.isascii():
            return word
        found = [near for near in slips(folded) if near in self.rarity and matters(self.ids[near])]
        return min(found, key=lambda near: (self.rarity[near], near)) if found else word


def slips(word: str) -> Iterator[str]:
    """Yields every string one slip away from a word."""
    for cut in range(len(word) + 1):
        head, tail = word[:cut], word[cut:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        if tail:
            yield head + tail[1:]
            yield from (head + letter + tail[1:] for letter in ascii_lowercase)
        yield from (head + letter + tail for letter in ascii_lowercase)
