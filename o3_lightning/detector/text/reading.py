"""Readings of a text: what it says without the marks around it, and what its marks themselves say.

Reading only adds: a text is always judged as it stands as well. The work is bounded: every pattern is linear,
and at most `MOST_DECODED` encoded runs are decoded.
"""

import base64
import binascii
import html
import re
import unicodedata
from urllib.parse import unquote

from o3_lightning.detector.text.normalise import fold_accents, latin_words, visible_text

MOST_DECODED = 32  # encoded runs of one text
LONGEST_DECODED = 4_000  # characters of one run
MOST_PLACED, MOST_WANTED = 20_000, 200  # characters of a text and of a fragment whose place is looked for
READABLE = 0.85  # share of letters, spaces and usual punctuation in what counts as decoded text
SHORTEST_READABLE = 6
PICTURES = frozenset({"So", "Sk"})
NAMED = "s|pad|unk|mask|bos|eos|sep|cls|extra_id_\\d{1,3}|start_of_turn|end_of_turn|im_start|im_end"
SPECIAL = re.compile(
    rf"<\|[^<>|\n]{{1,40}}\|>|</?(?:{NAMED})>|\[/?(?:SEP|CLS|PAD|MASK|UNK|INST)\]|<</?SYS>>", re.IGNORECASE
)
TAG = re.compile(r"(?:</?[a-zA-Z][^<>]{0,200}>)+|<!--|-->|/\*|\*/")
ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\([nrtbf\"'/\\])")
URL = re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]+", re.IGNORECASE)
BLOB = re.compile(r"(?<![\w+/=-])[\w+/-]{24,}={0,2}(?![\w+/=])")
HEX = re.compile(r"(?<![0-9a-zA-Z])(?:[0-9a-fA-F]{2}[ :]?){8,}(?![0-9a-zA-Z])")
BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{8,}={0,2}(?![A-Za-z0-9+/=_-])")
LIST_MARK = re.compile(r"(?m)^[ \t]*(?:(?:[#>*|=+-]{1,8}|\d{1,3}[.)])[ \t]+)+")
SUBTITLE = re.compile(r"(?m)^\d{1,5}\n(?=\d)|^(?:\d\d:){1,2}\d\d[,.]\d{3}.*\n")
SYMBOLS = re.compile(r"([^\w\s])(?:[^\S\n]?\1){2,}|[^\w\s\"'“”‘’.,?!]{3,}")
LETTER_RUN = re.compile(r"([^\W_])\1{5,}")
REPEATED = re.compile(r"(?<!\w)(\w{1,12}+)(?:[^\w\n]{1,4}\1(?!\w)){3,}")
STAMP = re.compile(
    r"(?<![\w-])\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d{1,6})?Z?\]?|(?<!\w)(?:\d{4,}\s+){6,}"
)
JUNK = re.compile(r"(?<!\w)(?:[^\W\d_]+\d|\d+[^\W\d_])\w{4,}(?!\w)|(?<!\w)\d{9,}(?!\w)")
DIGIT = re.compile(r"\d")
MARKUP = re.compile(r"[|*`{}\[\]<>=~^\\#]+")
BLANK = re.compile(r"[^\S\n]{2,}+|[^\S\n ]")  # not a single space
LINE_ENDS = re.compile(r"(?m)^[ ,;:\-()#_+@&$%]++|(?<![ ,;:\-()#_+@&$%])[ ,;:\-()#_+@&$%]++$")
NEWLINES = re.compile(r"\n+")
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
WORDLIKE = re.compile(r"[<>{}\[\]\\=_/|`~^*#+@&;$%]|[a-z][A-Z]|\w-\w+-\w")
NOT_WORD = re.compile(r"[^\w\s.,?!:;'’()]+|_+|-|[!:](?=\s)")
TAG_NAMES = "div|span|p|b|i|u|em|br|hr|img|alt|title|value|href|class|id|src|td|tr|li|ul"
TAG_WORDS = re.compile(rf"(?<![^\s<])/?(?:{TAG_NAMES})(?=[\s=>/])", re.IGNORECASE)


def read_text(text: str, cleaned: str | None = None) -> list[str]:
    """Returns the distinct readings of a text; the text itself, without invisible characters, is the first.

    The others are the text without markup, special-token strings, addresses, encoded runs, symbols and list
    marks; its words alone where it holds markup, identifiers or escapes; and what its base64 and hexadecimal
    runs say.

    Args:
        text: as it was given.
        cleaned: `clean_text(visible_text(text))` where it is known.

    Example:
        >>> read_text("##### <b>Where</b> was Ada born?")[1]
        'Where was Ada born?'
        >>> read_text('<img alt="whereWasAdaBorn">')[1]
        'where Was Ada Born'
    """
    visible = visible_text(text)
    plain = latin_words(visible)
    found = [plain, clean_text(plain) if cleaned is None or plain != visible else cleaned]
    if WORDLIKE.search(plain):
        found.append(words_of(plain))
    found += decoded_runs(plain)
    return [part for part in dict.fromkeys(found) if part] or [""]


