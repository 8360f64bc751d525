"""Measures counter-measures against relearning on the demo: the same requests with other adapters.

Usage:
    python -m benchmarks.relearning RESULTS [SEEDS [VARIANTS [REQUESTS [RATES]]]]   (lists with commas)

For each variant and seed the requests are protected and unlearned, the gated model is asked, and each
request's merged model is attacked by relearning with 10 and 50 rows. "retrained" attacks a model that was
never taught the requests. What RESULTS holds already is kept, so that a stopped measurement continues.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.common.shipped import find_file
from o3_lightning.common.yaml import read_mapping
from o3_lightning.data.stream import RETAIN
from o3_lightning.evaluation.asking import Asker
from o3_lightning.evaluation.passes import BatchRunner
from o3_lightning.evaluation.reference import RETRAINED, load_plain
from o3_lightning.evaluation.robustness import WeightAttacks
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.routing import EveryPrompt
from o3_lightning.run.inputs import evaluating, read_inputs
from o3_lightning.run.parsing import config_from, merge
from o3_lightning.run.unlearner import Unlearner

KEPT = ("leak", "learnt", "utility", "learning_rate", "epochs")
VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {},
    RETRAINED: {},
    "random_labels": {"objective": {"forget": {"name": "random_labels"}}},  # negatives, as in LUNE
    "npo": {"objective": {"forget": {"name": "npo"}}},
    "me": {"objective": {"forget": {"name": "me"}}},
    "rmu": {"objective": {"forget": {"name": "rmu"}}},
    "retain": {"objective": {"retain": {"name": "gd"}}, "data": {"retain_authors": 6}},
    "longer": {"adapter": {"epochs": 30}},
    "rank_32": {"adapter": {"rank": 32, "alpha": 64.0}},
    "fewer_layers": {"adapter": {"targets": ["down_proj"]}},
    "noise": {"adapter": {"noise": 1.0}},
    "noise_32": {"adapter": {"noise": 1.0, "rank": 32, "alpha": 64.0}},
    "noise_wider_attack": {
        "adapter": {"noise": 1.0},
        "evaluation": {"robustness": {"relearn_rank": 64, "relearn_epochs": 20, "relearn_other_rows": 100}},
    },
    "noise_32_strong": {"adapter": {"noise": 3.0, "rank": 32, "alpha": 64.0}},
}


def measure(seed: int, variant: str, requests: list[str], rates: list[float]) -> dict[str, Any]:
    """Returns the figures of one variant and seed."""
    with tempfile.TemporaryDirectory() as folder:
        values = merge(read_mapping(find_file("demo")), {"seed": seed, "output": folder})
        config, trainer = config_from(merge(values, VARIANTS[variant]))
        robust = replace(config.evaluation.robustness, rows=12)
        if rates:
            robust = replace(robust, relearn_learning_rates=tuple(rates))
        evaluation = replace(config.evaluation, robustness=robust)
        base, stream, encoder = read_inputs(config)
        chosen = [request for request in stream.requests if not requests or request.id in requests]
        start = time.perf_counter()
        if variant == RETRAINED:
            plain = load_plain(RETRAINED, config.base, seed, stream)
            ids = [request.id for request in chosen]
            model = GatedModel(plain.base, EveryPrompt(ids), dict.fromkeys(ids))
        else:
            unlearner = Unlearner(base, Path(folder) / "store", config, trainer, encoder=encoder)
            for request in chosen:
                unlearner.protect(request)
            start = time.perf_counter()
            for request in chosen:
                unlearner.unlearn(request, stream.utility.get(RETAIN))
            model = unlearner.gated_model()
        fit = (time.perf_counter() - start) / len(chosen)
        with evaluating(stream):
            kept = {name: list(rows) for name, rows in stream.utility.items() if name != RETAIN}
        asker = Asker(model, replace(stream, utility=kept), evaluation, BatchRunner(evaluation.batch_size))
        commit = describe_environment()["commit"]
        return {
            "commit": commit,
            "fit_seconds": round(fit, 1),
            **figures(asker, seed, gated=variant != RETRAINED),
        }


def figures(asker: Asker, seed: int, *, gated: bool) -> dict[str, Any]:
    """Returns what the gated and the merged model tell, and what relearning brings back."""
    attacks, found = WeightAttacks(asker, seed), dict[str, Any]()
    if gated:
        rows = [row for request in asker.requests for row in asker.some_of(request.rows)]
        for name, asked in (("gated_leak", rows), ("gated_utility", asker.utility)):
            found[name] = asker.share(asked, asker.model.weights([row.prompt for row in asked]))
        forced = attacks.forced(on=True)
        found |= {f"merged_{key}": mean(row[key] for row in forced) for key in ("leak", "utility")}
    for count in (10, 50):
        found[f"relearn_{count}"] = [
            {key: row[key] for key in ("request", "attempts", *KEPT)} for row in attacks.relearnt(count)
        ]
    return found


def main() -> None:
    """Writes the table after each measurement."""
    results, *more = sys.argv[1:]
    seeds, variants, requests, rates = (
        [one for one in word.split(",") if one] for word in [*more, "", "", "", ""][:4]
    )
    path = Path(results)
    content = json.loads(path.read_text()) if path.is_file() else {"variants": {}}
    for seed in seeds or ["0", "1", "2"]:
        for variant in variants or VARIANTS:
            whole = content["variants"].setdefault(variant, {"fields": VARIANTS[variant], "seeds": {}})
            if seed not in whole["seeds"]:
                whole["seeds"][seed] = measure(int(seed), variant, requests, [float(rate) for rate in rates])
                write_json(path, {**content, "environment": describe_environment()})


if __name__ == "__main__":
    main()
