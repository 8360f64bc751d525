"""The journal: one line per state change, chained by digests, with the digest of every file of the request.

Appending a line commits a change: it is written after the new files are synced under a temporary name, and
before they are moved into place. Whenever a process is killed, the journal determines the state of the store
(see `transaction`).

The chain is not keyed: it detects accidents and manual edits. Whoever can rewrite the whole store can also
rewrite its journal; keep a copy of `Journal.head` elsewhere to detect that.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json, to_json
from o3_lightning.data.requests import check_id

JOURNAL = "journal.jsonl"
CREATE, REVOKE, REMOVE = "create", "revoke", "remove"
EVENTS = (CREATE, "register", "protect", "unlearn", REVOKE, "restore", REMOVE)
START = "0" * 64
HEXADECIMAL = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Entry:
    """One state change.

    Args:
        sequence: 0 for the line that created the store, then increasing by one.
        event: 'create', 'register', 'protect', 'unlearn', 'revoke', 'restore' or 'remove'.
        request: the request's id; empty for 'create'.
        files: digest of every file of the request after the change, by its path within the request's folder;
            for 'create' the digest of store.json.
        time: UTC, in seconds.
        previous: digest of the previous line.
    """

    sequence: int
    event: str
    request: str
    files: Mapping[str, str]
    time: str
    previous: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all fields; the next line holds it as `previous`."""
        return digest_json(asdict(self))

    def to_line(self) -> bytes:
        """Returns the line with its line end; equal entries give equal bytes."""
        return (to_json({**asdict(self), "digest": self.digest}, indent=None) + "\n").encode()


@dataclass
class Journal:
    """The content of a journal file, and its damage.

    Args:
        entries: the readable lines.
        problems: one message per damaged line.
        torn: bytes after the last line end, left by an interrupted write.
        current: the latest line of each request that was not removed, in the order of registration.
        content: the bytes of the complete lines.
    """

    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    torn: bytes = b""
    current: dict[str, Entry] = field(default_factory=dict)
    content: bytes = b""

    @property
    def head(self) -> str:
        """Digest of the last line; zeros for an empty journal."""
        return self.entries[-1].digest if self.entries else START

    @property
    def next_sequence(self) -> int:
        """The sequence number of the next line."""
        return self.entries[-1].sequence + 1 if self.entries else 0

    def append(self, entry: Entry) -> None:
        """Adds the entry of the next line; `content` is left to the caller."""
        self.entries.append(entry)
        if entry.event == REMOVE:
            self.current.pop(entry.request, None)
        elif entry.event != CREATE:
            self.current[entry.request] = entry


def parse_journal(content: bytes, earlier: Journal | None = None) -> Journal:
    """Parses a journal; damaged lines are listed by number in `problems`.

    If the file still begins with the content of `earlier`, a journal without problems that was parsed before,
    only the lines after it are parsed.
    """
    journal = Journal()
    if earlier is not None and not earlier.problems and content.startswith(earlier.content):
        journal = Journal(list(earlier.entries), [], b"", dict(earlier.current), earlier.content)
    *lines, journal.torn = content[len(journal.content) :].split(b"\n")
    previous: str | None = journal.head
    for number, raw in enumerate(lines, start=len(journal.entries) + 1):
        problem, entry = check_line(raw, number - 1, previous)
        if problem:
            journal.problems.append(f"{JOURNAL}:{number}: {problem}")
        if entry is not None:
            journal.append(entry)
        previous = None if problem and "changed" in problem else entry.digest if entry else None
    journal.content = content[: len(content) - len(journal.torn)]
    if not journal.content:
        journal.problems.append(f"{JOURNAL}: empty, at least one line is expected")
    return journal


def check_line(raw: bytes, sequence: int, previous: str | None) -> tuple[str, Entry | None]:
    """Returns the problem of a line (empty if it has none), and its entry if it can be parsed."""
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
    """Returns an entry after validating every field; raises ValueError or TypeError."""
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
    """Whether a path is relative and stays within its folder."""
    pure = PurePosixPath(path)
    plain = bool(path) and "\\" not in path and "\0" not in path and pure.as_posix() == path
    return plain and not pure.is_absolute() and ".." not in pure.parts and path != "."


def now_text() -> str:
    """Returns the current time in UTC, in seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def append_entry(path: Path, entry: Entry) -> None:
    """Appends a line and syncs the file; truncates it to its former length if that fails.

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
