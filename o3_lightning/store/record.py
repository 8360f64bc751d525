"""What the store tells about one request: its status and what is known of it, and never its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import StoreError
from o3_lightning.common.files import to_json
from o3_lightning.data.requests import check_id

__all__ = ["PROTECTED", "REGISTERED", "REVOKED", "STATUSES", "UNLEARNED", "RequestRecord"]

REGISTERED, PROTECTED, UNLEARNED, REVOKED = "registered", "protected", "unlearned", "revoked"
STATUSES = (REGISTERED, PROTECTED, UNLEARNED, REVOKED)


@dataclass(frozen=True)
class RequestRecord:
    """One request of a store.

    Args:
        id: the request's id, also the name of its folder.
        status: 'registered', 'protected' (has a detector), 'unlearned' (has an adapter too) or 'revoked'.
        rows: size of the forget set.
        digest: SHA-256 of the forget set, which tells forget sets apart without keeping their text.
        configuration: how the detector and the adapter were made, as plain JSON.
        metrics: numbers of the training, by name.

    Raises:
        StoreError: a field is not what it has to be.
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
        """Whether the gate acts on the request: it has a detector and is not revoked."""
        return self.status in (PROTECTED, UNLEARNED)

    def to_text(self) -> str:
        """Returns the record as the content of `request.json`.

        Raises:
            ValueError: a metric is NaN or infinite, or the configuration is not plain JSON.
        """
        return to_json(asdict(self)) + "\n"

    @staticmethod
    def read(path: Path) -> RequestRecord:
        """Returns the record in a `request.json`.

        Raises:
            StoreError: the file cannot be read or does not hold a record.
        """
        try:
            value = json.loads(path.read_bytes())
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{path}: not JSON: {error}") from error
        expected = {item.name for item in fields(RequestRecord)}
        if not isinstance(value, dict) or set(value) != expected:
            raise StoreError(f"{path}: expected an object with {', '.join(sorted(expected))}")
        return RequestRecord(**value)
