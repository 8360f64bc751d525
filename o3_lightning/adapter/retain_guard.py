"""Proof that no retained data was used: a sequence that counts its reads and refuses those not declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from o3_lightning.common.errors import O3Error
from o3_lightning.data.requests import QuestionAnswer

__all__ = ["RetainGuard", "RetainedDataError"]


class RetainedDataError(O3Error):
    """Retained data was read before evaluation although the configuration declares none."""


class RetainGuard(Sequence[QuestionAnswer]):
    """Rows that training may read only if the configuration says so.

    Args:
        rows: retained questions and answers.
        name: of the split, for messages and the journal.
        declared: whether the configuration declares that training uses them.

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
        self._rows, self._evaluating = tuple(rows), 0
        self.name, self.declared = name, declared
        self.reads = {"training": 0, "evaluation": 0}

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> QuestionAnswer: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[QuestionAnswer]: ...

    def __getitem__(self, index: int | slice) -> QuestionAnswer | Sequence[QuestionAnswer]:
        found = self._rows[index]
        if not self._evaluating and not self.declared:
            raise RetainedDataError(
                f"retained data '{self.name}' was read before evaluation, and the configuration declares none"
            )
        stage = "evaluation" if self._evaluating else "training"
        self.reads[stage] += len(found) if isinstance(found, tuple) else 1
        return found

    def evaluation(self) -> RetainGuard:
        """Returns itself as a context in which reading is free."""
        return self

    def __enter__(self) -> RetainGuard:
        self._evaluating += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._evaluating -= 1
