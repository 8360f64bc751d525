"""Atomic changes of the store, safe against a kill at any moment.

The steps of a change, all under the store's lock:

1. the new files are written and synced in `.pending-<n>`, where n is the number of the next journal line;
2. line n is appended to the journal and synced: this commits the change;
3. the files are moved into place, files that are no longer needed and `.pending-<n>` are deleted.

After an interruption, the next process that opens the store finds `.pending-<n>`. Without line n the change
is rolled back by deleting the folder; with line n step 3 is repeated. An incomplete last line is cut off only
if `.pending-<n>` shows that a change was in progress; otherwise it is reported as damage.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from o3_lightning.common.errors import StoreError
from o3_lightning.common.files import digest_file, sync_folder
from o3_lightning.store.journal import JOURNAL, REMOVE, Entry, Journal, append_entry, now_text, parse_journal

LOCK = ".lock"
PENDING = ".pending-"
REQUESTS = "requests"
ALLOWED_SUFFIXES = (".json", ".safetensors", ".md")


@dataclass
class Session:
    """A store while its lock is held, with its current journal.

    `refusal` is the reason why the store is read-only; empty if it is writable.
    """

    root: Path
    journal: Journal
    refusal: str = ""

    def folder(self, request: str) -> Path:
        """The folder of a request."""
        return self.root / REQUESTS / request

    def commit(
        self,
        event: str,
        request: str,
        write: Callable[[Path], None] | None = None,
        kept: Collection[str] = (),
    ) -> Entry:
        """Commits one change and returns the new journal line.

        Args:
            event: one of `journal.EVENTS`.
            request: the request's id.
            write: writes the new files into a given empty folder; None writes none.
            kept: paths of the request's current files that are kept unless `write` replaces them.

        Raises:
            StoreError: the store is not writable, or `write` created something else than tensor, JSON or
                Markdown files.
            OSError: a write failed, as on a full disk; the store is unchanged.
        """
        if self.refusal:
            raise StoreError(f"{self.root}: may not be written: {self.refusal}")
        for link in find_links(self.root / REQUESTS, self.folder(request)):
            raise StoreError(f"{link}: a link; only plain files belong in a store; nothing was changed")
        pending = self.root / f"{PENDING}{self.journal.next_sequence}"
        before = self.journal.current.get(request)
        try:
            pending.mkdir()
            if write is not None:
                write(pending)
            files = {path: before.files[path] for path in kept} if before else {}
            files.update({path: digest_file(pending / path) for path in staged_files(pending)})
            number, previous = self.journal.next_sequence, self.journal.head
            entry = Entry(number, event, request, files, now_text(), previous)
            sync_tree(pending)
            sync_folder(self.root)
            append_entry(self.root / JOURNAL, entry)
        except Exception:  # a signal may come after the line is written: the next session looks
            shutil.rmtree(pending, ignore_errors=True)
            raise
        self.journal.append(entry)
        self.journal.content += entry.to_line()
        self.finish(pending, entry, before)
        return entry

    def finish(self, pending: Path, entry: Entry, before: Entry | None) -> None:
        """Puts the files of a committed change in place of those of the line before; idempotent.

        A link that was put there after the check of `commit` goes; what it points to is left alone.
        """
        folder = self.folder(entry.request)
        for link in find_links(folder):
            link.unlink()
        for path in staged_files(pending):
            if entry.files.get(path) != digest_file(pending / path):
                raise StoreError(f"{pending / path}: not the file that the journal's last line speaks of")
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(pending / path, target)
        if entry.event == REMOVE:
            if folder.exists():
                shutil.rmtree(folder)
        else:
            for path in sorted(set(before.files) - set(entry.files) if before else ()):
                (folder / path).unlink(missing_ok=True)
            sync_tree(folder, files=False)
        sync_folder(self.root / REQUESTS)
        shutil.rmtree(pending)

    def recover(self) -> None:
        """Completes or rolls back an interrupted change."""
        last = self.journal.next_sequence - 1
        if self.refusal:
            if (self.root / f"{PENDING}{last}").exists():
                raise StoreError(
                    f"{self.root}: a killed write has to be finished (`requests verify --store` does it), "
                    f"but the store may not be written: {self.refusal}"
                )
            return
        for pending in sorted(self.root.glob(f"{PENDING}*")):
            if pending.is_symlink() or not pending.is_dir():
                raise StoreError(f"{pending}: not a folder of this store")
            if self.journal.entries and pending.name == f"{PENDING}{last}":
                *earlier, entry = self.journal.entries
                before = next((old for old in reversed(earlier) if old.request == entry.request), None)
                self.finish(pending, entry, before)
            else:
                shutil.rmtree(pending)
        for leftover in self.root.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(root: Path, seconds: float) -> Iterator[str]:
    """Holds the store's lock and yields an empty text, or the reason why the folder is read-only.

    Raises:
        StoreError: another process held the lock for `seconds`.
    """
    lock = FileLock(root / LOCK)
    try:
        lock.acquire(timeout=seconds)
    except Timeout as error:
        raise StoreError(f"{root}: another process is writing; waited {seconds:g} s") from error
    except OSError as error:
        yield error.strerror or str(error)
        return
    try:
        yield ""
    finally:
        lock.release()


@contextmanager
def open_session(
    root: Path, seconds: float, *, strict: bool = True, refusal: str = "", earlier: Journal | None = None
) -> Iterator[Session]:
    """Locks a store, recovers from an interrupted change and yields it; OSErrors become StoreErrors.

    Args:
        root: the store's folder.
        seconds: how long to wait for the lock.
        strict: whether a damaged journal is an error.
        refusal: a reason to open the store read-only although it is writable; empty for none.
        earlier: the journal as a session before this one left it; only what follows it is parsed.

    Raises:
        StoreError: the journal is missing or damaged, the lock is held, or a read or write fails.
    """
    path = root / JOURNAL
    try:
        if not path.exists():  # a lock would be made in whatever folder this is
            raise StoreError(f"{path}: missing; there is no store here, or none that can be checked")
        with locked(root, seconds) as denied:
            content = path.read_bytes()
            session = Session(root, parse_journal(content, earlier), refusal or denied)
            mend_tear(session, content)
            if strict and session.journal.problems:
                raise StoreError(f"{root / session.journal.problems[0]}")
            if not session.journal.problems:
                session.recover()
            yield session
    except OSError as error:
        raise StoreError(
            f"{error.filename or root}: {error.strerror or error}; no finished request is lost"
        ) from error


def mend_tear(session: Session, content: bytes) -> None:
    """Cuts off an incomplete last line, or reports it as damage if no change was in progress."""
    journal = session.journal
    if not journal.torn:
        return
    under_way = (session.root / f"{PENDING}{journal.next_sequence}").is_dir()
    if under_way and session.refusal:
        return
    if not under_way:
        number = content.count(b"\n") + 1
        journal.problems.append(f"{JOURNAL}:{number}: torn, and no interrupted write explains it")
        return
    with open(session.root / JOURNAL, "r+b") as stream:
        stream.truncate(len(content) - len(journal.torn))
        os.fsync(stream.fileno())
    journal.torn = b""


def find_links(*folders: Path) -> list[Path]:
    """Returns the folders that are links, and the links within the last one."""
    links = [path for path in folders if path.is_symlink()]
    return links or [path for path in folders[-1].rglob("*") if path.is_symlink()]


def staged_files(folder: Path) -> list[str]:
    """Returns the relative paths of the files below a folder, sorted.

    Raises:
        StoreError: a link, a device, or a file of a suffix that is not allowed.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise StoreError(f"{path}: only plain files belong in a store")
        if path.is_file():
            if path.suffix not in ALLOWED_SUFFIXES:
                raise StoreError(f"{path}: only {', '.join(ALLOWED_SUFFIXES)} files belong in a store")
            found.append(path.relative_to(folder).as_posix())
    return found


def sync_tree(folder: Path, *, files: bool = True) -> None:
    """Syncs a folder and all folders below it, and with `files` the files in them."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        elif files:
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
