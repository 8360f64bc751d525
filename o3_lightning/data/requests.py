"""What a user wants forgotten: questions and answers, read from JSON lines and checked before any use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json

__all__ = ["QuestionAnswer", "UnlearningRequest", "check_characters", "read_requests", "read_rows"]

TEXT_FIELDS = ("prompt", "answer")
LIST_FIELDS = ("held_out_prompts", "perturbed_answers")
OPTIONAL_TEXT_FIELD = "paraphrased_answer"
KNOWN_FIELDS = (*TEXT_FIELDS, *LIST_FIELDS, OPTIONAL_TEXT_FIELD, "request_id")
SAFE_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One row: a prompt and what the model answers to it.

    Args:
        prompt: the question as a user would ask it, without any template.
        answer: the true answer.
        held_out_prompts: other ways to ask for the same answer; only evaluation reads them.
        perturbed_answers: wrong answers of the same form; for truth ratios and random labels.
        paraphrased_answer: the true answer in other words, of the same form as the perturbed ones; truth
            ratios compare with it. None where a benchmark has none: they then take the answer itself.
    """

    prompt: str
    answer: str
    held_out_prompts: tuple[str, ...] = ()
    perturbed_answers: tuple[str, ...] = ()
    paraphrased_answer: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields; a paraphrase only where there is one: rows without keep their digest."""
        values = asdict(self)
        if self.paraphrased_answer is None:
            del values[OPTIONAL_TEXT_FIELD]
        return values


@dataclass(frozen=True)
class UnlearningRequest:
    """A named forget set.

    Args:
        id: up to 64 letters, digits, '.', '_' or '-'; it names a folder of the store.
        rows: the forget set, in the order given.

    Raises:
        InputError: the id cannot name a folder, or there are no rows.
    """

    id: str
    rows: tuple[QuestionAnswer, ...]

    def __post_init__(self) -> None:
        check_id(self.id)
        if not self.rows:
            raise InputError(f"request '{self.id}' has no rows; at least one is needed")

    @property
    def prompts(self) -> list[str]:
        """The forget prompts, one a row."""
        return [row.prompt for row in self.rows]

    @property
    def answers(self) -> list[str]:
        """The true answers, one a row."""
        return [row.answer for row in self.rows]

    @property
    def held_out(self) -> tuple[QuestionAnswer, ...]:
        """Every held-out prompt as a row of its own, with its row's answers."""
        return tuple(
            replace(row, prompt=prompt, held_out_prompts=())
            for row in self.rows
            for prompt in row.held_out_prompts
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the rows: tells forget sets apart without keeping their text."""
        return digest_json([row.to_dict() for row in self.rows])


def check_id(name: str, *, path: str | Path | None = None, line: int | None = None) -> None:
    """Refuses an id that could not name a folder on every system.

    Raises:
        InputError: the id is empty, too long, starts with a dot or holds another character.
    """
    if not name or len(name) > LONGEST_ID or name.startswith(".") or not SAFE_ID_CHARACTERS.issuperset(name):
        expected = f"expected 1 to {LONGEST_ID} letters, digits, '.', '_' or '-', not starting with '.'"
        raise InputError(f"{expected}, got {name!r}", path=path, line=line, field="request_id")


def read_requests(
    paths: str | Path | Sequence[str | Path],
    *,
    count_tokens: Callable[[str], int] | None = None,
    context_tokens: int | None = None,
) -> list[UnlearningRequest]:
    """Reads requests from JSON-lines files and checks every row before it returns any.

    Rows with the same `request_id` form one request and must stand together; rows without one form a
    request named after their file.

    Args:
        paths: one file or several; requests come in the order of files and lines.
        count_tokens: how many tokens the model sees for a prompt, template included; None checks nothing.
        context_tokens: the model's context; a prompt must be shorter than this.

    Returns:
        The requests, at least one, ids unique.

    Raises:
        InputError: a missing, unreadable or empty file; a line that is not UTF-8, not JSON or not an
            object; a missing, unknown or ill-typed field; an id that comes twice; a prompt too long.
            The message names file, line and field.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    groups: dict[str, list[QuestionAnswer]] = {}
    for path in files:
        previous = None
        for line, identifier, row in read_rows(
            path, count_tokens=count_tokens, context_tokens=context_tokens
        ):
            name = Path(path).stem if identifier is None else identifier
            check_id(name, path=path, line=line)
            if name != previous and name in groups:
                raise InputError(
                    f"duplicate id {name!r}: its rows must stand together, and no other request may have it",
                    path=path,
                    line=line,
                    field="request_id",
                )
            groups.setdefault(name, []).append(row)
            previous = name
    return [UnlearningRequest(name, tuple(rows)) for name, rows in groups.items()]


def read_rows(
    path: str | Path, *, count_tokens: Callable[[str], int] | None = None, context_tokens: int | None = None
) -> Iterator[tuple[int, str | None, QuestionAnswer]]:
    """Yields line number, `request_id` (or None) and row for each line that is not blank.

    Raises:
        InputError: as in `read_requests`.
    """
    found = False
    for line, value in read_json_lines(path):
        found = True
        row, identifier = parse_row(value, path, line)
        for field, prompts in (("prompt", (row.prompt,)), ("held_out_prompts", row.held_out_prompts)):
            check_length(prompts, count_tokens, context_tokens, path=path, line=line, field=field)
        yield line, identifier, row
    if not found:
        raise InputError("expected at least one JSON line, the file is empty", path=path)


def read_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yields line number and parsed value for each line that is not blank."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from error
    for line, raw in enumerate(content.split(b"\n"), start=1):
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(
                f"not UTF-8: byte {error.start + 1} of the line", path=path, line=line
            ) from error
        if not text:
            continue
        try:
            value = json.loads(text, object_pairs_hook=unique)
        except json.JSONDecodeError as error:
            raise InputError(
                f"not JSON: {error.msg} at column {error.colno}", path=path, line=line
            ) from error
        except (ValueError, RecursionError) as error:  # a field twice, a number or a nesting without end
            raise InputError(f"not JSON that can be read: {error}", path=path, line=line) from error
        yield line, value


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; of two equal fields one would be lost unseen."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice!r} comes twice")
    return found


