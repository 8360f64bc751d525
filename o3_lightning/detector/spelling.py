"""Reads a mistyped word as the word one slip away that a request knows, so that a typing error hides nothing.

Unusual words, names above all, are in no vocabulary. A request keeps a short hash of each of its own: every
word one slip away from what was typed is hashed and looked up, so that a name is found in the prompt and need
not be stored. Whoever holds the hashes can test guesses, as with the word table of `lexical`.

A slip is two letters exchanged, one missing, one wrong or one too many; or a space in the wrong place by one.
In a short word only letters are exchanged, and the first one only for a vocabulary word that a request knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import blake2b
from string import ascii_lowercase

import torch
from torch import Tensor

__all__ = ["SpellingTable", "WordRepair"]

WORD = re.compile(r"([^\W\d_]+)")
SHORTEST_WORD = 3
LONG_WORD = 6  # shorter ones, names above all, are one slip away from others that are meant as they stand
HASH_BYTES = 4  # 600 lookups among 5,000 hashes meet a wrong one once in 1,400 words
UNREADABLE = 3.0  # what an unknown word without a repair counts; one with a repair counts 1
MOVED_SPACE = 1.5  # what moving a space counts: more than one repair, less than two
RARE, MATTERS, OTHER = range(3)  # which repairs go first


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

    def hash_rare_words(self, texts: Sequence[str]) -> Tensor:
        """Returns the distinct hashes of the words that the vocabulary lacks, sorted, int64 [W]."""
        words = {word.lower() for text in texts for word in WORD.findall(text)}
        hashes = {hash_word(word) for word in words if word.isascii() and word not in self.rarity}
        return torch.tensor(sorted(hashes), dtype=torch.int64)


class WordRepair:
    """Repairs texts for the requests of one detector group; remembers words only as long as it lives.

    Args:
        table: the vocabulary.
        matters: whether a request knows a word of the vocabulary, by its token id.
        rare: hashes of the other words that a request knows.
    """

    def __init__(
        self, table: SpellingTable, matters: Callable[[int], bool], rare: Collection[int] = ()
    ) -> None:
        self.table = table
        self.matters = matters
        self.rare = rare
        self.memory: dict[str, str] = {}

    def repair(self, text: str) -> str:
        """Returns the text with each unknown word read as the likeliest word one slip away, if there is one.

        Example:
            >>> pieces = ["where", "was", "born", "a"]
            >>> table = SpellingTable(pieces, torch.ones(4))
            >>> rare = set(table.hash_rare_words(["yarrowmere"]).tolist())
            >>> WordRepair(table, lambda token: True, rare).repair("wher ewas Yarorwmere bron?")
            'where was yarrowmere born?'
        """
        parts = WORD.split(text)
        for place in range(1, len(parts) - 2, 2):
            if parts[place + 1] == " ":
                parts[place], parts[place + 2] = self.move_space(parts[place], parts[place + 2])
        parts[1::2] = [self.repair_word(word) for word in parts[1::2]]
        return "".join(parts)

    def move_space(self, left: str, right: str) -> tuple[str, str]:
        """Returns two words with the space between them one letter away where they read better so."""
        best, least = (left, right), self.cost(left) + self.cost(right)
        if least <= MOVED_SPACE:
            return best
        for pair in ((left + right[0], right[1:]), (left[:-1], left[-1] + right)):
            if any(self.knows(word.lower()) for word in pair):
                cost = MOVED_SPACE + sum(self.cost(word) for word in pair)
                best, least = (pair, cost) if cost < least else (best, least)
        return best

    def cost(self, word: str) -> float:
        """How badly a word reads: 0 where it is known or nothing, 1 one slip away, else more."""
        if not word or self.knows(word.lower()):
            return 0.0
        return 1.0 if self.repair_word(word) != word else UNREADABLE

    def knows(self, word: str) -> bool:
        """Whether a word of lower-case letters stands in the vocabulary or in a request."""
        return word in self.table.rarity or (bool(self.rare) and hash_word(word) in self.rare)

    def repair_word(self, word: str) -> str:
        """Returns a known word as it is, and an unknown one as the likeliest word one slip away."""
        if word not in self.memory:
            folded = word.lower()
            judged = len(word) >= SHORTEST_WORD and word.isascii() and not self.knows(folded)
            self.memory[word] = min(self.rank(folded), default=(0, 0.0, word))[2] if judged else word
        return self.memory[word]

    def rank(self, word: str) -> Iterator[tuple[int, float, str]]:
        """Yields known words one slip away as (who knows it, how unlikely a slip, word), least is best."""
        short = len(word) < LONG_WORD
        for kind in slips(word)[: 1 if short else None]:
            choice = math.log(max(len(kind), 1))  # few outcomes seldom hit a word by chance
            for other in kind:
                tier = self.tier(other)
                if tier is not None and (tier == MATTERS or not short or other[0] == word[0]):
                    yield tier, self.table.rarity.get(other, 0.0) + choice, other

    def tier(self, word: str) -> int | None:
        """Who knows a word: a request alone, vocabulary and request, vocabulary alone, or nobody."""
        if word in self.table.rarity:
            return MATTERS if self.matters(self.table.ids[word]) else OTHER
        return RARE if self.rare and hash_word(word) in self.rare else None


def hash_word(word: str) -> int:
    """Returns a positive number of 32 bits; 0 is kept free for padding."""
    return max(1, int.from_bytes(blake2b(word.encode(), digest_size=HASH_BYTES).digest(), "big"))


def slips(word: str) -> tuple[list[str], ...]:
    """Returns the words one slip away: letters exchanged, one too many, one wrong, one missing."""
    cuts = [(word[:cut], word[cut:]) for cut in range(len(word) + 1)]
    return (
        [head + tail[1] + tail[0] + tail[2:] for head, tail in cuts if len(tail) > 1],
        [head + tail[1:] for head, tail in cuts if tail],
        [head + letter + tail[1:] for head, tail in cuts if tail for letter in ascii_lowercase],
        [head + letter + tail for head, tail in cuts for letter in ascii_lowercase],
    )
