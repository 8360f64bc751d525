"""The rounds of a release on disk; a round is finished once `round.json` exists.

rounds/01/queries.jsonl        log of the search (text about the topic)
rounds/01/request.jsonl        revealed rows (text about the topic)
rounds/01/retain/              retain adapter in PEFT format, if the mode uses one
rounds/01/step_01/forget/      forget adapter of a step in PEFT format
rounds/01/update/              update of the weights in PEFT format
rounds/01/round.json           written last; "active": whether the round is applied to the model
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import digest_file, read_stored, write_json
from o3_lightning.models.lora import LORA_WEIGHTS, LoraFactors

UPDATE = "update"


class Rounds:
    """The finished rounds of the release in a folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "rounds"

    def folder(self, number: int) -> Path:
        """Returns the folder of a round, counted from 1."""
        return self.root / f"{number:02}"

    def records(self) -> list[dict[str, Any]]:
        """Returns the record of each finished round, in order."""
        found: list[dict[str, Any]] = []
        while (path := self.folder(len(found) + 1) / "round.json").is_file():
            found.append(read_stored(path))
        return found

    def finish(self, number: int, record: dict[str, Any], update: LoraFactors | None) -> None:
        """Stores a round, which is active if it has an update."""
        digest = None
        if update is not None:
            update.save(self.folder(number) / UPDATE)
            digest = digest_file(self.folder(number) / UPDATE / LORA_WEIGHTS)
        content = {**record, "number": number, "active": update is not None, "update": digest}
        write_json(self.folder(number) / "round.json", content, private=True)

    def active(self) -> Iterator[tuple[int, LoraFactors]]:
        """Yields number and update of each active round.

        Raises:
            StoreError: an update is missing or was modified.
        """
        for record in self.records():
            if record["active"]:
                path = self.folder(record["number"]) / UPDATE / LORA_WEIGHTS
                if not path.is_file() or digest_file(path) != record["update"]:
                    raise StoreError(f"{path}: missing, or not what was stored")
                yield record["number"], LoraFactors.load(path.parent)

    def switch(self, number: int, active: bool) -> None:
        """Deactivates a round, or activates it again.

        Raises:
            InputError: there is no such round, or it has no update.
        """
        records = {record["number"]: record for record in self.records()}
        if number not in records:
            known = ", ".join(map(str, records)) or "none"
            raise InputError(f"there is no finished round {number}; there are: {known}", path=self.root)
        if records[number]["update"] is None:
            raise InputError(f"round {number} changed nothing", path=self.root)
        write_json(self.folder(number) / "round.json", {**records[number], "active": active}, private=True)
