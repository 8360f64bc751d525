"""Our metrics on TOFU's own logs give what TOFU's own aggregation gives."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from o3_lightning.metrics.likelihood import probability, truth_ratio, truth_ratio_quality
from o3_lightning.metrics.text import rouge_l_recall

ROOT = Path(__file__).parents[2]
LOGS = Path(os.environ.get("O3_DATA", ROOT.parent / "shared" / "data")) / "tofu_eval_logs"
ORACLES = Path(os.environ.get("O3_ORACLES", ROOT / "tests" / "oracles"))
CASES = [
    (oracle.stem.removeprefix("tofu_"), side)
    for oracle in sorted(ORACLES.glob("tofu_*.json"))
    for side in ("full", "retain90")
]
NAMES = {
    "eval_real_author_wo_options.json": "Real Authors",
    "eval_real_world_wo_options.json": "Real World",
    "eval_log.json": "Retain",
    "eval_log_forget.json": "Forget",
}
pytestmark = pytest.mark.skipif(not LOGS.is_dir(), reason="TOFU's logs are not on this machine")


def load(model, side):
    path = LOGS / f"{model}_{side}.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not on this machine")
    expected = json.loads((ORACLES / f"tofu_{model}.json").read_text())[f"{side}_against_retain90"]
    return json.loads(path.read_text()), expected


def column(task, *names):
    for name in names:
        if name in task:
            return [task[name][key] for key in task[name]]
    raise KeyError(names)


def raw_ratios(task):
    right = column(task, "avg_paraphrased_loss", "avg_gt_loss")
    return truth_ratio(right, [list(np.atleast_1d(row)) for row in column(task, "average_perturb_loss")])


@pytest.mark.parametrize(("model", "side"), CASES)
def test_truth_ratio(model, side):
    logs, expected = load(model, side)
    for file, name in NAMES.items():
        kind = "forget" if name == "Forget" else "keep"
        ours = np.mean(truth_ratio_quality(raw_ratios(logs[file]), kind))
        assert ours == pytest.approx(expected[f"Truth Ratio {name}"], abs=1e-9)


@pytest.mark.parametrize(("model", "side"), CASES)
def test_probability(model, side):
    logs, expected = load(model, side)
    for file in ("eval_log.json", "eval_log_forget.json"):
        ours = np.mean(probability(column(logs[file], "avg_gt_loss")))
        assert ours == pytest.approx(expected[f"Prob. {NAMES[file]}"], abs=1e-9)


@pytest.mark.parametrize(("model", "side"), CASES)
def test_forget_quality_of_raw_ratios(model, side):
    logs, expected = load(model, side)
    reference, _ = load(model, "retain90")
    test = ks_2samp(raw_ratios(logs["eval_log_forget.json"]), raw_ratios(reference["eval_log_forget.json"]))
    assert test.pvalue == pytest.approx(expected["Forget Quality"], rel=1e-9)


@pytest.mark.parametrize(("model", "side"), CASES)
def test_rouge_recomputed_from_generated_text(model, side):
    logs, _ = load(model, side)
    for task in (logs[file] for file in NAMES):
        texts = column(task, "generated_text")
        ours = rouge_l_recall([text[1] for text in texts], [text[2] for text in texts])
        assert ours == pytest.approx(column(task, "rougeL_recall"), abs=1e-9)
