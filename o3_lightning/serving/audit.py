"""The audit log: one JSON line for each answer, without prompt and answer; and its summary."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from glob import escape
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import to_json
from o3_lightning.data.records import read_json_lines

FIELDS = {"time": str, "decision": str, "weights": dict, "latency_ms": int | float}


class AuditLog:
    """Appends to a file that is rotated by size; thread-safe.

    Args:
        path: the file; empty writes nothing.
        size: bytes at which the file becomes `path.1`, and that `path.2`, and so on.
        files: rotated files that are kept.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str, size: int, files: int) -> None:
        self._handler: RotatingFileHandler | None = None
        if path:
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                self._handler = RotatingFileHandler(path, maxBytes=size, backupCount=files, encoding="utf-8")
            except OSError as error:
                message = f"cannot be written: {error.strerror or error}"
                raise InputError(message, path=path, field="audit") from error

    def write(self, **values: Any) -> None:
        """Writes one line with the time in UTC and some values."""
        if self._handler is not None:
            line = to_json(
                {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **values}, indent=None
            )
            self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Closes the file."""
        if self._handler is not None:
            self._handler.close()


def summarise(path: str | Path) -> str:
    """Returns what an audit log holds: how many answers, decisions, refusals by request, and latencies.

    Args:
        path: the log; its rotated files are read, too.

    Raises:
        InputError: there is no such file, or a line is not one of an audit log.
    """
    entries = list(read(Path(path)))
    if not entries:
        return "no answers"
    decisions = Counter(entry["decision"] for entry in entries)
    refused: Counter[str] = Counter()
    for entry in entries:
        if entry["decision"] == "refuse" and entry["weights"]:
            refused[max(entry["weights"], key=entry["weights"].__getitem__)] += 1
    latencies = sorted(float(entry["latency_ms"]) for entry in entries)
    times = sorted(entry["time"] for entry in entries)
    failed = sum(bool(entry.get("failed")) for entry in entries)
    lines = [
        f"{len(entries)} answers from {times[0]} to {times[-1]}",
        f"decisions: {counts(decisions)}; the gate failed on {failed}",
        f"refused by request: {counts(refused) or 'none'}",
        f"latency: p50 {quantile(latencies, 0.5):.0f} ms, p95 {quantile(latencies, 0.95):.0f} ms",
    ]
    return "\n".join(lines)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the entries of a log and of its rotated files."""
    for file in [path, *path.parent.glob(f"{escape(path.name)}.[0-9]*")]:
        for number, entry in read_json_lines(file):
            fields = entry if isinstance(entry, dict) else {}
            if not all(isinstance(fields.get(name), kind) for name, kind in FIELDS.items()):
                raise InputError("not a line of an audit log", path=file, line=number)
            yield fields


def counts(counter: Counter[str]) -> str:
    """Returns names and counts, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def quantile(ordered: Sequence[float], share: float) -> float:
    """Returns the value below which a share of the ordered values lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
