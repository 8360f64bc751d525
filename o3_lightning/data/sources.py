"""Where benchmark rows come from: a local folder first, the Hugging Face Hub otherwise, both checked.

Only JSON lines, JSON and parquet are read; scripts that travel with a data set are never run.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import read_json_lines

__all__ = ["HubFile", "Record", "load_records", "local_root", "try_records"]

logger = logging.getLogger(__name__)
DEFAULT_ROOT = "../shared/data"


@dataclass(frozen=True)
class HubFile:
    """One split of a data set on the Hugging Face Hub.

    Args:
        repository: its id, e.g. "locuslab/TOFU".
        configuration: its subset, or None where it has none.
        split: e.g. "train".
        rename: names there to names here, for fields that are called otherwise.
    """

    repository: str
    configuration: str | None = None
    split: str = "train"
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """What a message calls it."""
        return "/".join(part for part in (self.repository, self.configuration, self.split) if part)


@dataclass(frozen=True)
class Record:
    """One row and where it stands.

    Args:
        values: the row.
        path: its file, or the Hub id of its data set.
        line: its line in the file, or its number in the split, counted from 1.
    """

    values: Mapping[str, Any]
    path: str
    line: int

    def text(self, name: str) -> str:
        """Returns a field that must hold text.

        Raises:
            InputError: it is missing, no string, or empty; the message names file, line and field.
        """
        value = self.values.get(name)
        if value is None:
            raise InputError("missing", path=self.path, line=self.line, field=name)
        if not isinstance(value, str):
            message = f"expected a string, got {type(value).__name__}"
            raise InputError(message, path=self.path, line=self.line, field=name)
        if not value.strip():
            raise InputError("expected some text, got none", path=self.path, line=self.line, field=name)
        return value

    def label(self, name: str) -> str:
        """Returns a field that must hold a short text or a whole number, as text."""
        value = self.values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns a field that holds a list of texts; () where it is absent.

        Raises:
            InputError: it is no list, or an entry is no text.
        """
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise InputError("expected a list of texts", path=self.path, line=self.line, field=name)
        return tuple(value)


def local_root(config: DataConfig) -> Path:
    """Returns the folder of local benchmark files: the configured one, `O3_DATA`, or ../shared/data."""
    return Path(config.root or os.environ.get("O3_DATA") or DEFAULT_ROOT).expanduser()


def load_records(
    config: DataConfig, path: str, required: Sequence[str], hub: HubFile | None = None
) -> list[Record]:
    """Returns the rows of one benchmark file.

    Args:
        config: says where local files lie and whether the Hub may be asked.
        path: the file below the root, e.g. "tofu/forget01.json"; JSON lines or one JSON list.
        required: fields that every row must have.
        hub: where the rows come from if the file is not there.

    Raises:
        InputError: the rows are nowhere to be had, there are none, or one lacks a field.
    """
    local = local_root(config) / path
    if local.is_file():
        return checked(list(read_local(local)), required, str(local))
    if hub is not None and config.download:
        return checked(read_hub(hub), required, hub.place)
    missing = "it is not on the Hugging Face Hub in this form" if hub is None else "data.download is off"
    raise InputError(f"no such file, and {missing}; set O3_DATA or data.root", path=local)


def try_records(
    config: DataConfig, path: str, required: Sequence[str], hub: HubFile | None = None
) -> list[Record] | None:
    """Returns as `load_records` does, or None where the rows are nowhere to be had; a warning says so.

    Raises:
        InputError: a local file is malformed.
    """
    if (local_root(config) / path).is_file():
        return load_records(config, path, required, hub)
    try:
        return load_records(config, path, required, hub)
    except InputError as error:
        logger.warning("left out: %s", error)
        return None


def checked(records: list[Record], required: Sequence[str], path: str) -> list[Record]:
    """Returns the rows if there are any and all have the fields they need."""
    if not records:
        raise InputError("expected at least one row, got none", path=path)
    for record in records:
        for name in required:
            if record.values.get(name) is None:
                raise InputError("missing", path=record.path, line=record.line, field=name)
    return records


def read_local(path: Path) -> Iterator[Record]:
    """Yields the rows of a file of JSON lines or of one JSON list of objects."""
    if path.read_bytes()[:64].lstrip().startswith(b"["):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"not JSON: {error}", path=path) from error
        numbered: Any = enumerate(values, start=1)
    else:
        numbered = read_json_lines(path)
    for line, value in numbered:
        if not isinstance(value, dict):
            message = f"expected a JSON object, got {type(value).__name__}"
            raise InputError(message, path=path, line=line)
        yield Record(value, str(path), line)


def read_hub(hub: HubFile) -> list[Record]:
    """Returns the rows of a split on the Hub; its own code is never run."""
    from datasets import load_dataset

    try:
        rows = load_dataset(hub.repository, hub.configuration, split=hub.split)
    except Exception as error:  # the Hub's client raises errors of many libraries
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"not found locally, and the Hugging Face Hub did not give it: {reason}"
        raise InputError(message, path=hub.place) from error
    return [
        Record({hub.rename.get(name, name): value for name, value in row.items()}, hub.place, line)
        for line, row in enumerate(rows, start=1)
    ]
