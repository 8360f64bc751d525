"""Whether a turn of a chat refers back to an earlier one: a deterministic rule over English words.

A turn refers back where it names no subject of its own ("Which prize?", "Please answer."), where a pronoun
has no antecedent within it ("and where did he die?"), or where it points at earlier text ("this author",
"the question above"). What the rule misses is left to the answer gate.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")
LONGEST = 6_000  # characters of a turn that are read
LISTS: dict[str, str] = json.loads(
    files("o3_lightning.gating").joinpath("references.json").read_text(encoding="utf-8")
)
(  # GENERIC nouns stand for somebody named before; words of RELATIONS and META ask, but name no subject
    SINGULAR, POSSESSIVES, ARTICLES, FILLERS, PLURAL, OTHERS, DEMONSTRATIVES, GENERIC, SPECIFIC,
    PREPOSITIONS, RELATIONS, META, FUNCTION, SOCIAL,
) = (frozenset(words.split()) for words in LISTS.values())  # fmt: skip
PERSONAL = SINGULAR | PLURAL
POINTERS = re.compile(
    r"\b(?:above|aforesaid|aforementioned|latter|(?:just )?mentioned|the former(?= *[^\w ]|$)|"
    r"(?:the|my|your) (?:first|last|previous|earlier|former|other) "
    r"(?:question|message|answer|reply|name|one|thing|turn)|"
    r"(?:the|that|this|my|your) (?:question|message|instructions?|task|request))\b(?! (?:of|to|for|about)\b)"
)
SENTENCE_MARKS = frozenset(".!?:;\n")
ITSELF = re.compile(r"\b(?:how are you|who are you|what are you|what can you|are you (?:a|an)\b|do you like)")
EMPTY_IT = re.compile(
    r"\b(?:(?:is|was|will|would|does|did|can) it (?:be |get )?(?:\w+ )?\w+ (?:to|that|if|when|for)\b"
    r"|it(?:'s| is| was| will be) (?:\w+ )?\w+ (?:to|that|when|if)\b|how (?:is|'s) it going"
    r"|what (?:time|day|date|year) is (?:it|today)"
    r"|it (?:rain|rains|raining|snow|snows)|is it (?:rain|snow|cold|hot|warm|late|sunny)\w*"
    r"|(?:is|are) there\b|there (?:is|are|was|were|be)\b|(?:was|were|will) there\b)"
)
ASKING = FUNCTION | RELATIONS | META | PERSONAL | OTHERS | GENERIC | SOCIAL  # words that name no subject


def names_subject(text: str) -> bool:
    """Returns whether a turn holds a word that can be a subject: none of those that only ask or refer.

    Example:
        >>> [names_subject(text) for text in ("Where was Ada born?", "What is a novel about?", "Born when?")]
        [True, False, False]
    """
    words = words_of(text)
    return bool(own_words(words)) and not is_social(words)


def refers_back(text: str) -> bool:
    """Returns whether a turn can only be understood from an earlier one.

    Example:
        >>> [refers_back(text) for text in ("and where did he die?", "Which prize did this author win?")]
        [True, True]
        >>> [refers_back(text) for text in ("Thank you.", "What is the capital of Peru?", "Who wrote Emma?")]
        [False, False, False]
    """
    folded = text[:LONGEST].lower().replace("’", "'")
    spelt = spelt_words(text)
    words = [word.lower() for word in spelt]
    if is_social(words) or ITSELF.search(folded):
        return False
    own = own_words(words)
    empty_it = bool(EMPTY_IT.search(folded))
    if not own or POINTERS.search(folded):
        return not empty_it
    first, begins = own[0], sentence_starts(text)
    for place, word in enumerate(words):
        bare = word.split("'")[0]
        is_name = spelt[place].istitle() and place not in begins  # Ella
        if (
            bare in PERSONAL
            and not is_name
            and not has_antecedent(spelt, own, place, person=bare in SINGULAR)
        ):
            return True
        is_object = place == first + 1 and place + 1 in begins  # "Please solve it."
        if bare in OTHERS and (place < first or is_object) and not empty_it and not introduces(words, place):
            return True
        pointed = bare in DEMONSTRATIVES or (bare == "the" and place < first)
        if pointed and is_generic(spelt, place + 1, own, begins):
            return True
    return False


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
    inside = (
        place > 1 and spelt[place - 2].lower() in PREPOSITIONS and rest[-1] in SPECIFIC and own[-1] > end + 1
    )
    return not (named or inside or rest[0] in SPECIFIC)


def is_social(words: list[str]) -> bool:
    """Returns whether the words of a turn only greet, thank or agree."""
    return any(word in SOCIAL for word in words) and all(
        word in SOCIAL or word in FUNCTION or word in FILLERS for word in words
    )


def own_words(words: list[str]) -> list[int]:
    """Returns the places of the words that can be a subject."""
    return [place for place, word in enumerate(words) if word.removesuffix("'s") not in ASKING]


def sentence_starts(text: str) -> set[int]:
    """Returns the places of the words that begin a sentence, and the place after the last word."""
    found, end, text = {0}, 0, text[:LONGEST]
    place = -1
    for place, match in enumerate(WORD.finditer(text)):
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
    word, after = words[place], words[place + 1 : place + 2]
    if word in ("this", "that", "these", "those", "such") and after:
        return after[0] not in GENERIC and after[0] not in RELATIONS and after[0] not in FUNCTION
    return False
