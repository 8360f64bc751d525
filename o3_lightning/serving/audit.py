"""The audit log: one JSON line for each answer, without prompt and answer; and its summary."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from glob import escape
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import to_json
from o3_lightning.data.records import numbered_lines, parse_line

logger = logging.getLogger(__name__)
FIELDS = {"time": str, "decision": str, "weights": dict, "latency_ms": int | float}


class AuditFile(RotatingFileHandler):
    """A rotated file that tells in one line what it could not write."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name that logging calls)
        """Logs the error that is being handled."""
        logger.error("an answer is missing in the audit log %s: %s", self.baseFilename, sys.exc_info()[1])


class AuditLog:
    """Appends to a file that is rotated by size; thread-safe.

    What cannot be written later, on a full disk, is logged; the server goes on answering.

    Args:
        path: the file; empty writes nothing.
        size: bytes at which the file becomes `path.1`, and that `path.2`, and so on.
        files: rotated files that are kept.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str, size: int, files: int) -> None:
        self._handler: AuditFile | None = None
        if path:
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                end_torn_line(Path(path))
                self._handler = AuditFile(path, maxBytes=size, backupCount=files, encoding="utf-8")
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


def end_torn_line(path: Path) -> None:
    """Ends a line that a killed server left unfinished, so that the next one does not join it."""
    if path.is_file():
        with path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read() not in (b"", b"\n"):
                file.write(b"\n")


def summarise(path: str | Path) -> str:
    """Returns what an audit log holds: how many answers, decisions, refusals by request, and latencies.

    Args:
        path: the log; its rotated files are read, too. Damaged lines are counted, and the first is named.

    Raises:
        InputError: there is no such file, or no line is one of an audit log.
    """
    entries, damaged = read(Path(path))
    if damaged and not entries:
        raise damaged[0]
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
    if damaged:
        lines.append(f"damaged lines, not counted: {len(damaged)}; the first: {damaged[0]}")
    return "\n".join(lines)


def read(path: Path) -> tuple[list[dict[str, Any]], list[InputError]]:
    """Returns the entries of a log and of its rotated files, and what is wrong with damaged lines."""
    entries, damaged = [], []
    for file in [path, *path.parent.glob(f"{escape(path.name)}.[0-9]*")]:
        for number, raw in numbered_lines(file):
            try:
                entries.append(read_entry(raw, file, number))
            except InputError as error:
                damaged.append(error)
    return entries, damaged


def read_entry(raw: bytes, path: Path, line: int) -> dict[str, Any]:
    """Returns the entry of a line; InputError where it is not one of an audit log."""
    entry = parse_line(raw, path, line)
    if not isinstance(entry, dict) or not all(
        isinstance(entry.get(name), kind) for name, kind in FIELDS.items()
    ):
        raise InputError("not a line of an audit log", path=path, line=line)
    return entry


def counts(counter: Counter[str]) -> str:
    """Returns names and counts, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def quantile(ordered: Sequence[float], share: float) -> float:
    """Returns the value below which a share of the ordered values lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
