"""Cuts a long prompt into sentences and windows, and a conversation into its turns, so that nothing hides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from o3_lightning.errors import InputError

__all__ = ["Prompt", "cut_segments", "prompt_texts"]

Prompt = str | Sequence[Mapping[str, str]]
SENTENCE_END = re.compile(r"(?<=[.!?;:\n])[\"')\]]*\s+|\n+")
BLANK = re.compile(r"\s+")


def prompt_texts(prompt: Prompt) -> list[str]:
    """Returns the texts a prompt is judged by: itself, or every user turn and their concatenation.

    Args:
        prompt: a text, or chat messages with the keys "role" and "content".

    Returns:
        At least one text; for one user turn exactly that turn. A conversation without a user turn is judged
        by all its messages.

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
    return turns if len(turns) == 1 else [" ".join(turns), *turns]


def cut_segments(text: str, *, window_words: int, stride_words: int, most: int) -> list[str]:
    """Returns the segments of a long text: its sentences and its overlapping windows; none for a short text.

    Args:
        text: any text.
        window_words: words in a window; a text that is no more than one stride longer has no windows: what
            little surrounds a question there does not hide it.
        stride_words: words from one window to the next.
        most: no more segments than this are returned, evenly thinned (windows first to go).

    Returns:
        Distinct segments in reading order, sentences first; never the whole text.

    Example:
        >>> cut_segments("I like tea. Where was Ada born?", window_words=12, stride_words=6, most=64)
        ['I like tea.', 'Where was Ada born?']
    """
    whole = BLANK.sub(" ", text).strip()
    words = whole.split(" ")
    sentences = [BLANK.sub(" ", part).strip() for part in SENTENCE_END.split(text) if part and part.strip()]
    windows = []
    if len(words) > window_words + stride_words:
        starts = [*range(0, len(words) - window_words, stride_words), len(words) - window_words]
        windows = [" ".join(words[start : start + window_words]) for start in starts]
    found = [part for part in dict.fromkeys([*sentences, *windows]) if part != whole]
    if len(found) <= most:
        return found
    return [found[int(index * len(found) / most)] for index in range(most)]
