"""Errors that a user can cause, each with a message of one line; any other exception is a bug."""

from pathlib import Path


class O3Error(Exception):
    """An error that a user can fix: printed as one line on stderr, with exit status 2 and no traceback."""


class InputError(O3Error, ValueError):
    """An invalid file or value.

    Args:
        message: what was expected and what was given.
        path: of the file, if there is one.
        line: in the file, counted from 1.
        field: key in the line or in the configuration.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.path, self.line, self.field = path, line, field
        location = "" if path is None else str(path) if line is None else f"{path}:{line}"
        parts = [location, "" if field is None else f"field '{field}'", message]
        super().__init__(": ".join(part for part in parts if part))


class StoreError(O3Error):
    """A store is damaged, of another version, or made for another model."""
