"""Reads benchmark rows from a local folder or else from the Hugging Face Hub.

Only JSON lines, JSON and parquet are read; code that comes with a data set is never executed.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.records import Record, read_records

logger = logging.getLogger(__name__)
DEFAULT_ROOT = "../shared/data"


@dataclass(frozen=True)
class HubFile:
    """A split of a data set on the Hugging Face Hub.

    Args:
        repository: id of the data set, e.g. "locuslab/TOFU".
        configuration: its subset; None if it has no subsets.
        split: e.g. "train".
        rename: our field names by the names on the Hub.
    """

    repository: str
    configuration: str | None = None
    split: str = "train"
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The name used in messages."""
        return "/".join(part for part in (self.repository, self.configuration, self.split) if part)


def local_root(config: DataConfig) -> Path:
    """Returns the folder of local benchmark files: `data.root`, `O3_DATA` or ../shared/data."""
    return Path(config.root or os.environ.get("O3_DATA") or DEFAULT_ROOT).expanduser()


def load_records(
    config: DataConfig, path: str, required: Sequence[str], hub: HubFile | None = None
) -> list[Record]:
    """Returns the rows of one benchmark file.

    Args:
        config: folder of local files, and whether the Hub may be used.
        path: path below the folder, e.g. "tofu/forget01.json"; JSON lines or one JSON list.
        required: fields that every row must have.
        hub: the same rows on the Hub, read if there is no local file.

    Raises:
        InputError: the rows are not available, there are none, or a row lacks a field.
    """
    local = local_root(config) / path
    if local.is_file():
        records, place = read_local(local), str(local)
    elif hub is not None and config.download:
        records, place = read_hub(hub), hub.place
    else:
        missing = "it is not on the Hugging Face Hub in this form" if hub is None else "data.download is off"
        raise InputError(f"no such file, and {missing}; set O3_DATA or data.root", path=local)
    if not records:
        raise InputError("expected at least one row, got none", path=place)
    for record in records:
        for name in required:
            if record.values.get(name) is None:
                raise record.error("missing", name)
    return records


def try_records(
    config: DataConfig, path: str, required: Sequence[str], hub: HubFile | None = None
) -> list[Record] | None:
    """Returns the rows as `load_records`, or logs a warning and returns None if they are not available.

    Raises:
        InputError: a local file is malformed.
    """
    try:
        return load_records(config, path, required, hub)
    except InputError as error:
        if (local_root(config) / path).is_file():
            raise
        logger.warning("skipped: %s", error)
        return None


def read_local(path: Path) -> list[Record]:
    """Returns the rows of a file of JSON lines or of one JSON list of objects."""
    if not path.read_bytes()[:64].lstrip().startswith(b"["):
        return list(read_records(path))
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"not JSON: {error}", path=path) from error
    return list(read_records(path, enumerate(values, start=1)))


def read_hub(hub: HubFile) -> list[Record]:
    """Returns the rows of a split on the Hub."""
    from datasets import load_dataset

    try:
        rows = load_dataset(hub.repository, hub.configuration, split=hub.split)
    except Exception as error:  # the Hub's client raises errors of many libraries
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"not found locally, and loading from the Hugging Face Hub failed: {reason}"
        raise InputError(message, path=hub.place) from error
    return [
        Record({hub.rename.get(name, name): value for name, value in row.items()}, hub.place, line)
        for line, row in enumerate(rows, start=1)
    ]
