"""Measures how near the demo's gated model is to one that never saw the forget sets, by objective.

Usage:
    python -m benchmarks.closeness RESULTS [SEEDS [OBJECTIVES]]   (lists with commas)

For each seed and objective all requests are protected and unlearned, and every forget split is compared with
the retrained model as `evaluate --reference retrained` does; "none" compares the original model. What RESULTS
holds already is kept, so that a stopped measurement continues.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.common.shipped import find_file
from o3_lightning.common.yaml import read_mapping
from o3_lightning.evaluation.asking import Asker
from o3_lightning.evaluation.closeness import closeness
from o3_lightning.evaluation.passes import BatchRunner
from o3_lightning.evaluation.reference import RETRAINED, load_plain, plain_model
from o3_lightning.evaluation.splits import splits_of
from o3_lightning.run.inputs import evaluating, read_inputs
from o3_lightning.run.parsing import config_from, merge
from o3_lightning.run.unlearner import Unlearner

NOTHING = "none"
OBJECTIVES = (NOTHING, "refusal", "random_labels", "imitate")


def measure(seed: int, objective: str) -> dict[str, Any]:
    """Returns the audit of each forget split, and what the model answers, under one objective."""
    with tempfile.TemporaryDirectory() as folder:
        values = merge(read_mapping(find_file("demo")), {"seed": seed, "output": folder})
        if objective != NOTHING:
            values = merge(values, {"objective": {"forget": {"name": objective}}})
        config, trainer = config_from(values)
        base, stream, encoder = read_inputs(config)
        retrained = load_plain(RETRAINED, config.base, seed, stream)
        model = plain_model(base)
        if objective != NOTHING:
            unlearner = Unlearner(base, Path(folder) / "store", config, trainer, encoder=encoder)
            for request in stream.requests:
                unlearner.protect(request)
                unlearner.unlearn(request)
            model = unlearner.gated_model()
        with evaluating(stream):
            splits = [
                (f"{owner}/{split}", rows)
                for owner, split, rows, kind in splits_of(stream)
                if kind == "forget"
            ]
            size = config.evaluation.batch_size
            asker = Asker(model, stream, config.evaluation, BatchRunner(size))
            forgotten = [row for request in stream.requests for row in request.rows]
            shares = {
                name: asker.share(rows, model.weights([row.prompt for row in rows]))
                for name, rows in (("leak", forgotten), ("utility", asker.utility))
            }
            audits = {name: closeness(model, retrained, rows, size) for name, rows in splits}
    return {**shares, "splits": audits}


def main() -> None:
    """Writes the results after each measurement."""
    results, seeds, objectives, *_ = [*sys.argv[1:], "", ""]
    path = Path(results)
    content = json.loads(path.read_text()) if path.is_file() else {"seeds": {}}
    for seed in seeds.split(",") if seeds else ["0"]:
        whole = content["seeds"].setdefault(seed, {})
        for objective in objectives.split(",") if objectives else OBJECTIVES:
            if objective not in whole:
                whole[objective] = measure(int(seed), objective)
                write_json(path, {**content, "environment": describe_environment()})


if __name__ == "__main__":
    main()
