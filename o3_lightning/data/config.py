"""Configuration of the data: which requests are unlearned, in which order, and what is retained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from o3_lightning.common.checks import AT_LEAST_0, AT_LEAST_1, check_choice, check_ranges, refuse
from o3_lightning.common.registry import Registry

if TYPE_CHECKING:
    from o3_lightning.data.stream import RequestStream

TOO_LONG = ("refuse", "cut", "skip")
MODULES = ("fictitious", "jsonl", "tofu", "clinc150", "scienceqa", "published")


@dataclass(frozen=True)
class DataConfig:
    """The benchmark and its size.

    Args:
        name: benchmark, one of "fictitious" (embedded, offline), "jsonl" (your own files), "tofu",
            "real_world", "clinc150", "scienceqa", "muse", "rwku", "wmdp", "lume", "pch", or one of a plug-in.
            Those after "jsonl" are read from the folder `root`, or from the Hugging Face Hub if they are not
            there.
        requests: for "jsonl" the files of the forget sets, in the order of unlearning; for the other
            benchmarks the ids of the requests to use, in order; empty takes the first `count`.
        retain: JSON-lines file in the format of requests whose rows become the utility split "retain", used
            by evaluation and retain objectives; None for none.
        holdout: for "jsonl" a file of the same format with rows on which no model was trained, which
            membership metrics compare with the forget sets; None for none.
        variant: part of the benchmark: tofu "forget01", "forget05", "forget10" or "nested" (as in O3, each
            request contains the previous one); muse "news", "books" or "sust". Empty takes the first.
        count: maximum number of requests; 0 takes all, but three of "fictitious".
        retain_rows: number of rows of kept subjects in the utility split "retain", which retain objectives
            may train on; evenly spaced, none of them in another split, 0 for none. "jsonl" has `retain`,
            "fictitious" has `retain_authors` instead.
        retain_authors: for "fictitious" the number of retained authors in the utility split "retain"; the
            others are in "retained_authors".
        authors_per_request: for "fictitious" the number of authors per request, 1 to 20.
        rows_per_request: maximum number of rows of a forget set, of which the first are used; 0 takes all.
        utility_rows: maximum number of rows of each utility and test split, evenly spaced so that all topics
            are covered; 0 takes all.
        too_long: what happens to prompts that leave no room for an answer in the model's context, or in
            `adapter.max_tokens` if they are trained on: "refuse" the run, "cut" them at their end, or "skip"
            them.
        root: folder with local benchmark files; None takes `O3_DATA`, or else "../shared/data".
        download: whether files missing in `root` may be loaded from the Hugging Face Hub.

    Raises:
        InputError: an unknown benchmark, a number below its range, or "jsonl" without files.
    """

    name: str = "fictitious"
    requests: tuple[str, ...] = ()
    retain: str | None = None
    holdout: str | None = None
    variant: str = ""
    count: int = 0
    retain_rows: int = 0
    retain_authors: int = 0
    authors_per_request: int = 4
    rows_per_request: int = 0
    utility_rows: int = 0
    too_long: str = "refuse"
    root: str | None = None
    download: bool = True

    def __post_init__(self) -> None:
        check_choice(self, "data", "name", BENCHMARKS.names())
        check_choice(self, "data", "too_long", TOO_LONG)
        limits = ("count", "retain_rows", "retain_authors", "rows_per_request", "utility_rows")
        check_ranges(self, "data", authors_per_request=AT_LEAST_1, **dict.fromkeys(limits, AT_LEAST_0))
        if self.name == "jsonl" and not self.requests:
            refuse("data", "requests", "at least one JSON-lines file", "none")


BENCHMARKS: Registry[Callable[[DataConfig, int], RequestStream]] = Registry(
    "benchmark", [f"o3_lightning.data.{name}" for name in MODULES]
)
"""By name, the function that loads a benchmark from a `DataConfig` and the run's seed."""
