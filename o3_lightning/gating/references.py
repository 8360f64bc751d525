"""Whether a turn of a chat refers back to an earlier one: a deterministic rule over words of 11 languages.

A turn refers back where it names no subject of its own ("Which prize?", "¿Y sus padres?", "And the cats?"),
where a pronoun has no antecedent within it ("and where did he die?"), or where it points at earlier text
("this author", "what you said"). What the rule misses is left to the answer gate.
"""

import json
import re
from collections.abc import Collection
from importlib.resources import files
from typing import Any

from o3_lightning.detector.name_table import UNSPACED
from o3_lightning.detector.text.frequencies import looks_like_name

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")
LONGEST = 6_000  # characters of a turn that are read
ELLIPSIS, FRAGMENT, SHORT = 5, 3, 40  # words of "And the cats?", of "Zodiac sign?", of a turn in any language
LISTS: dict[str, Any] = json.loads(files(__package__).joinpath("references.json").read_text("utf-8"))
OTHER_LANGUAGES, PATTERNS = LISTS.pop("languages").values(), LISTS.pop("patterns").values()
POINTERS, FAR, AFFIXES, ITSELF, EMPTY_IT = map(re.compile, PATTERNS)
(  # GENERIC nouns stand for somebody named before; words of RELATIONS and META ask, but name no subject
    SINGULAR, POSSESSIVES, ARTICLES, FILLERS, PLURAL, OTHERS, DEMONSTRATIVES, GENERIC, SPECIFIC,
    PREPOSITIONS, RELATIONS, META, FUNCTION, SOCIAL, CONJUNCTIONS, OPENERS,
) = (frozenset(words.split()) for words in LISTS.values())  # fmt: skip
PERSONAL = SINGULAR | PLURAL
SENTENCE_MARKS = frozenset(".!?:;\n")
SENTENCE_ENDS = re.compile(r"(?<=[.!?;])\s+|\n")
QUESTION_MARKS = ("?", "？", "؟")
ASKING = FUNCTION | RELATIONS | META | PERSONAL | OTHERS | GENERIC | SOCIAL  # words that name no subject
POLITE = SOCIAL | FUNCTION | FILLERS
LANGUAGES = [ASKING, *(SOCIAL.union(words.split()) for words in OTHER_LANGUAGES)]


def names_subject(text: str, *, person: bool = False) -> bool:
    """Returns whether a turn holds a word that can be a subject: of "he" or "she" with `person`.

    Example:
        >>> [names_subject(text) for text in ("Where was Ada born?", "What is a novel about?", "Born when?")]
        [True, False, False]
    """
    spelt = spelt_words(text)
    words = [word.lower() for word in spelt]
    return not is_social(words) and has_antecedent(spelt, own_words(words), len(words), person=person)


def subjects_of(words: list[str]) -> frozenset[str]:
    """Returns the words, in lower case, that can be a subject, without an article or a genitive."""
    return frozenset(AFFIXES.sub("", words[place]) for place in own_words(words))


def sentences_about(text: str, subjects: Collection[str]) -> str:
    """Returns the sentences of a turn that name all of these: "Let the fox be Ada." for "fox"."""
    said = ((part, set(spelt_words(part))) for part in SENTENCE_ENDS.split(text[:LONGEST]) if subjects)
    return " ".join(
        part
        for part, words in said
        if all(word in words or (len(word) == 1 and word.upper() in words) for word in subjects)
    )


def closes(text: str, *, person: bool) -> bool:
    """Returns whether a turn names what later ones refer to: somebody for "he" or "she" (`person`)."""
    return names_subject(text, person=person) and not refers_back(text)


def refers_back(text: str) -> bool:
    """Returns whether a turn can only be understood from an earlier one.

    Example:
        >>> [refers_back(text) for text in ("and where did he die?", "Which prize did this author win?")]
        [True, True]
        >>> [refers_back(text) for text in ("Thank you.", "What is the capital of Peru?", "Who wrote Emma?")]
        [False, False, False]
    """
    folded = text[:LONGEST].lower().replace("’", "'").rstrip()
    spelt = spelt_words(text)
    words = [word.lower() for word in spelt]
    if is_social(words) or ITSELF.search(folded):
        return False
    own = own_words(words)
    empty_it = bool(EMPTY_IT.search(folded))
    begins = sentence_starts(text)
    if not own or POINTERS.search(folded):
        return not empty_it
    if begins == {0, len(words)} and is_elliptical(words, spelt, own, asks=folded.endswith(QUESTION_MARKS)):
        return True
    first = own[0]
    for place, word in enumerate(words):
        bare = word.split("'")[0]
        is_name = spelt[place].istitle() and place not in begins  # Ella
        person = bare in SINGULAR
        if bare in PERSONAL and not is_name and not has_antecedent(spelt, own, place, person=person):
            return True
        is_object = place == first + 1  # "Please solve it."
        if bare in OTHERS and (place < first or is_object) and not empty_it and not introduces(words, place):
            return True
        pointed = bare in DEMONSTRATIVES or (bare == "the" and place < first)
        if pointed and is_generic(spelt, place + 1, own, begins):
            return True
    return False


