"""Undoes what hides a word from an encoder: case, look-alikes, zero-width characters, white space."""

import re
import unicodedata

# Letters of other scripts that look like Latin ones, after Unicode's table of confusables; lower case,
# because the text is folded first.
LOOK_ALIKES = str.maketrans(
    {
        **dict(zip("авекмнорстухѕіјԁһӏԛԝьгпч", "abekmhopctyxsijdhlqwbrnu", strict=True)),
        **dict(zip("αβγεηικνορτυχωϲϳ", "abyenikvoptuxwcj", strict=True)),
        **dict(zip("ıȷɑɡɩɪʀʏꜱᴄᴏᴜᴠᴡᴢ", "ijagiiryscouvwz", strict=True)),
        **dict(zip("‘’‚‛“”„‐‑‒–—―", "''''\"\"\"------", strict=True)),
    }
)
LEET = str.maketrans("013457@$!|", "oleastasil")
SPACES = re.compile(r"\s+")
SPACED_LETTERS = re.compile(r"(?<!\w)(?:\w[ .\-_*]){3,}\w(?!\w)")
SEPARATORS = re.compile(r"[ .\-_*]")
LEET_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:[013457@$!|][^\W\d_]+)+(?!\w)")
HIDDEN_CATEGORIES = frozenset({"Cf", "Cc", "Co", "Cn"})
WORDS = re.compile(r"(?<!\w)[a-zA-Z0-9_]*+[^\W\x00-\x7f]\w*")  # with a character outside of ASCII
GIANTS = str.maketrans("\ufdfa\ufdfb", "  ")  # one character that stands for 18 or 8


def normalise_text(text: str) -> str:
    """Returns the text as an encoder should read it; normalising twice changes nothing.

    Compatibility forms are folded (full-width letters, ligatures, mathematical alphabets), accents and
    zero-width characters dropped, Cyrillic and Greek look-alikes inside words that mix scripts turned into
    Latin letters, digits inside words read as letters, spelt-out words joined, white space made single, and
    everything put into lower case.

    Example:
        >>> normalise_text("Wher\u0435 was  A\u200bda B\u00d6RN?")
        'where was ada born?'
    """
    folded = visible_text(text.lower() if text.isascii() else text).lower()
    joined = SPACED_LETTERS.sub(
        lambda match: SEPARATORS.sub("", match.group()), fold_accents(latin_words(folded))
    )
    read = LEET_WORD.sub(lambda match: match.group().translate(LEET), joined)
    return SPACES.sub(" ", read).strip()


def fold_accents(text: str) -> str:
    """Returns the text without accents and other combining marks."""
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFKD", text)
    return parts.translate({ord(char): None for char in set(parts) if unicodedata.combining(char)})


def visible_text(text: str) -> str:
    """Returns the text in compatibility form without soft hyphens, joiners and controls."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    text = unicodedata.normalize("NFKC", text.translate(GIANTS))
    hidden = {c for c in set(text) if unicodedata.category(c) in HIDDEN_CATEGORIES and not c.isspace()}
    return text.translate({ord(char): None for char in hidden}) if hidden else text


def latin_words(text: str) -> str:
    """Returns the text with look-alikes as Latin letters, except in words honestly of another script."""
    if text.isascii() or LOOK_ALIKES.keys().isdisjoint(map(ord, set(text))):
        return text
    latin = {word: latin_word(word) for word in set(WORDS.findall(text))}
    return WORDS.sub(lambda match: latin[match.group()], text)


def latin_word(word: str) -> str:
    """Returns a word with look-alikes as Latin letters, unless it is honestly of another script."""
    swapped = word.translate(LOOK_ALIKES)
    letters = [char for char in swapped if char.isalpha()]
    return swapped if all(char.isascii() or is_latin(char) for char in letters) else word


def is_latin(char: str) -> bool:
    """Whether a letter belongs to the Latin script, accents included."""
    return unicodedata.name(char, "").startswith("LATIN")
