"""Keeps a loaded model up to date with its store."""

from __future__ import annotations

import logging
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self

from o3_lightning.common.errors import O3Error
from o3_lightning.gating.routing import describe

logger = logging.getLogger(__name__)


class Follower(Protocol):
    """What follows a store; `GatedModel` does."""

    ids: tuple[str, ...]

    def refresh(self) -> bool:
        """Follows the store, and returns whether it had changed."""


class StoreWatcher:
    """Refreshes a model in a thread of its own while this context manager is open.

    Args:
        model: loaded from a store, such as a `GatedModel`.
        seconds: time between two looks at the store; each costs about a millisecond.

    Attributes:
        problem: why the last look failed, such as a damaged file; empty if it did not. The model then stays
            as it was.
    """

    def __init__(self, model: Follower, seconds: float = 1.0) -> None:
        self.model, self.seconds, self.problem = model, seconds, ""
        self._stopped = Event()
        self._thread = Thread(target=self._watch, name="store-watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def look(self) -> None:
        """Refreshes the model once; a failure is logged and kept in `problem`."""
        try:
            if self.model.refresh():
                logger.info("the store has changed; gated requests: %s", ", ".join(self.model.ids) or "none")
            self.problem = ""
        except Exception as error:  # whoever looks must go on
            problem = str(error) if isinstance(error, O3Error) else describe(error)
            if problem != self.problem:
                logger.error("the model does not follow its store: %s", problem)
            self.problem = problem

    def _watch(self) -> None:
        while not self._stopped.wait(self.seconds):
            self.look()
