"""What a prompt is, a text or a chat, and how its turns are read as plain text whatever form they come in."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from o3_lightning.common.errors import InputError
from o3_lightning.data.records import check_characters

Prompt = str | Sequence[Mapping[str, Any]]
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# words of a call's own form
FORM = frozenset({"arguments", "function", "id", "index", "name", "text", "type"})


class Turn(NamedTuple):
    """One message of a chat.

    Args:
        role: one of `ROLES`.
        text: its content, and the names and arguments of its tool calls.
    """

    role: str
    text: str


def read_prompt(prompt: Prompt) -> list[Turn]:
    """Returns the turns of a prompt; a text is one turn of the user.

    Args:
        prompt: a text without any template, or a chat: messages with "role" and "content". Content is a
            string, a list of parts {"type": "text", "text": ...}, or None beside tool calls.

    Returns:
        At least one turn. Everything in a message that a chat template may write is part of its text.

    Raises:
        InputError: neither a text nor messages; no message; an unknown role; content that is not text; or
            a lone surrogate.

    Example:
        >>> read_prompt([{"role": "user", "content": [{"type": "text", "text": "Who is Ada?"}]}])
        [Turn(role='user', text='Who is Ada?')]
    """
    if isinstance(prompt, str):
        turns = [Turn("user", prompt)]
    elif isinstance(prompt, Sequence) and all(isinstance(message, Mapping) for message in prompt):
        try:
            turns = [read_message(message) for message in prompt if isinstance(message, Mapping)]
        except RecursionError as error:
            raise InputError("a message is nested too deeply", field="prompts") from error
    else:
        message = f"expected a text or a list of messages, got {type(prompt).__name__}"
        raise InputError(message, field="prompts")
    if not turns:
        raise InputError("expected at least one message, got an empty chat", field="prompts")
    for turn in turns:
        check_characters(turn.text, field="prompts")
    return turns


def read_prompts(prompts: Sequence[Prompt]) -> list[list[Turn]]:
    """Returns the turns of each prompt.

    Raises:
        InputError: one text instead of a list, or an iterator, which could be read only once; or as
            `read_prompt`.
    """
    if isinstance(prompts, str):
        raise InputError("expected a list of prompts, got one text", field="prompts")
    if isinstance(prompts, Iterator):
        raise InputError(f"expected a list of prompts, got a {type(prompts).__name__}", field="prompts")
    return [read_prompt(prompt) for prompt in prompts]


def plain_messages(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages with string content, as most chat templates expect it; other keys are kept.

    Raises:
        InputError: content that is not text.
    """
    return [{**message, "content": read_content(message.get("content"))} for message in chat]


def read_message(message: Mapping[str, Any]) -> Turn:
    """Returns one message as a turn."""
    role = message.get("role")
    if role not in ROLES:
        raise InputError(f"expected 'role' to be one of {', '.join(ROLES)}, got {role!r}", field="prompts")
    if message.get("content") is None and not message.get("tool_calls") and not message.get("function_call"):
        raise InputError("expected 'content' to be a text or a list of text parts, got none", field="prompts")
    others = [value for key, value in message.items() if key not in ("role", "content")]
    texts = (read_content(message.get("content")), *leaves(others))
    return Turn(role, " ".join(text for text in texts if text))


def read_content(content: Any) -> str:
    """Returns the text of a message's content."""
    if content is None or isinstance(content, str):
        return content or ""
    expected = "expected 'content' to be a text or a list of text parts"
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InputError(f"{expected}, got {type(content).__name__}", field="prompts")
    texts = []
    for part in content:
        text, kind = part, type(part).__name__
        if isinstance(part, Mapping):
            text, kind = part.get("text"), part.get("type", "text" if len(part) == 1 else None)
            text = text if str(kind).endswith("text") else None  # a picture with a caption is no text
        if not isinstance(text, str):
            raise InputError(f"{expected}, got a part of type {kind!r}", field="prompts")
        texts.append(text)
    return "\n".join(texts)


def leaves(value: Any) -> Iterator[str]:
    """Yields the strings in nested values: keys, and what is in the arguments of tool calls, included."""
    if isinstance(value, Mapping):
        yield from leaves(list(value.items()))
    elif isinstance(value, str):
        try:  # as pairs, for a key that comes twice
            inside = json.loads(value, object_pairs_hook=list) if value.lstrip()[:1] in ("{", "[") else value
        except (ValueError, RecursionError):
            inside = value
        if not isinstance(inside, str):
            yield from leaves(inside)
        elif inside not in FORM:
            yield inside
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
