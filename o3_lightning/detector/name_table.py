"""Looks up the names of all requests in one table, whatever stands around them in a text.

A text is hashed once; a word, its slips, a name in pieces or without its vowels are all looked up at once for
all requests. Words count in their order, within one phrase, from border to border.
Shape letters: N letters, W words, E entries.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from o3_lightning.detector.names import (
    LONGEST,
    SHORTEST_JOINED,
    SHORTEST_SLIP,
    SURE_NATS,
    NameKind,
    NameState,
    consonants,
    pair_number,
)
from o3_lightning.detector.text.frequencies import has_plural, information, looks_like_name
from o3_lightning.detector.text.letter_hashes import Integers, LetterHashes, LetterStream, letter_codes
from o3_lightning.detector.text.normalise import fold_accents
from o3_lightning.detector.text.people import BREAKS, PARTICLES

UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # scripts without spaces between words
MOST_PIECES = 2 * LONGEST  # a name may be spelt letter by letter
MOST_RUNS = 250_000  # runs of pieces of one text; bounds the work for long texts of short pieces
BLOCK_WORDS = MOST_RUNS // MOST_PIECES  # of short texts searched together; bounds memory, changes no hit
SPELT = 3  # letters of a piece; only pieces so short may have marks between them
BETWEEN = 2  # words between the first and the last word of a name
JOINING_TEXT = "and or und oder y o et ou e with vs versus"
JOINING = frozenset(JOINING_TEXT.split())
TITLES_TEXT = "mr mrs ms dr prof professor sir dame lord lady king queen herr frau senor monsieur"
TITLES = frozenset(TITLES_TEXT.split())
SLIP_NATS = 16.0  # a more frequent word is another word, not a slip
LONG_SLIP = 7  # letters of a word that stands for a name in spite of a slip
CAPITAL_NATS, NAMED_NATS = 7.9, 8.2  # of a word beside a single that may be another name
VOWELS = frozenset("aeiou")
MOST_CONSONANTS = 256  # pairs of one text
BARE_NATS = 9.0  # of a word without vowels
ENTRIES_PER_BIT = 32
SMALLEST_FILTER, LARGEST_FILTER = 12, 24


@dataclass(frozen=True)
class NameHit:
    """A name of a request in a text.

    Args:
        column: the request.
        kind: "name", "slip", "joined", "consonants", "single".
        start: first character of the evidence in the folded text.
        end: character after the last.
    """

    column: int
    kind: str
    start: int
    end: int


@dataclass
class Words:
    """The words of several texts.

    Args:
        texts: folded, with their capitals.
        text: number of the text of each word [W].
        starts, ends: characters within that text [W].
        words: in lower case [W].
        first, last: letters within the stream of all letters [W].
        codes: the letters [N].
    """

    texts: list[str]
    text: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def gap(self, word: int) -> str:
        """Returns what stands between a word and the next one of the same text."""
        return self.texts[self.text[word]][self.ends[word] : self.starts[word + 1]]

    def beside(self, word: int, step: int) -> int | None:
        """Returns the neighbour of a word in its phrase, initials skipped; None where there is none."""
        other = word + step
        while 0 <= other < len(self.words) and self.text[other] == self.text[word]:
            gap = self.gap(min(other, other - step))
            if not BREAKS.isdisjoint(gap) or ("." in gap and len(self.words[min(other, other - step)]) > 1):
                return None
            if len(self.words[other]) > 1:
                return other
            other += step
        return None

    def capital(self, word: int) -> bool:
        """Whether a word begins with a capital."""
        return self.texts[self.text[word]][self.starts[word]].isupper()


WORD = re.compile(r"[^\W\d_]+")
UNSPACED_WORD = re.compile(rf"[^\W\d_{UNSPACED}]+|[{UNSPACED}]+")  # a name ends where such a script begins
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
GENITIVE = re.compile(r"['’`]s(?![^\W\d_])")


def split_words(texts: Sequence[str]) -> Iterator[tuple[int, Words]]:
    """Yields the words of consecutive texts, and the number of the first of these.

    A block is one text, or several with at most `BLOCK_WORDS` words. An identifier in camel case is several
    words.
    """
    first, block = 0, Words([])
    for number, raw in enumerate(texts):
        text = GENITIVE.sub("  ", fold_accents(raw))
        found = list(words_of(text))
        if block.words and len(block.words) + len(found) > BLOCK_WORDS:
            yield first, block
            first, block = number, Words([])
        block.text += [len(block.texts)] * len(found)
        block.texts.append(text)
        block.starts += [start for start, _ in found]
        block.ends += [start + len(word) for start, word in found]
        block.words += [word.lower() for _, word in found]
    if block.words:
        yield first, block


def words_of(text: str) -> Iterator[tuple[int, str]]:
    """Yields the words of a folded text with their first characters' places."""
    cased = not (text.islower() or text.isupper())
    for match in (WORD if text.isascii() else UNSPACED_WORD).finditer(text):
        start, whole = match.start(), match.group()
        for part in CAMEL.split(whole) if cased and len(whole) > 1 else [whole]:
            yield start, part
            start += len(part)


