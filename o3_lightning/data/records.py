"""Records: JSON objects from data files, whose fields are checked with file and line in the error message."""

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError


@dataclass(frozen=True)
class Record:
    """One row of a data set and its position.

    Args:
        values: the fields.
        path: file, or id of the data set on the Hub.
        line: line in the file, or number in the split, from 1.
    """

    values: Mapping[str, Any]
    path: str | Path
    line: int

    def error(self, message: str, field: str | None = None) -> InputError:
        """Returns an error that names the position of this record."""
        return InputError(message, path=self.path, line=self.line, field=field)

    def text(self, name: str) -> str:
        """Returns a field that must contain text.

        Raises:
            InputError: it is missing, not a string, blank, or contains a lone surrogate.
        """
        return self._text(name, self.values.get(name))

    def optional_text(self, name: str) -> str | None:
        """Returns a field that contains text or is absent; otherwise as `text`."""
        return None if self.values.get(name) is None else self.text(name)

    def label(self, name: str) -> str:
        """Returns a field that must contain text or an integer, as text."""
        value = self.values.get(name)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns a field that must contain a list of texts; () if it is absent.

        Raises:
            InputError: it is not a list, or an item is not text.
        """
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.error(f"expected a list of strings, got {type(value).__name__}", name)
        return tuple(self._text(name, item) for item in value)

    def _text(self, name: str, value: Any) -> str:
        if value is None:
            raise self.error("missing", name)
        if not isinstance(value, str):
            raise self.error(f"expected a string, got {type(value).__name__}", name)
        if not value.strip():
            raise self.error("expected some text, got none", name)
        check_characters(value, path=self.path, line=self.line, field=name)
        return value


def read_records(path: str | Path, values: Iterator[tuple[int, Any]] | None = None) -> Iterator[Record]:
    """Yields the records of a JSON-lines file.

    Args:
        path: the file.
        values: line number and value of each row, where the file is already parsed.

    Raises:
        InputError: as in `read_json_lines`, or a value is not a JSON object.
    """
    for line, value in read_json_lines(path) if values is None else values:
        if not isinstance(value, dict):
            message = f"expected a JSON object, got {type(value).__name__}"
            raise InputError(message, path=path, line=line)
        yield Record(value, path, line)


def read_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yields line number and parsed value of each line that is not blank.

    Raises:
        InputError: the file cannot be read, or as `parse_line`.
    """
    for line, raw in numbered_lines(path):
        yield line, parse_line(raw, path, line)


def numbered_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yields number and bytes of each line that is not blank; InputError where the file cannot be read."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from error
    for line, raw in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if raw.strip():
            yield line, raw


def parse_line(raw: bytes, path: str | Path, line: int) -> Any:
    """Returns the value of a line of JSON.

    Raises:
        InputError: it is not UTF-8, not JSON, or repeats a field.
    """
    try:
        return json.loads(raw.decode().strip(), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: byte {error.start + 1} of the line", path=path, line=line) from error
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} at column {error.colno}", path=path, line=line) from error
    except (ValueError, RecursionError) as error:  # a field twice, a number or a nesting without end
        raise InputError(f"not JSON that can be read: {error}", path=path, line=line) from error


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; refuses duplicate fields, of which `json` would keep the last one."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return dict(pairs)


def check_characters(
    text: str, *, field: str, path: str | Path | None = None, line: int | None = None
) -> None:
    """Raises InputError if a text contains a lone surrogate, which can be neither written nor tokenized."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError("holds half of a character (a lone surrogate)", path=path, line=line, field=field)
