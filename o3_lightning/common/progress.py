"""Progress of work that takes a while: one line with the time left in a terminal, sparse lines in a log."""

import logging
import sys
import time
from contextlib import ExitStack
from typing import Any, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

DELAY_SECONDS = 3.0  # shorter work shows nothing
LOG_SECONDS = 30.0  # between two lines of a log

logger = logging.getLogger(__name__)


class Progress:
    """Shows how much of some work is done, and the time left.

    Args:
        what: the work, such as "authors_1/seen answering".
        total: units of work in all.
        unit: in the plural.
        shown: false shows nothing, as in all processes but the first.
    """

    def __init__(self, what: str, total: int, unit: str = "rows", *, shown: bool = True) -> None:
        self.what, self.total, self.unit, self.shown = what, total, unit, shown
        self.done, self.stack = 0, ExitStack()
        self.bar: Any = None
        self.in_terminal = sys.stderr.isatty()
        self.began = self.logged = time.perf_counter()

    def advance(self, count: int) -> None:
        """Counts finished units."""
        self.done += count
        now = time.perf_counter()
        if not self.shown or now - self.began < DELAY_SECONDS:
            return
        if self.in_terminal:
            self.draw(now)
        elif now - self.logged >= LOG_SECONDS and 0 < self.done < self.total:
            self.logged = now
            left = tqdm.format_interval((now - self.began) / self.done * (self.total - self.done))
            logger.info("  %s: %d of %d %s, %s left", self.what, self.done, self.total, self.unit, left)

    def draw(self, now: float) -> None:
        """Draws the line in the terminal; log lines stand above it."""
        if self.bar is None:
            self.stack.enter_context(logging_redirect_tqdm())
            bar = tqdm(total=self.total, desc=self.what, unit=f" {self.unit}", leave=False)
            self.bar = self.stack.enter_context(bar)
            self.bar.start_t -= now - self.began
        self.bar.update(self.done - self.bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
