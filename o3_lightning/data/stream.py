"""One form for every benchmark: requests in order, what must stay, and prompts that probe the detector."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import evenly_spaced
from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest

__all__ = ["RequestStream", "load_stream"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class RequestStream:
    """A whole continual unlearning task.

    Args:
        name: the benchmark, with its variant where it has several, e.g. "tofu/forget01".
        requests: at least one, in the order of unlearning, ids unique.
        utility: rows by split that must be answered as before, e.g. "retained_authors". Never trained on
            unless a retain objective is chosen.
        probes: prompts by split that only the detector's evaluation reads, e.g. "unknown_authors".
        holdout: rows like the requests' that no model was ever shown; membership metrics compare the forget
            sets with them. Empty where a benchmark has none.
        files: JSON-lines files of the user that rows were read from; errors about a row name its line.

    Raises:
        InputError: no request, an id that comes twice, or an empty split.
    """

    name: str
    requests: tuple[UnlearningRequest, ...]
    utility: Mapping[str, Sequence[QuestionAnswer]] = field(default_factory=dict)
    probes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    holdout: Sequence[QuestionAnswer] = ()
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.requests:
            raise InputError(f"{self.name}: expected at least one request, got none", field="data.requests")
        identifiers = [request.id for request in self.requests]
        twice = sorted({name for name in identifiers if identifiers.count(name) > 1})
        if twice:
            raise InputError(f"{self.name}: request '{twice[0]}' comes twice", field="data.requests")
        for kind, splits in (("utility", self.utility), ("probe", self.probes)):
            empty = [split for split, rows in splits.items() if not rows]
            if empty:
                raise InputError(f"{self.name}: the {kind} split '{empty[0]}' is empty")


def load_stream(config: DataConfig, seed: int) -> RequestStream:
    """Returns the requests, utility splits and probes that a configuration asks for.

    Args:
        config: which benchmark, and how much of it.
        seed: draws the fictitious world (it must be the base model's) and wrong answers; 0 is a seed
            like any other.

    Raises:
        InputError: a file is missing or malformed, an id is unknown, or a split is empty.
    """
    loader = importlib.import_module(f"o3_lightning.data.{config.name}")
    stream: RequestStream = loader.load(config, seed)
    return shorten(select(stream, config), config)


def select(stream: RequestStream, config: DataConfig) -> RequestStream:
    """Keeps the requests that were asked for, in that order."""
    requests = stream.requests
    if config.requests and config.name != "jsonl":
        known = {request.id: request for request in requests}
        unknown = [name for name in config.requests if name not in known]
        if unknown:
            message = f"{stream.name} has no request {unknown[0]!r}; it has {', '.join(known)}"
            raise InputError(message, field="data.requests")
        requests = tuple(known[name] for name in config.requests)
    if config.count:
        requests = requests[: config.count]
    return replace(stream, requests=requests)


def shorten(stream: RequestStream, config: DataConfig) -> RequestStream:
    """Keeps the first rows of each request and evenly spread rows of each utility split."""
    requests = stream.requests
    if config.rows_per_request:
        requests = tuple(replace(item, rows=item.rows[: config.rows_per_request]) for item in requests)
    utility = {
        split: evenly_spaced(rows, config.utility_rows or len(rows)) for split, rows in stream.utility.items()
    }
    return replace(stream, requests=requests, utility=utility)