def strip_marks(text: str) -> str:
    """Returns the text without special-token strings and tags, glued where they stand inside a word."""
    if "<" not in text and "[" not in text and "*/" not in text and "/*" not in text:
        return text
    return TAG.sub(glue, SPECIAL.sub(glue, text))


def glue(match: re.Match[str]) -> str:
    """Replaces a mark inside a word by nothing, any other by a space."""
    start, end = match.span()
    before, after = match.string[start - 1 : start], match.string[end : end + 1]
    return "" if before.isalpha() and after.isalpha() and after.islower() else " "


def clean_text(text: str) -> str:
    """Returns what is text for an encoder: no marks, addresses, encoded runs, symbols or list marks."""
    text = SUBTITLE.sub("", LIST_MARK.sub("", strip_marks(html.unescape(text) if "&" in text else text)))
    has_digits = DIGIT.search(text) is not None
    text = STAMP.sub(" ", text) if has_digits else text
    text = URL.sub(" ", text) if "://" in text or "www." in text.lower() else text
    text = HEX.sub(" ", BLOB.sub(lambda match: match.group() if is_words(match.group()) else " ", text))
    text = SYMBOLS.sub(lambda match: match.group(1) if (match.group(1) or "x") in ".?!" else " ", text)
    text = REPEATED.sub(r"\1", LETTER_RUN.sub(r"\1", text))
    if not text.isascii():
        text = text.translate({ord(c): " " for c in set(text) if unicodedata.category(c) in PICTURES})
    return trim_lines(MARKUP.sub(" ", JUNK.sub(" ", text) if has_digits else text))


def trim_lines(text: str) -> str:
    """Returns the text with single spaces, without empty lines and without marks at the ends of lines."""
    return NEWLINES.sub("\n", LINE_ENDS.sub("", BLANK.sub(" ", text))).strip()


def is_words(run: str) -> bool:
    """Whether a long run of letters and marks is words joined by hyphens or underscores, not a key."""
    return run.isalpha() or (not any(char.isdigit() for char in run) and ("_" in run or "-" in run))


def words_of(text: str) -> str:
    """Returns the words of markup, identifiers, addresses and escapes, without the marks between them."""
    text = html.unescape(unquote(ESCAPED.sub(unescape, text) if "\\" in text else text))
    text = SPECIAL.sub(glue, text) if "<" in text or "[" in text else text
    text = TAG_WORDS.sub(" ", text) if "<" in text else text
    return trim_lines(JUNK.sub(" ", NOT_WORD.sub(" ", CAMEL.sub(" ", text))))


def unescape(match: re.Match[str]) -> str:
    """Returns the character of an escape sequence, a space for control characters."""
    code = match.group(1) or match.group(2)
    char = chr(int(code, 16)) if code else match.group(3)
    return " " if (char in "nrtbf" and not code) or "\ud800" <= char <= "\udfff" else char


def decoded_runs(text: str) -> list[str]:
    """Returns what base64 and hexadecimal runs say, where it is readable."""
    found = []
    for number, match in enumerate(BASE64.finditer(text)):
        run = match.group()
        if number >= MOST_DECODED:
            break
        found.append(decode_base64(run.rstrip("=")[:LONGEST_DECODED], whole=len(run) >= 12 or "=" in run))
    for number, match in enumerate(HEX.finditer(text)):
        if number >= MOST_DECODED:
            break
        digits = re.sub(r"[ :]", "", match.group()[:LONGEST_DECODED])
        found.append(readable(bytes.fromhex(digits[: len(digits) // 2 * 2])))
    return [part for part in found if part]


def decode_base64(run: str, *, whole: bool) -> str:
    """Returns the text behind a base64 run; empty where it is none. Short words are left alone."""
    if not whole or len(run) % 4 == 1:
        return ""
    try:
        return readable(base64.b64decode(run + "=" * (-len(run) % 4), altchars=b"-_"))
    except (binascii.Error, ValueError):
        return ""


def readable(data: bytes) -> str:
    """Returns decoded bytes where they are text, else an empty string."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    usual = sum(char.isalpha() or char in " .,?!'" for char in text)
    return text if len(text) >= SHORTEST_READABLE and usual > READABLE * len(text) else ""


def find_fragment(text: str, fragment: str) -> list[int] | None:
    """Returns where a fragment of a reading stands in the text it was read from, as [start, end).

    The letters and digits of the fragment are matched in order, marks between them ignored; None where they
    were decoded or respelt and do not stand there.

    Example:
        >>> find_fragment("Where was R-o-n <b>born</b>?", "ron born")
        [10, 22]
    """
    wanted = [char for char in fold_accents(fragment).casefold() if char.isalnum()]
    have = [fold_accents(latin_words(visible_text(char))).casefold() for char in text[:MOST_PLACED]]
    folded = "".join(char if len(char) == 1 else " " for char in have)
    plain = "".join(wanted)
    start = folded.find(fold_accents(fragment).casefold())
    if plain and start >= 0:
        return [start, start + len(fragment)]
    pattern = r"[^a-z0-9]{0,40}?(?:<[^<>]{0,40}>)?[^a-z0-9]{0,40}?".join(map(re.escape, wanted[:MOST_WANTED]))
    match = re.search(pattern, folded) if plain else None
    return [match.start(), match.end()] if match else None
