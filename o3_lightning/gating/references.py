"""Whether a turn of a chat refers back to an earlier one: a deterministic rule over words of 11 languages.

A turn refers back where it names no subject of its own ("Which prize?", "¿Y sus padres?", "And the cats?"),
where a pronoun has no antecedent within it ("and where did he die?"), or where it points at earlier text
("this author", "what you said"). What the rule misses is left to the answer gate.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Collection
from functools import cached_property
from importlib.resources import files
from itertools import dropwhile
from typing import Any

from o3_lightning.detector.text.frequencies import looks_like_name
from o3_lightning.detector.text.spans import SENTENCE_END

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")
LONGEST = 6_000  # characters of an utterance that are read
ELLIPSIS, FRAGMENT, SHORT = 5, 3, 40  # words of "And the cats?", of "Zodiac sign?", of a turn in any language
LISTS: dict[str, Any] = json.loads(files(__package__).joinpath("references.json").read_text("utf-8"))
OTHER_LANGUAGES, PATTERNS = LISTS.pop("languages").values(), LISTS.pop("patterns").values()
POINTERS, FAR, AFFIXES, ITSELF, EMPTY_IT, ASIDES = map(re.compile, PATTERNS)
(  # GENERIC nouns stand for somebody named before; words of RELATIONS and META ask, but name no subject
    SINGULAR, POSSESSIVES, ARTICLES, FILLERS, PLURAL, OTHERS, DEMONSTRATIVES, GENERIC, SPECIFIC,
    PREPOSITIONS, RELATIONS, META, FUNCTION, SOCIAL, CONJUNCTIONS, OPENERS, SPEAKERS, MODALS, LINKS,
) = (frozenset(words.split()) for words in LISTS.values())  # fmt: skip
PERSONAL = SINGULAR | PLURAL
QUESTION_MARKS = ("?", "？", "؟")
ASKING = FUNCTION | RELATIONS | META | PERSONAL | OTHERS | GENERIC | SOCIAL  # words that name no subject
POLITE = SOCIAL | FUNCTION | FILLERS
LANGUAGES = [ASKING, *(SOCIAL.union(words.split()) for words in OTHER_LANGUAGES)]


class Utterance:
    """What is read of a turn, each word found once.

    Args:
        text: of the turn.

    Attributes:
        spelt: its words; `starts` are their places in the text, `words` the same words in lower case ("İ"
            becomes two characters).
        own: places of the words that can be a subject, in the language that has fewest of them.
    """

    def __init__(self, text: str) -> None:
        self.text = text[:LONGEST].replace("’", "'")
        self.folded = self.text.lower().rstrip()
        found = list(WORD.finditer(self.text))
        self.starts = [word.start() for word in found]
        self.spelt = [word[0] for word in found]
        self.words = [word.lower() for word in self.spelt]
        self.own = own_words(self.words)

    @property
    def is_social(self) -> bool:
        """Whether it only greets, thanks or agrees."""
        return not SOCIAL.isdisjoint(self.words) and POLITE.issuperset(self.words)

    @property
    def reaches_far(self) -> bool:
        """Whether it points beyond the nearest turn that names a subject: "my first question"."""
        return FAR.search(self.folded) is not None

    @cached_property
    def subjects(self) -> frozenset[str]:
        """Its words that can be a subject, in lower case, without an article or a genitive."""
        return frozenset(AFFIXES.sub("", self.words[place]) for place in self.own)

    @cached_property
    def begins(self) -> set[int]:
        """Places of the words that begin a sentence, and the place after the last word."""
        ends = [match.end() for match in SENTENCE_END.finditer(self.text)]
        return {0, len(self.starts), *(bisect_left(self.starts, end) for end in ends)}

    @property
    def names_subject(self) -> bool:
        """Whether it holds a word that can be a subject."""
        return bool(self.own) and not self.is_social

    @cached_property
    def refers_back(self) -> bool:
        """Whether it can only be understood from an earlier turn.

        Example:
            >>> [Utterance(text).refers_back for text in ("And where did he die?", "How old are you?")]
            [True, False]
        """
        if self.is_social or ITSELF.search(self.folded):
            return False
        empty_it = bool(EMPTY_IT.search(self.folded))
        if POINTERS.search(self.folded):
            return not empty_it
        if not self.own:
            return not (empty_it or (self.is_about_speakers and len(self.begins) == 2))  # one sentence
        return self.is_elliptical or self.has_open_reference(empty_it=empty_it)

    @cached_property
    def is_about_speakers(self) -> bool:
        """Whether what it asks is said of "you" or "me": "your name", "how old are you"."""
        for place, word in enumerate(self.words):
            before, after = self.words[:place][::-1], self.words[place + 1 :]
            if word in SPEAKERS and MODALS.isdisjoint(before[:1]):
                before, after = (list(dropwhile(LINKS.__contains__, part)) for part in (before, after))
            elif word in POSSESSIVES:
                before = []
            else:
                continue
            rest = list(dropwhile(RELATIONS.__contains__, after))
            is_said = len(rest) < len(after) or not RELATIONS.isdisjoint(before[:1])
            if is_said and META.isdisjoint(rest[:1]):
                return True
        return False

    @property
    def is_elliptical(self) -> bool:
        """Whether it is a part of a sentence that names nobody: "And the cats?", "Zodiac sign?".

        Without a question mark a few words are a search of their own: "boil eggs".
        """
        first, count = self.words[0], len(self.words)
        joined = first in CONJUNCTIONS and count <= ELLIPSIS
        asks = self.folded.endswith(QUESTION_MARKS) and count <= FRAGMENT
        if not (joined or (asks and first not in OPENERS)):
            return False
        return not (
            any(not self.spelt[place].islower() for place in self.own if place) or looks_like_name(first)
        )

    def has_open_reference(self, *, empty_it: bool) -> bool:
        """Returns whether a pronoun or noun phrase stands for something that no word before it names."""
        first = self.own[0]
        for place, word in enumerate(self.words):
            bare = word.split("'")[0]
            is_name = self.spelt[place].istitle() and place not in self.begins  # Ella
            if bare in PERSONAL and not is_name and not self.has_antecedent(place, person=bare in SINGULAR):
                return True
            is_object = place == first + 1  # "Please solve it."
            is_ahead = self.text.startswith(":", self.starts[place] + len(word))  # "Shorten this: ..."
            open_it = bare in OTHERS and (place < first or is_object) and not (empty_it or is_ahead)
            if open_it and not introduces(self.words, place):
                return True
            if bare in DEMONSTRATIVES and self.is_generic(place + 1):
                return True
        return False

    def has_antecedent(self, place: int, *, person: bool) -> bool:
        """Returns whether a word before a pronoun may be what it stands for: somebody for "he" (`person`)."""
        before = self.own[: bisect_left(self.own, place)]
        if not person:
            return bool(before)
        if not POSSESSIVES.isdisjoint(self.words[:place]):
            return True
        return any(
            each and (self.spelt[each][0].isupper() or self.words[each - 1] in ARTICLES) for each in before
        )

    def is_generic(self, place: int) -> bool:
        """Returns whether the noun phrase at a place, such as "author", leaves open who is meant.

        It does not where a name follows ("author Ada Skarnholt"; a text in capitals tells nothing) or a
        complement ("author of Emma"; "name of the author born in Lisbon", but "was the author born in May?").
        """
        end = place
        while end < len(self.words) and self.words[end] in GENERIC:
            end += 1
        rest = [] if end in self.begins else self.words[end : end + 2]
        if end == place or not rest:
            return end > place
        named = not self.spelt[end][0].islower() and self.spelt[end - 1].islower()
        inside = place > 1 and self.words[place - 2] in PREPOSITIONS and self.own[-1] > end + 1
        return not (named or (inside and rest[-1] in SPECIFIC) or rest[0] in SPECIFIC)


def sentences_for(text: str, asked: Utterance) -> str:
    """Returns the sentences of a turn that hold all that is asked about: "Let the fox be Ada." for "the fox".

    What is asked about the speakers, such as "your name", is about whom a sentence brings on: "You are Ada",
    "Our guest is Ada". A question, a record, an order to speak or be silent about somebody and what users
    say of themselves bring on nobody.
    """
    wanted, about_speakers = asked.subjects, asked.is_about_speakers
    parts = SENTENCE_END.split(text[:LONGEST].replace(":", ",")) if wanted or about_speakers else []
    return " ".join(
        part for part in parts if holds(part, wanted) or (about_speakers and not ASIDES.search(part.lower()))
    )


def holds(sentence: str, subjects: Collection[str]) -> bool:
    """Returns whether a sentence has all of these words; one letter stands for a capital as well."""
    words = set(WORD.findall(sentence.replace("’", "'")))
    return bool(subjects) and all(
        word in words or (len(word) == 1 and word.upper() in words) for word in subjects
    )


def own_words(words: list[str]) -> list[int]:
    """Returns the places of the words that can be a subject, in the language that has fewest of them."""
    bare = [AFFIXES.sub("", word) for word in words]
    readings = LANGUAGES if len(words) <= SHORT else LANGUAGES[:1]
    return min(([at for at, word in enumerate(bare) if word not in known] for known in readings), key=len)


def introduces(words: list[str], place: int) -> bool:
    """Returns whether a demonstrative introduces a subject of its own: "that" in a clause, "this week"."""
    told = (word in GENERIC or word in RELATIONS or word in FUNCTION for word in words[place + 1 : place + 2])
    return words[place] in ("this", "that", "these", "those", "such") and not all(told)
