"""One evaluation from the command line: which model, against which reference, into which files."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import digest_file, digest_json, write_atomically, write_json
from o3_lightning.data.config import DataConfig
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.attack_table import attack_summary
from o3_lightning.evaluation.combined import combine
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import EvaluationContext, evaluate_stream
from o3_lightning.evaluation.reference import (
    check_rows,
    compare,
    for_reference,
    read_reference,
    reference_losses,
    with_reference,
)
from o3_lightning.evaluation.robustness import Robustness
from o3_lightning.evaluation.splits import FinishedSplits, check_prompts, splits_of
from o3_lightning.evaluation.table import as_csv
from o3_lightning.evaluation.ungated import load_plain
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseConfig
from o3_lightning.training.processes import Processes

__all__ = ["EvaluationSession", "identity_of", "slug"]


@dataclass(frozen=True)
class EvaluationSession:
    """What an evaluation works with.

    Args:
        stream: the splits.
        config: what is measured.
        base: how a reference checkpoint is loaded.
        data: where the splits came from.
        seed: of the embedded benchmark's base model.
        folder: of the results.
        processes: who shares the work.
    """

    stream: RequestStream
    config: EvaluationConfig
    base: BaseConfig
    data: DataConfig
    seed: int
    folder: Path
    processes: Processes

    def measure(self, model: GatedModel, name: str, reference: str = "") -> dict[str, Any]:
        """Measures a model, and writes `<name>.json` and `<name>.csv`.

        Args:
            model: with or without a gate.
            name: of the two files; finished splits lie in `<name>.parts/` until all are done.
            reference: the JSON file of an evaluation of a retrained model, or its checkpoint; empty is none.

        Returns:
            What `evaluate_stream` returns, with `comparison`, `combined`, `model`, `seconds` and
            `environment`.

        Raises:
            InputError: a prompt beyond the context, a metric that no split allows, a bad reference.
        """
        start = time.perf_counter()
        check_prompts(self.stream, model.base)
        config, other = self.config, None
        if reference:
            ratios = any(row.perturbed_answers for _, _, rows, _ in splits_of(self.stream) for row in rows)
            config = with_reference(config, ratios=ratios)
            other = self.reference(reference, config)
            check_rows(other, self.stream)
        losses = {} if other is None else reference_losses(other)
        result, parts = self.finish(model, name, config, losses)
        comparison = compare(result, other)
        content = {
            "active_requests": list(model.ids),
            "model": model.base.id,
            **result,
            "comparison": comparison,
            "combined": combine(result),
            "seconds": round(time.perf_counter() - start, 3),
            "environment": describe_environment(),
        }
        if self.processes.is_first:
            write_json(self.folder / f"{name}.json", content)
            write_atomically(self.folder / f"{name}.csv", as_csv(result))
        parts.remove()
        return content

    def attack(self, model: GatedModel) -> dict[str, Any]:
        """Attacks a gated model, and writes `robustness.json`.

        Returns:
            `summary` as `attack_summary` gives it, `table` as `Robustness.run` does, `settings`, `seconds`
            and `environment`.

        Raises:
            InputError: the model has no requests, or there is no utility split.
        """
        start = time.perf_counter()
        check_prompts(self.stream, model.base)
        digest = digest_json([identity_of(model), repr(self.config), repr(self.data), self.seed])
        parts = FinishedSplits(self.folder / "robustness.parts", digest, self.processes)
        around = EvaluationContext(self.processes, parts.resume)
        table = Robustness(model, self.stream, self.config, around, self.seed).run()
        content = {
            "summary": attack_summary(table),
            "table": table,
            "settings": asdict(self.config.robustness),
            "seconds": round(time.perf_counter() - start, 3),
            "environment": describe_environment(),
        }
        if self.processes.is_first:
            write_json(self.folder / "robustness.json", content)
        parts.remove()
        return content

    def finish(
        self, model: GatedModel, name: str, config: EvaluationConfig, losses: dict[str, list[float]]
    ) -> tuple[dict[str, Any], FinishedSplits]:
        """Measures what is not measured yet; the finished splits are to be removed once all is written."""
        digest = digest_json([identity_of(model), repr(config), repr(self.data), self.seed, losses])
        parts = FinishedSplits(self.folder / f"{name}.parts", digest, self.processes)
        context = EvaluationContext(self.processes, parts.resume, losses)
        return evaluate_stream(model, self.stream, config, context), parts

    def reference(self, name: str, config: EvaluationConfig) -> dict[str, Any]:
        """Returns the evaluation of the reference: read, or measured and written for the next time."""
        if Path(name).suffix == ".json":
            return read_reference(Path(name))
        model = load_plain(name, self.base, self.seed, self.stream)
        check_prompts(self.stream, model.base)
        wanted, file = for_reference(config), f"reference-{slug(name)}"
        result, parts = self.finish(model, file, wanted, {})
        if self.processes.is_first:
            write_json(self.folder / f"{file}.json", {"model": name, **result})
        parts.remove()
        return result


def identity_of(model: GatedModel) -> list[Any]:
    """Returns what tells one model from another: weights, requests, detectors, adapters, settings."""
    files: Sequence[Path] = ()
    if model.store is not None:
        folders = [
            folder
            for name in model.ids
            for folder in (model.store.detector_folder(name), model.store.adapter_folder(name))
        ]
        files = [path for folder in folders for path in sorted(folder.glob("*")) if path.is_file()]
    contents = [digest_file(path) for path in files]
    return [model.base.digest, list(model.ids), repr(model.gate_config), contents]


def slug(name: str) -> str:
    """Returns the last part of a path or id as the part of a file's name.

    Example:
        >>> slug("org/Some Model")
        'Some-Model'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name)
