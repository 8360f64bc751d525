"""One change of the store, whole or not at all, whatever moment the process dies at.

The steps of a change, all under the store's lock:

1. the new files are written and synced in `.pending-<n>`, where n is the number of the next journal line;
2. line n is appended to the journal and synced: from here on the change is final;
3. the files are moved to their place, files that are no longer needed are deleted, `.pending-<n>` is deleted.

Whoever opens the store next finds `.pending-<n>` if a step was cut short. Without line n the change never
happened and the folder is swept; with line n the moves are done again. A last line that a kill tore is cut
off, but only where `.pending-<n>` shows that a change was under way: any other tear is damage.
"""

from __future__ import annotations

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

__all__ = ["LOCK", "PENDING", "REQUESTS", "Session", "locked", "open_session"]

LOCK = ".lock"
PENDING = ".pending-"
REQUESTS = "requests"
ALLOWED_SUFFIXES = (".json", ".safetensors", ".md")


@dataclass
class Session:
    """A store while its lock is held.

    Args:
        root: the store's folder.
        journal: the journal as it is now.
        refusal: why the store may only be read; empty if it may be written.
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
        """Makes one change final.

        Args:
            event: what happens.
            request: to which request.
            write: writes the new files into the empty folder it is given; None writes none.
            kept: paths of the request's present files that stay as they are, unless written anew.

        Returns:
            The new journal line.

        Raises:
            StoreError: the store may not be written, or `write` made something that is not a plain tensor or
                JSON file.
            OSError: the disk is full or refuses; the store is then as before.
        """
        if self.refusal:
            raise StoreError(f"{self.root}: may not be written: {self.refusal}")
        pending = self.root / f"{PENDING}{self.journal.next_sequence}"
        before = self.journal.current().get(request)
        try:
            pending.mkdir()
            if write is not None:
                write(pending)
            files = {path: before.files[path] for path in kept} if before else {}
            files.update({path: digest_file(pending / path) for path in staged_files(pending)})
            entry = self.next_entry(event, request, files)
            sync_tree(pending)
            sync_folder(self.root)
            append_entry(self.root / JOURNAL, entry)
        except BaseException:
            shutil.rmtree(pending, ignore_errors=True)
            raise
        self.journal.entries.append(entry)
        self.finish(pending, entry)
        return entry

    def next_entry(self, event: str, request: str, files: dict[str, str]) -> Entry:
        """Returns the line that would come next."""
        return Entry(self.journal.next_sequence, event, request, files, now_text(), self.journal.head)

    def finish(self, pending: Path, entry: Entry) -> None:
        """Moves what a final change wrote into place; doing it twice does no harm."""
        folder = self.folder(entry.request)
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
            self.drop_replaced(folder, entry)
            sync_tree(folder, files=False)
        sync_folder(self.root / REQUESTS)
        shutil.rmtree(pending)

    def drop_replaced(self, folder: Path, entry: Entry) -> None:
        """Deletes the files that the line before had and this one has not."""
        earlier = [
            item for item in self.journal.entries if item.request == entry.request and item is not entry
        ]
        for path in sorted(set(earlier[-1].files) - set(entry.files) if earlier else ()):
            (folder / path).unlink(missing_ok=True)

    def recover(self) -> None:
        """Finishes or sweeps what a killed write left."""
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
                self.finish(pending, self.journal.entries[-1])
            else:
                shutil.rmtree(pending)
        for leftover in self.root.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(root: Path, seconds: float) -> Iterator[str]:
    """Holds the store's lock and yields an empty text, or why the folder may only be read.

    Raises:
        StoreError: another process held the lock for all of `seconds`.
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
def open_session(root: Path, seconds: float, *, strict: bool = True, refusal: str = "") -> Iterator[Session]:
    """Locks a store, mends what a killed write left and yields it; OSErrors become StoreErrors.

    Args:
        root: the store's folder.
        seconds: how long to wait for the lock.
        strict: whether a damaged journal is refused.
        refusal: why the store may only be read, however much the system allows; empty if it may be written.

    Raises:
        StoreError: the journal is missing or damaged, the lock is held, the disk is full or refuses.
    """
    path = root / JOURNAL
    try:
        if not path.exists():  # a lock would be made in whatever folder this is
            raise StoreError(f"{path}: missing; there is no store here, or none that can be checked")
        with locked(root, seconds) as denied:
            content = path.read_bytes()
            session = Session(root, parse_journal(content), refusal or denied)
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
    """Cuts off a last line that a kill tore, or reports the tear if no write was under way."""
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


def staged_files(folder: Path) -> list[str]:
    """Returns the relative paths of the files below a folder, sorted.

    Raises:
        StoreError: something is a link, a device or of a kind that could hold code.
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
    """Syncs every folder below and including this one, and the files in them unless they are synced."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        elif files:
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
