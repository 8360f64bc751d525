"""Collects one tensor per row over batches and processes, as a torchmetrics metric.

Each value is stored with its row number: any number of processes returns the same values in the same order,
and a row that a sampler handed out twice counts once.

Shapes: B rows of a batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class RowCollector(Metric):
    """One-dimensional tensors of any length, by row number; `compute` gathers them from all processes.

    Args:
        dtype: of the values.
        sync: gather from all processes of `torch.distributed`; False returns only this process's rows.

    Example:
        >>> collector = RowCollector(torch.int64)
        >>> collector.update([2, 0], [torch.tensor([5, 6]), torch.tensor([7])])
        >>> collector.update([1], [torch.tensor([8])])
        >>> [row.tolist() for row in collector.compute()]
        [7, 8, [5, 6]]
    """

    full_state_update = False
    rows: list[Tensor]
    lengths: list[Tensor]
    values: list[Tensor]

    def __init__(self, dtype: torch.dtype = torch.float32, *, sync: bool = True) -> None:
        super().__init__(sync_on_compute=sync, compute_with_cache=False)
        self.types = {"rows": torch.int64, "lengths": torch.int64, "values": dtype}
        for name in self.types:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, rows: Sequence[int], values: Sequence[Tensor]) -> None:
        """Adds a batch: B row numbers and B tensors of any length on any device.

        Raises:
            ValueError: the number of values differs from the number of rows.
        """
        if len(rows) != len(values):
            raise ValueError(f"expected {len(rows)} values, one per row, got {len(values)}")
        if not rows:
            return
        self.rows.append(torch.tensor(list(rows), dtype=torch.int64))
        self.lengths.append(torch.tensor([value.numel() for value in values], dtype=torch.int64))
        flat = torch.cat([value.detach().reshape(-1) for value in values])
        self.values.append(flat.to(self.device, self.types["values"]))

    def compute(self) -> tuple[Tensor, ...]:
        """Returns the tensor of each row on the CPU, by row number; torchmetrics squeezes single values."""
        rows, lengths, values = (self.joined(name) for name in self.types)
        parts = torch.split(values, lengths.tolist())
        found = dict(zip(rows.tolist(), parts, strict=True))
        return tuple(found[row] for row in sorted(found))

    def joined(self, name: str) -> Tensor:
        """A state as one tensor, which it already is after a synchronisation."""
        state = getattr(self, name)
        parts = [state] if isinstance(state, Tensor) else state
        return torch.cat([torch.empty(0, dtype=self.types[name]), *(part.reshape(-1) for part in parts)])

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Gathers the states of all processes, see torchmetrics.

        torchmetrics skips empty states, so a process without rows would not take part and block the others;
        it takes part with empty tensors.
        """
        for name, dtype in self.types.items():
            if not getattr(self, name):
                getattr(self, name).append(torch.empty(0, dtype=dtype))
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)
