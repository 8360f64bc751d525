"""Cuts a long prompt into sentences, windows and questions, a chat into turns, so that nothing hides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import evenly_spaced
from o3_lightning.data.prompts import Prompt

__all__ = ["Prompt", "cut_segments", "prompt_texts"]

SENTENCE_END = re.compile(r"(?<=[.!?;:\n])[\"')\]]*\s+|\n+")
BLANK = re.compile(r"\s+")
TAIL_WORDS = (4, 6, 8, 12)  # most questions have so many words; one that is longer has windows of its own
MOST_STARTS = 4  # a sentence has a capital at its beginning and few more after it


def prompt_texts(prompt: Prompt) -> list[str]:
    """Returns the texts a prompt is judged by: itself, or every user turn and their concatenation.

    Args:
        prompt: a text, or chat messages with the keys "role" and "content".

    Returns:
        At least one text; for one user turn exactly that turn. Where a turn may go on in the middle of the
        last one's word, the concatenation without that gap is a text too. A conversation without a user
        turn is judged by all its messages.

    Raises:
        InputError: a message lacks role or content, or they are not strings.

    Example:
        >>> prompt_texts([{"role": "user", "content": "Who is Ada?"},
        ...               {"role": "assistant", "content": "A poet."},
        ...               {"role": "user", "content": "Where was she born?"}])
        ['Who is Ada? Where was she born?', 'Who is Ada?', 'Where was she born?']
    """
    if isinstance(prompt, str):
        return [prompt]
    for message in prompt:
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise InputError(
                f"expected chat messages with the strings 'role' and 'content', got {message!r}",
                field="prompt",
            )
    turns = [message["content"] for message in prompt if message["role"] == "user"]
    turns = turns or [message["content"] for message in prompt] or [""]
    if len(turns) == 1:
        return turns
    return list(dict.fromkeys([" ".join(turns), rejoin(turns), *turns]))


def rejoin(turns: Sequence[str]) -> str:
    """The turns as one text, a word that was split between two of them whole again."""
    text = turns[0]
    for turn in turns[1:]:
        within = text[-1:].isalpha() and turn[:1].islower()
        text += turn if within else f" {turn}"
    return text


def cut_segments(text: str, *, window_words: int, stride_words: int, most: int) -> list[str]:
    """Returns the segments of a long text: sentences, windows, ends of questions; none for a short text.

    The beginning of a question may be glued to another sentence: its last words are then segments, from each
    capital letter on and in a few lengths.

    Args:
        text: any text.
        window_words: words in a window; a text that is no more than one stride longer has no windows: what
            little surrounds a question there does not hide it.
        stride_words: words from one window to the next.
        most: no more segments than this are returned; windows and tails of fixed length are thinned first.

    Returns:
        Distinct segments in reading order, sentences first; never the whole text.

    Example:
        >>> cut_segments("I like tea. Where was Ada born?", window_words=12, stride_words=6, most=64)
        ['I like tea.', 'Where was Ada born?']
    """
    whole = BLANK.sub(" ", text).strip()
    words = whole.split(" ")
    sentences = [BLANK.sub(" ", part).strip() for part in SENTENCE_END.split(text) if part and part.strip()]
    exact, others = list(sentences), []
    if len(words) > window_words + stride_words:
        starts = [*range(0, len(words) - window_words, stride_words), len(words) - window_words]
        exact += [end for sentence in sentences for end in starts_of(sentence)]
        others += [" ".join(words[start : start + window_words]) for start in starts]
        others += [tail for sentence in sentences for tail in question_tails(sentence)]
    found = dict.fromkeys(part for part in exact if part != whole)
    rest = dict.fromkeys(part for part in others if part != whole and part not in found)
    kept = evenly_spaced(list(found), most)
    return [*kept, *evenly_spaced(list(rest), most - len(kept))]


def starts_of(sentence: str) -> list[str]:
    """The last words of a sentence from each capital letter on, nearest first: a request may begin there.

    Example:
        >>> starts_of("He lived in Oslo Where was Ada Lovelace born?")[2]
        'Where was Ada Lovelace born?'
    """
    words = sentence.split(" ")
    places = [place for place, word in enumerate(words) if place and word[:1].isupper()]
    return [" ".join(words[place:]) for place in reversed(places[-MOST_STARTS:])]


def question_tails(sentence: str) -> list[str]:
    """The last words of a question, a few lengths of them; nothing of other sentences.

    Example:
        >>> question_tails("The longer route behind Where was Ada Lovelace born?")[1]
        'behind Where was Ada Lovelace born?'
    """
    words = sentence.split(" ")
    if not sentence.endswith("?"):
        return []
    return [" ".join(words[-count:]) for count in TAIL_WORDS if count < len(words)]