def is_elliptical(words: list[str], spelt: list[str], own: list[int], *, asks: bool) -> bool:
    """Returns whether a turn is a part of a sentence that names nobody: "And the cats?", "Zodiac sign?".

    Without a question mark a few words are a search of their own: "boil eggs".
    """
    joined = words[0] in CONJUNCTIONS and len(words) <= ELLIPSIS
    alone = (
        asks
        and len(words) <= FRAGMENT
        and words[0] not in OPENERS
        and not re.search(f"[{UNSPACED}]", words[0])
    )
    is_named = any(not spelt[place].islower() for place in own if place) or looks_like_name(words[0])
    return (joined or alone) and not is_named


def has_antecedent(spelt: list[str], own: list[int], place: int, *, person: bool) -> bool:
    """Returns whether a word before a pronoun may be what it stands for; "he" and "she" ask for somebody."""
    before = [each for each in own if each < place]
    if not person:
        return bool(before)
    if any(word.lower() in POSSESSIVES for word in spelt[:place]):
        return True
    return any(each and (spelt[each][0].isupper() or spelt[each - 1].lower() in ARTICLES) for each in before)


def is_generic(spelt: list[str], place: int, own: list[int], begins: set[int]) -> bool:
    """Returns whether the noun phrase at a place, such as "author", leaves open who is meant.

    It does not where a name follows ("author Ada Skarnholt"; a text in capitals tells nothing) or a
    complement ("author of Emma"; "name of the author born in Lisbon", but "was the author born in May?").
    """
    end = place
    while end < len(spelt) and spelt[end].lower() in GENERIC:
        end += 1
    rest = [] if end in begins else [word.lower() for word in spelt[end : end + 2]]
    if end == place or not rest:
        return end > place
    named = not spelt[end][0].islower() and spelt[end - 1].islower()
    inside = place > 1 and spelt[place - 2].lower() in PREPOSITIONS and own[-1] > end + 1
    return not (named or (inside and rest[-1] in SPECIFIC) or rest[0] in SPECIFIC)


def is_social(words: list[str]) -> bool:
    """Returns whether the words of a turn only greet, thank or agree."""
    return not SOCIAL.isdisjoint(words) and POLITE.issuperset(words)


def own_words(words: list[str]) -> list[int]:
    """Returns the places of the words that can be a subject, in the language that has fewest of them."""
    bare = [AFFIXES.sub("", word) for word in words]
    readings = LANGUAGES if len(words) <= SHORT else LANGUAGES[:1]
    return min(([at for at, word in enumerate(bare) if word not in known] for known in readings), key=len)


def sentence_starts(text: str) -> set[int]:
    """Returns the places of the words that begin a sentence, and the place after the last word."""
    found, end, place = {0}, 0, -1
    for place, match in enumerate(WORD.finditer(text[:LONGEST])):
        if not SENTENCE_MARKS.isdisjoint(text[end : match.start()]):
            found.add(place)
        end = match.end()
    return found | {place + 1}


def spelt_words(text: str) -> list[str]:
    """Returns the words of what is read of a turn, as they are spelt."""
    return WORD.findall(text[:LONGEST].replace("’", "'"))


def words_of(text: str) -> list[str]:
    """Returns the same words in lower case, each at its place: "İ" in a text becomes two characters."""
    return [word.lower() for word in spelt_words(text)]


def introduces(words: list[str], place: int) -> bool:
    """Returns whether a demonstrative introduces a subject of its own: "that" in a clause, "this week"."""
    told = (word in GENERIC or word in RELATIONS or word in FUNCTION for word in words[place + 1 : place + 2])
    return words[place] in ("this", "that", "these", "those", "such") and not all(told)
