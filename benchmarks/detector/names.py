"""Measures requests about a common name with and without the channel "subject".

    python -m benchmarks.detector.names RESULTS.json

`common_names.json` holds four requests of our own, on which the channel was chosen: prompts, other
wordings, like questions about others, and questions without a name. France, from `configs/requests`, was
looked at last.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.detector.experiment import RememberingEncoder
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder
from o3_lightning.detector.config import PRESETS
from o3_lightning.metrics.detection import separation

ROOT = Path(__file__).parents[2]
SEEDS, DIGITS = (0, 1, 2), 4


def read_requests():
    """The prompts of each request by name."""
    found = json.loads(Path(__file__).with_name("common_names.json").read_text())
    france, kept = (
        [json.loads(line) for line in (ROOT / f"configs/requests/{name}.jsonl").read_text().splitlines()]
        for name in ("france", "kept")
    )
    found["france"] = {
        "forget": [row["prompt"] for row in france],
        "held_out": [prompt for row in france for prompt in row["held_out_prompts"]],
        "near": [row["prompt"] for row in kept],
    }
    return found


def measure(encoder, prompts, config, seed):
    """Mean weights by set of prompts, and how well neighbours are told apart."""
    multi = MultiDetector(encoder, {"request": fit_detector(encoder, prompts["forget"], config, seed)})
    judged = {name: multi.judge(texts) for name, texts in prompts.items()}
    scores, weights = ({name: pair[place] for name, pair in judged.items()} for place in (0, 1))
    found = {name: float(values.mean()) for name, values in weights.items()}
    found["near_refused"] = int((weights["near"] >= 0.5).sum())
    apart = separation(scores["held_out"][:, 0].tolist(), scores["near"][:, 0].tolist())
    found |= {name: apart[name] for name in ("auroc", "fpr95")}
    return found


def main():
    """Measures, writes and prints."""
    torch.set_num_threads(1)
    encoder = RememberingEncoder(**load_encoder("minilm").__dict__)
    default = PRESETS["default"]
    count = len(default["channels"]) - 1
    configs = {
        "without": DetectorConfig(
            channels=default["channels"][:count], channel_weights=default["channel_weights"][:count]
        ),
        "with": DetectorConfig(),
    }
    results = {}
    for name, prompts in read_requests().items():
        for label, config in configs.items():
            rows = [measure(encoder, prompts, config, seed) for seed in SEEDS]
            results.setdefault(name, {})[label] = {
                key: {
                    "mean": round(float(np.mean([row[key] for row in rows])), DIGITS),
                    "seeds": [round(row[key], DIGITS) for row in rows],
                }
                for key in rows[0]
            }
            cells = " ".join(f"{key} {value['mean']:.3f}" for key, value in results[name][label].items())
            sys.stdout.write(f"{name} {label}: {cells}\n")
    counts = {name: {key: len(texts) for key, texts in p.items()} for name, p in read_requests().items()}
    write_json(sys.argv[1], {"environment": describe_environment(), "prompts": counts, "requests": results})


if __name__ == "__main__":
    main()
