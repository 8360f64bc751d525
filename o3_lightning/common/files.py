"""Atomic writes, JSON with sorted keys, and digests."""

import csv
import errno
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError, StoreError


def write_atomically(path: str | Path, content: bytes | str, *, private: bool = False) -> None:
    """Writes a file atomically: a kill at any moment leaves the old or the new content.

    Args:
        path: of the file; missing parent folders are created.
        content: bytes, or text that is written as UTF-8.
        private: only the owner may read the file, because it may hold text of forget sets.

    Raises:
        OSError: the disk is full, the folder is not writable, or the path is a folder; the old file is
            unchanged.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def cache_folder() -> Path:
    """Returns the folder of trained models and word lists: `O3_CACHE`, else ~/.cache/o3-lightning."""
    configured = os.environ.get("O3_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "o3-lightning"


def sync_folder(folder: str | Path) -> None:
    """Syncs a folder, so that a rename in it survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Returns JSON with sorted keys: equal values give equal text; ValueError for NaN and infinity."""
    return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False)


def write_json(path: str | Path, value: Any, *, private: bool = False) -> None:
    """Writes a value as sorted, indented JSON, as `write_atomically` does."""
    write_atomically(path, to_json(value) + "\n", private=private)


def read_result(path: str | Path, *keys: str, field: str | None = None) -> dict[str, Any]:
    """Returns the JSON object in a file that a command wrote.

    Args:
        path: the file.
        keys: that the object must have.
        field: named in the error; None names the missing key.

    Raises:
        InputError: the file cannot be read, is not a JSON object, or lacks a key.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path, field=field) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", path=path, field=field) from error
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object, got {type(value).__name__}", path=path, field=field)
    for key in keys:
        if key not in value:
            raise InputError(f"expected a JSON object with '{key}'", path=path, field=field or key)
    return value


def read_stored(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file of a store; StoreError if it is missing, unreadable or none."""
    try:
        return read_result(path)
    except InputError as error:
        raise StoreError(str(error)) from error


def read_lines(path: str | Path, what: str, field: str) -> list[str]:
    """Returns the stripped lines of a text file that are not empty, at least one.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or holds no line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", path=path, field=field) from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"expected one {what} per line, got none", path=path, field=field)
    return found


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Returns a header and rows as CSV; None gives an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def digest_bytes(*parts: bytes) -> str:
    """Returns the SHA-256 of byte strings, each prefixed with its length, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """Returns the SHA-256 of a value's sorted JSON."""
    return digest_bytes(to_json(value, indent=None).encode())


def digest_file(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(paths: Iterable[str | Path]) -> str:
    """Returns one SHA-256 over the names and contents of several files, sorted by name."""
    named = sorted((Path(path).name, digest_file(path)) for path in paths)
    return digest_json(named)
