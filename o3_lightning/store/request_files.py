"""What the folder of one request holds: its record, its detector's files, and its adapter's in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.store.record import PROTECTED, REGISTERED, UNLEARNED, RequestRecord
from o3_lightning.store.verify import RECORD

__all__ = ["ADAPTER", "status_of", "writer_of"]

ADAPTER = "adapter"


def status_of(files: Mapping[str, str]) -> str:
    """Returns the status that a request with these files has unless it is revoked."""
    if any(path.startswith(f"{ADAPTER}/") for path in files):
        return UNLEARNED
    return PROTECTED if len(files) > 1 else REGISTERED


def writer_of(
    record: RequestRecord, save: Callable[[Path], None] | None = None, part: str = ""
) -> Callable[[Path], None]:
    """Returns what writes a request's new files: those of `save`, and the record."""

    def write(folder: Path) -> None:
        target = folder / part
        target.mkdir(exist_ok=True)
        if save is not None:
            try:
                save(target)
            except SafetensorError as error:
                raise StoreError(f"{target}: {error}") from error
            check_saved(target, record.id)
        try:
            text = record.to_text()
        except (TypeError, ValueError) as error:
            raise InputError(
                f"request '{record.id}': configuration or metrics are not JSON: {error}"
            ) from error
        (folder / RECORD).write_text(text, encoding="utf-8")

    return write


def check_saved(folder: Path, id: str) -> None:
    """Refuses a save that wrote nothing, or what the store itself writes."""
    names = [path.name for path in folder.iterdir()]
    if not names or RECORD in names:
        raise StoreError(f"request '{id}': expected a detector or adapter to be saved, got {sorted(names)}")
