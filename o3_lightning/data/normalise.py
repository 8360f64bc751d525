"""Normalisation of answers: case, punctuation and white space are ignored in comparisons."""

import re
import string
import unicodedata

PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
# Thai and Lao, Burmese, Khmer, kana, Chinese characters, and Korean, whose particles are part of the word
WRITTEN_TOGETHER = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def normalise(text: str) -> str:
    """Returns a text in lower case, with punctuation replaced by spaces and white space collapsed.

    In scripts without spaces between words every character is a word, so that names are found in sentences.

    Example:
        >>> normalise("  The Silver-Heron Prize. "), normalise("答えは東京。")
        ('the silver heron prize', '答 え は 東 京')
    """
    folded = unicodedata.normalize("NFKC", text).casefold().translate(PUNCTUATION)
    if not folded.isascii():
        folded = "".join(" " if unicodedata.category(one)[0] == "P" else one for one in folded)
        folded = WRITTEN_TOGETHER.sub(r" \g<0> ", folded)
    return " ".join(folded.split())