class NameTable:
    """The names of several requests that share a salt.

    Args:
        states: of the requests.
        columns: the number of each request.
    """

    def __init__(self, states: Sequence[NameState], columns: Sequence[int]) -> None:
        self.hashes = LetterHashes(bytes(states[0].salt.tolist()))
        counts = torch.tensor([len(state.keys) for state in states])
        keys = torch.cat([state.keys for state in states])
        order = keys.argsort()
        self.keys = keys[order].numpy()
        self.kinds = torch.cat([state.kinds for state in states])[order].numpy()
        self.targets = torch.cat([state.targets for state in states])[order].numpy()
        self.columns = torch.repeat_interleave(torch.tensor(list(columns)), counts)[order].numpy()
        bits = min(max((ENTRIES_PER_BIT * len(self.keys)).bit_length(), SMALLEST_FILTER), LARGEST_FILTER)
        self.mask = np.uint64((1 << bits) - 1)
        self.filter = np.zeros(1 << bits, dtype=bool)
        self.filter[torch.cat([state.bits for state in states]).numpy() & int(self.mask)] = True

    def find(self, texts: Sequence[str]) -> list[list[NameHit]]:
        """Returns the names in each text, of every request at most one of a kind."""
        found: list[dict[tuple[int, str], NameHit]] = [{} for _ in texts]
        if not len(self.keys):
            return [[] for _ in texts]
        for first, words in split_words(texts):
            for number, hit in Search(self, words).hits():
                found[first + number].setdefault((hit.column, hit.kind), hit)
        return [list(hits.values()) for hits in found]

    def look_up(self, numbers: Integers) -> dict[int, range]:
        """Returns the entries of the hashes that have some, by the place of the hash."""
        places = np.flatnonzero(self.filter[(numbers & self.mask).astype(np.int64)])
        keys = np.array([self.hashes.seal(number) for number in numbers[places].tolist()], dtype=np.int64)
        first, end = (self.keys.searchsorted(keys, side).tolist() for side in ("left", "right"))
        spans = zip(places.tolist(), map(range, first, end), strict=True)
        return {place: span for place, span in spans if span}

    def entries(self, number: int) -> range:
        """Returns the places of the entries of a polynomial hash."""
        return self.sealed(self.hashes.seal(number))

    def sealed(self, key: int) -> range:
        """Returns the places of the entries of a sealed key."""
        return range(int(self.keys.searchsorted(key)), int(self.keys.searchsorted(key, "right")))


