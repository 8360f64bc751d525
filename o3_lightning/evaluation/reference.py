"""Models without a gate, and the comparison with a reference that never saw the forget set.

The reference is an evaluation of the retrained model on the same rows, with its values per example.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.figures import ACCURACY, parts_of
from o3_lightning.evaluation.splits import HOLDOUT, UTILITY, digest_rows, sample_rows, splits_of
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.routing import EveryPrompt
from o3_lightning.metrics.membership import CHANCE, MEMBERSHIP_METRICS, membership_auc, privacy_leak
from o3_lightning.metrics.quality import forget_quality
from o3_lightning.models.base import BaseModel, load_base
from o3_lightning.models.config import BaseConfig

RETRAINED = "retrained"
RATIOS, LOSSES = "truth_ratio_raw", "mia_loss"
Result = Mapping[str, Any]


def plain_model(base: BaseModel) -> GatedModel:
    """Returns a gated model without requests (weights [B,0]); it computes bit for bit as the base model."""
    return GatedModel(base, EveryPrompt(()), {})


def load_plain(
    name: str | Path, config: BaseConfig, seed: int = 0, stream: RequestStream | None = None
) -> GatedModel:
    """Returns a checkpoint as a model without a gate.

    Args:
        name: as `base.id`: a folder in Hugging Face form, an id on the Hub, a GGUF file; or `RETRAINED`, the
            run's base model trained without any prompt of the requests, in any phrasing. It is trained once,
            where the project trained the base model, and cached.
        config: of the run's base model; gives template, dtype and device.
        seed: as in `load_base`.
        stream: the requests that `RETRAINED` must not have seen.

    Raises:
        InputError: the model cannot be loaded, or not be trained again.
    """
    if name == RETRAINED and stream is not None:
        forgotten = [row.prompt for request in stream.requests for row in (*request.rows, *request.held_out)]
        return plain_model(replace(load_base(config, seed, forgotten), id=f"{config.id}, retrained"))
    return plain_model(load_base(replace(config, id=str(name), revision=None), seed))


def with_reference(config: EvaluationConfig, stream: RequestStream) -> EvaluationConfig:
    """Returns the configuration with the metrics that a comparison on this stream needs."""
    ratios = any(row.perturbed_answers for _, _, rows, _ in splits_of(stream) for row in rows)
    needed = (LOSSES, RATIOS) if ratios else (LOSSES,)
    return replace(config, metrics=tuple(dict.fromkeys((*config.metrics, *needed))))


def for_reference(config: EvaluationConfig) -> EvaluationConfig:
    """Returns the configuration for the reference: the metrics of comparisons and of the plane."""
    wanted = (ACCURACY, RATIOS, *(name for name in MEMBERSHIP_METRICS if name != "mia_reference"))
    metrics = tuple(name for name in config.metrics if name in wanted)
    return replace(config, metrics=metrics, samples=0)


def splits(result: Result) -> Iterator[tuple[str, Result]]:
    """Every split by its name."""
    yield from ((f"{owner}/{split}", part) for owner, split, part in parts_of(result))
    if HOLDOUT in result:
        yield HOLDOUT, result[HOLDOUT]


def check_rows(reference: Result, stream: RequestStream, limit: int = 0, seed: int = 0) -> None:
    """Refuses a reference that was measured on other rows than the stream's.

    Splits that the reference lacks, or whose digest it lacks, are not checked. `limit` and `seed` are
    those of `sample_rows`.

    Raises:
        InputError: a split has other rows, or another sample of them was measured.
    """
    rows = {f"{owner}/{split}": part for owner, split, part, _ in splits_of(stream)}
    for name, part in splits(reference):
        own = stream.holdout if name == HOLDOUT else rows.get(name, ())
        if own and part.get("digest", "") not in ("", digest_rows(own)):
            raise InputError(f"the reference was measured on other rows of {name}", field="reference")
        drawn = sample_rows(own, limit, seed)
        expected = digest_rows(drawn) if len(drawn) < len(own) else ""
        if own and part.get("sample", {}).get("digest", "") != expected:
            message = f"the reference was measured on another sample of {name}; give its evaluation.rows"
            raise InputError(message, field="reference")


def reference_losses(reference: Result) -> dict[str, list[float]]:
    """Returns each row's loss under the reference model, by split."""
    return {name: part["values"][LOSSES] for name, part in splits(reference) if LOSSES in part["values"]}


def compare(result: Result, reference: Result | None) -> dict[str, dict[str, Any]]:
    """Returns, by forget split, the metrics that need another model or unseen rows.

    `forget_quality` (p-value and statistic) needs `reference`, the evaluation of a model that never saw the
    forget set, on the same rows. `membership` needs a holdout and has, by metric, `auc`, `reference_auc` and
    `privacy_leak` (against 0.5 without a reference).
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
        membership: dict[str, dict[str, float | None]] = {}
        for metric in MEMBERSHIP_METRICS:
            auc = auc_of(part, result.get(HOLDOUT), metric)
            if auc is not None:
                expected = auc_of(other, others.get(HOLDOUT), metric)
                leak = privacy_leak(auc, CHANCE if expected is None else expected)
                membership[metric] = {"auc": auc, "reference_auc": expected, "privacy_leak": leak}
        if membership:
            found["membership"] = membership
        if found:
            compared[name] = found
    return compared


def auc_of(forget: Result | None, unseen: Result | None, metric: str) -> float | None:
    """The AUC of one model, or None where a side was not measured."""
    columns: list[Sequence[float]] = [
        part["values"][metric] for part in (forget, unseen) if part is not None and metric in part["values"]
    ]
    return membership_auc(*columns) if len(columns) == 2 else None
