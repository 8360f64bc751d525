"""Our metrics on TOFU's own logs give what TOFU's own aggregation gives."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.stream import load_stream
from o3_lightning.metrics.likelihood import (
    normalised_probability,
    probability,
    truth_ratio,
    truth_ratio_quality,
)
from o3_lightning.metrics.quality import forget_quality, tofu_utility
from o3_lightning.metrics.text import rouge

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("O3_DATA", ROOT.parent / "shared" / "data"))
ORACLES = Path(os.environ.get("O3_ORACLES", ROOT / "tests" / "oracles"))
EXACT = 1e-9
SPLITS = {  # file of the log, name in TOFU's results, our split
    "eval_real_author_wo_options.json": ("Real Authors", "real_authors"),
    "eval_real_world_wo_options.json": ("Real World", "world_facts"),
    "eval_log.json": ("Retain", "retained_authors"),
    "eval_log_forget.json": ("Forget", "forget"),
}


def listed_cases():
    """(model, variant, its reference, what TOFU gives) of every file of reference values."""
    for oracle in sorted(ORACLES.glob("tofu_*.json")):
        for key, expected in json.loads(oracle.read_text()).items():
            yield oracle.stem.removeprefix("tofu_"), *key.split("_against_"), expected


CASES = [pytest.param(*case, id=f"{case[0]}-{case[1]}-{case[2]}") for case in listed_cases()]
every_case = pytest.mark.parametrize(("model", "variant", "reference", "expected"), CASES)


def load(model, variant):
    path = DATA / "tofu_eval_logs" / f"{model}_{variant}.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not on this machine")
    return json.loads(path.read_text())


def column(task, *names):
    for name in names:
        if name in task:
            return list(task[name].values())
    raise KeyError(names)


def raw_ratios(task):
    right = column(task, "avg_paraphrased_loss", "avg_gt_loss")
    return truth_ratio(right, column(task, "average_perturb_loss"))


def measured(logs):
    """`[our split][our metric]`, the mean over the examples."""
    result = {}
    for file, (_, split) in SPLITS.items():
        task = logs[file]
        losses, wrong = column(task, "avg_gt_loss"), column(task, "average_perturb_loss")
        kind = "forget" if split == "forget" else "keep"
        values = {
            "probability": probability(losses),
            "normalised_probability": normalised_probability(losses, wrong),
            "rouge_l_recall": column(task, "rougeL_recall"),
            "truth_ratio@tofu": truth_ratio_quality(raw_ratios(task), kind),
        }
        result[split] = {name: np.mean(each) for name, each in values.items()}
    return result


@every_case
def test_aggregates_and_model_utility(model, variant, reference, expected):
    ours = measured(load(model, variant))
    for name, split in SPLITS.values():
        normalised = split in ("real_authors", "world_facts")
        chance = "normalised_probability" if normalised else "probability"
        assert ours[split][chance] == pytest.approx(expected[f"Prob. {name}"], abs=EXACT)
        assert ours[split]["rouge_l_recall"] == pytest.approx(expected[f"ROUGE {name}"], abs=EXACT)
        assert ours[split]["truth_ratio@tofu"] == pytest.approx(expected[f"Truth Ratio {name}"], abs=EXACT)
    utility = tofu_utility(ours)
    assert utility.value == pytest.approx(expected["Model Utility"], abs=EXACT)
    assert len(utility.parts) == 9


@every_case
def test_forget_quality(model, variant, reference, expected):
    forget = [load(model, name)["eval_log_forget.json"] for name in (variant, reference)]
    quality = forget_quality(*map(raw_ratios, forget))
    assert quality.p_value == pytest.approx(expected["Forget Quality"], rel=EXACT, abs=0)
    assert quality.statistic == pytest.approx(expected["KS Test Forget"], abs=EXACT)


@every_case
def test_rouge_recomputed_from_generated_text(model, variant, reference, expected):
    logs = load(model, variant)
    for task in (logs[file] for file in SPLITS):
        _, answers, truths = zip(*column(task, "generated_text"), strict=True)
        for kind in ("rouge1", "rougeL"):
            assert rouge(answers, truths, kind) == pytest.approx(column(task, f"{kind}_recall"), abs=EXACT)


@every_case
def test_rouge_recomputed_against_the_answers_of_our_data(model, variant, reference, expected):
    logs = load(model, variant)
    ours = answers_by_question()
    pairs = [
        (answer, ours[question], theirs)
        for task in (logs[file] for file in SPLITS)
        for (asked, answer, truth), theirs in zip(
            column(task, "generated_text"), column(task, "rougeL_recall"), strict=True
        )
        if (question := asked.removeprefix("[INST] ").removesuffix(" [/INST]")) in ours
        and ours[question] == truth
    ]
    if not pairs:
        pytest.skip("no question of the logs is in the data")
    answers, truths, theirs = zip(*pairs, strict=True)
    assert rouge(answers, truths) == pytest.approx(theirs, abs=EXACT)


def answers_by_question():
    """The answers as our own reader gives them, from whatever part of TOFU is there."""
    found = {}
    for variant in ("forget01", "forget05", "forget10"):
        try:
            config = DataConfig(name="tofu", variant=variant, root=str(DATA), download=False)
            stream = load_stream(config, 0)
        except InputError:
            continue
        rows = [row for request in stream.requests for row in request.rows]
        rows += [row for split in stream.utility.values() for row in split]
        found.update({row.prompt: row.answer for row in rows})
    return found
