"""Measures detectors on real benchmarks: how well they tell a request from its neighbours.

For each seed another request or another split: a detector is fitted on 80 % of the prompts, and everything
else is only scored. Scores have one sign, fixed by definition. Benchmarks come from the folder of local data;
what is not there is left out and named.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.detector import published  # noqa: F401 (its detectors are presets from here on)
from benchmarks.detector.measures import summarise
from benchmarks.detector.tasks import DEVELOPMENT, TASKS, BenchmarkTask, load_task
from benchmarks.gate.speed import build
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_json
from o3_lightning.detector import Detector, DetectorConfig, Encoder, MultiDetector, fit_detector, load_encoder
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.detection import calibration_error, separation

__all__ = ["DetectorBenchmarkConfig", "run_detector_benchmark"]


FPR95 = "at 95 % or more"  # earlier results needed more than 95 %; the two must not stand in one file


@dataclass(frozen=True)
class DetectorBenchmarkConfig:
    """What is measured.

    Args:
        tasks: names out of `detector_tasks.TASKS`.
        detectors: settings by the name they get in the results.
        seeds: requests or splits; the same for every detector.
        most_prompts: longest probe set, drawn with the seed.
    """

    tasks: tuple[str, ...] = TASKS
    detectors: Mapping[str, DetectorConfig] = field(default_factory=lambda: {"default": DetectorConfig()})
    seeds: tuple[int, ...] = (0, 1, 2)
    most_prompts: int = 400

    def __post_init__(self) -> None:
        for name in ("tasks", "seeds"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise InputError(f"expected a list, got {value!r}", field=name)
            object.__setattr__(self, name, tuple(value))
        most = self.most_prompts
        if not isinstance(most, int) or most < 1:
            raise InputError(f"expected an integer, 1 or more, got {most!r}", field="most_prompts")
        for task in self.tasks:
            if task not in TASKS:
                raise InputError(f"expected tasks out of {', '.join(TASKS)}, got {task!r}", field="tasks")
        if not self.tasks or not self.detectors or not self.seeds:
            raise InputError("expected at least one task, detector and seed")
        for seed in self.seeds:
            if not isinstance(seed, int) or seed < 0:
                raise InputError(f"expected integers >= 0, got {seed!r}", field="seeds")


class RememberingEncoder(Encoder):
    """An encoder that reads no prompt twice; for benchmarks only, as it keeps every feature in memory."""

    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Returns the features of token ids [B, L, D], from memory where they have been read before."""
        if self.pooling == "padded_mean":
            return super().encode_tokens(tokens)
        memory: dict[tuple[int, ...], Tensor] = self.__dict__.setdefault("_memory", {})
        new = [key for key in dict.fromkeys(tuple(row) for row in tokens) if key not in memory]
        if new:
            memory.update(zip(new, super().encode_tokens(new), strict=True))
        if not tokens:
            return super().encode_tokens(tokens)
        return torch.stack([memory[tuple(row)] for row in tokens])


