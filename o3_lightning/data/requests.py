"""Requests: questions and answers to forget, read from JSON-lines files and checked before use."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json
from o3_lightning.data.records import Record, check_characters, read_records

KNOWN_FIELDS = (
    "prompt",
    "answer",
    "held_out_prompts",
    "perturbed_answers",
    "paraphrased_answer",
    "tests",
    "golden_answer",
    "request_id",
)
SAFE_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
LONGEST_ID = 64
DEVICES = {f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10)}
RESERVED_IDS = frozenset({"con", "prn", "aux", "nul", *DEVICES})


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """A prompt and its answer.

    Args:
        prompt: the question as a user would ask it, without a template.
        answer: the true answer.
        held_out_prompts: paraphrases of the prompt, used only in evaluation.
        perturbed_answers: wrong answers of the same form, used by truth ratios and random labels.
        paraphrased_answer: the true answer in the form of the perturbed ones, used by truth ratios; None
            makes them use the answer itself.
        tests: Python that a program in an answer has to pass, used by "pass_at_1"; empty for none.
        golden_answer: the short true answer that metrics compare with, where training takes a longer one, as
            for closer-look's real people; None takes the answer.
    """

    prompt: str
    answer: str
    held_out_prompts: tuple[str, ...] = ()
    perturbed_answers: tuple[str, ...] = ()
    paraphrased_answer: str | None = None
    tests: str = ""
    golden_answer: str | None = None

    @property
    def truth(self) -> str:
        """The answer that metrics compare with."""
        return self.golden_answer or self.answer

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields; absent ones of the last three are left out and do not change a row's digest."""
        optional = {"paraphrased_answer": None, "tests": "", "golden_answer": None}
        return {name: value for name, value in asdict(self).items() if value != optional.get(name, ...)}


@dataclass(frozen=True)
class UnlearningRequest:
    """A named forget set.

    Args:
        id: 1 to 64 letters, digits, '.', '_' or '-', neither starting nor ending with '.', and no device of
            Windows such as "con"; names a folder of the store.
        rows: the forget set.

    Raises:
        InputError: an invalid id, no rows, or a text with a lone surrogate.
    """

    id: str
    rows: tuple[QuestionAnswer, ...]

    def __post_init__(self) -> None:
        check_id(self.id)
        if self.id.endswith(".") or self.id.split(".")[0].lower() in RESERVED_IDS:
            message = f"expected an id that names a folder on every system, got '{self.id}'"
            raise InputError(message, field="request_id")
        for row in self.rows:
            for text in (row.prompt, row.answer):
                check_characters(text, field="rows")
        if not self.rows:
            raise InputError(f"request '{self.id}' has no rows; at least one is needed")

    @property
    def prompts(self) -> list[str]:
        """The prompt of each row."""
        return [row.prompt for row in self.rows]

    @property
    def answers(self) -> list[str]:
        """The true answer of each row."""
        return [row.answer for row in self.rows]

    @property
    def held_out(self) -> tuple[QuestionAnswer, ...]:
        """One row per held-out prompt, with the answers of its original row."""
        return tuple(
            replace(row, prompt=prompt, held_out_prompts=())
            for row in self.rows
            for prompt in row.held_out_prompts
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the rows, which identifies a forget set without storing its text."""
        return digest_json([row.to_dict() for row in self.rows])


def check_id(
    name: str, *, path: str | Path | None = None, line: int | None = None, field: str = "request_id"
) -> None:
    """Raises InputError for an id that is not a valid folder name; see `UnlearningRequest`."""
    if not name or len(name) > LONGEST_ID or name.startswith(".") or not SAFE_ID_CHARACTERS.issuperset(name):
        expected = f"expected 1 to {LONGEST_ID} letters, digits, '.', '_' or '-', not starting with '.'"
        raise InputError(f"{expected}, got {name!r}", path=path, line=line, field=field)


def read_requests(paths: str | Path | Sequence[str | Path]) -> list[UnlearningRequest]:
    """Returns the requests in JSON-lines files, after all rows have been checked.

    Consecutive rows with the same `request_id` form a request; rows without one form a request named after
    their file.

    Args:
        paths: one or several files; requests keep the order of files and lines.

    Returns:
        At least one request, ids unique.

    Raises:
        InputError: a missing, unreadable or empty file; a line that is not UTF-8, not JSON or not an
            object; a missing, unknown or ill-typed field; or an id that repeats another or differs from it
            only in case. The message names file, line and field.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    groups: dict[str, list[QuestionAnswer]] = {}
    names: dict[str, str] = {}  # by name in lower case: a store keeps folders, some systems' ignore case
    for path in files:
        previous = None
        for line, identifier, row in read_rows(path):
            name = Path(path).stem if identifier is None else identifier
            check_id(name, path=path, line=line)
            twin = names.setdefault(name.lower(), name)
            if twin != name:
                message = f"'{name}' differs from '{twin}' only in case"
                raise InputError(message, path=path, line=line, field="request_id")
            if name != previous and name in groups:
                raise InputError(
                    f"duplicate id {name!r}: the rows of a request must be consecutive",
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

    Args:
        path: the file.
        count_tokens: returns the length of a templated prompt in tokens; None skips the check of the length.
        context_tokens: context size of the model; prompts must be shorter.

    Raises:
        InputError: as `read_requests`, or a prompt that is too long.
    """
    found = False
    for record in read_records(path):
        found = True
        row, identifier = parse_row(record)
        if count_tokens is not None and context_tokens is not None:
            for field, prompts in (("prompt", (row.prompt,)), ("held_out_prompts", row.held_out_prompts)):
                tokens = max(map(count_tokens, prompts), default=0)
                if tokens >= context_tokens:
                    raise record.error(f"{tokens} tokens, the model's context is {context_tokens}", field)
        yield record.line, identifier, row
    if not found:
        raise InputError("expected at least one JSON line, the file is empty", path=path)


def parse_row(record: Record) -> tuple[QuestionAnswer, str | None]:
    """Returns a checked row and its request id, or None where it has none."""
    unknown = sorted(set(record.values) - set(KNOWN_FIELDS))
    if unknown:
        raise record.error(f"unknown; expected one of {', '.join(KNOWN_FIELDS)}", unknown[0])
    prompt, answer = record.text("prompt"), record.text("answer")
    lists = record.texts("held_out_prompts"), record.texts("perturbed_answers")
    identifier = record.values.get("request_id")
    if identifier is not None and not isinstance(identifier, str):
        raise record.error(f"expected a string, got {type(identifier).__name__}", "request_id")
    paraphrase, tests, golden = map(record.optional_text, ("paraphrased_answer", "tests", "golden_answer"))
    return QuestionAnswer(prompt, answer, *lists, paraphrase, tests or "", golden), identifier