class Search:
    """One pass over the words of some texts.

    Args:
        table: of the names.
        words: of the texts.
    """

    def __init__(self, table: NameTable, words: Words) -> None:
        self.table, self.words = table, words
        self.lengths = np.fromiter(map(len, words.words), dtype=np.int64, count=len(words.words))
        self.last = np.cumsum(self.lengths)
        self.first = self.last - self.lengths
        self.stream = LetterStream(table.hashes, letter_codes("".join(words.words)))
        self.numbers = self.stream.runs(self.first, self.last)
        self.text = np.array(words.text)
        self.nats = [information(word) for word in words.words]

    def hits(self) -> list[tuple[int, NameHit]]:
        """Returns the hits with the number of their text."""
        parts = self.exact_parts()
        found = [*self.singles(parts), *self.joined(), *self.pairs(parts, "name")]
        slipped = self.slipped_parts()
        if slipped:
            both = {
                word: parts.get(word, set()) | slipped.get(word, set()) for word in parts.keys() | slipped
            }
            found += [*self.singles(slipped, slip=True), *self.pairs(both, "slip", set(slipped))]
        return [*found, *self.without_vowels()]

    def hit(self, first: int, last: int, column: int, kind: str) -> tuple[int, NameHit]:
        """Returns the hit of words `first` to `last`."""
        words = self.words
        return words.text[first], NameHit(column, kind, words.starts[first], words.ends[last])

    def exact_parts(self) -> dict[int, set[int]]:
        """Returns the keys of the words that are part of a name, by word."""
        kinds, keys = self.table.kinds, self.table.keys
        wanted = NameKind.PART | NameKind.SINGLE | NameKind.SURE
        found = {
            word: {int(keys[entry]) for entry in span if kinds[entry] & wanted}
            for word, span in self.table.look_up(self.numbers).items()
        }
        return {word: own for word, own in found.items() if own}

    def slipped_parts(self) -> dict[int, set[int]]:
        """Returns the keys of the words that may have been meant, one slip away, for words no list has."""
        lengths = self.lengths
        odd = np.array([nats >= SLIP_NATS for nats in self.nats]) & (lengths >= SHORTEST_SLIP)
        rare = np.flatnonzero(odd & (lengths <= LONGEST + 1))
        found: dict[int, set[int]] = {}
        if not len(rare):
            return found
        kinds, keys, targets = self.table.kinds, self.table.keys, self.table.targets
        for place, span in self.table.look_up(self.numbers[rare]).items():  # a letter missing or exchanged
            found[int(rare[place])] = {int(targets[e]) for e in span if kinds[e] & NameKind.SLIP}
        counts = lengths[rare]
        owner = np.repeat(rare, counts)
        at = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + self.first[owner]
        shorter, wild = self.stream.without(self.first[owner], self.last[owner], at)
        for place, span in self.table.look_up(wild).items():
            own = found.setdefault(int(owner[place]), set())
            own |= {int(targets[e]) for e in span if kinds[e] & NameKind.SLIP}
        for place, span in self.table.look_up(shorter).items():  # a letter too many
            own = found.setdefault(int(owner[place]), set())
            own |= {int(keys[e]) for e in span if kinds[e] & NameKind.PART}
        return {word: own for word, own in found.items() if own}

    def singles(self, parts: dict[int, set[int]], *, slip: bool = False) -> list[tuple[int, NameHit]]:
        """Returns the words that stand for a name on their own; with a slip only long ones."""
        kinds, found = self.table.kinds, []
        for word, keys in parts.items():
            if slip and self.lengths[word] < LONG_SLIP:
                continue
            for entry in (entry for key in keys for entry in self.table.sealed(key)):
                alone = kinds[entry] & NameKind.SINGLE and not slip and not self.named_beside(word)
                if alone or kinds[entry] & NameKind.SURE:
                    found.append(
                        self.hit(word, word, int(self.table.columns[entry]), "slip" if slip else "single")
                    )
        return found

    def named_beside(self, word: int) -> bool:
        """Whether a rare word stands beside a word that makes it somebody else's name."""
        for step in (-1, 1):
            other = self.words.beside(word, step)
            if other is None or self.words.words[other] in TITLES | PARTICLES:
                continue
            text, nats = self.words.words[other], self.nats[other]
            capital = self.words.capital(other) and self.words.capital(word) and nats >= CAPITAL_NATS
            starts = other == 0 or self.words.text[other - 1] != self.words.text[other]
            if (capital and not (starts and has_plural(text))) or (
                nats >= NAMED_NATS and looks_like_name(text)
            ):
                return True
        return False

    def pairs(
        self, parts: dict[int, set[int]], kind: str, wanted: set[int] | None = None
    ) -> list[tuple[int, NameHit]]:
        """Returns the pairs of words of a name, in their order, within a phrase; one of `wanted` in each."""
        found, order = [], sorted(parts)
        for place, first in enumerate(order):
            for second in order[place + 1 : place + 2 + BETWEEN]:
                if second - first > BETWEEN + 1 or not self.one_phrase(first, second):
                    break
                if wanted is not None and wanted.isdisjoint((first, second)):
                    continue
                for left in parts[first]:
                    for right in parts[second]:
                        for entry in self.table.entries(pair_number(left, right)):
                            if self.table.kinds[entry] & NameKind.PAIR:
                                found.append(self.hit(first, second, int(self.table.columns[entry]), kind))
        return found

    def one_phrase(self, first: int, last: int) -> bool:
        """Whether no mark, and no word like "and", stands between two words."""
        words = self.words
        if words.text[first] != words.text[last]:
            return False
        if any(words.words[between] in JOINING for between in range(first + 1, last)):
            return False
        return all(
            BREAKS.isdisjoint(gap := words.gap(word)) and ("." not in gap or len(words.words[word]) == 1)
            for word in range(first, last)
        )

    def joined(self) -> list[tuple[int, NameHit]]:
        """Returns the names that stand without a space, or in pieces, from word border to word border."""
        count = len(self.lengths)
        most = min(MOST_PIECES, MOST_RUNS // count)
        ends = np.searchsorted(self.last, self.first + 2 * LONGEST, side="right")
        ends = np.minimum(
            ends, np.minimum(np.arange(count) + most, np.searchsorted(self.text, self.text, "right"))
        )
        begins = np.maximum(np.searchsorted(self.last, self.first + SHORTEST_JOINED), np.arange(count))
        counts = np.maximum(ends - begins, 0)
        first = np.repeat(np.arange(count), counts)
        last = np.arange(len(first)) + np.repeat(begins - np.cumsum(counts) + counts, counts)
        hits = self.table.look_up(self.stream.runs(self.first[first], self.last[last]))
        return [
            self.hit(int(first[place]), int(last[place]), int(self.table.columns[entry]), "joined")
            for place in sorted(hits, key=lambda place: int(last[place] - first[place]))
            for entry in hits[place]
            if self.table.kinds[entry] & NameKind.JOINED
            and self.is_name_in_pieces(int(first[place]), int(last[place]))
        ]

    def is_name_in_pieces(self, first: int, last: int) -> bool:
        """Whether pieces are not just two words across a mark: spelt out, or within one phrase."""
        spelt = all(len(word) <= SPELT for word in self.words.words[first : last + 1])
        return spelt or self.one_phrase(first, last)

    def without_vowels(self) -> list[tuple[int, NameHit]]:
        """Returns the pairs whose consonants are a name's, where no list has either word."""
        rare = [self.lacks_vowels(word) for word in range(len(self.nats))]
        pairs = [word for word in range(len(rare) - 1) if rare[word] and rare[word + 1]]
        by_text = [list(own) for _, own in groupby(pairs, self.words.text.__getitem__)]
        firsts = [
            word for own in by_text for word in own[:MOST_CONSONANTS] if self.one_phrase(word, word + 1)
        ]
        sounds = ["|".join(map(consonants, self.words.words[word : word + 2])) for word in firsts]
        if not sounds:
            return []
        numbers = np.array([self.table.hashes.hash_text(sound) for sound in sounds], dtype=np.uint64)
        return [
            self.hit(firsts[place], firsts[place] + 1, int(self.table.columns[entry]), "consonants")
            for place, span in self.table.look_up(numbers).items()
            for entry in span
            if self.table.kinds[entry] & NameKind.CONSONANTS
        ]

    def lacks_vowels(self, word: int) -> bool:
        """Whether a word is in no list, or may be what is left of one without its vowels."""
        nats, text = self.nats[word], self.words.words[word]
        return nats >= SURE_NATS or (VOWELS.isdisjoint(text) and nats >= BARE_NATS)
