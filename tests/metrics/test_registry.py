"""The registry: every metric is found, says what it lacks, and gives one value per example."""

import dataclasses
from typing import get_args

import numpy as np
import pytest
import torch

from o3_lightning.metrics.comparisons import COMPARISONS, MEMBERSHIP_METRICS
from o3_lightning.metrics.evidence import Evidence
from o3_lightning.metrics.metric import Need
from o3_lightning.metrics.quality import CLOSER_LOOK_METRICS, EFFICACY_METRICS, TOFU_METRICS, TOFU_SPLITS
from o3_lightning.metrics.registry import METRICS, measure, missing, needs_of
from o3_lightning.metrics.token_scores import score_tokens

BARE = Evidence("forget", ["p", "q"], ["B", "A"])
SCORES = score_tokens(torch.randn(7, 11, generator=torch.Generator().manual_seed(0)), torch.arange(7), [3, 4])
FULL = dataclasses.replace(
    BARE,
    answers=["B", "B"],
    answer_tokens=[[1, 2, 1], [3]],
    token_scores=SCORES,
    paraphrased_losses=[1.0, 2.0],
    perturbed_losses=[[1.0, 3.0], [2.0]],
    reference_losses=[0.5, 0.5],
    gradient_norms=[1.0, 2.0],
    choices=[["x", "y"]] * 2,
    encode=lambda texts: torch.ones(len(texts), 3),
    entail=lambda premises, hypotheses: [True] * len(premises),
    rate_gibberish=lambda texts: [0.25] * len(texts),
)


@pytest.mark.parametrize("kind", ["forget", "keep"])
@pytest.mark.parametrize("name", METRICS)
def test_every_metric_gives_one_plain_value_per_example(name, kind):
    values = measure(name, dataclasses.replace(FULL, kind=kind))
    assert isinstance(values, list)
    assert len(values) == 2
    assert all(type(value) is float and np.isfinite(value) for value in values)


PER_EXAMPLE = [
    name
    for name in get_args(Need)
    if name not in ("encode", "entail", "rate_gibberish")  # functions, not values per example
]


def example(number):
    rows = {name: getattr(FULL, name)[number : number + 1] for name in ("prompts", "truths", *PER_EXAMPLE)}
    return dataclasses.replace(FULL, **rows)


@pytest.mark.parametrize("name", METRICS)
def test_an_example_has_the_same_value_alone_as_among_others(name):
    alone = [measure(name, example(number))[0] for number in range(2)]
    assert measure(name, FULL) == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_without_its_evidence_is_refused_by_the_name_of_what_lacks(name):
    metric = METRICS[name]
    assert metric.needs
    assert missing(name, BARE) == list(metric.needs)
    assert missing(name, FULL) == []
    for need in metric.needs:
        with pytest.raises(ValueError, match=f"metric '{name}' needs {need}, which"):
            measure(name, dataclasses.replace(FULL, **{need: None}))


def test_every_need_is_a_field_and_is_used():
    needs = set(get_args(Need))
    assert needs <= {field.name for field in dataclasses.fields(Evidence)}
    assert needs_of(list(METRICS)) == needs


def test_directions():
    assert METRICS["accuracy"].direction("forget") == "lower"
    assert METRICS["accuracy"].direction("keep") == "higher"
    assert METRICS["truth_ratio@tofu"].direction("forget") == "higher"
    assert METRICS["truth_ratio@closer_look"].direction("forget") == "lower"
    for name in MEMBERSHIP_METRICS:
        assert METRICS[name].direction("forget") is None


def test_what_combines_metrics_asks_for_metrics_that_exist():
    assert {*TOFU_SPLITS.values(), *TOFU_METRICS, *CLOSER_LOOK_METRICS, *EFFICACY_METRICS} <= set(METRICS)
    assert set(MEMBERSHIP_METRICS) == {name for name in METRICS if name.startswith("mia_")}


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_of_perfect_groups_has_its_best_value(name):
    same = [0.1, 0.4, 0.9]
    groups = {"unseen": (same, same), "retrained": (same, same), "others": ([1.0, 1.0], [0.0, 0.0])}
    comparison = COMPARISONS[name]
    assert comparison.compare(*groups[comparison.against]) == pytest.approx(comparison.best)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"expected a metric out of accuracy, .*, got 'rogue'"):
        measure("rogue", FULL)
    with pytest.raises(ValueError, match="the evidence has no token_scores"):
        _ = BARE.losses
