"""What `o3-lightning requests` does: looking at a store and changing it, one verb a call."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from o3_lightning.common.checks import check_among
from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import to_json
from o3_lightning.store.record import RequestRecord
from o3_lightning.store.store import Store
from o3_lightning.store.verify import verify_store

VERBS = ("list", "show", "revoke", "restore", "verify", "remove")
WITHOUT_REQUEST = frozenset({"list", "verify"})
HEAD = ("request", "status", "rows", "digest", "metrics")
SHOWN_DIGITS = 12
SHOWN_METRICS = ("loss", "steps", "retained_rows_read")  # `requests show` prints all
RIGHT_ALIGNED = frozenset({"rows"})


def run_store_command(store_path: str | Path, verb: str, request_id: str | None = None) -> str:
    """Runs one verb of `VERBS` and returns the text to print; "list" and "verify" take no request.

    Raises:
        InputError: an unknown verb, a request id that is missing or not accepted, or an unknown request.
        StoreError: the store is missing or damaged; for "verify" the message lists every damaged file.
    """
    check_among(verb, VERBS, "verb")
    if (request_id is None) != (verb in WITHOUT_REQUEST):
        expected = "takes no request" if verb in WITHOUT_REQUEST else "needs the id of a request"
        raise InputError(f"'{verb}' {expected}", field="request_id")
    if verb == "verify":
        path = Path(store_path)
        problems = verify_store(path)
        if problems:
            raise StoreError(f"{path}: {len(problems)} damaged: {'; '.join(problems)}")
        return f"{path}: every byte is as the journal says"
    store = Store.open(store_path)
    if request_id is None:
        return format_records(store.records())
    if verb == "show":
        history = [f"{entry.time} {entry.event}" for entry in store.history(request_id)]
        return to_json({**asdict(store.record(request_id)), "history": history})
    if verb == "remove":
        store.remove(request_id)
        return f"{request_id}: removed"
    changed = store.revoke(request_id) if verb == "revoke" else store.restore(request_id)
    return f"{request_id}: {changed.status}"


def format_records(records: Sequence[RequestRecord]) -> str:
    """Returns a header and one line per request, columns aligned, without a final line end.

    Example:
        >>> print(format_records([RequestRecord("a", "protected", 40, "f" * 64, {}, {"loss": 0.25})]))
        request  status     rows  digest        metrics
        a        protected    40  ffffffffffff  loss=0.25
    """
    if not records:
        return "no requests"
    rows = [HEAD, *(cells_of(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(align(row, widths) for row in rows)


def cells_of(record: RequestRecord) -> tuple[str, ...]:
    """Returns a record's cells, in the order of `HEAD`."""
    shown = [name for name in SHOWN_METRICS if name in record.metrics]
    metrics = " ".join(f"{name}={record.metrics[name]:.4g}" for name in shown)
    return record.id, record.status, str(record.rows), record.digest[:SHOWN_DIGITS], metrics


def align(row: Sequence[str], widths: Sequence[int]) -> str:
    """Returns a row with its cells padded to the widths of their columns."""
    cells = [
        cell.rjust(width) if name in RIGHT_ALIGNED else cell.ljust(width)
        for name, cell, width in zip(HEAD, row, widths, strict=True)
    ]
    return "  ".join(cells).rstrip()
