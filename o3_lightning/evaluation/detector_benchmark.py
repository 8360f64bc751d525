"""Measures detectors on real benchmarks: how well they tell a request from its neighbours.

For each seed another request or another split: a detector is fitted on 80 % of the prompts, and everything
else is only scored. Scores have one sign, fixed by definition. Benchmarks come from the folder of local data;
what is not there is left out and named.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from o3_lightning.detector import Detector, DetectorConfig, Encoder, MultiDetector, fit_detector, load_encoder
from o3_lightning.detector.segments import Prompt
from o3_lightning.evaluation.detector_evasion import EVASIONS, harmless_texts
from o3_lightning.evaluation.detector_tasks import TASKS, BenchmarkTask, load_task
from o3_lightning.files import write_json

__all__ = ["DetectorBenchmarkConfig", "measure_split", "run_detector_benchmark"]

logger = logging.getLogger(__name__)
RECALL_OF_FPR = 0.95
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class DetectorBenchmarkConfig:
    """What is measured.

    Args:
        tasks: names out of `detector_tasks.TASKS`.
        detectors: settings by the name they get in the results.
        seeds: requests or splits; the same for every detector.
        evasion: whether disguised prompts are measured on the entity tasks.
        most_prompts: longest probe set, drawn with the seed.
        most_disguised: prompts a disguise is tried on, and harmless texts.
    """

    tasks: tuple[str, ...] = TASKS
    detectors: Mapping[str, DetectorConfig] = field(default_factory=lambda: {"default": DetectorConfig()})
    seeds: tuple[int, ...] = (0, 1, 2)
    evasion: bool = True
    most_prompts: int = 400
    most_disguised: int = 12


class RememberingEncoder(Encoder):
    """An encoder that reads no prompt twice; for benchmarks only, as it keeps every feature in memory."""

    def encode_tokens(
        self, tokens: Sequence[Sequence[int]], progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """Returns the features of token ids [B, L, D], from memory where they have been read before."""
        if self.pooling == "padded_mean":
            return super().encode_tokens(tokens, progress)
        memory: dict[tuple[int, ...], Tensor] = self.__dict__.setdefault("_memory", {})
        new = [key for key in dict.fromkeys(tuple(row) for row in tokens) if key not in memory]
        if new:
            memory.update(zip(new, super().encode_tokens(new, progress), strict=True))
        if not tokens:
            return super().encode_tokens(tokens, progress)
        return torch.stack([memory[tuple(row)] for row in tokens])


def measure_split(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """Returns AUROC, AUPR and the false-positive rate at 95 % recall of scores, higher = inside.

    Args:
        inside: scores of prompts that must be found [N].
        outside: scores of prompts that must not [M].

    Example:
        >>> measure_split(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0]))
        {'auroc': 1.0, 'aupr': 1.0, 'fpr95': 0.0}
    """
    labels = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    values = torch.cat([inside, outside]).double().numpy()
    threshold = np.quantile(inside.double().numpy(), 1 - RECALL_OF_FPR, method="lower")
    return {
        "auroc": float(roc_auc_score(labels, values)),
        "aupr": float(average_precision_score(labels, values)),
        "fpr95": float((outside.double().numpy() >= threshold).mean()),
    }


def calibration_error(inside: Tensor, outside: Tensor) -> float:
    """Returns the expected calibration error of weights read as the chance of being inside, sides alike."""
    weights = torch.cat([inside, outside]).double()
    truth = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).double()
    share = torch.cat(
        [torch.full((len(part),), 0.5 / max(len(part), 1)) for part in (inside, outside)]
    ).double()
    bins = (weights * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1)
    error = 0.0
    for number in range(CALIBRATION_BINS):
        own = bins == number
        mass = float(share[own].sum())
        if mass:
            error += abs(float((share[own] * (weights[own] - truth[own])).sum()))
    return error


def run_detector_benchmark(
    config: DetectorBenchmarkConfig, data: Path, output: Path | None = None
) -> dict[str, Any]:
    """Measures every detector on every task and seed.

    Args:
        config: what to measure.
        data: folder of local benchmark data.
        output: JSON file, rewritten after every detector; None writes nothing.

    Returns:
        {"tasks": {task: {detector: {split: {measure: {"mean", "std", "seeds"}}}}}, "left_out", "seconds"}.

    Raises:
        InputError: a task is unknown.
    """
    results: dict[str, Any] = {"tasks": {}, "left_out": [], "seeds": list(config.seeds)}
    encoders: dict[tuple[str, str], Encoder] = {}
    started = time.monotonic()
    for name in config.tasks:
        try:
            tasks = [load_task(name, data, seed) for seed in config.seeds]
        except FileNotFoundError as error:
            results["left_out"].append(f"{name}: {error.filename} is not there")
            continue
        for label, settings in config.detectors.items():
            encoder = encoders.setdefault((settings.encoder, settings.pooling), remembering(settings))
            rows = [measure_task(encoder, task, settings, config) for task in tasks]
            results["tasks"].setdefault(name, {})[label] = summarise(rows)
            results["seconds"] = time.monotonic() - started
            logger.info("%s, %s: measured after %.0f s", name, label, results["seconds"])
            if output is not None:
                write_json(output, results)
    return results


def remembering(config: DetectorConfig) -> Encoder:
    """Returns the encoder of a detector's settings, with a memory."""
    plain = load_encoder(
        config.encoder, pooling=config.pooling, max_tokens=config.max_tokens, device=config.device
    )
    return RememberingEncoder(**plain.__dict__)


