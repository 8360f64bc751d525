"""The errors that a user can cause, each told in one line; everything else is our own bug."""

from __future__ import annotations

from pathlib import Path

__all__ = ["InputError", "O3Error", "StoreError"]


class O3Error(Exception):
    """Something a user can mend: shown as one line on stderr, exit status 2, no traceback."""


class InputError(O3Error, ValueError):
    """A file or a value is not what it has to be.

    Args:
        message: what was expected and what came instead.
        path: the file, if there is one.
        line: its line, counted from 1.
        field: the key within the line or the configuration.
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
        place = "" if path is None else str(path) if line is None else f"{path}:{line}"
        parts = [place, "" if field is None else f"field '{field}'", message]
        super().__init__(": ".join(part for part in parts if part))


class StoreError(O3Error):
    """A store is damaged, of another version, or made for another model."""
