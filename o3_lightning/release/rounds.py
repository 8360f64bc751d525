"""The rounds of a release on disk: each is a folder that counts once its last file is there.

rounds/01/queries.jsonl        the search (text about the topic)
rounds/01/request.jsonl        the rows that it found (text about the topic)
rounds/01/retain/              the adapter of what stays, plain PEFT, where one is asked for
rounds/01/step_01/forget/      the adapter of a step, plain PEFT
rounds/01/update/              what was added to the weights, plain PEFT
rounds/01/round.json           written last; "active" says whether the round is part of the model
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import digest_file, write_json
from o3_lightning.models.lora import LORA_WEIGHTS, LoraFactors

__all__ = ["Rounds"]

UPDATE = "update"


class Rounds:
    """The finished rounds of a release.

    Args:
        folder: of the release.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "rounds"

    def folder(self, number: int) -> Path:
        """Where a round, counted from 1, keeps its files."""
        return self.root / f"{number:02}"

    def records(self) -> list[dict[str, Any]]:
        """Returns what is known of every finished round, in order."""
        found: list[dict[str, Any]] = []
        while (path := self.folder(len(found) + 1) / "round.json").is_file():
            try:
                found.append(dict(json.loads(path.read_text())))
            except ValueError as error:
                raise StoreError(f"{path}: damaged: {error}") from error
        return found

    def finish(self, number: int, record: dict[str, Any], update: LoraFactors | None) -> None:
        """Stores a round; it is part of the model from now on if it has an update."""
        digest = None
        if update is not None:
            update.save(self.folder(number) / UPDATE)
            digest = digest_file(self.folder(number) / UPDATE / LORA_WEIGHTS)
        content = {**record, "number": number, "active": update is not None, "update": digest}
        write_json(self.folder(number) / "round.json", content)

    def active(self) -> Iterator[tuple[int, LoraFactors]]:
        """Yields number and update of every round that is part of the model.

        Raises:
            StoreError: an update is missing or is not what was stored.
        """
        for record in self.records():
            if record["active"]:
                path = self.folder(record["number"]) / UPDATE / LORA_WEIGHTS
                if not path.is_file() or digest_file(path) != record["update"]:
                    raise StoreError(f"{path}: missing, or not what was stored")
                yield record["number"], LoraFactors.load(path.parent)

    def switch(self, number: int, active: bool) -> None:
        """Takes a round out of the model, or puts it back.

        Raises:
            InputError: there is no such round, or it changed nothing.
        """
        records = {record["number"]: record for record in self.records()}
        if number not in records:
            known = ", ".join(map(str, records)) or "none"
            raise InputError(f"there is no finished round {number}; there are: {known}", path=self.root)
        if records[number]["update"] is None:
            raise InputError(f"round {number} changed nothing", path=self.root)
        write_json(self.folder(number) / "round.json", {**records[number], "active": active})
