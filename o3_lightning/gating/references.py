"""Whether a turn of a chat refers back to an earlier one: a deterministic rule over English words.

A turn refers back where it names no subject of its own ("Which prize?", "Please answer."), where a pronoun
has no antecedent within it ("and where did he die?"), or where it points at earlier text ("this author",
"the question above"). What the rule misses is left to the answer gate.
"""

from __future__ import annotations

import re
from itertools import dropwhile

__all__ = ["is_social", "names_subject", "refers_back"]

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")


def words_of(text: str) -> frozenset[str]:
    """Returns the words of a list in this file."""
    return frozenset(text.split())


SINGULAR = words_of("he him his himself she her hers herself")
POSSESSIVES = words_of("my our your")
ARTICLES = words_of("a an the another")
FILLERS = words_of("again really just that this it")
PERSONAL = words_of("he him his himself she her hers herself they them their theirs themselves")
OTHERS = words_of("it its itself this that these those there then such")
DEMONSTRATIVES = words_of("this that these those such said same aforementioned abovementioned")
POINTERS = re.compile(
    r"\b(?:above|aforesaid|aforementioned|earlier|previous(?:ly)?|former|latter|(?:just )?mentioned|"
    r"(?:the|my) (?:first|last|previous|other) (?:question|message|name|one|thing|turn)|"
    r"(?:the|that|this|my|your) (?:question|message|instructions?|task|request))\b(?! (?:of|to|for|about)\b)"
)
# nouns that stand for somebody or something named before, if nothing says which one
GENERIC = words_of(
    """person man woman guy lady author writer novelist poet playwright artist singer actor actress
    painter politician scientist player individual subject character figure one book novel work
    debut company place"""
)
SPECIFIC = words_of("of who whom whose that which in on by from behind with to for about called named")
# words that ask about a subject but name none
RELATIONS = words_of(
    """born birth birthplace birthday birthdate date day year month age old older young lived lives live
    living life reside home house hometown town city country village place region state nation
    nationality die died dies dead death buried alive marry married spouse wife husband partner
    father mother parents parent children child kids son daughter brother sister siblings family
    job jobs work works worked profession occupation career write writes wrote written writing
    book books novel novels genre debut title titles publish published publication publisher
    sequel series award awards prize prizes win won wins honour honours famous known name names
    named surname first last next second latest earliest best most main full real capital
    population president language currency area size height history study studied school
    university college degree educated education member role plot character characters hobby
    instrument religion email phone number address start started begin began end ended happen
    happened get got make made come came become became go went grow grew called call time long far
    many much often exactly precisely originally"""
)
META = words_of(
    """answer answers reply respond response tell say said repeat again please continue carry go keep on
    proceed explain elaborate details detail more further anyway instead yes yeah yep sure no nope
    come just really need must want know insist question questions asked ask give info information
    anything everything something else thing things fact facts short brief briefly list spell word
    words sentence try guess think remember recall forgot forget believe mean meant correct right
    wrong true finish complete help let us now hint reveal whisper simply only quick quickly
    honest honestly directly ignore rules still waiting"""
)
FUNCTION = words_of(
    """a an the and or but so nor yet if then than as at by for from in into of off on onto out over to
    up with about after before between during under until while because i me my mine we our you
    your yours am is are was were be been being do does did doing done has have had having can
    could shall should will would may might must not don didn doesn isn wasn won what which who
    whom whose where when why how whether all any both each few other some also too very well s t
    d ll m re ve here oh hm hmm uh um hey dear perhaps maybe what's who's where's when's how's
    it's that's there's he's she's they're i'm i'd i'll you're let's don't didn't doesn't isn't
    wasn't aren't weren't can't couldn't won't wouldn't haven't hasn't"""
)
SOCIAL = words_of(
    """hello hi hey thanks thank thx bye goodbye ok okay great good nice cool fine perfect wonderful
    morning afternoon evening night welcome sorry lol haha appreciate appreciated awesome alright
    cheers congratulations helpful helped day later see pleasure glad love today much so you're
    very that's lot bunch ton all kind"""
)
ITSELF = re.compile(r"\b(?:how are you|who are you|what are you|what can you|are you (?:a|an)\b|do you like)")
EMPTY_IT = re.compile(
    r"\b(?:(?:is|was|will|would|does|did|can) it (?:be |get )?(?:\w+ )?\w+ (?:to|that|if|when|for)\b"
    r"|it(?:'s| is| was| will be) (?:\w+ )?\w+ (?:to|that|when|if)\b|what time is it|how (?:is|'s) it going"
    r"|it (?:rain|rains|raining|snow|snows)|is it (?:rain|snow|cold|hot|warm|late|sunny)\w*"
    r"|(?:is|are) there\b|there (?:is|are|was|were|be)\b|(?:was|were|will) there\b)"
)


def names_subject(text: str) -> bool:
    """Returns whether a turn holds a word that can be a subject: none of those that only ask or refer.

    Example:
        >>> [names_subject(text) for text in ("Where was Ada born?", "What is a novel about?", "Born when?")]
        [True, False, False]
    """
    return bool(own_words(text)) and not is_social(text)


def refers_back(text: str) -> bool:
    """Returns whether a turn can only be understood from an earlier one.

    Args:
        text: the turn.

    Example:
        >>> [refers_back(text) for text in ("and where did he die?", "Which prize did this author win?")]
        [True, True]
        >>> [refers_back(text) for text in ("Thank you.", "What is the capital of Peru?", "Who wrote Emma?")]
        [False, False, False]
    """
    folded = text.lower().replace("’", "'")
    words = WORD.findall(folded)
    if is_social(text) or ITSELF.search(folded):
        return False
    own = own_words(text)
    empty_it = bool(EMPTY_IT.search(folded))
    if not own or POINTERS.search(folded):
        return not empty_it
    spelt, first = WORD.findall(text.replace("’", "'")), own[0]
    for place, word in enumerate(words):
        bare = word.split("'")[0]
        if bare in PERSONAL and not has_antecedent(spelt, own, place, person=bare in SINGULAR):
            return True
        if bare in OTHERS and place < first and not empty_it and not introduces(words, place):
            return True
        pointed = bare in DEMONSTRATIVES or (bare == "the" and place < first)
        if pointed and is_generic(words[place + 1 :]):
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


def is_generic(following: list[str]) -> bool:
    """Returns whether a noun phrase, such as "author", leaves open who is meant."""
    rest = list(dropwhile(lambda word: word in GENERIC, following))
    return len(rest) < len(following) and not (rest and rest[0] in SPECIFIC)


def is_social(text: str) -> bool:
    """Returns whether a turn only greets, thanks or agrees."""
    words = WORD.findall(text.lower().replace("’", "'"))
    return any(word in SOCIAL for word in words) and all(
        word in SOCIAL or word in FUNCTION or word in FILLERS for word in words
    )


def own_words(text: str) -> list[int]:
    """Returns the places of the words that can be a subject."""
    known = FUNCTION | RELATIONS | META | PERSONAL | OTHERS | GENERIC
    words = WORD.findall(text.lower().replace("’", "'"))
    return [place for place, word in enumerate(words) if word.removesuffix("'s") not in known]


def introduces(words: list[str], place: int) -> bool:
    """Returns whether a demonstrative introduces a subject of its own: "that" in a clause, "this week"."""
    word, after = words[place], words[place + 1 : place + 2]
    if word in ("this", "that", "these", "those", "such") and after:
        return after[0] not in GENERIC and after[0] not in RELATIONS and after[0] not in FUNCTION
    return False
