"""How rare a word is, from the frequency lists of the package `wordfreq`."""

import math
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from unicodedata import unidata_version

from o3_lightning.common.files import cache_folder, digest_bytes, digest_json, write_atomically
from o3_lightning.detector.text.normalise import fold_accents

UNLISTED = 20.0  # nats of a word that no list has
LANGUAGES = ("de", "es", "fr", "it", "nl", "pt", "pl", "sv", "tr", "ru", "ro", "cs", "id")
OTHER_LANGUAGE_BUCKETS = 150  # added to other languages, so that a name is not as common as a foreign word
BUCKETS_PER_DECADE = 100  # the lists hold hundredths of a decade
POSSESSIVE_SHARE = 0.009  # "Howard's" among "howard": .01 to .3 for names, below .005 for most nouns
PLURAL_SHARE = 0.1  # "cards" among "card": above .1 for most nouns, below .06 for names


@cache
def word_information() -> dict[str, float]:
    """Returns -ln p of every listed word without accents; the most frequent language counts.

    The lists are read from the package once and kept in `cache_folder`, from where they load five times as
    fast.
    """
    recipe = [version("wordfreq"), unidata_version, LANGUAGES, OTHER_LANGUAGE_BUCKETS, BUCKETS_PER_DECADE]
    path = cache_folder() / f"words-{digest_json(recipe)[:16]}.txt"
    with suppress(OSError, UnicodeDecodeError):
        digest, _, kept = path.read_bytes().partition(b"\n")
        if digest == digest_bytes(kept).encode():
            return unpack_words(kept.decode())
    found = read_lists()
    content = pack_words(found)
    with suppress(OSError):  # without a cache the lists are read each time
        write_atomically(path, f"{digest_bytes(content.encode())}\n{content}")
    return found


def read_lists() -> dict[str, float]:
    """Returns -ln p of every word of the package's lists."""
    from wordfreq import get_frequency_list

    groups = [
        (bucket + OTHER_LANGUAGE_BUCKETS * (language != "en"), words)
        for language in ("en", *LANGUAGES)
        for bucket, words in enumerate(get_frequency_list(language, "large" if language == "en" else "small"))
        if words
    ]
    found: dict[str, float] = {}
    for bucket, words in sorted(groups, key=lambda group: -group[0]):  # a more frequent form replaces others
        accented = fold_accents("\n".join(word for word in words if not word.isascii())).split("\n")
        plain = [*filter(str.isascii, words), *accented]
        found.update(dict.fromkeys(plain, bucket * math.log(10) / BUCKETS_PER_DECADE))
    found.pop("", None)
    return found


def pack_words(found: dict[str, float]) -> str:
    """Returns words as text: a line for each number, which comes first."""
    groups: dict[float, list[str]] = {}
    for word, nats in found.items():
        groups.setdefault(nats, []).append(word)
    return "\n".join("\t".join([repr(nats), *words]) for nats, words in groups.items())


def unpack_words(content: str) -> dict[str, float]:
    """Returns the words that `pack_words` wrote."""
    found: dict[str, float] = {}
    for line in content.split("\n"):
        nats, *words = line.split("\t")
        found.update(dict.fromkeys(words, float(nats)))
    return found


def information(word: str) -> float:
    """Returns -ln p of a lower-case word without accents, in nats; `UNLISTED` where no list has it.

    Example:
        >>> information("the") < information("photosynthesis") < information("skarnholt")
        True
    """
    return word_information().get(word, UNLISTED)


def is_listed(word: str) -> bool:
    """Whether a frequency list has the word."""
    return word in word_information()


def looks_like_name(word: str) -> bool:
    """Whether a lower-case word is used like a proper name: unlisted, or with a genitive but no plural.

    Example:
        >>> [looks_like_name(word) for word in ("howard", "converter", "need")]
        [True, False, False]
    """
    return not has_plural(word) and form_share(word, "'s") >= POSSESSIVE_SHARE


def has_plural(word: str) -> bool:
    """Whether a lower-case word is used in the plural like a common noun."""
    return PLURAL_SHARE <= form_share(word, "s") < math.inf


def form_share(word: str, ending: str) -> float:
    """Returns how frequent a form of a word is beside the word; infinite for unlisted words."""
    listed = word_information()
    return math.exp(listed[word] - listed.get(word + ending, math.inf)) if word in listed else math.inf
