"""Read-only access to a store: its requests, and the folders of their detectors and adapters."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import digest_json, read_stored
from o3_lightning.store.journal import REVOKE, Entry, Journal
from o3_lightning.store.record import ADAPTER, RECORD, REGISTERED, UNLEARNED, RequestRecord, status_of
from o3_lightning.store.transaction import Session, open_session
from o3_lightning.store.verify import STORE, WAIT_SECONDS, check_file

FORMAT = 1
IDENTITY_KEYS = ("base_id", "base_digest", "encoder_id", "encoder_digest")
SETTINGS = "base_settings"


class GatedRequest(NamedTuple):
    """A protected or unlearned request."""

    id: str
    digest: str
    detector: Path
    adapter: Path | None


class StoreView:
    """A store opened read-only; an interrupted change is neither completed nor rolled back.

    Every call locks the store, so several processes may use it at once; a reader waits for a writer.

    Args:
        path: the store's folder.
        identity: `base_id`, `base_digest`, `encoder_id`, `encoder_digest`, and `base_settings` if recorded.

    Attributes:
        lock_seconds: timeout of a call that waits for another process, in seconds.

    Raises:
        InputError: from every call that names a request, if the store has no such request.
        StoreError: from every call, if the journal or a file that the call reads is damaged.
    """

    refusal: ClassVar[str] = "it was opened to be read only"

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.base_id, self.base_digest = identity["base_id"], identity["base_digest"]
        self.encoder_id, self.encoder_digest = identity["encoder_id"], identity["encoder_digest"]
        self.base_settings: Mapping[str, Any] = identity.get(SETTINGS, {})
        self.lock_seconds = WAIT_SECONDS
        self._journal: Journal | None = None  # as the last call found or left it

    @classmethod
    def open(
        cls, path: str | Path, base_digest: str | None = None, encoder_digest: str | None = None
    ) -> Self:
        """Opens a store; None for a digest of the base model or encoder in use skips its check.

        Raises:
            StoreError: there is no store, it is damaged, or it has another format version, base model or
                encoder; the message names the file, or both digests.
        """
        root = Path(path)
        identity = read_identity(root)
        for kind, given in (("base", base_digest), ("encoder", encoder_digest)):
            made_for = identity[f"{kind}_digest"]
            if given is not None and given != made_for:
                name = identity[f"{kind}_id"]
                raise StoreError(
                    f"{root}: made for {kind} {name} with digest {made_for}, opened with digest {given}"
                )
        with open_session(root, WAIT_SECONDS, refusal=cls.refusal) as session:
            if check_file(root / STORE, session.journal.entries[0].files.get(STORE, "")):
                raise StoreError(f"{root / STORE}: changed since it was written")
        return cls(root, identity)

    def records(self) -> list[RequestRecord]:
        """Returns every request, in the order of registration."""
        with self._session() as session:
            return [self._read(session, id) for id in session.journal.current]

    def record(self, id: str) -> RequestRecord:
        """Returns one request."""
        with self._session() as session:
            self._entry(session, id)
            return self._read(session, id)

    def latest(self, id: str) -> Entry:
        """Returns the latest journal line of a request, with the digests of its files."""
        with self._session() as session:
            return self._entry(session, id)

    def lines(self) -> list[Entry]:
        """Returns every journal line, oldest first."""
        with self._session() as session:
            return list(session.journal.entries)

    def history(self, id: str) -> list[Entry]:
        """Returns the journal lines of one request, oldest first; none for an unknown id."""
        return [line for line in self.lines() if line.request == id]

    def head(self) -> str:
        """Returns the digest of the journal's last line, which changes with every change of the store."""
        with self._session() as session:
            return session.journal.head

    def gated(self, verified: Collection[str] = ()) -> list[GatedRequest]:
        """Returns the protected and unlearned requests, in the order of registration, their files verified.

        Requests whose digests are `verified`, by an earlier call, are not verified again.
        """
        found = []
        with self._session() as session:
            for id, entry in session.journal.current.items():
                status, folder = status_of(entry.files), session.folder(id)
                if entry.event == REVOKE or status == REGISTERED:
                    continue
                digest = digest_json(entry.files)
                if digest not in verified:
                    self._verify(folder, entry.files)
                adapter = folder / ADAPTER if status == UNLEARNED else None
                found.append(GatedRequest(id, digest, folder, adapter))
        return found

    def detector_folder(self, id: str) -> Path:
        """Returns the folder of a request's detector, its files verified; InputError if it has none."""
        return self._checked_folder(id, "")

    def adapter_folder(self, id: str) -> Path:
        """Returns the folder of a request's adapter, its files verified; InputError if it has none."""
        return self._checked_folder(id, ADAPTER)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        earlier = self._journal
        with open_session(self.path, self.lock_seconds, refusal=self.refusal, earlier=earlier) as session:
            self._journal = session.journal
            yield session

    def _entry(self, session: Session, id: str) -> Entry:
        """Returns the latest journal line of a request."""
        known = session.journal.current
        if id not in known:
            names = ", ".join(known) if known else "none"
            raise InputError(f"no request '{id}' in {self.path}; there are: {names}", field="request_id")
        return known[id]

    def _read(self, session: Session, id: str) -> RequestRecord:
        """Returns a record after verifying its digest."""
        path = session.folder(id) / RECORD
        self._verify(session.folder(id), {RECORD: session.journal.current[id].files.get(RECORD, "")})
        record = RequestRecord.read(path)
        if record.id != id:
            raise StoreError(f"{path}: speaks of request '{record.id}'")
        return record

    def _checked_folder(self, id: str, part: str) -> Path:
        with self._session() as session:
            files = self._entry(session, id).files
            inside = {
                path: digest
                for path, digest in files.items()
                if path.startswith(f"{ADAPTER}/") == bool(part) and path != RECORD
            }
            if not inside:
                raise InputError(f"request '{id}' has no {part or 'detector'} yet")
            self._verify(session.folder(id), inside)
            return session.folder(id) / part

    @staticmethod
    def _verify(folder: Path, files: Mapping[str, str]) -> None:
        """Raises StoreError if a file of a request is missing or changed, or lies behind a link."""
        for path, digest in files.items():
            for place in (folder.parent, folder, (folder / path).parent, folder / path):
                if place.is_symlink():
                    raise StoreError(f"{place}: a link; only plain files belong in a store")
            problem = check_file(folder / path, digest)
            if problem:
                raise StoreError(f"{folder / path}: {problem}")


def read_settings(root: Path) -> Mapping[str, Any]:
    """Returns the settings that a store records of its base model; empty where there is no store yet."""
    return read_identity(root).get(SETTINGS, {}) if (root / STORE).is_file() else {}


def read_identity(root: Path) -> dict[str, Any]:
    """Returns ids and digests of the base model and the encoder of a store, and the base's settings.

    Raises:
        StoreError: there is no store, it has another format version, or store.json is damaged.
    """
    path = root / STORE
    if not path.exists():
        raise StoreError(f"{path}: no store here")
    value = read_stored(path)
    version = value.get("format")
    if version != FORMAT:
        raise StoreError(f"{path}: format version {version!r}; this program reads version {FORMAT}")
    del value["format"]
    settings = value.pop(SETTINGS, {})
    if set(value) != set(IDENTITY_KEYS) or not all(isinstance(each, str) for each in value.values()):
        raise StoreError(f"{path}: damaged, expected the texts {', '.join(IDENTITY_KEYS)}")
    if not isinstance(settings, dict):
        raise StoreError(f"{path}: field '{SETTINGS}': expected an object, got {settings!r}")
    return {**value, SETTINGS: settings} if settings else value
