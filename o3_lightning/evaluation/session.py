"""One evaluation from the command line: measures or attacks a model and writes the result files."""

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import digest_json, read_result, write_atomically, write_json
from o3_lightning.data.config import DataConfig
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.closeness import closeness
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import EvaluationContext, evaluate_stream
from o3_lightning.evaluation.figures import combine
from o3_lightning.evaluation.reference import (
    check_rows,
    compare,
    for_reference,
    load_plain,
    reference_losses,
    with_reference,
)
from o3_lightning.evaluation.robustness import Robustness
from o3_lightning.evaluation.splits import UTILITY, FinishedSplits, check_prompts, sample_rows, splits_of
from o3_lightning.evaluation.tables import as_csv, attack_summary
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.config import BaseConfig
from o3_lightning.training.processes import Processes

Compared = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class EvaluationSession:
    """The inputs and the output folder of evaluations.

    `base` says how a reference checkpoint is loaded; `seed` is that of attacks and the embedded base model.
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
            name: of the two files; finished splits are kept in `<name>.parts/` until all are done.
            reference: the JSON file of an evaluation of a retrained model, or its checkpoint; empty for none.

        Returns:
            The result of `evaluate_stream`, with `comparison`, `combined`, `model`, `active_requests`,
            `seconds` and `environment`.

        Raises:
            InputError: a prompt beyond the context, a metric that no split allows, a bad reference.
        """
        start = time.perf_counter()
        check_prompts(self.stream, model.base)
        config, other, retrained = self.config, None, None
        if reference:
            config = with_reference(config, self.stream)
            if Path(reference).suffix != ".json":
                retrained = load_plain(reference, self.base, self.seed, self.stream)
            other = self.reference(reference, config, retrained)
            check_rows(other, self.stream, config.rows_on(model.device.type), self.seed)
        losses = {} if other is None else reference_losses(other)
        result, parts = self.finish(model, name, config, losses)
        compared = compare(result, other)
        if retrained is not None and model.ids:
            compared = self.audit(model, retrained, compared)
        content = {
            "active_requests": list(model.ids),
            "model": model.base.id,
            **result,
            "comparison": compared,
            "combined": combine(result),
        }
        return self.write(name, content, parts, start, as_csv(result))

    def attack(self, model: GatedModel) -> dict[str, Any]:
        """Attacks a gated model, and writes `robustness.json`.

        Returns:
            `summary` of `attack_summary`, `table` of `Robustness.run`, `store_head` of the model, `settings`,
            `seconds` and `environment`.

        Raises:
            InputError: the model has no requests, or there is no utility split.
        """
        start = time.perf_counter()
        check_prompts(self.stream, model.base)
        parts = self.parts("robustness", model, self.config)
        around = EvaluationContext(self.processes, self.seed, parts.resume)
        table = Robustness(model, self.stream, self.config, around, self.seed).run()
        settings = asdict(self.config.robustness)
        content = {"summary": attack_summary(table), "table": table, "settings": settings}
        content["store_head"] = model.store_head
        return self.write("robustness", content, parts, start)

    def parts(self, name: str, model: GatedModel, config: EvaluationConfig, *others: Any) -> FinishedSplits:
        """The finished splits of an evaluation with the same model, configuration and data."""
        digest = digest_json([identity_of(model), repr(config), repr(self.data), self.seed, *others])
        return FinishedSplits(self.folder / f"{name}.parts", digest, self.processes)

    def finish(
        self, model: GatedModel, name: str, config: EvaluationConfig, losses: dict[str, list[float]]
    ) -> tuple[dict[str, Any], FinishedSplits]:
        """Measures the unfinished splits; the finished ones may be removed once the result is written."""
        parts = self.parts(name, model, config, losses)
        context = EvaluationContext(self.processes, self.seed, parts.resume, losses)
        return evaluate_stream(model, self.stream, config, context), parts

    def write(
        self, name: str, content: dict[str, Any], parts: FinishedSplits, start: float, table: str = ""
    ) -> dict[str, Any]:
        """Writes and returns a result with its time and environment, then removes the finished splits."""
        seconds = round(time.perf_counter() - start, 3)
        content = {**content, "seconds": seconds, "environment": describe_environment()}
        if self.processes.is_first:
            write_json(self.folder / f"{name}.json", content, private=True)
            if table:
                write_atomically(self.folder / f"{name}.csv", table)
        parts.remove()
        return content

    def audit(self, model: GatedModel, retrained: GatedModel, compared: Compared) -> Compared:
        """Returns the comparison with `closeness` of each forget split, if the models are built alike."""
        if shape_of(model) != shape_of(retrained):
            return compared
        limit = self.config.rows_on(model.device.type)
        splits = {
            f"{owner}/{split}": sample_rows(rows, limit, self.seed)
            for owner, split, rows, kind in splits_of(self.stream)
            if kind == "forget" and owner in model.ids
        }
        return self.processes.once(
            lambda: (
                compared
                | {
                    name: {
                        **compared.get(name, {}),
                        "closeness": closeness(model, retrained, rows, self.config.batch_size),
                    }
                    for name, rows in splits.items()
                }
            )
        )

    def reference(self, name: str, config: EvaluationConfig, model: GatedModel | None) -> dict[str, Any]:
        """Returns the evaluation of the reference: read from its JSON file, or measured and written."""
        if model is None:
            return read_result(name, "requests", UTILITY, field="reference")
        check_prompts(self.stream, model.base)
        file = f"reference-{slug(name)}"
        result, parts = self.finish(model, file, for_reference(config), {})
        if self.processes.is_first:
            write_json(self.folder / f"{file}.json", {"model": name, **result}, private=True)
        parts.remove()
        return result


def shape_of(model: GatedModel) -> tuple[Any, ...]:
    """Returns what two models have to share before their layers can be exchanged."""
    config = model.base.model.config
    return config.model_type, config.num_hidden_layers, config.hidden_size, model.tokenizer.get_vocab()


def identity_of(model: GatedModel) -> list[Any]:
    """What distinguishes one model from another: weights, requests, detectors, adapters, settings."""
    files: list[str] = []
    if model.store is not None:
        files = [request.digest for request in model.store.gated() if request.id in model.ids]
    return [model.base.digest, list(model.ids), repr(model.gate_config), files]


def slug(name: str) -> str:
    """Returns the last part of a path or id in a form for file names."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name)
