"""The store on disk: requests with their detectors and adapters; every change is atomic.

Layout (format 1)::

    store.json                           format; id and digest of base model and encoder; the base's settings
    journal.jsonl                        one line per state change, see `journal`
    requests/<id>/request.json           status, size and digest of the forget set, configuration, metrics
    requests/<id>/detector.safetensors   and detector.json
    requests/<id>/adapter/               plain PEFT: adapter_model.safetensors and adapter_config.json

No text of the forget set is written, and no file format that can contain code is read.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import digest_file, to_json, write_atomically
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.store.journal import CREATE, JOURNAL, START, Entry, now_text, parse_journal
from o3_lightning.store.record import (
    ADAPTER,
    PROTECTED,
    REGISTERED,
    REVOKED,
    UNLEARNED,
    RequestRecord,
    status_of,
    writer_of,
)
from o3_lightning.store.transaction import REQUESTS, Session, locked
from o3_lightning.store.verify import STORE, WAIT_SECONDS, verify_store
from o3_lightning.store.view import FORMAT, IDENTITY_KEYS, SETTINGS, StoreView


class Store(StoreView):
    """A writable store; obtain one with `Store.create` or `Store.open`.

    Every call completes or rolls back a write that was interrupted by a kill. Writers wait for each other.

    Raises:
        InputError: from every call that names a request, if the store has no such request.
        StoreError: from every call, if the store is damaged, locked or not writable, or the disk is full;
            the store is then unchanged.
    """

    refusal: ClassVar[str] = ""

    @classmethod
    def create(
        cls,
        path: str | Path,
        base_id: str,
        base_digest: str,
        encoder_id: str,
        encoder_digest: str,
        base_settings: Mapping[str, Any] | None = None,
        *,
        exist_ok: bool = False,
    ) -> Self:
        """Creates an empty store for one base model and one encoder, with the digests of their weights.

        The folder does not exist, is empty, or was left by an interrupted `create`. `base_settings` records
        what the base model was opened with, as plain JSON; None records nothing. With `exist_ok` a store that
        is there is opened, also one that another process makes meanwhile.

        Raises:
            StoreError: the folder is not empty or not writable, or as `open`.
        """
        root = Path(path)
        if exist_ok and (root / STORE).exists():
            return cls.open(root, base_digest, encoder_digest)
        given = (base_id, base_digest, encoder_id, encoder_digest)
        identity: dict[str, Any] = dict(zip(IDENTITY_KEYS, given, strict=True))
        if base_settings:
            identity[SETTINGS] = dict(base_settings)
        try:
            root.mkdir(parents=True, exist_ok=True)
            with locked(root, WAIT_SECONDS) as refusal:
                if refusal:
                    raise StoreError(f"{root}: may not be written: {refusal}")
                if not (exist_ok and (root / STORE).exists()):
                    write_new_store(root, identity)
        except OSError as error:
            raise StoreError(f"{error.filename or root}: {error.strerror or error}") from error
        return cls.open(root, base_digest, encoder_digest) if exist_ok else cls(root, identity)

    def register(self, request: UnlearningRequest, configuration: Mapping[str, Any]) -> RequestRecord:
        """Adds a request; registering the same forget set again returns the existing record.

        Args:
            request: only its id, size and digest are stored.
            configuration: of detector and adapter, as plain JSON without text of the forget set.

        Raises:
            InputError: another forget set has the id, or an id that differs only in case.
        """
        with self._session() as session:
            known = session.journal.current
            if request.id in known:
                record = self._read(session, request.id)
                if record.digest != request.digest:
                    raise InputError(
                        f"'{request.id}' is registered with another forget set "
                        f"(digest {record.digest}, now {request.digest}); give the new one another id",
                        field="request_id",
                    )
                return record
            twins = [other for other in known if other.lower() == request.id.lower()]
            if twins:
                raise InputError(f"'{request.id}' differs from '{twins[0]}' only in case", field="request_id")
            record = RequestRecord(
                request.id, REGISTERED, len(request.rows), request.digest, dict(configuration)
            )
            session.commit("register", request.id, writer_of(record))
            return record

    def protect(self, id: str, save: Callable[[Path], None]) -> RequestRecord:
        """Adds or replaces a request's detector: matching prompts are refused from then on.

        `save` writes detector.safetensors and detector.json into a given folder.

        Raises:
            InputError: the request is revoked.
        """
        with self._session() as session:
            record, files = self._standing(session, id)
            kept = [path for path in files if path.startswith(f"{ADAPTER}/")]
            record = replace(record, status=UNLEARNED if kept else PROTECTED)
            session.commit("protect", id, writer_of(record, save), kept)
            return record

    def unlearn(self, id: str, save: Callable[[Path], None], metrics: Mapping[str, float]) -> RequestRecord:
        """Adds or replaces a request's adapter: matching prompts run through it from then on.

        Args:
            id: of a request that is protected or unlearned.
            save: writes adapter_model.safetensors and adapter_config.json into a given folder.
            metrics: finite training metrics by name.

        Raises:
            InputError: the request is revoked or has no detector, or a metric is not finite.
        """
        with self._session() as session:
            record, files = self._standing(session, id)
            if record.status == REGISTERED:
                raise InputError(f"request '{id}' has no detector yet; protect it before it is unlearned")
            kept = [path for path in files if not path.startswith(f"{ADAPTER}/")]
            record = replace(record, status=UNLEARNED, metrics=dict(metrics))
            session.commit("unlearn", id, writer_of(record, save, ADAPTER), kept)
            return record

    def revoke(self, id: str) -> RequestRecord:
        """Excludes a request from the gate and keeps its files; no effect if it is already revoked."""
        return self._mark(id, "revoke")

    def restore(self, id: str) -> RequestRecord:
        """Restores a revoked request to its former status; no effect if it is not revoked."""
        return self._mark(id, "restore")

    def remove(self, id: str) -> None:
        """Permanently deletes a request's files, damaged or not; its id and digests stay in the journal.

        No effect if it is already removed, as by a call that was killed.
        """
        with self._session() as session:
            journal = session.journal
            if id not in journal.current and any(line.request == id for line in journal.entries):
                return
            self._entry(session, id)
            session.commit("remove", id)

    def verify(self) -> list[str]:
        """Returns one message per changed, missing or added file or journal line; see `verify_store`."""
        return verify_store(self.path, self.lock_seconds)

    def _standing(self, session: Session, id: str) -> tuple[RequestRecord, Mapping[str, str]]:
        """Returns the record and files of a request that is not revoked."""
        entry = self._entry(session, id)
        record = self._read(session, id)
        if record.status == REVOKED:
            raise InputError(f"request '{id}' is revoked; restore it first")
        return record, entry.files

    def _mark(self, id: str, event: str) -> RequestRecord:
        """Revokes or restores a request unless it already is."""
        with self._session() as session:
            entry = self._entry(session, id)
            record = self._read(session, id)
            if (record.status == REVOKED) == (event == "revoke"):
                return record
            record = replace(record, status=REVOKED if event == "revoke" else status_of(entry.files))
            session.commit(event, id, writer_of(record), list(entry.files))
            return record


def write_new_store(root: Path, identity: Mapping[str, Any]) -> None:
    """Writes an empty store; store.json is written last and marks it as complete."""
    if (root / STORE).exists():
        raise StoreError(f"{root}: there is a store already")
    journal = root / JOURNAL
    left = journal.exists() and len(parse_journal(journal.read_bytes()).entries) <= 1
    for path in root.iterdir():
        leftover = path.name.startswith(".") or (left and path.name in (JOURNAL, REQUESTS))
        if not leftover or (path.name == REQUESTS and any(path.iterdir())):
            raise StoreError(f"{root}: expected an empty folder, found {path.name}")
        if path.suffix == ".tmp":
            path.unlink()
    content = to_json({"format": FORMAT, **identity}) + "\n"
    draft = root / f".{STORE}.tmp"
    draft.write_text(content, encoding="utf-8")
    entry = Entry(0, CREATE, "", {STORE: digest_file(draft)}, now_text(), START)
    write_atomically(journal, entry.to_line())
    (root / REQUESTS).mkdir(exist_ok=True)
    write_atomically(root / STORE, content)
    os.unlink(draft)