def run_detector_benchmark(
    config: DetectorBenchmarkConfig,
    data: Path,
    output: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measures every detector on every task and seed.

    Args:
        config: what to measure.
        data: folder of local benchmark data.
        output: JSON file, rewritten after every detector; what it holds of the same settings is not measured
            again, what it holds of other tasks and detectors stays. None reads and writes nothing.
        progress: called with the name of each task, detector and seed before it is measured.

    Returns:
        {"tasks": {task: {detector: {split: {measure: {"mean", "std", "seeds"}}}}}, "roles": {task:
        "development" or "report only"}, "settings", "left_out", "environment"}.

    Raises:
        InputError: a task is unknown.
    """
    results = read_results(output)
    results["left_out"] = []
    encoders: dict[tuple[str, str], Encoder] = {}
    for name in config.tasks:
        try:
            tasks = [load_task(name, data, seed) for seed in config.seeds]
        except FileNotFoundError as error:
            results["left_out"].append(f"{name}: {error.filename} is not there")
            continue
        results["roles"][name] = "development" if name in DEVELOPMENT else "report only"
        for label, settings in config.detectors.items():
            described = describe(settings, config)
            done = results["settings"].get(label) == described and label in results["tasks"].get(name, {})
            if done:
                continue
            if results["settings"].get(label) != described:
                forget_detector(results, label)
            encoder = encoders.setdefault((settings.encoder, settings.pooling), remembering(settings))
            rows = []
            for task in tasks:
                if progress is not None:
                    progress(f"{name}, {label}, seed {task.seed}")
                rows.append(measure_task(encoder, task, settings, config))
            results["settings"][label] = described
            results["tasks"].setdefault(name, {})[label] = summarise(rows)
            if output is not None:
                write_json(output, results)
    return results


def read_results(path: Path | None) -> dict[str, Any]:
    """Returns what an earlier run has written, or a frame to fill."""
    frame = {"tasks": {}, "roles": {}, "settings": {}, "environment": describe_environment()}
    if path is None or not path.is_file():
        return frame
    try:
        return {**json.loads(path.read_text()), "environment": frame["environment"]}
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error}", path=path) from error


def describe(settings: DetectorConfig, config: DetectorBenchmarkConfig) -> dict[str, Any]:
    """Returns everything that decides a detector's figures, as JSON would give it back."""
    measured = {"fpr95": FPR95, "seeds": config.seeds, "most_prompts": config.most_prompts}
    described: dict[str, Any] = json.loads(json.dumps({**asdict(settings), "benchmark": measured}))
    return described


def forget_detector(results: dict[str, Any], label: str) -> None:
    """Drops the figures of a detector with other settings."""
    for by_detector in results["tasks"].values():
        by_detector.pop(label, None)
    results["tasks"] = {name: by_detector for name, by_detector in results["tasks"].items() if by_detector}


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
        f"r{number}": fit_detector(encoder, prompts, settings, task.seed)
        for number, prompts in enumerate(task.requests)
    }
    fitted = time.monotonic() - started
    multi = MultiDetector(encoder, detectors)
    gated = build(len(detectors), multi)
    inside, outside = (
        {name: judge(gated, multi, limited(prompts, config, task.seed)) for name, prompts in side.items()}
        for side in (task.inside, task.outside)
    )
    result: dict[str, dict[str, float]] = {"fit": {"seconds": fitted, **sizes(detectors)}}
    for name, (_, weights) in {**inside, **outside}.items():
        result[name] = {"mean_weight": float(weights.mean())}
    for name, (scores, weights) in outside.items():
        for other, (own_scores, own_weights) in inside.items():
            measures = separation(own_scores.tolist(), scores.tolist())
            result[f"{other}|{name}"] = {**measures, "ece": calibration_error(own_weights, weights)}
    return result


def judge(gated: GatedModel, multi: MultiDetector, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Returns for each prompt the largest score of a request, and the largest weight that the gate gives."""
    return multi.scores(prompts).amax(dim=1), gated.weights(prompts).amax(dim=1)


def limited(prompts: Sequence[str], config: DetectorBenchmarkConfig, seed: int) -> list[str]:
    """Returns at most `most_prompts` prompts, drawn with the seed."""
    if len(prompts) <= config.most_prompts:
        return list(prompts)
    return random.Random(seed).sample(list(prompts), config.most_prompts)


def sizes(detectors: Mapping[str, Detector]) -> dict[str, float]:
    """Returns what a detector keeps, in MiB, and how many prompts it was fitted on, as means."""
    tensors = [
        [
            value
            for part in d.parts.values()
            for name, value in part.save().tensors.items()
            if not name.startswith("lora.")
        ]
        for d in detectors.values()
    ]
    mib = [sum(t.numel() * t.element_size() for t in row) / 2**20 for row in tensors]
    prompts = [float(d.report["prompts"]) for d in detectors.values()]
    return {"size_mib": float(np.mean(mib)), "prompts": float(np.mean(prompts))}
