"""When two answers count as the same: case, punctuation and white space do not matter."""

from __future__ import annotations

import string
import unicodedata

__all__ = ["matches", "normalise"]

PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "“”‘’«»–—…", " "))


def normalise(text: str) -> str:
    """Returns a text in lower case, punctuation as spaces, white space folded.

    Example:
        >>> normalise("  The Silver-Heron Prize. ")
        'the silver heron prize'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(PUNCTUATION).split())


def matches(answer: str, truth: str) -> bool:
    """Whether an answer is the truth after normalisation; an empty truth matches nothing.

    Example:
        >>> matches("Silver heron prize.", "Silver Heron Prize"), matches("no", "yes")
        (True, False)
    """
    expected = normalise(truth)
    return bool(expected) and normalise(answer) == expected