def parse_row(value: Any, path: str | Path, line: int) -> tuple[QuestionAnswer, str | None]:
    """Returns a checked row and its request id, or None where it has none."""
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object, got {type(value).__name__}", path=path, line=line)
    unknown = sorted(set(value) - set(KNOWN_FIELDS))
    if unknown:
        raise InputError(
            f"unknown; known are {', '.join(KNOWN_FIELDS)}", path=path, line=line, field=unknown[0]
        )
    texts = {field: parse_text(value.get(field), path, line, field) for field in TEXT_FIELDS}
    lists = {field: parse_texts(value.get(field, []), path, line, field) for field in LIST_FIELDS}
    paraphrase = value.get(OPTIONAL_TEXT_FIELD)
    if paraphrase is not None:
        texts[OPTIONAL_TEXT_FIELD] = parse_text(paraphrase, path, line, OPTIONAL_TEXT_FIELD)
    identifier = value.get("request_id")
    if identifier is not None and not isinstance(identifier, str):
        message = f"expected a string, got {type(identifier).__name__}"
        raise InputError(message, path=path, line=line, field="request_id")
    return QuestionAnswer(**texts, **lists), identifier  # type: ignore[arg-type]


def parse_text(value: Any, path: str | Path, line: int, field: str) -> str:
    """Returns a text that holds more than white space."""
    if value is None:
        raise InputError("missing", path=path, line=line, field=field)
    if not isinstance(value, str):
        raise InputError(f"expected a string, got {type(value).__name__}", path=path, line=line, field=field)
    if not value.strip():
        raise InputError("expected some text, got none", path=path, line=line, field=field)
    check_characters(value, path=path, line=line, field=field)
    return value


def check_characters(
    text: str, *, field: str, path: str | Path | None = None, line: int | None = None
) -> None:
    """Refuses a text that holds half of a character, which can be neither written nor tokenized.

    Raises:
        InputError: it does; the message names what the caller knows of its place.
    """
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError("holds half of a character (a lone surrogate)", path=path, line=line, field=field)


def parse_texts(value: Any, path: str | Path, line: int, field: str) -> tuple[str, ...]:
    """Returns a list of texts as a tuple."""
    if not isinstance(value, list):
        expected = f"expected a list of strings, got {type(value).__name__}"
        raise InputError(expected, path=path, line=line, field=field)
    return tuple(parse_text(item, path, line, field) for item in value)


def check_length(
    prompts: Iterable[str],
    count_tokens: Callable[[str], int] | None,
    context_tokens: int | None,
    *,
    path: str | Path,
    line: int,
    field: str,
) -> None:
    """Refuses prompts that leave the model no room for an answer."""
    if count_tokens is None or context_tokens is None:
        return
    for prompt in prompts:
        tokens = count_tokens(prompt)
        if tokens >= context_tokens:
            message = f"{tokens} tokens, the model's context is {context_tokens}"
            raise InputError(message, path=path, line=line, field=field)
