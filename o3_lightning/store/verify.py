"""Comparing a store with its journal, byte by byte: names every file changed, missing or added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from o3_lightning.common.errors import O3Error
from o3_lightning.common.files import digest_file
from o3_lightning.store.journal import CREATE, JOURNAL, Journal
from o3_lightning.store.record import RequestRecord
from o3_lightning.store.transaction import LOCK, REQUESTS, open_session

__all__ = ["RECORD", "STORE", "check_file", "verify_store"]

STORE = "store.json"
RECORD = "request.json"
WAIT_SECONDS = 30.0


def verify_store(path: str | Path, lock_seconds: float = WAIT_SECONDS) -> list[str]:
    """Returns one text for each changed, missing or added file or journal line; none means all is well.

    Args:
        path: the store's folder; it may be too damaged to be opened.
        lock_seconds: how long to wait for a process that is writing.

    Raises:
        StoreError: there is no journal at all, it may not be read, or another process holds the lock.
    """
    root = Path(path)
    with open_session(root, lock_seconds, strict=False) as session:
        return [*session.journal.problems, *compare(root, session.journal)]


def compare(root: Path, journal: Journal) -> Iterator[str]:
    """Yields what differs between the files on disk and the journal."""
    expected = expected_files(journal)
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            yield f"{name}: not a plain file or folder"
        elif path.is_file():
            found[name] = path
        elif not any(file.startswith(f"{name}/") for file in expected) and name != REQUESTS:
            yield f"{name}: folder added, the journal does not know it"
    for name in sorted(set(found) - set(expected) - {LOCK, JOURNAL}):
        yield f"{name}: added, the journal does not know it"
    for name, digest in sorted(expected.items()):
        problem = check_file(root / name, digest)
        if problem:
            yield f"{name}: {problem}"
        elif name.endswith(f"/{RECORD}") and name.count("/") == 2:
            yield from check_record(root / name)


def expected_files(journal: Journal) -> dict[str, str]:
    """Returns the digest of every file that a store has, by its path."""
    expected: dict[str, str] = {}
    for entry in journal.entries:
        if entry.event == CREATE:
            expected.update(entry.files)
    for request, entry in journal.current().items():
        expected.update(below(f"{REQUESTS}/{request}", entry.files))
    return expected


def below(folder: str, files: Mapping[str, str]) -> dict[str, str]:
    """Returns the same digests with their paths put below a folder."""
    return {f"{folder}/{path}": digest for path, digest in files.items()}


def check_file(path: Path, digest: str) -> str:
    """Returns what is wrong with a file, or an empty text."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return "not a plain file"
    if not path.exists():
        return "missing"
    try:
        return "" if digest_file(path) == digest else "changed since it was written"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def check_record(path: Path) -> Iterator[str]:
    """Yields what is wrong with a request's record although its bytes are the journal's."""
    try:
        record = RequestRecord.read(path)
    except O3Error as error:
        yield str(error)
        return
    if record.id != path.parent.name:
        yield f"{path.parent.name}/{path.name}: speaks of request '{record.id}'"
