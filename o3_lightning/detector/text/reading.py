"""Readings of a text: what it says without the marks around it, and what its marks themselves say.

Reading only adds: a text is always judged as it stands as well. The work is bounded: every pattern is linear,
and at most `MOST_DECODED` encoded runs are decoded.
"""

import base64
import binascii
import html
import re
import unicodedata
from collections import Counter
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
    r"<\|[^<>|\n]{1,40}\|>|\[/?(?:SEP|CLS|PAD|MASK|UNK|INST)\]|<</?SYS>>|<!\[CDATA\[|\]\]>", re.IGNORECASE
)
# "@" is what stands before: patterns that look back behind their first character are searched 5 times as fast
MARK = r"(?:<@(?:/?[a-zA-Z][^<>]{0,200}>(?:</?[a-zA-Z][^<>]{0,200}>)*|!--)|-@->|/@\*|\*@/)"
LETTER, SMALL_LETTER = r"[^\W\d_]", r"[^\W\d_A-ZÀ-ÖØ-ÞΑ-ΩА-Я]"
TAG_INSIDE = re.compile(MARK.replace("@", f"(?<={LETTER}.)") + f"(?={SMALL_LETTER})")
TAG = re.compile(MARK.replace("@", ""))
ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\([nrtbf\"'/\\])")
HEX = re.compile(r"[0-9a-fA-F](?<![0-9a-zA-Z].)[0-9a-fA-F][ :]?(?:[0-9a-fA-F]{2}[ :]?){7,}(?![0-9a-zA-Z])")
BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{8,}={0,2}(?![A-Za-z0-9+/=_-])")
PRINTED_HYPHEN = re.compile(r"(?<=[^\W\d_])-\n[ \t]*(?=[^\W\d_])")
FILLER_COUNT, FILLER_SHARE = 4, 0.2  # of the words, from which a word is a filler between the others
LONGEST_FILLED = 8_000  # characters in which fillers are looked for
QUOTED = re.compile(r"\"([^\"]{1,400})\"|(?<![^\W_])'([^']{1,400})'(?![^\W_])")
ASSIGNED = re.compile(r"[(=\[{:+] ?[\"']")  # a string of code, an attribute or a record
REPEATED = re.compile(r"(?<!\w)(\w{1,12}+)(?:[^\w\n]{1,4}\1(?!\w)){3,}")
LINE_MARKS = " ,;:-()#_+@&$%"  # no part of what a line says where they begin or end it
MARKUP = "|*`{}[]<>=~^\\#"
NO_MARKUP = str.maketrans(MARKUP, " " * len(MARKUP))
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
MARKS = re.compile(r"[<>{}\[\]\\=_/|`~^*#+@&;$%]")
SLUG = re.compile(r"\w-\w+-\w")
SPACED_MARK = re.compile(r"[!:](?=\s)")
SENTENCE_MARKS = ".,?!:;'’()"
STRIPPED = SENTENCE_MARKS + LINE_MARKS + MARKUP + '"'
ELEMENTS = "div|span|p|b|i|u|em|br|hr|img|td|tr|li|ul"
TAG_WORDS = re.compile(rf"</?(?:{ELEMENTS}|{NAMED})(?=[\s=>/])", re.IGNORECASE)
ATTRIBUTES = re.compile(r" (?:alt|title|value|href|class|id|src)(?==)", re.IGNORECASE)


def read_text(text: str, cleaned: str | None = None) -> list[str]:
    """Returns the distinct readings of a text; the text itself, without invisible characters, is the first.

    The others are the text without markup, special-token strings, pictures and repeated words; its words
    alone where it holds markup, identifiers or escapes; these without the fillers between them; the strings
    quoted in it; and what its base64 and hexadecimal runs say.

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
    if is_marked(plain):
        found.append(words_of(plain))
    if without := without_fillers(found[-1]):
        found.append(without)
    if ASSIGNED.search(plain):
        found.append(quoted_strings(plain))
    found += decoded_runs(plain)
    return [part for part in dict.fromkeys(found) if part] or [""]


def is_marked(text: str) -> bool:
    """Whether a text holds markup, identifiers, addresses or escapes, whose words are read on their own."""
    camel = not (text.islower() or text.isupper()) and CAMEL.search(text)
    return bool(MARKS.search(text) or camel or (text.count("-") > 1 and SLUG.search(text)))


def strip_marks(text: str) -> str:
    """Returns the text without special-token strings and tags, glued where they stand inside a word."""
    text = strip_special(text)
    if not any(mark in text for mark in (">", "*/", "/*", "<!--")):
        return text
    return TAG.sub(" ", TAG_INSIDE.sub("", text))


def strip_special(text: str) -> str:
    """Returns the text without special-token strings other than tags."""
    return SPECIAL.sub(glue, text) if "<|" in text or "<<" in text or "[" in text else text


def glue(match: re.Match[str]) -> str:
    """Replaces a mark inside a word by nothing, any other by a space."""
    start, end = match.span()
    before, after = match.string[start - 1 : start], match.string[end : end + 1]
    return "" if before.isalpha() and after.isalpha() and after.islower() else " "


def clean_text(text: str) -> str:
    """Returns what is text for an encoder: no marks, pictures or repeated words; hyphens of print undone."""
    text = PRINTED_HYPHEN.sub("", text) if "-\n" in text else text
    text = REPEATED.sub(r"\1", strip_marks(html.unescape(text) if "&" in text else text))
    blank: dict[int, int | str] = dict(NO_MARKUP)
    if not text.isascii():
        blank |= {ord(char): " " for char in set(text) if unicodedata.category(char) in PICTURES}
    return trim_lines(text.translate(blank))


def quoted_strings(text: str) -> str:
    """Returns the strings of code, attributes or records one after the other; empty for fewer than two.

    Example:
        >>> quoted_strings("CONCAT('Where was', CHAR(32), 'Ada born?')")
        'Where was Ada born?'
    """
    found = [double or single for double, single in QUOTED.findall(text)]
    return " ".join(" ".join(found).split()) if len(found) > 1 else ""


def without_fillers(text: str) -> str:
    """Returns a text without the words that stand between all others, and without lines of numbers and marks.

    Empty where it has neither.

    Example:
        >>> without_fillers("token Where token was token Ada token born?")
        'Where was Ada born?'
    """
    lines = text[:LONGEST_FILLED].split("\n")
    kept = [line for line in lines if any(map(str.isalpha, line))]
    words = [word for line in kept for word in line.split() if any(map(str.isalnum, word))]
    bare = [word.strip(STRIPPED).lower() for word in words]
    counts = Counter(bare)
    least = max(FILLER_COUNT, FILLER_SHARE * len(words))
    if len(kept) == len(lines) and not any(count >= least for count in counts.values()):
        return ""
    return " ".join(word for word, plain in zip(words, bare, strict=True) if counts[plain] < least)


def trim_lines(text: str) -> str:
    """Returns the text with single spaces, without empty lines and without marks at the ends of lines."""
    lines = [" ".join(line.split()).strip(LINE_MARKS) for line in text.split("\n")]
    return "\n".join(filter(None, lines))


def words_of(text: str) -> str:
    """Returns the words of markup, identifiers, addresses and escapes, without the marks between them."""
    text = html.unescape(unquote(ESCAPED.sub(unescape, text) if "\\" in text else text))
    text = SPACED_MARK.sub(" ", strip_special(text))
    if "<" in text:
        text = ATTRIBUTES.sub(" ", TAG_WORDS.sub(" ", text))
    text = text if text.islower() else CAMEL.sub(" ", text)
    other = (c for c in set(text) if not (c.isalnum() or c.isspace() or c in SENTENCE_MARKS))
    return trim_lines(text.translate({ord(char): " " for char in other}))


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
        [10, 23]
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
