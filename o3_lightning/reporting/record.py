"""Sections on answers, cost, configuration and environment of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.reporting.blocks import Bars, Block, Code, Fold, Samples, Section, Table, section
from o3_lightning.reporting.formatting import (
    binary_size,
    fraction,
    is_number,
    mebibytes,
    name_of,
    number,
    seconds,
)

WEIGHTS_SHOWN = 4
KINDS = ("protect", "unlearn", "evaluate")  # stages of one request, in the order in which they run


def samples_section(samples: Sequence[Mapping[str, Any]]) -> Section:
    """Returns the answers before and after, one fold per request or utility split, the first open."""
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for sample in samples:
        split = name_of(str(sample.get("split") or ""))
        owner = str(sample.get("request") or "") or split
        groups.setdefault(owner, {}).setdefault(split, []).append(readable(sample))
    folds = [
        Fold(
            owner,
            [Samples(split if split != owner else "", rows) for split, rows in splits.items()],
            place == 0,
        )
        for place, (owner, splits) in enumerate(groups.items())
    ]
    return section("samples", folds)


def readable(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample with its largest weights as texts, largest first."""
    weights = sorted((sample.get("weights") or {}).items(), key=lambda pair: -float(pair[1] or 0.0))
    texts = {key: str(sample.get(key) or "") for key in ("prompt", "truth", "before", "after")}
    shown = [(name, fraction(weight)) for name, weight in weights[:WEIGHTS_SHOWN]]
    rest = len(weights) - len(shown)
    return {**texts, "weights": shown, "more": f"{rest} more, none higher" if rest else ""}


def cost_section(metrics: Mapping[str, Any]) -> Section:
    """Returns seconds per stage and in all, the peak memory, and the cost of each request."""
    times = {str(k): float(v) for k, v in (metrics.get("seconds") or {}).items() if is_number(v)}
    longest = max(times.values(), default=0.0) or 1.0
    bars = [(stage, value / longest, seconds(value)) for stage, value in sorted(times.items(), key=place_of)]
    memory = f"{mebibytes(metrics.get('peak_memory_mib'))} of memory at the peak"
    blocks: list[Block] = []
    if bars:
        blocks.append(Bars(f"{seconds(sum(times.values()))} in all; {memory}", bars))
    adapters, sizes = metrics.get("adapters") or {}, metrics.get("store_bytes") or {}
    rows = [
        [
            request,
            number(adapters.get(request, {}).get("trained_parameters")),
            seconds(adapters.get(request, {}).get("seconds")),
            binary_size(sizes.get(request)),
        ]
        for request in metrics["requests"]
        if request in adapters or request in sizes
    ]
    if rows:
        columns = ["Request", "Adapter parameters", "Adapter training", "Bytes in the store"]
        blocks.append(Table("Each request", columns, rows))
    return section("cost", blocks)


def place_of(item: tuple[str, float]) -> tuple[float, int]:
    """The order of a stage: by the number that its name begins with, then by kind; others last."""
    number, _, rest = item[0].partition("-")
    kind = rest.rpartition("-")[2]
    return float(number) if number.isdigit() else float("inf"), KINDS.index(kind) if kind in KINDS else 0


def configuration_section(configuration: str) -> Section:
    """Returns the whole configuration, given as YAML text."""
    blocks = [Fold("config.yaml", [Code(configuration)])] if configuration.strip() else []
    return section("configuration", blocks)


def environment_section(environment: Mapping[str, Any], digests: Mapping[str, Any]) -> Section:
    """Returns versions and machine, and the digests of `metrics.json`."""
    found = [("", ["What", "Which"], sorted(environment.items()))]
    models = [(f"{name} model", digests[name]) for name in ("base", "encoder") if digests.get(name)]
    sets = [(f"forget set {name}", value) for name, value in sorted((digests.get("requests") or {}).items())]
    found.append(("Digests (SHA-256)", ["What", "Digest"], [*models, *sets]))
    tables = [
        Table(caption, columns, [[name, str(value)] for name, value in rows], prose=True)
        for caption, columns, rows in found
        if rows
    ]
    return section("environment", tables)
