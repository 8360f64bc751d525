"""The registry: every metric is found, says what it lacks, and gives one value per example."""

import dataclasses
import zlib

import numpy as np
import pytest
import torch

from o3_lightning.metrics.membership import MEMBERSHIP_METRICS
from o3_lightning.metrics.quality import CLOSER_LOOK_METRICS, EFFICACY_METRICS, TOFU_METRICS, TOFU_SPLITS
from o3_lightning.metrics.registry import METRICS, NEEDS, Evidence, measure, needs_of
from o3_lightning.metrics.token_scores import score_tokens

BARE = Evidence("forget", ["p, a longer prompt", "q, another one"], ["B", "A"])
LOGITS = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
LOGITS[0, 0] = LOGITS[3, 3] = LOGITS[5, 5] = 9  # the likeliest tokens of each answer but one, in its middle
SCORES = score_tokens(LOGITS, torch.arange(7), [3, 4])
FULL = dataclasses.replace(
    BARE,
    answers=["B", "B"],
    answer_tokens=[[1, 2, 1], [3]],
    token_scores=SCORES,
    paraphrased_losses=[1.0, 2.0],
    perturbed_losses=[[1.0, 3.0], [1.5]],
    reference_losses=[0.5, 0.7],
    gradient_norms=[1.0, 2.0],
    short_gradient_norms=[0.75, 2.5],
    tests=["assert True", "assert False"],
    choices=[["x", "y"]] * 2,
    encode=lambda texts: torch.ones(len(texts), 3),
    entail=lambda premises, hypotheses: [True] * len(premises),
    rate_gibberish=lambda texts: [0.25] * len(texts),
    rate_toxicity=lambda texts: [0.75] * len(texts),
)
ENTITIES = ["PER: Ada; LOC: Rome; ORG: UN; MISC: Dane"] * 2


def evidence_for(name):
    return dataclasses.replace(FULL, answers=ENTITIES, truths=ENTITIES) if "entity" in name else FULL


@pytest.mark.parametrize("kind", ["forget", "keep"])
@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_gives_one_plain_value_per_example(name, kind):
    values = measure(name, dataclasses.replace(evidence_for(name), kind=kind))
    assert isinstance(values, list)
    assert len(values) == 2
    assert all(type(value) is float and np.isfinite(value) for value in values)


PER_EXAMPLE = [
    name
    for name in NEEDS
    if name not in ("encode", "entail", "rate_gibberish", "rate_toxicity")  # functions
]


def example(number):
    rows = {name: getattr(FULL, name)[number : number + 1] for name in ("prompts", "truths", *PER_EXAMPLE)}
    return dataclasses.replace(FULL, **rows)


@pytest.mark.parametrize("name", METRICS.names())
def test_an_example_has_the_same_value_alone_as_among_others(name):
    alone = [measure(name, example(number))[0] for number in range(2)]
    assert measure(name, FULL) == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_without_its_evidence_is_refused_by_the_name_of_what_lacks(name):
    metric = METRICS[name]
    assert metric.needs
    with pytest.raises(ValueError, match=f"metric '{name}' needs {', '.join(metric.needs)}, which"):
        measure(name, BARE)
    for need in metric.needs:
        with pytest.raises(ValueError, match=f"metric '{name}' needs {need}, which"):
            measure(name, dataclasses.replace(FULL, **{need: None}))


def test_every_need_is_a_field_and_is_used():
    assert needs_of(METRICS.names()) == set(NEEDS)


def test_directions():
    assert METRICS["accuracy"].direction("forget") == "lower"
    assert METRICS["accuracy"].direction("keep") == "higher"
    assert METRICS["truth_ratio@tofu"].direction("forget") == "higher"
    assert METRICS["truth_ratio@closer_look"].direction("forget") == "lower"
    for name in MEMBERSHIP_METRICS:
        assert METRICS[name].direction("forget") is None


def by_hand(row):
    """Every metric of the scores of one example of `FULL`, from its fields alone."""
    own = SCORES[row]
    lp, mean, deviation = (
        part.double().numpy() for part in (own.log_probs, own.vocabulary_mean, own.vocabulary_deviation)
    )
    hits = own.is_argmax.numpy()[:-1]
    run = next((number for number, hit in enumerate(hits[::-1]) if not hit), len(hits))
    loss, wrong = -lp.mean(), np.array(FULL.perturbed_losses[row])
    ratio = np.exp(FULL.paraphrased_losses[row] - wrong.mean())
    few = max(1, int(0.4 * len(hits)))
    return {
        "probability": np.exp(-loss),
        "normalised_probability": np.exp(-loss) / (np.exp(-loss) + np.exp(-wrong).sum()),
        "truth_ratio_raw": ratio,
        "truth_ratio@tofu": min(ratio, 1 / ratio),
        "truth_ratio@openunlearning": min(ratio, 1 / ratio),
        "truth_ratio@closer_look": 1 - min(ratio, 1 / ratio),
        "truth_ratio@prob_mean": 1 / (1 + ratio),
        "exact_memorization": hits.mean(),
        "extraction_strength": run / len(hits),
        "extraction_strength@openunlearning": max(run, 1) / len(hits),
        "mia_loss": loss,
        "mia_zlib": loss / len(zlib.compress(FULL.truths[row].encode())),
        "mia_min_k": -np.sort(lp[:-1])[:few].mean(),
        "mia_min_k_plus_plus": -np.sort(((lp - mean) / deviation)[:-1])[:few].mean(),
        "mia_reference": loss - FULL.reference_losses[row],
        "mia_gradient_norm": FULL.gradient_norms[row],
        "mia_gradient_norm@openunlearning": FULL.short_gradient_norms[row],
    }


@pytest.mark.parametrize("name", by_hand(0))
def test_a_name_stands_for_its_own_formula(name):
    measured = measure(name, FULL)
    assert measured == pytest.approx([by_hand(row)[name] for row in range(2)], rel=1e-6)
    others = {other: measure(other, FULL) for other in by_hand(0) if other != name}
    assert measured not in others.values()  # an example that any other formula would fit as well is none


def test_what_combines_metrics_asks_for_metrics_that_exist():
    assert {*TOFU_SPLITS.values(), *TOFU_METRICS, *CLOSER_LOOK_METRICS, *EFFICACY_METRICS} <= set(
        METRICS.names()
    )
    assert set(MEMBERSHIP_METRICS) == {name for name in METRICS.names() if name.startswith("mia_")}


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown metric 'rogue'; expected one of .*accuracy, .*"):
        measure("rogue", FULL)
    with pytest.raises(ValueError, match="the evidence has no token_scores"):
        _ = BARE.losses
