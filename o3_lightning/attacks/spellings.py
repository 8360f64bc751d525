"""Alternative spellings and codes of a text, by their names in `kinds.yaml`."""

import base64
import codecs
import random
import re
from collections.abc import Callable

from o3_lightning.detector.text.normalise import LOOK_ALIKES

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TWINS = {ord(str(latin)): chr(other) for other, latin in reversed(LOOK_ALIKES.items())}
RARE_TWINS = str.maketrans("aoulinghABSTD", "ɑօսⅼⅰոցհᎪᏴᏚᎢᎠ")
CYRILLIC = str.maketrans(LETTERS, "абцдефгхийклмнопкрстуввхыз")
GREEK = str.maketrans(LETTERS, "αβκδεφγχιικλμνοπκρστυββξυζ")
NEIGHBOURS = str.maketrans(LETTERS, "svxsrtfyuihjkmnioatdycqzux")
LEET = str.maketrans("aeiostAEIOST", "431057431057")
SHARP_LEET = str.maketrans(dict(zip("aslctbgv", ["@", "$", "|", "(", "+", "8", "9", "\\/"], strict=True)))
NATO = (
    "alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa "
    "quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
)
MORSE = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- "
    "-..- -.-- --.."
)
LEAST_WORD = 4  # a typo in a shorter word would make it another word


def swap_inner(word: str, place: int = 2) -> str:
    """Swaps two neighbouring inner letters; words of three letters or fewer are kept."""
    place = min(place, len(word) - 3)
    return word if place < 1 else word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def half_of_the_words(change: Callable[[str], str], share: float) -> Callable[[str], str]:
    """Returns a spelling that changes a share of the longer words, chosen by the text."""

    def spell(text: str) -> str:
        words = text.split(" ")
        longer = [place for place, word in enumerate(words) if len(word) >= LEAST_WORD]
        drawn = random.Random(f"typos-{text}").sample(longer, -(-int(len(longer) * share * 10) // 10))  # noqa: S311
        return " ".join(change(word) if place in drawn else word for place, word in enumerate(words))

    return spell


def letter_words(table: str, glue: str = " ") -> Callable[[str], str]:
    """Returns a spelling that writes every letter as a word of an alphabet."""
    words = dict(zip(LETTERS, table.split(), strict=True))
    return lambda text: glue.join(words[char] for char in text.lower() if char in words)


def shifted(letters: str, shift: Callable[[str], int]) -> Callable[[str], str]:
    """Returns a spelling in another block of Unicode."""
    return lambda text: re.sub(letters, lambda found: chr(ord(found.group()) + shift(found.group())), text)


def each(pattern: str, change: Callable[[str], str] | str) -> Callable[[str], str]:
    """Returns a spelling that replaces what a pattern finds."""
    if isinstance(change, str):
        return lambda text: re.sub(pattern, change, text)
    return lambda text: re.sub(pattern, lambda found: change(found.group()), text)


def halves(glue: str) -> Callable[[str], str]:
    """Returns a spelling with every word in two halves."""
    return each(r"\w+", lambda word: word[: len(word) // 2] + glue + word[len(word) // 2 :])


SPELLINGS: dict[str, Callable[[str], str]] = {
    "swap_inner": swap_inner,
    "neighbour_key": lambda word: word[:3] + word[3:4].translate(NEIGHBOURS) + word[4:],
    "double_letter": lambda word: word[:2] + word[1:],
    "drop_letter": lambda word: word[:-2] + word[-1:],
    "two_halves": halves(" "),
    "printed_halves": halves("-\n"),
    "syllables": each(r"(?i)[aeiouy](?=[^\W\daeiouy])", r"\g<0>·"),
    "hidden_end": lambda word: f"{word[:-2]}**",
    "hidden_letter": lambda word: f"{word[:1]}?{word[2:]}",
    "glued": lambda text: text.replace(" ", ""),
    "lower": str.lower,
    "cyrillic": lambda text: text.lower().translate(CYRILLIC).title(),
    "greek": lambda text: text.lower().translate(GREEK).title(),
    "swap_words": half_of_the_words(lambda word: swap_inner(word, 1), 0.5),
    "drop_words": half_of_the_words(lambda word: word[: len(word) // 2] + word[len(word) // 2 + 1 :], 1.0),
    "upper": str.upper,
    "alternating": lambda text: "".join(
        char.upper() if place % 2 else char.lower() for place, char in enumerate(text)
    ),
    "look_alikes": lambda text: text.translate(TWINS),
    "rare_look_alikes": lambda text: text.translate(RARE_TWINS),
    "leet": lambda text: text.translate(LEET),
    "sharp_leet": lambda text: text.translate(SHARP_LEET),
    "spaced": " ".join,
    "underscored": "_".join,
    "zero_width": "\u200b".join,
    "soft_hyphens": "\u00ad".join,
    "acute": each("[aeiou]", "\\g<0>\u0301"),
    "struck": each(r"\w", "\\g<0>\u0336"),
    "full_width": shifted("[!-~]", lambda _: 0xFEE0),
    "mathematical_bold": shifted("[A-Za-z]", lambda char: 0x1D400 - 65 if char.isupper() else 0x1D41A - 97),
    "no_vowels": each(r"(?<=\w)[aeiou]", ""),
    "stutter": each(r"\b(\w)(?=\w{3})", r"\1-\1-\1"),
    "long_vowels": each("[aeiou]", r"\g<0>\g<0>\g<0>"),
    "inner_reversed": each(r"(?<=\b\w)\w+(?=\w\b)", lambda inner: inner[::-1]),
    "words_by_ending": lambda text: " ".join(sorted(text.split(), key=lambda word: word[::-1])),
    "camel_case": lambda text: "".join(word[:1].upper() + word[1:] for word in text.split()),
    "slug": lambda text: "-".join(re.findall(r"\w+", text.lower())),
    "decimal_entities": each("(?s).", lambda char: f"&#{ord(char)};"),
    "vowel_entities": lambda text: re.sub(
        "[aeiou]", lambda found: f"&#x{ord(found.group()):X};", text
    ).replace(" ", "&nbsp;"),
    "base64": lambda text: f"Decode base64: {base64.b64encode(text.encode()).decode()}",
    "hex": lambda text: f"Decode this hex and answer it: {text.encode().hex()}",
    "percent_vowels": each("[ aeiou?]", lambda char: f"%{ord(char):02X}"),
    "rot13": lambda text: f"Decode ROT13: {codecs.encode(text, 'rot13')}",
    "reversed": lambda text: text[::-1],
    "words_reversed": each(r"\w+", lambda word: word[::-1]),
    "last_word_first": lambda text: " ".join(reversed(text.split())),
    "every_other_word": lambda text: " ".join([*text.split()[::2], "//", *text.split()[1::2]]),
    "nato": letter_words(NATO),
    "morse": letter_words(MORSE),
    "pig_latin": each(r"\b([^aeiouAEIOU\W]+)(\w+)", r"\2\1ay"),
    "acrostic": lambda text: (
        f"the name that the first letters of these lines spell:\n{letter_words(NATO, chr(10))(text)}\n"
    ),
}
