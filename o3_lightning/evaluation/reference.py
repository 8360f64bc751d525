"""Comparing a model with one that never saw the forget set: forget quality, privleak, and reference losses.

The reference is an evaluation of the retrained model on the same rows, with its values per example.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.combined import ACCURACY
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.splits import HOLDOUT, UTILITY, digest_rows, splits_of
from o3_lightning.metrics.membership import CHANCE, MEMBERSHIP_METRICS, membership_auc, privacy_leak
from o3_lightning.metrics.quality import forget_quality

__all__ = ["check_rows", "compare", "for_reference", "read_reference", "reference_losses", "with_reference"]

RATIOS, LOSSES = "truth_ratio_raw", "mia_loss"
Result = Mapping[str, Any]


def with_reference(config: EvaluationConfig, *, ratios: bool) -> EvaluationConfig:
    """Returns the configuration with the metrics that comparisons start from.

    Args:
        config: what is measured anyway.
        ratios: whether the rows have perturbed answers, without which there are no truth ratios.
    """
    needed = (LOSSES, *((RATIOS,) if ratios else ()))
    return replace(config, metrics=tuple(dict.fromkeys((*config.metrics, *needed))))


def for_reference(config: EvaluationConfig) -> EvaluationConfig:
    """Returns the configuration for the reference: what comparisons read, and its place on the plane."""
    wanted = (ACCURACY, RATIOS, *(name for name in MEMBERSHIP_METRICS if name != "mia_reference"))
    metrics = tuple(name for name in config.metrics if name in wanted)
    return replace(config, metrics=metrics, samples=0)


def read_reference(path: Path) -> dict[str, Any]:
    """Returns an evaluation from its JSON file.

    Raises:
        InputError: it cannot be read, or is no evaluation.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror or error}", path=path, field="reference"
        ) from error
    except ValueError as error:
        raise InputError(f"not JSON: {error}", path=path, field="reference") from error
    if not isinstance(value, dict) or not {"requests", "utility"} <= value.keys():
        message = "expected an evaluation, with 'requests' and 'utility'"
        raise InputError(message, path=path, field="reference")
    return value


def splits(result: Result) -> Iterator[tuple[str, Result]]:
    """Every split by its name."""
    for owner, parts in (*result["requests"].items(), (UTILITY, result[UTILITY])):
        for split, part in parts.items():
            yield f"{owner}/{split}", part
    if HOLDOUT in result:
        yield HOLDOUT, result[HOLDOUT]


def check_rows(reference: Result, stream: RequestStream) -> None:
    """Refuses a reference that was measured on other rows than those of a stream.

    Args:
        reference: an evaluation; splits that it lacks, or that it keeps no digest of, are passed over.
        stream: what will be measured.

    Raises:
        InputError: a split has other rows.
    """
    rows = {f"{owner}/{split}": part for owner, split, part, _ in splits_of(stream)}
    for name, part in splits(reference):
        own = stream.holdout if name == HOLDOUT else rows.get(name, ())
        if own and part.get("digest", "") not in ("", digest_rows(own)):
            raise InputError(f"the reference was measured on other rows of {name}", field="reference")


def reference_losses(reference: Result) -> dict[str, list[float]]:
    """Returns each row's loss under the reference model, by split."""
    return {name: part["values"][LOSSES] for name, part in splits(reference) if LOSSES in part["values"]}


def compare(result: Result, reference: Result | None) -> dict[str, dict[str, Any]]:
    """Returns what only a comparison says, by forget split.

    Args:
        result: an evaluation with values per example.
        reference: that of a model that never saw the forget set, on the same rows; None has none.

    Returns:
        By split `forget_quality` (p-value and statistic, needs a reference) and `membership` by metric:
        `auc`, `reference_auc` and `privacy_leak` (against 0.5 without a reference), where there is a holdout.
    """
    others = dict(splits(reference)) if reference is not None else {}
    compared: dict[str, dict[str, Any]] = {}
    for name, part in splits(result):
        if name == HOLDOUT or name.startswith(f"{UTILITY}/"):
            continue
        other = others.get(name)
        found: dict[str, Any] = {}
        if other is not None and RATIOS in part["values"] and RATIOS in other["values"]:
            found["forget_quality"] = asdict(forget_quality(part["values"][RATIOS], other["values"][RATIOS]))
        membership = compare_membership(part, other, result.get(HOLDOUT), others.get(HOLDOUT))
        if membership:
            found["membership"] = membership
        if found:
            compared[name] = found
    return compared


def compare_membership(
    forget: Result, other: Result | None, unseen: Result | None, other_unseen: Result | None
) -> dict[str, dict[str, float | None]]:
    """AUC and privleak of every membership metric that forget set and holdout have."""
    found: dict[str, dict[str, float | None]] = {}
    for metric in MEMBERSHIP_METRICS if unseen is not None else ():
        auc = auc_of(forget, unseen, metric)
        if auc is None:
            continue
        expected = auc_of(other, other_unseen, metric)
        leak = privacy_leak(auc, CHANCE if expected is None else expected)
        found[metric] = {"auc": auc, "reference_auc": expected, "privacy_leak": leak}
    return found


def auc_of(forget: Result | None, unseen: Result | None, metric: str) -> float | None:
    """The AUC of one model, or None where a side was not measured."""
    columns: list[Sequence[float]] = [
        part["values"][metric] for part in (forget, unseen) if part is not None and metric in part["values"]
    ]
    return membership_auc(*columns) if len(columns) == 2 else None
