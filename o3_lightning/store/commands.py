"""What `o3-lightning requests` does: looking at a store and changing it, one verb a call."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import to_json
from o3_lightning.store.store import Store
from o3_lightning.store.table import format_records
from o3_lightning.store.verify import verify_store

__all__ = ["VERBS", "run_store_command"]

VERBS = ("list", "show", "revoke", "restore", "verify", "remove")
WITHOUT_REQUEST = frozenset({"list", "verify"})


def run_store_command(store_path: str | Path, verb: str, request_id: str | None = None) -> str:
    """Carries out one verb and returns what to print.

    Args:
        store_path: the store's folder.
        verb: "list", "show", "revoke", "restore", "verify" or "remove".
        request_id: the request; "list" and "verify" take none.

    Raises:
        InputError: an unknown verb, a request where none is taken or none where one is, or no such request.
        StoreError: the store is missing or damaged; for "verify" the message names each damage.
    """
    if verb not in VERBS:
        raise InputError(f"expected one of {', '.join(VERBS)}, got {verb!r}", field="verb")
    if (request_id is None) != (verb in WITHOUT_REQUEST):
        expected = "takes no request" if verb in WITHOUT_REQUEST else "needs the id of a request"
        raise InputError(f"'{verb}' {expected}", field="request_id")
    if verb == "verify":
        return describe_health(Path(store_path))
    store = Store.open(store_path)
    if request_id is None:
        return format_records(store.records())
    if verb == "show":
        return describe_request(store, request_id)
    if verb == "remove":
        store.remove(request_id)
        return f"{request_id}: removed"
    changed = store.revoke(request_id) if verb == "revoke" else store.restore(request_id)
    return f"{request_id}: {changed.status}"


def describe_health(path: Path) -> str:
    """Returns that a store is as its journal says, or raises with every difference."""
    problems = verify_store(path)
    if problems:
        raise StoreError(f"{path}: {len(problems)} damaged: {'; '.join(problems)}")
    return f"{path}: every byte is as the journal says"


def describe_request(store: Store, request_id: str) -> str:
    """Returns a request's record and its history as JSON."""
    record = asdict(store.record(request_id))
    history = [f"{entry.time} {entry.event}" for entry in store.history(request_id)]
    return to_json({**record, "history": history})
