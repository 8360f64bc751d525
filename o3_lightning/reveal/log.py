"""The log of a search: one JSON line per query, from which an interrupted search continues.

It contains answers about the topic, and is as sensitive as the request itself.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import to_json, write_atomically
from o3_lightning.reveal.search import Query

FORMAT = 1


@dataclass(frozen=True)
class Entry(Query):
    """A query and its result.

    Args:
        instruction: text of the arm, with "{topic}" in place of the topic.
        responses: distinct answers of the model.
        relevance: of each response, in [0, 1].
        diversity: in [0, 1].
        reward: in (0, 1]; 0 without an answer.
    """

    instruction: str
    responses: tuple[str, ...]
    relevance: tuple[float, ...]
    diversity: float
    reward: float


class QueryLog:
    """A log file whose entries are read on opening and to which new ones are appended.

    Args:
        path: of the file, which may not exist yet.
        header: identifies the search; a log with another header is refused.

    Raises:
        InputError: the file is not a log, or belongs to another search.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.header = path, {"format": FORMAT, **header}
        self.entries: list[Entry] = self.read()

    def read(self) -> list[Entry]:
        """Returns the entries of the file, from which an incomplete last line is removed."""
        if not self.path.is_file():
            write_atomically(self.path, to_json(self.header, indent=None) + "\n", private=True)
            return []
        content = self.path.read_text(encoding="utf-8")
        whole = content[: content.rfind("\n") + 1]
        if whole != content:
            write_atomically(self.path, whole, private=True)
        try:
            header, *lines = [json.loads(line) for line in whole.splitlines()]
            lists = ("responses", "relevance")
            entries = [Entry(**{**line, **{key: tuple(line[key]) for key in lists}}) for line in lines]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"not the log of a search: {error}", path=self.path) from error
        changed = sorted(key for key in self.header | header if header.get(key) != self.header.get(key))
        if changed:
            message = f"the log of another search ({', '.join(changed)}); choose another --name"
            raise InputError(message, path=self.path)
        return entries

    def append(self, entry: Entry) -> None:
        """Appends a query and syncs the file."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(to_json(asdict(entry), indent=None) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.entries.append(entry)
