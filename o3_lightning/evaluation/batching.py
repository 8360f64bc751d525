"""Batches of similar length, shared between processes, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

from o3_lightning.gating.tokens import batches
from o3_lightning.training.processes import ALONE, Processes

__all__ = ["BatchRunner"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class BatchRunner:
    """Runs work over rows in batches of similar length.

    Batches are formed over all rows before they are dealt out, so a row has the same batch mates, and to the
    last bit the same numbers, on any number of processes.

    Args:
        batch_size: rows at a time, 1 or more.
        processes: batch i belongs to process i modulo their number.
        name: what the progress bar is about.
    """

    batch_size: int
    processes: Processes = ALONE
    name: str = ""

    def map(
        self, lengths: Sequence[int], work: Callable[[list[int]], Sequence[Item]], what: str
    ) -> list[Item]:
        """Returns one item per row, in the order of the rows, in every process.

        Args:
            lengths: of every row; rows of similar length share a batch.
            work: from the numbers of a batch's rows to one item each.
            what: names the work in the progress bar.
        """
        mine = batches(lengths, self.batch_size)[self.processes.rank :: self.processes.count]
        hidden = not (self.processes.is_first and sys.stderr.isatty())
        done: dict[int, Item] = {}
        for chosen in tqdm(mine, f"{self.name} {what}", disable=hidden, leave=False, unit="batch"):
            done.update(zip(chosen, work(chosen), strict=True))
        merged = {row: item for part in self.processes.gather(done) for row, item in part.items()}
        return [merged[row] for row in range(len(lengths))]
