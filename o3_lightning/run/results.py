"""The end of a run: metrics.json, the CSV file and the report from the results of its stages."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from o3_lightning.common.environment import describe_environment, peak_memory_mib
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_atomically, write_json
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.figures import (
    Place,
    backward_transfers,
    official_series,
    parts_of,
    persistence_matrices,
    place_on_plane,
    unreadable_answers,
    utility_ratio,
    utility_series,
)
from o3_lightning.reporting.external_results import read_attacks, read_comparisons, read_places
from o3_lightning.reporting.long_form import long_form
from o3_lightning.reporting.publish import publish
from o3_lightning.reporting.report import ReportDetails, render_report
from o3_lightning.store.store import Store
from o3_lightning.training.loggers import RunLogger
from o3_lightning.training.run_folder import RunFolder

BASE_STAGE = "00-base-evaluate"
CSV_NAME = "metrics.csv"
Results = Mapping[str, Mapping[str, Any]]


def finish_run(folder: RunFolder, stream: RequestStream, loggers: RunLogger, *, text: bool = False) -> None:
    """Writes the CSV file, the report and `metrics.json`, in this order, then publishes the run.

    The last two mark the run as finished; `text` sends prompts and answers to Weights & Biases, too. In
    addition to `assemble_metrics`, `metrics.json` holds `digests` (base model, encoder, forget sets),
    `store_head` (digest of the journal's last line) and `store_bytes` (of detector and adapter) by request.
    """
    identifiers, results = [request.id for request in stream.requests], folder.results()
    forget_sets = {request.id: request.digest for request in stream.requests}
    store = Store.open(folder.store)
    metrics = {
        **assemble_metrics(stream.name, identifiers, results),
        "digests": {"base": store.base_digest, "encoder": store.encoder_digest, "requests": forget_sets},
        "store_head": store.head(),
        "store_bytes": {
            name: sum(
                path.stat().st_size for path in (folder.store / "requests" / name).rglob("*.safetensors")
            )
            for name in identifiers
        },
    }
    write_atomically(folder.path / CSV_NAME, long_form(metrics))
    details = assemble_details(folder, identifiers, results)
    write_atomically(folder.report_file, render_report(metrics, details), private=True)
    write_json(folder.metrics_file, metrics)
    for run in loggers.wandb_runs():
        publish(run, folder.path, metrics, details, loggers.next_step, text=text)


def render_again(folder: RunFolder, beside: Mapping[str, Place] | None = None) -> Path:
    """Writes the report and the CSV file of a finished run again, and returns the report's path.

    `beside` holds further models for the plane by name, such as other runs.

    Raises:
        InputError: a file of another command in the folder is damaged, or the result of a stage is missing.
    """
    metrics = json.loads(folder.metrics_file.read_text())
    for key in ("adapters", "calibration", "detector", "store_bytes"):  # runs of earlier versions lack some
        metrics[key] = by_request(metrics.get(key) or {}, metrics["requests"])
    results = folder.results()
    for name in (BASE_STAGE, stage_names(metrics["requests"], "evaluate")[-1], "detectors"):
        if name not in results:
            raise InputError(f"there is no result of stage {name}", path=folder.path / "stages")
    details = assemble_details(folder, metrics["requests"], results, beside)
    write_atomically(folder.path / CSV_NAME, long_form(metrics))
    write_atomically(folder.report_file, render_report(metrics, details), private=True)
    return folder.report_file


def by_request(values: Mapping[str, Any], identifiers: Sequence[str]) -> dict[str, Any]:
    """Returns values by request in the order of the requests; JSON files are sorted by name."""
    return {name: values[name] for name in identifiers if name in values}


def stage_names(identifiers: Sequence[str], kind: str) -> list[str]:
    """Returns the names of one kind of stage, in the order of the requests."""
    return [f"{number:02}-{name}-{kind}" for number, name in enumerate(identifiers, start=1)]


def assemble_metrics(name: str, identifiers: Sequence[str], results: Results) -> dict[str, Any]:
    """Returns the content of `metrics.json` from the results of all stages by name.

    `requests`; `persistence[metric][split]`; `utility[split]`, the accuracy over the columns, and
    `utility_metrics[metric][split]` for every metric; `detector[request][split]`; `calibration` (error of
    each request's weights); `confusion` between requests; `u2r`; `official`, see `official_series`;
    `plane` (accuracies with intervals);
    `intervals[owner][split][metric]`, low and high in every column; `unreadable` (answers that a metric could
    not judge); `sampled`, by split how many rows were measured and of how many; `answer_checks` of the last
    model; `fit_warnings[request]` of detectors; `backward_transfer`; `adapters`; `overlaps`; `seconds` per
    stage; `peak_memory_mib`; `environment`.
    """
    stages = [BASE_STAGE, *stage_names(identifiers, "evaluate")]
    measured = [results[stage] for stage in stages]
    matrices, series = persistence_matrices(identifiers, measured), utility_series(measured)
    trained = trained_stages(identifiers, results)
    return {
        "benchmark": name,
        "requests": list(identifiers),
        "columns": ["base", *identifiers],
        "persistence": matrices,
        "utility": series.get("accuracy", {}),
        "utility_metrics": series,
        "detector": by_request(results["detectors"]["table"], identifiers),
        "u2r": utility_ratio(matrices, series),
        "official": official_series(identifiers, measured),
        "calibration": by_request(results["detectors"]["calibration"], identifiers),
        "confusion": results["detectors"]["confusion"],
        "plane": {"base": place_on_plane(measured[0]), "end": place_on_plane(measured[-1])},
        "backward_transfer": backward_transfers(matrices),
        "adapters": {name: stage["metrics"] for name, stage in trained.items()},
        "intervals": intervals_of(measured),
        "unreadable": unreadable_answers(measured),
        "sampled": sampled_splits(measured[0]),
        "answer_checks": measured[-1].get("answer_checks", {}),
        "fit_warnings": fit_warnings(identifiers, results),
        "overlaps": overlaps_of(results),
        "seconds": {stage: round(result["seconds"], 3) for stage, result in results.items()},
        "peak_memory_mib": peak_memory_mib(),
        "environment": describe_environment(),
    }


def fit_warnings(identifiers: Sequence[str], results: Results) -> dict[str, list[str]]:
    """Returns what the detector of each request warned of when it was fitted; nothing where it did not."""
    stages = zip(identifiers, stage_names(identifiers, "protect"), strict=True)
    found = {name: results.get(stage, {}).get("report", {}).get("warnings") or [] for name, stage in stages}
    return {name: warnings for name, warnings in found.items() if warnings}


def intervals_of(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns `[request or "utility"][split][metric]`: the 95 % interval in every column, or None."""
    found: dict[str, Any] = {}
    for column, stage in enumerate(measured):
        for owner, split, result in parts_of(stage):
            for metric, ends in (result.get("intervals") or {}).items():
                place = found.setdefault(owner, {}).setdefault(split, {})
                place.setdefault(metric, [None] * len(measured))[column] = list(ends[:2])
    return found


def sampled_splits(stage: Mapping[str, Any]) -> dict[str, list[int]]:
    """Returns, by split of which only a sample was measured, its rows and all rows."""
    return {
        f"{owner}/{split}": [part["count"], part["sample"]["of"]]
        for owner, split, part in parts_of(stage)
        if "sample" in part
    }


def trained_stages(identifiers: Sequence[str], results: Results) -> dict[str, Mapping[str, Any]]:
    """Returns the training result of each request that has an adapter."""
    stages = zip(identifiers, stage_names(identifiers, "unlearn"), strict=True)
    return {name: results[stage] for name, stage in stages if stage in results}


def overlaps_of(results: Results) -> Mapping[str, Any]:
    """Returns the overlap matrices of the adapters; empty if there are none."""
    matrices: Mapping[str, Any] = results.get("overlaps", {}).get("matrices", {})
    return matrices


def assemble_details(
    folder: RunFolder, identifiers: Sequence[str], results: Results, beside: Mapping[str, Place] | None = None
) -> ReportDetails:
    """Returns what the report shows in addition to the metrics."""
    curves = {name: stage["curve"] for name, stage in trained_stages(identifiers, results).items()}
    overlaps = {
        name: {"rows": list(identifiers), "values": values} for name, values in overlaps_of(results).items()
    }
    return ReportDetails(
        title=folder.path.name,
        mistakes=by_request(results["detectors"]["mistakes"], identifiers),
        weights=by_request(results["detectors"]["weights"], identifiers),
        curves=curves,
        samples=pair_samples(results[BASE_STAGE], results[stage_names(identifiers, "evaluate")[-1]]),
        configuration=(folder.path / "config.yaml").read_text(),
        overlaps=overlaps,
        robustness=read_attacks(folder.path),
        comparisons=read_comparisons(folder.path),
        beside={**read_places(folder.path), **(beside or {})},
    )


def pair_samples(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the sampled answers of the base model paired with those at the end."""
    pairs = []
    groups = [("requests", name) for name in before["requests"]] + [("utility", "")]
    for kind, name in groups:
        old, new = (stage[kind][name] if name else stage[kind] for stage in (before, after))
        for split, result in old.items():
            for first, last in zip(result["samples"], new[split]["samples"], strict=True):
                row = {"split": split, "request": name, "prompt": first["prompt"], "truth": first["truth"]}
                row |= {"before": first["answer"], "after": last["answer"], "weights": last["weights"]}
                pairs.append(row)
    return pairs
