"""Which requests a run unlearns, in which order, and what has to stay: the configuration of the data."""

from __future__ import annotations

from dataclasses import dataclass

from o3_lightning.common.errors import InputError

__all__ = ["BENCHMARKS", "DataConfig"]

BENCHMARKS = ("fictitious", "jsonl", "tofu", "real_world", "clinc150", "scienceqa", "muse")


@dataclass(frozen=True)
class DataConfig:
    """What is unlearned and what is kept.

    Args:
        name: benchmark, one of "fictitious" (embedded, offline), "jsonl" (your own files), "tofu",
            "real_world", "clinc150", "scienceqa", "muse". The others are read from the folder `root`, or
            from the Hugging Face Hub where it does not hold them.
        requests: for "jsonl" the files of the forget sets, in the order of unlearning; for the other
            benchmarks the ids of the requests to take, in order; empty takes all that `count` allows.
        retain: a JSON-lines file in the form of a request whose rows become the utility split "retain";
            None leaves it out. Only evaluation and retain objectives read it.
        holdout: for "jsonl" the same with rows that no model was ever shown; membership metrics compare the
            forget sets with them. The fictitious authors have their own; None has none.
        variant: the part of a benchmark: tofu "forget01", "forget05", "forget10" or "nested" (O3's order,
            each request holds the one before); muse "news", "books" or "sust". Empty takes the
            benchmark's first.
        count: how many requests at most, 1 upward; 0 takes all. The fictitious authors have 20 authors for
            requests, and 0 takes three requests there.
        retain_authors: for "fictitious" how many of the retained authors make up the utility split "retain",
            which retain objectives may train on, 0 upward; "retained_authors" holds the others.
        authors_per_request: for "fictitious" the authors of one request, 1 to 20; the world is the same.
        rows_per_request: rows of a forget set at most, 0 takes all; the first are kept.
        utility_rows: rows of each utility split at most, 0 takes all; every n-th is kept, so that all
            topics stay.
        root: the folder with local benchmark files; None reads `O3_DATA`, then "../shared/data".
        download: whether what is not in `root` may come from the Hugging Face Hub.

    Raises:
        InputError: an unknown benchmark, a number below its range, or "jsonl" without files.
    """

    name: str = "fictitious"
    requests: tuple[str, ...] = ()
    retain: str | None = None
    holdout: str | None = None
    variant: str = ""
    count: int = 0
    retain_authors: int = 0
    authors_per_request: int = 4
    rows_per_request: int = 0
    utility_rows: int = 0
    root: str | None = None
    download: bool = True

    def __post_init__(self) -> None:
        if self.name not in BENCHMARKS:
            raise InputError(f"expected one of {', '.join(BENCHMARKS)}, got {self.name!r}", field="data.name")
        for field in ("count", "retain_authors", "rows_per_request", "utility_rows"):
            value = getattr(self, field)
            if value < 0:
                raise InputError(f"expected 0 or more, got {value}", field=f"data.{field}")
        if self.authors_per_request < 1:
            message = f"expected 1 or more, got {self.authors_per_request}"
            raise InputError(message, field="data.authors_per_request")
        if self.name == "jsonl" and not self.requests:
            raise InputError("expected at least one JSON-lines file, got none", field="data.requests")
