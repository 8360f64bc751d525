"""The record of one request: status, size, digest, configuration, metrics; never text of the forget set."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import read_stored, to_json
from o3_lightning.data.requests import check_id

ADAPTER, RECORD = "adapter", "request.json"  # within the folder of a request

REGISTERED, PROTECTED, UNLEARNED, REVOKED = "registered", "protected", "unlearned", "revoked"
STATUSES = (REGISTERED, PROTECTED, UNLEARNED, REVOKED)


@dataclass(frozen=True)
class RequestRecord:
    """One request of a store.

    Args:
        id: the request's id, also the name of its folder.
        status: 'registered', 'protected' (has a detector), 'unlearned' (has an adapter too) or 'revoked'.
        rows: size of the forget set.
        digest: SHA-256 of the forget set, which identifies it without keeping its text.
        configuration: of the detector and the adapter, as plain JSON.
        metrics: training metrics by name.

    Raises:
        StoreError: a field has another type or an invalid value.
    """

    id: str
    status: str
    rows: int
    digest: str
    configuration: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        good = {
            "id": isinstance(self.id, str),
            "status": self.status in STATUSES,
            "rows": isinstance(self.rows, int) and not isinstance(self.rows, bool) and self.rows > 0,
            "digest": isinstance(self.digest, str),
            "configuration": isinstance(self.configuration, Mapping),
            "metrics": isinstance(self.metrics, Mapping)
            and all(isinstance(value, int | float) for value in self.metrics.values()),
        }
        for name, fine in good.items():
            if not fine:
                raise StoreError(f"request.json: field '{name}': not expected: {getattr(self, name)!r}")
        check_id(self.id)

    @property
    def is_gated(self) -> bool:
        """Whether the gate uses the request: it has a detector and is not revoked."""
        return self.status in (PROTECTED, UNLEARNED)

    def to_text(self) -> str:
        """Returns the record as the content of `request.json`.

        Raises:
            ValueError: a metric is NaN or infinite, or the configuration is not plain JSON.
        """
        return to_json(asdict(self)) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Returns the record in a `request.json`.

        Raises:
            StoreError: the file cannot be read or is not a record.
        """
        value = read_stored(path)
        expected = {item.name for item in fields(cls)}
        if set(value) != expected:
            raise StoreError(f"{path}: expected an object with {', '.join(sorted(expected))}")
        return cls(**value)


def status_of(files: Mapping[str, str]) -> str:
    """Returns the status of a request with these files unless it is revoked."""
    if any(path.startswith(f"{ADAPTER}/") for path in files):
        return UNLEARNED
    return PROTECTED if len(files) > 1 else REGISTERED


def writer_of(
    record: RequestRecord, save: Callable[[Path], None] | None = None, part: str = ""
) -> Callable[[Path], None]:
    """Returns a function that writes a request's new files into a folder: those of `save`, and the record."""

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
    """Raises if `save` wrote nothing, or the file that the store itself writes."""
    names = [path.name for path in folder.iterdir()]
    if not names or RECORD in names:
        raise StoreError(f"request '{id}': expected a detector or adapter to be saved, got {sorted(names)}")
