"""A sequence of retained rows that counts its reads and refuses training reads that were not declared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from o3_lightning.common.errors import O3Error
from o3_lightning.data.requests import QuestionAnswer


class RetainedDataError(O3Error):
    """Retained data was read before evaluation although the configuration declares none."""


class RetainGuard(Sequence[QuestionAnswer]):
    """Rows that training may read only if the configuration says so.

    Args:
        rows: retained questions and answers.
        name: of the split, for messages and the journal.
        declared: whether the configuration lets training use them.

    Example:
        >>> guard = RetainGuard([QuestionAnswer("Who?", "Ann")], name="neighbours")
        >>> with guard.evaluation():
        ...     guard[0].answer
        'Ann'
        >>> guard.reads
        {'training': 0, 'evaluation': 1}
    """

    def __init__(
        self, rows: Sequence[QuestionAnswer], *, name: str = "retain", declared: bool = False
    ) -> None:
        self._rows, self._evaluating = tuple(rows), 0  # contexts of `evaluation` that are open
        self.name, self.declared = name, declared
        self.reads = {"training": 0, "evaluation": 0}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        found = self._rows[index]
        if not self._evaluating and not self.declared:
            raise RetainedDataError(
                f"retained data '{self.name}' was read before evaluation, and the configuration declares none"
            )
        stage = "evaluation" if self._evaluating else "training"
        self.reads[stage] += len(found) if isinstance(found, tuple) else 1
        return found

    @contextmanager
    def evaluation(self) -> Iterator[RetainGuard]:
        """Allows every read within the context."""
        self._evaluating += 1
        try:
            yield self
        finally:
            self._evaluating -= 1
