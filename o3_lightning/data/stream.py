"""Benchmarks as streams: requests in order, utility splits, and prompts that probe the detector."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import evenly_spaced
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest

RETAIN = "retain"  # the utility split that retain objectives train on


@dataclass(frozen=True)
class RequestStream:
    """A continual unlearning task.

    Args:
        name: of the benchmark and its variant, e.g. "tofu/forget01".
        requests: at least one, in the order of unlearning, ids unique.
        utility: rows by split whose answers must not change, e.g. "retained_authors". Only retain objectives
            train on them.
        probes: prompts by split that are used only to evaluate the detector, e.g. "unknown_authors".
        holdout: rows of the same kind as the requests on which no model was trained, for membership metrics;
            may be empty.
        test: by request id, rows about the same on which no model is trained, as in the test part of a
            benchmark; a request may have none.
        verbmem: by request id, beginnings of its texts and how they go on, as in MUSE.
        other_tasks: utility splits of other tasks than the benchmark's.
        taught: utility splits that the benchmark's base model is trained on, beside the requests' rows.
        files: JSON-lines files of the user that the rows come from, so that errors can name the line.

    Raises:
        InputError: no request, a repeated id, or an empty split.
    """

    name: str
    requests: tuple[UnlearningRequest, ...]
    utility: Mapping[str, Sequence[QuestionAnswer]] = field(default_factory=dict)
    probes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    holdout: Sequence[QuestionAnswer] = ()
    test: Mapping[str, Sequence[QuestionAnswer]] = field(default_factory=dict)
    verbmem: Mapping[str, Sequence[QuestionAnswer]] = field(default_factory=dict)
    other_tasks: tuple[str, ...] = ()
    taught: tuple[str, ...] = (RETAIN,)
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
    """Returns the requests, utility splits and probes that a configuration selects.

    Args:
        config: benchmark, and maximum numbers of requests and rows.
        seed: of the fictitious world (must equal that of the base model) and of wrong answers.

    Raises:
        InputError: a file is missing or malformed, an id is unknown, or a split is empty.
    """
    stream = BENCHMARKS[config.name](config, seed)
    requests = stream.requests
    if config.requests and not stream.files:  # a stream from files has all their requests
        known = {request.id: request for request in requests}
        check_known(config.requests, known)
        requests = tuple(known[name] for name in config.requests)
    requests = requests[: config.count or None]
    if config.rows_per_request:
        requests = tuple(replace(item, rows=item.rows[: config.rows_per_request]) for item in requests)
    test, verbmem = (
        {
            item.id: evenly_spaced(rows, config.utility_rows or len(rows))
            for item in requests
            if (rows := split.get(item.id))
        }
        for split in (stream.test, stream.verbmem)
    )
    utility = {
        split: evenly_spaced(rows, (split != RETAIN and config.utility_rows) or len(rows))
        for split, rows in stream.utility.items()
    }
    return replace(stream, requests=requests, utility=utility, test=test, verbmem=verbmem)


def with_retain(
    utility: Mapping[str, Sequence[QuestionAnswer]], kept: Sequence[QuestionAnswer], count: int
) -> dict[str, Sequence[QuestionAnswer]]:
    """Returns the utility splits, and in the split "retain" as many kept rows as asked for, evenly spaced.

    A prompt that another split measures is not among them.
    """
    measured = {row.prompt for rows in utility.values() for row in rows}
    unmeasured = [row for row in kept if row.prompt not in measured]
    retain = evenly_spaced(unmeasured, min(count, len(unmeasured))) if count else []
    return {**utility, **({RETAIN: retain} if retain else {})}


def taught_rows(config: DataConfig, seed: int) -> list[QuestionAnswer]:
    """Returns what the base model of a benchmark is trained on: the requests' rows and the taught splits."""
    stream = load_stream(config, seed)
    requests = [row for request in stream.requests for row in request.rows]
    return [*requests, *(row for split in stream.taught for row in stream.utility.get(split, ()))]


def check_known(names: Iterable[str], known: Iterable[str], kind: str = "request") -> None:
    """Raises InputError for the first name in `data.requests` that the benchmark does not have."""
    available = list(known)
    for name in names:
        if name not in available:
            raise InputError(f"no {kind} {name!r}; expected {', '.join(available)}", field="data.requests")