def measure_task(
    encoder: Encoder, task: BenchmarkTask, settings: DetectorConfig, config: DetectorBenchmarkConfig
) -> dict[str, dict[str, float]]:
    """Returns the measures of one seed by split."""
    started = time.monotonic()
    detectors = {
        f"request_{number}": fit_detector(encoder, prompts, settings, task.seed)
        for number, prompts in enumerate(task.requests)
    }
    fitted = time.monotonic() - started
    multi = MultiDetector(encoder, detectors)
    inside = {
        name: judge(multi, limited(prompts, config, task.seed)) for name, prompts in task.inside.items()
    }
    outside = {
        name: judge(multi, limited(prompts, config, task.seed)) for name, prompts in task.outside.items()
    }
    result: dict[str, dict[str, float]] = {"fit": {"seconds": fitted, **sizes(detectors)}}
    for name, (_, weights) in {**inside, **outside}.items():
        result[name] = {"mean_weight": float(weights.mean())}
    for name, (scores, weights) in outside.items():
        for other, (own_scores, own_weights) in inside.items():
            measures = measure_split(own_scores, scores)
            result[f"{other}|{name}"] = {**measures, "ece": calibration_error(own_weights, weights)}
    if config.evasion and task.entity:
        result.update(measure_evasion(multi, task, config.most_disguised))
    return result


def judge(multi: MultiDetector, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """Returns the largest score and weight over the requests for each prompt."""
    scores = multi.scores(prompts)
    return scores.amax(dim=1), multi.weigh(scores).amax(dim=1)


def limited(prompts: Sequence[str], config: DetectorBenchmarkConfig, seed: int) -> list[str]:
    """Returns at most `most_prompts` prompts, drawn with the seed."""
    if len(prompts) <= config.most_prompts:
        return list(prompts)
    return random.Random(seed).sample(list(prompts), config.most_prompts)  # noqa: S311


def sizes(detectors: Mapping[str, Detector]) -> dict[str, float]:
    """Returns what a detector keeps, in MiB, and how many prompts it was fitted on, as means."""
    tensors = [
        [value for value in vars(d.state).values() if isinstance(value, Tensor)] for d in detectors.values()
    ]
    mib = [sum(t.numel() * t.element_size() for t in row) / 2**20 for row in tensors]
    prompts = [float(d.report["prompts"]) for d in detectors.values()]
    return {"size_mib": float(np.mean(mib)), "prompts": float(np.mean(prompts))}


def measure_evasion(multi: MultiDetector, task: BenchmarkTask, most: int) -> dict[str, dict[str, float]]:
    """Returns mean weights: of disguised prompts, of neighbours so disguised, of harmless text as long."""
    result = {}
    asked, near = task.inside.get("paraphrase", task.inside["held_out"])[:most], task.outside["near"][:most]
    for name, disguise in EVASIONS.items():
        generator = random.Random(task.seed)  # noqa: S311
        weights = {
            key: float(
                multi.weights([disguise(prompt, generator, task.filler) for prompt in prompts]).amax(1).mean()
            )
            for key, prompts in (("mean_weight", asked), ("near_weight", near))
        }
        result[f"evasion:{name}"] = weights
    texts = harmless_texts(task.filler, random.Random(task.seed), most)  # noqa: S311
    result["evasion:harmless"] = {"mean_weight": float(multi.weights(texts).amax(1).mean())}
    return result


def summarise(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Returns mean, standard deviation and the single values over the seeds."""
    summary: dict[str, Any] = {}
    for split in rows[0]:
        for measure in rows[0][split]:
            values = [row[split][measure] for row in rows if split in row]
            place = summary.setdefault(split, {})
            place[measure] = {"mean": float(np.mean(values)), "std": float(np.std(values)), "seeds": values}
    return summary


def table_rows(results: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a Markdown table: one a task, detector and pair of splits."""
    yield "| task | detector | split | AUROC | FPR95 | AUPR | weight inside | weight outside |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for task, by_detector in results["tasks"].items():
        for label, splits in by_detector.items():
            for pair in (name for name in splits if "|" in name):
                inside, outside = pair.split("|")
                cells = [
                    f"{100 * splits[pair][key]['mean']:.1f} ± {100 * splits[pair][key]['std']:.1f}"
                    for key in ("auroc", "fpr95", "aupr")
                ]
                weights = [f"{splits[name]['mean_weight']['mean']:.3f}" for name in (inside, outside)]
                yield f"| {task} | {label} | {inside} against {outside} | {' | '.join(cells + weights)} |"
