"""Verification of a store against its journal: lists every file that was changed, is missing or was added."""

from collections.abc import Iterator
from pathlib import Path

from o3_lightning.common.errors import O3Error
from o3_lightning.common.files import digest_file
from o3_lightning.store.journal import CREATE, JOURNAL, Journal
from o3_lightning.store.record import RECORD, RequestRecord
from o3_lightning.store.transaction import LOCK, REQUESTS, open_session

STORE = "store.json"
WAIT_SECONDS = 30.0


def verify_store(path: str | Path, lock_seconds: float = WAIT_SECONDS) -> list[str]:
    """Returns one message per changed, missing or added file or journal line; an empty list if there is none.

    Raises:
        StoreError: the journal is missing or unreadable, or another process holds the lock for too long.
    """
    root = Path(path)
    with open_session(root, lock_seconds, strict=False) as session:
        return [*session.journal.problems, *compare(root, session.journal)]


def compare(root: Path, journal: Journal) -> Iterator[str]:
    """Yields the differences between the files on disk and the journal."""
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
    """Returns the expected digest of every file of a store, by path."""
    expected: dict[str, str] = {}
    for entry in journal.entries:
        if entry.event == CREATE:
            expected.update(entry.files)
    for request, entry in journal.current.items():
        expected.update({f"{REQUESTS}/{request}/{path}": digest for path, digest in entry.files.items()})
    return expected


def check_file(path: Path, digest: str) -> str:
    """Returns the problem of a file, or an empty text."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return "not a plain file"
    if not path.exists():
        return "missing"
    try:
        return "" if digest_file(path) == digest else "changed since it was written"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def check_record(path: Path) -> Iterator[str]:
    """Yields the problems of a request's record whose digest is right."""
    try:
        record = RequestRecord.read(path)
    except O3Error as error:
        yield str(error)
        return
    if record.id != path.parent.name:
        yield f"{path.parent.name}/{path.name}: speaks of request '{record.id}'"
