"""The names a request is about, found in its prompts and kept as keyed hashes only.

A name is a pair of words that recurs and is rare: capitals tell it where the prompts use them, else how the
words are used in general. What is stored recognises the pair, its slips, its consonants, the joined name, and
single words of it that are rare enough to stand for it.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag

import torch
from torch import Tensor

from o3_lightning.detector.text.frequencies import has_plural, information, looks_like_name
from o3_lightning.detector.text.letter_hashes import LetterHashes
from o3_lightning.detector.text.people import BREAKS, PARTICLES, Token, read_tokens

CAPITAL_SHARE = 0.9  # of the places inside sentences
CASELESS = (0.02, 0.85)  # share of capitals inside sentences outside which they say nothing
PAIR_NATS = 17.0  # of both words; 1 pair in 24 million
SINGLE_NATS = 13.9  # of a listed word that stands for the name: 1 word in a million
SURE_NATS = 19.0  # of a word that no list has
RARER_NATS = 10.0  # of the rarer word of a pair
CASELESS_NATS = 9.0  # of a word of a name in a request without capitals
STRONG_NATS = 13.0  # of a word that may be a name by its rarity alone
SINGLE_BUDGET = 4e-6  # sum of the probabilities of a request's single words
LEAST_PROMPTS, LEAST_CASELESS = 2, 3
LEAST_COVERAGE = 0.3  # of the prompts must hold a name, else the request is about something else
TYPICAL_SHARE = 0.3  # of the prompts of a typical name that another name needs
SHORTEST_SINGLE, SHORTEST_SLIP, SHORTEST_JOINED, SHORTEST_CONSONANTS = 4, 5, 8, 5
LONGEST = 24
KEPT_BITS = (1 << 24) - 1


class NameKind(IntFlag):
    """What an entry of the table is."""

    PART = 1  # a word of a pair
    SINGLE = 2  # stands for the name unless another name stands beside it
    SURE = 4  # stands for the name wherever it occurs
    SLIP = 8  # a word of a name with a letter missing, exchanged or wrong
    PAIR = 16
    JOINED = 32
    CONSONANTS = 64


@dataclass(frozen=True)
class Names:
    """The names of a request, in plain text; nothing of it is stored.

    Args:
        subjects: words of each name in their order, particles left out.
        joined: each name as it was written, in one word.
        singles: words that stand for a name, in any of its places.
        common_last: how many names have a last word that is too common to stand for it.
        common_alone: how many names are a single word that is too common to be recognised.
    """

    subjects: tuple[tuple[str, ...], ...] = ()
    joined: tuple[str, ...] = ()
    singles: tuple[str, ...] = ()
    common_last: int = 0
    common_alone: int = 0


@dataclass(frozen=True)
class NameState:
    """Hashed names of one request; E entries, none of them text.

    Args:
        salt: key of the hashes, uint8 [bytes].
        keys: sealed hashes [E], int64.
        bits: low bits of the polynomial hashes [E], int32, which spare most lookups.
        kinds: `NameKind` [E], uint8.
        targets: for a slip the key of the word that was meant [E], int64, else 0.
    """

    salt: Tensor
    keys: Tensor
    bits: Tensor
    kinds: Tensor
    targets: Tensor


class NameFinder:
    """Counts how the words of a request are written.

    Args:
        rows: the words of each prompt.
    """

    def __init__(self, rows: Sequence[Sequence[Token]]) -> None:
        self.rows = rows
        inner = [[token for token in tokens if not token.starts and len(token.word) > 1] for tokens in rows]
        capitals = sum(token.capital for tokens in inner for token in tokens)
        total = sum(map(len, inner))
        self.cased = total > 0 and CASELESS[0] <= capitals / total <= CASELESS[1]
        self.capitals: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        for tokens in inner:
            if 0 < sum(token.capital for token in tokens) < len(tokens):
                self.places.update(token.word for token in tokens)
                self.capitals.update(token.word for token in tokens if token.capital)
        self.holders: dict[str, set[int]] = defaultdict(set)
        for number, row in enumerate(rows):
            for token in row:
                self.holders[token.word].add(number)

    def is_name(self, token: Token) -> bool:
        """Whether a word may be part of a name."""
        if len(token.word) < 2 or token.word in PARTICLES:
            return False
        if self.cased and self.places[token.word]:
            capital = self.capitals[token.word] >= CAPITAL_SHARE * self.places[token.word]
            return capital and (token.capital or len(self.holders[token.word]) >= LEAST_CASELESS)
        if self.cased:
            return False
        return information(token.word) >= CASELESS_NATS and not has_plural(token.word)

    def runs(self, row: Sequence[Token]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Yields begin, end and words of each run of name words; particles and initials may stand between."""
        begin = 0
        while begin < len(row):
            words: list[str] = []
            end = last = begin
            while end < len(row) and (
                end == begin or (not row[end].starts and BREAKS.isdisjoint(row[end].gap))
            ):
                if self.is_name(row[end]):
                    words.append(row[end].word)
                    last = end
                elif not words or (row[end].word not in PARTICLES and len(row[end].word) > 1):
                    break
                end += 1
            if len(words) > 1:
                yield begin, last + 1, tuple(words)
            begin = max(last, begin) + 1

    def accepts(self, pair: tuple[str, str], count: int) -> bool:
        """Whether a pair that so many prompts hold is rare enough for a name, and used like one."""
        if pair_nats(pair) < PAIR_NATS or max(map(information, pair)) < RARER_NATS:
            return False
        apart = min(len(self.holders[word]) for word in pair)
        strong = any(looks_like_name(word) or information(word) >= STRONG_NATS for word in pair)
        return self.cased or (strong and 2 * count >= apart)

    def preference(self, pair: tuple[str, str], written: Sequence[str]) -> tuple[float, float]:
        """Sorts pairs of as many prompts: long names last where capitals end them, else rare ones last."""
        return (len(written), pair_nats(pair)) if self.cased else (pair_nats(pair), len(written))

    def pairs(self) -> tuple[dict[tuple[str, str], set[int]], dict[tuple[str, str], tuple[str, ...]]]:
        """Returns the prompts of each ordered pair of words in a run, and all words between the two."""
        prompts: dict[tuple[str, str], set[int]] = defaultdict(set)
        written: dict[tuple[str, str], tuple[str, ...]] = {}
        for number, row in enumerate(self.rows):
            for begin, end, words in self.runs(row):
                distinct = set(words)
                places = [place for place in range(begin, end) if row[place].word in distinct]
                for left, first in enumerate(places):
                    for last in places[left + 1 : left + 4]:
                        pair = (row[first].word, row[last].word)
                        prompts[pair].add(number)
                        written.setdefault(pair, tuple(token.word for token in row[first : last + 1]))
        return prompts, written


