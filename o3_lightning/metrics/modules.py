"""torchmetrics classes around the functions: they collect values batch by batch and over processes.

Every value travels with its example's number, so that several processes give exactly what one gives: examples
come back in order, and those that a sampler has handed out twice count once.

Shapes: B examples of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from o3_lightning.common.plain import mean_of
from o3_lightning.metrics.comparisons import COMPARISONS
from o3_lightning.metrics.evidence import Evidence
from o3_lightning.metrics.registry import find, measure

__all__ = ["ComparisonMetric", "ExampleMetric"]

Values = Sequence[float | None]


class Collector(Metric):
    """What both classes share: states that are lists of values, possibly empty on some process."""

    full_state_update = False

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Gathers all processes' values; see torchmetrics. A process without any sends none.

        torchmetrics gathers only states that hold a tensor, so that a process without examples would send
        nothing at all and the others would wait for it.
        """
        for name in self._defaults:
            state = getattr(self, name)
            if isinstance(state, list) and not state:
                kind = torch.int64 if name.endswith("numbers") else torch.float64
                state.append(torch.empty(0, dtype=kind, device=self.device))
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)


class ExampleMetric(Collector):
    """One metric of the registry over batches and processes; computes the mean over the examples.

    Args:
        name: one of `registry.METRICS`.

    Raises:
        ValueError: no metric of this name.

    Example:
        >>> metric = ExampleMetric("rouge1_recall")
        >>> metric.update(Evidence("keep", ["Where?"], ["in Paris"], answers=["Paris"]), [7])
        >>> metric.compute().item(), metric.examples()
        (0.5, {7: 0.5})
    """

    numbers: list[Tensor]
    collected: list[Tensor]

    def __init__(self, name: str) -> None:
        super().__init__()
        self.definition = find(name)
        self.add_state("numbers", [], dist_reduce_fx="cat")
        self.add_state("collected", [], dist_reduce_fx="cat")

    def update(self, evidence: Evidence, numbers: Sequence[int]) -> None:
        """Adds a batch.

        Args:
            evidence: of B examples.
            numbers: of each example its place in the split.

        Raises:
            ValueError: the evidence lacks what the metric needs, or there are not B numbers.
        """
        add(self.numbers, self.collected, measure(self.definition.name, evidence), numbers, self.device)

    def compute(self) -> Tensor:
        """Returns the mean as a float64 scalar; not a number where no example has a value."""
        mean = mean_of(list(in_order(self.numbers, self.collected).values()))
        return torch.tensor(math.nan if mean is None else mean, dtype=torch.float64, device=self.device)

    def examples(self) -> dict[int, float | None]:
        """Returns the value of each example by its number, in order, from all processes."""
        with self.sync_context():
            return in_order(self.numbers, self.collected)


class ComparisonMetric(Collector):
    """One comparison of two groups of values over batches and processes.

    Args:
        name: one of `comparisons.COMPARISONS`.

    Raises:
        ValueError: no comparison of this name.

    Example:
        >>> metric = ComparisonMetric("auroc")
        >>> metric.update([0.9, 0.8], [0, 1], first=True)
        >>> metric.update([0.1, 0.8], [0, 1], first=False)
        >>> metric.compute().item()
        0.875
    """

    first_numbers: list[Tensor]
    first_values: list[Tensor]
    second_numbers: list[Tensor]
    second_values: list[Tensor]

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in COMPARISONS:
            raise ValueError(f"expected a comparison out of {', '.join(COMPARISONS)}, got {name!r}")
        self.definition = COMPARISONS[name]
        for group in ("first", "second"):
            self.add_state(f"{group}_numbers", [], dist_reduce_fx="cat")
            self.add_state(f"{group}_values", [], dist_reduce_fx="cat")

    def update(self, values: Values, numbers: Sequence[int], *, first: bool) -> None:
        """Adds a batch to one group.

        Args:
            values: B values per example; those that are None are not compared.
            numbers: of each example its place in its group.
            first: whether they belong to the first group, the forget set.

        Raises:
            ValueError: there are not B numbers.
        """
        states = (
            (self.first_numbers, self.first_values) if first else (self.second_numbers, self.second_values)
        )
        add(*states, values, numbers, self.device)

    def compute(self) -> Tensor:
        """Returns the comparison as a float64 scalar; not a number where a group has no value."""
        first = present(in_order(self.first_numbers, self.first_values))
        second = present(in_order(self.second_numbers, self.second_values))
        value = self.definition.compare(first, second) if first and second else math.nan
        return torch.tensor(value, dtype=torch.float64, device=self.device)


def add(
    numbers: list[Tensor],
    collected: list[Tensor],
    values: Values,
    places: Sequence[int],
    device: torch.device,
) -> None:
    """Appends a batch to the states; None travels as not-a-number."""
    if len(values) != len(places):
        raise ValueError(f"expected {len(values)} numbers of examples, got {len(places)}")
    known = [math.nan if value is None else value for value in values]
    numbers.append(torch.tensor(list(places), dtype=torch.int64, device=device))
    collected.append(torch.tensor(known, dtype=torch.float64, device=device))


def in_order(numbers: list[Tensor] | Tensor, collected: list[Tensor] | Tensor) -> dict[int, float | None]:
    """Values by example, in the order of the examples; states are one tensor after a synchronisation."""
    places, values = (joined(state) for state in (numbers, collected))
    found = dict(zip(map(int, places), values, strict=True))
    return {place: None if math.isnan(found[place]) else found[place] for place in sorted(found)}


def joined(state: list[Tensor] | Tensor) -> list[float]:
    """A state as one list."""
    parts = [state] if isinstance(state, Tensor) else state
    return [value for part in parts for value in part.tolist()]


def present(values: dict[int, float | None]) -> list[float]:
    """The values that are there."""
    return [value for value in values.values() if value is not None]
