"""Writing files so that a kill at any moment leaves the old content or the new, and telling files apart."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["digest_bytes", "digest_file", "digest_json", "to_json", "write_atomically", "write_json"]

READABLE = 0o666  # what a file opened in the usual way is given before the umask; mkstemp gives 0o600


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Writes a file under a temporary name in its folder, syncs it and renames it into place.

    Args:
        path: the file; missing parent folders are made.
        content: bytes, or text that is written as UTF-8.

    Raises:
        OSError: the disk is full or the folder may not be written; the old file is then untouched.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), READABLE & ~current_umask())
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def current_umask() -> int:
    """The permissions that new files of this process lack; reading them means setting them twice."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: str | Path) -> None:
    """Makes a rename inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Returns JSON with sorted keys, so that equal values give equal bytes; NaN and infinity are refused.

    Raises:
        ValueError: the value holds a number that JSON cannot hold.
    """
    return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as sorted, indented JSON, atomically."""
    write_atomically(path, to_json(value) + "\n")


def digest_bytes(*parts: bytes) -> str:
    """Returns the SHA-256 of byte strings, each framed by its length, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """Returns the SHA-256 of a value's sorted JSON."""
    return digest_bytes(to_json(value, indent=None).encode())


def digest_file(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(paths: Iterable[str | Path]) -> str:
    """Returns one SHA-256 over several files, each with its name, in the order of their names."""
    named = sorted((Path(path).name, digest_file(path)) for path in paths)
    return digest_json(named)
