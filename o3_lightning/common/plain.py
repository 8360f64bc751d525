"""Helpers for plain values: means, evenly spaced items, nested mappings, configurations as dictionaries."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table.

    Example:
        >>> markdown_table(["a", "b"], [["1", "2"]])
        ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def mean_of(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the values that are not None; None if there is no such value.

    Example:
        >>> mean_of([1.0, None, 0.0]), mean_of([None])
        (0.5, None)
    """
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def evenly_spaced(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """Returns `count` items at equal distances, the first one included; all items if there are no more.

    Example:
        >>> evenly_spaced("abcdef", 3), evenly_spaced("ab", 3)
        (('a', 'c', 'e'), ('a', 'b'))
    """
    if len(items) <= count:
        return tuple(items)
    return tuple(items[index * len(items) // count] for index in range(count))


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a nested mapping with dotted keys; an empty mapping is a leaf.

    Example:
        >>> list(leaves({"seed": 0, "gate": {"top_k": 1}}))
        [('seed', 0), ('gate.top_k', 1)]
    """
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def to_plain(value: Any) -> Any:
    """Returns a configuration as plain dictionaries, lists and scalars, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
