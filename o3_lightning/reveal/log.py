"""The log of a search: one JSON line a query, appended and synced, from which the same search goes on.

It holds text that the model said about the topic: keep it as carefully as the request itself.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import to_json, write_atomically

__all__ = ["Entry", "QueryLog"]

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One query.

    Args:
        number: from 0.
        phase: "first" or "search".
        round: outer round, from 0.
        arm: place in the pool.
        instruction: its text, "{topic}" standing for the topic.
        prediction: what the searcher expected, in standard deviations of the rewards; None without a network.
        bonus: its exploration bonus in the same unit; None without one.
        responses: the model's answers, each once.
        relevance: one value in [0, 1] for each response.
        diversity: in [0, 1].
        reward: in (0, 1]; 0 where nothing was answered.
    """

    number: int
    phase: str
    round: int
    arm: int
    instruction: str
    prediction: float | None
    bonus: float | None
    responses: tuple[str, ...]
    relevance: tuple[float, ...]
    diversity: float
    reward: float


class QueryLog:
    """A log file that is replayed as far as it goes and then written on.

    Args:
        path: the file; it need not exist yet.
        header: what must be the same for a log to be continued: digests of configuration, model and pool.

    Raises:
        InputError: the file is no log, or belongs to another search.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.header = path, {"format": FORMAT, **header}
        self.entries: list[Entry] = self.read()

    def read(self) -> list[Entry]:
        """Returns the whole entries of the file; a line that a kill cut short is dropped from it."""
        if not self.path.is_file():
            write_atomically(self.path, to_json(self.header, indent=None) + "\n")
            return []
        content = self.path.read_text(encoding="utf-8")
        whole = content[: content.rfind("\n") + 1]
        if whole != content:
            write_atomically(self.path, whole)
        try:
            header, *lines = [json.loads(line) for line in whole.splitlines()]
            entries = [self.entry(line) for line in lines]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"no log of a search: {error}", path=self.path) from error
        changed = sorted(key for key in self.header | header if header.get(key) != self.header.get(key))
        if changed:
            message = f"the log of another search ({', '.join(changed)}); choose another --name"
            raise InputError(message, path=self.path)
        return entries

    @staticmethod
    def entry(line: dict[str, Any]) -> Entry:
        """Returns a parsed line."""
        lists = {key: tuple(line[key]) for key in ("responses", "relevance")}
        return Entry(**{**line, **lists})

    def append(self, entry: Entry) -> None:
        """Adds a query; it is on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(to_json(asdict(entry), indent=None) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.entries.append(entry)
