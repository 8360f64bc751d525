"""The journal: one line a state change, bound to the line before it, with the digest of every file concerned.

The journal is what makes a change final. A line is written after the files it speaks of are safe on disk
under a temporary name, and before they are moved into place; so whatever moment a process dies at, the
journal says which state the store is in (see `transaction`).

The chain is not keyed: it finds accidents and careless hands. Whoever can rewrite the whole store can also
rewrite its journal; keep `Journal.head` elsewhere to notice that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json, to_json
from o3_lightning.data.requests import check_id

__all__ = ["CREATE", "JOURNAL", "REMOVE", "Entry", "Journal", "append_entry", "parse_journal"]

JOURNAL = "journal.jsonl"
CREATE, REMOVE = "create", "remove"
EVENTS = (CREATE, "register", "protect", "unlearn", "revoke", "restore", REMOVE)
START = "0" * 64
HEXADECIMAL = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Entry:
    """One state change.

    Args:
        sequence: 0 for the line that made the store, then one more each line.
        event: 'create', 'register', 'protect', 'unlearn', 'revoke', 'restore' or 'remove'.
        request: the id, empty for 'create'.
        files: digest of every file that the request has after the change, by its path within the request's
            folder; for 'create' the digest of store.json.
        time: when, in UTC, to the second.
        previous: digest of the line before.
    """

    sequence: int
    event: str
    request: str
    files: Mapping[str, str]
    time: str
    previous: str

    @property
    def digest(self) -> str:
        """SHA-256 over every other field: what the next line repeats as `previous`."""
        return digest_json(asdict(self))

    def to_line(self) -> bytes:
        """Returns the line with its end, always the same bytes for the same entry."""
        return (to_json({**asdict(self), "digest": self.digest}, indent=None) + "\n").encode()


@dataclass
class Journal:
    """What a journal file holds, and what is wrong with it.

    Args:
        entries: every line that could be read.
        problems: one text a damaged line, naming it.
        torn: bytes after the last line end; a killed write leaves them.
    """

    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    torn: bytes = b""

    @property
    def head(self) -> str:
        """Digest of the last line."""
        return self.entries[-1].digest if self.entries else START

    @property
    def next_sequence(self) -> int:
        """The number that the next line will have."""
        return self.entries[-1].sequence + 1 if self.entries else 0

    def current(self) -> dict[str, Entry]:
        """Returns the last line of every request that was not removed, in the order of registration."""
        latest: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.event == REMOVE:
                latest.pop(entry.request, None)
            elif entry.event != CREATE:
                latest[entry.request] = entry
        return latest


def parse_journal(content: bytes) -> Journal:
    """Returns the lines of a journal, and by number every line that is not as it was written."""
    *lines, torn = content.split(b"\n")
    journal = Journal(torn=torn)
    previous: str | None = START
    for number, raw in enumerate(lines, start=1):
        problem, entry = check_line(raw, number - 1, previous)
        if problem:
            journal.problems.append(f"{JOURNAL}:{number}: {problem}")
        if entry is not None:
            journal.entries.append(entry)
        previous = None if problem and "changed" in problem else entry.digest if entry else None
    if not lines:
        journal.problems.append(f"{JOURNAL}: empty, at least one line is expected")
    return journal


def check_line(raw: bytes, sequence: int, previous: str | None) -> tuple[str, Entry | None]:
    """Returns what is wrong with a line (empty if nothing) and the entry if it can be told."""
    try:
        value = json.loads(raw)
        claimed = value.pop("digest")
        entry = read_entry(value)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        return f"changed, no longer a journal line ({type(error).__name__})", None
    if entry.digest != claimed or entry.to_line() != raw + b"\n":
        return "changed since it was written", entry
    if previous is not None and (entry.previous != previous or entry.sequence != sequence):
        return "does not follow the line before it: a line is missing or was added", entry
    if (entry.event == CREATE) != (sequence == 0):
        return "a store is created by its first line and by no other", entry
    return "", entry


def read_entry(value: Any) -> Entry:
    """Returns an entry whose every field is safe to use; raises ValueError or TypeError otherwise."""
    entry = Entry(**value)
    texts = (entry.event, entry.request, entry.time, entry.previous)
    if type(entry.sequence) is not int or not all(isinstance(text, str) for text in texts):
        raise TypeError("ill-typed field")
    if entry.event not in EVENTS or not isinstance(entry.files, dict):
        raise ValueError("unknown event, or files is not an object")
    if entry.event != CREATE:
        try:
            check_id(entry.request)
        except InputError as error:
            raise ValueError("not an id") from error
    for path, digest in entry.files.items():
        if not is_safe_path(path) or not isinstance(digest, str) or not HEXADECIMAL.issuperset(digest):
            raise ValueError("unsafe path or digest")
    return entry


def is_safe_path(path: str) -> bool:
    """True for a plain relative path that stays within its folder."""
    pure = PurePosixPath(path)
    plain = bool(path) and "\\" not in path and "\0" not in path and pure.as_posix() == path
    return plain and not pure.is_absolute() and ".." not in pure.parts and path != "."


def now_text() -> str:
    """Returns the present time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def append_entry(path: Path, entry: Entry) -> None:
    """Adds a line and syncs it; when that fails the journal is as long as before.

    Raises:
        OSError: the disk is full or the file may not be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    size = os.fstat(handle).st_size
    try:
        rest = entry.to_line()
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except BaseException:
        os.ftruncate(handle, size)
        raise
    finally:
        os.close(handle)
