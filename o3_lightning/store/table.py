"""A store's requests as a table of plain text."""

from __future__ import annotations

from collections.abc import Sequence

from o3_lightning.store.record import RequestRecord

__all__ = ["format_records"]

HEAD = ("request", "status", "rows", "digest", "metrics")
SHOWN_DIGITS = 12
SHOWN_METRICS = ("loss", "steps", "retained_rows_read")  # `requests show` tells all
RIGHT_ALIGNED = frozenset({"rows"})


def format_records(records: Sequence[RequestRecord]) -> str:
    """Returns one line a request under a head, columns aligned, without a line end after the last.

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
    """Returns a record's cells, in the order of the head."""
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
