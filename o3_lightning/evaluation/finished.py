"""Splits that an evaluation has finished, so that a killed one continues where it stopped."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.files import write_json
from o3_lightning.training.processes import ALONE, Processes

__all__ = ["FinishedSplits"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedSplits:
    """A folder with one JSON file a finished split, of one model under one configuration.

    Args:
        folder: holds a folder by `digest`; both may be missing.
        digest: of all that decides the results; another digest finds nothing.
        processes: the first one reads and writes.
    """

    folder: Path
    digest: str
    processes: Processes = ALONE

    def resume(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns a split's result: from its file where there is one, else by doing the work.

        Args:
            name: of the split, with '/' between its parts.
            work: gives a JSON object; every process has to call it.
        """
        path = self.folder / self.digest[:16] / f"{name.replace('/', '--')}.json"
        found = self.processes.once(lambda: json.loads(path.read_text()) if path.is_file() else None)
        if found is not None:
            logger.info("  %s: done before", name)
            return dict(found)
        result = work()
        if self.processes.is_first:
            write_json(path, result)
        return result

    def remove(self) -> None:
        """Forgets all splits, once the whole evaluation is written."""
        if self.processes.is_first:
            shutil.rmtree(self.folder, ignore_errors=True)