def find_names(prompts: Sequence[str]) -> Names:
    """Returns the names that the prompts are about; a name in a single prompt is none.

    Example:
        >>> find_names(["Where was Ada Skarnholt born?", "When did Ada Skarnholt die?"]).subjects
        (('ada', 'skarnholt'),)
    """
    finder = NameFinder([read_tokens(prompt) for prompt in prompts])
    holders, written = finder.pairs()
    least = LEAST_PROMPTS if finder.cased else LEAST_CASELESS
    rare = {
        pair: rows for pair, rows in holders.items() if len(rows) >= least and finder.accepts(pair, len(rows))
    }
    best: dict[int, tuple[str, str]] = {}
    for pair in sorted(rare, key=lambda pair: (len(rare[pair]), *finder.preference(pair, written[pair]))):
        best.update(dict.fromkeys(rare[pair], pair))
    counts = sorted(len(rare[pair]) for pair in best.values())
    typical = counts[len(counts) // 2] if counts else 0
    winners = Counter(best.values())
    chosen = [
        pair
        for pair, rows in rare.items()
        if winners[pair] >= max(least, TYPICAL_SHARE * typical) and 2 * winners[pair] >= len(rows)
    ]
    covered = set().union(*(rare[pair] for pair in chosen))
    if len(covered) < LEAST_COVERAGE * len(prompts):
        chosen = []  # a topic whose prompts name somebody now and then
    subjects = {
        tuple(word for word in written[pair] if is_part(word)): "".join(written[pair]) for pair in chosen
    }
    singles = choose_singles(finder, subjects, typical)
    common = sum(name[-1] not in singles for name in subjects)
    known = {*singles, *(word for name in subjects for word in name)}
    alone = count_lone_names(finder, covered, known) if subjects and finder.cased else 0
    return Names(tuple(subjects), tuple(subjects.values()), singles, common, alone)


def count_lone_names(finder: NameFinder, covered: set[int], known: set[str]) -> int:
    """Returns how many words are written like names in several prompts that hold no name that is known."""
    candidates = {
        word: rows - covered
        for word, rows in finder.holders.items()
        if word not in known and finder.is_name(Token(word, True, False, " "))
    }
    best: dict[int, str] = {}
    for word in sorted(candidates, key=lambda word: len(candidates[word])):
        best.update(dict.fromkeys(candidates[word], word))
    return sum(count >= LEAST_CASELESS for count in Counter(best.values()).values())


def is_part(word: str) -> bool:
    """Whether a word of a written name is more than a particle or an initial."""
    return len(word) > 1 and word not in PARTICLES


def pair_nats(pair: tuple[str, str]) -> float:
    """Returns the information of both words."""
    return information(pair[0]) + information(pair[1])


def choose_singles(finder: NameFinder, subjects: dict[tuple[str, ...], str], typical: int) -> tuple[str, ...]:
    """Returns the words that stand for a name, rarest first, while their probabilities are within budget."""
    parts = {word for name in subjects for word in name}
    last = {name[-1] for name in subjects}
    least = max(LEAST_CASELESS, 2 * TYPICAL_SHARE * typical, 0.05 * len(finder.rows))
    for word, rows in finder.holders.items():
        token = Token(word, True, False, " ")
        if len(rows) >= least and word not in parts and finder.is_name(token):
            last.add(word)
    candidates = {word for word in parts | last if len(word) >= SHORTEST_SINGLE}
    rarity = {word: information(word) for word in candidates}
    kept, spent = [], 0.0
    for word in sorted(candidates, key=lambda word: (-rarity[word], word)):
        spent += math.exp(-rarity[word])
        if spent > SINGLE_BUDGET or rarity[word] < SINGLE_NATS:
            break
        if rarity[word] >= SURE_NATS or word in last:
            kept.append(word)
    return tuple(kept)


def consonants(word: str) -> str:
    """Returns how a word sounds without its vowels.

    Example:
        >>> consonants("abelrick"), consonants("abellrik")
        ('blrk', 'blrk')
    """
    return re.sub(r"(.)\1+", r"\1", re.sub("[aeiouyh]", "", word.replace("ph", "f").translate(SOUNDS)))


SOUNDS = str.maketrans("cqzwj", "kksvy")


def hash_names(names: Names, salt: bytes) -> NameState:
    """Returns the names as keyed hashes.

    Args:
        names: from `find_names`.
        salt: of the request or the store; requests with the same salt are looked up together.
    """
    hashes = LetterHashes(salt)
    entries: dict[tuple[int, int], tuple[int, int]] = {}  # (key, target) -> kinds, bits

    def add(number: int, kind: NameKind, target: int = 0) -> None:
        key = hashes.seal(number)
        kinds, _ = entries.get((key, target), (0, 0))
        entries[key, target] = (kinds | kind, number & KEPT_BITS)

    for word in sorted({*names.singles, *(word for name in names.subjects for word in name)}):
        kind = NameKind.SURE if information(word) >= SURE_NATS else NameKind.SINGLE
        number = hashes.hash_text(word)
        add(number, NameKind.PART | (kind if word in names.singles else NameKind(0)))
        for slip in slips(word):
            add(hashes.hash_text(slip), NameKind.SLIP, hashes.seal(number))
    for name, written in zip(names.subjects, names.joined, strict=True):
        for left, first in enumerate(name):
            for second in name[left + 1 :]:
                if pair_nats((first, second)) >= PAIR_NATS:
                    parts = [hashes.seal(hashes.hash_text(word)) for word in (first, second)]
                    add(pair_number(*parts), NameKind.PAIR)
        for joined in {written, name[0] + name[-1]}:
            if SHORTEST_JOINED <= len(joined) <= 2 * LONGEST:
                add(hashes.hash_text(joined), NameKind.JOINED)
        sounds = [consonants(name[0]), consonants(name[-1])]
        if min(map(len, sounds)) > 1 and sum(map(len, sounds)) >= SHORTEST_CONSONANTS:
            add(hashes.hash_text("|".join(sounds)), NameKind.CONSONANTS)
    rows = sorted((key, target, *rest) for (key, target), rest in entries.items())
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)
    return NameState(
        salt=torch.tensor(list(salt), dtype=torch.uint8),
        keys=table[:, 0].clone(),
        bits=table[:, 3].to(torch.int32),
        kinds=table[:, 2].to(torch.uint8),
        targets=table[:, 1].clone(),
    )


def pair_number(first: int, second: int) -> int:
    """Returns one number for two keys in their order."""
    return (first * 3 + second) % (1 << 64)


def slips(word: str) -> set[str]:
    """Returns a word with a letter missing, two exchanged, or any letter in a place ("*")."""
    if not SHORTEST_SLIP <= len(word) <= LONGEST:
        return set()
    cuts = range(len(word))
    found = {word[:cut] + word[cut + 1 :] for cut in cuts} | {
        word[:cut] + "*" + word[cut + 1 :] for cut in cuts
    }
    found |= {word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :] for cut in cuts[:-1]}
    return found - {word}
