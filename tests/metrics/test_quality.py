"""Combined metrics against their formulas; TOFU's own numbers are in test_parity_tofu.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from o3_lightning.metrics.quality import (
    CLOSER_LOOK_METRICS,
    TOFU_SPLITS,
    closer_look_utility,
    forget_efficacy,
    forget_quality,
    tofu_utility,
)

ratios = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=12)


@given(ratios, ratios)
def test_forget_quality_does_not_mind_inverse_ratios(left, right):
    quality = forget_quality(left, right)
    inverse = ks_2samp(1 / np.array(left), 1 / np.array(right))
    assert quality.p_value == pytest.approx(inverse.pvalue, rel=1e-9)
    assert quality.statistic == pytest.approx(inverse.statistic)


def aggregates(value):
    names = {"probability", "normalised_probability", "truth_ratio@tofu", *CLOSER_LOOK_METRICS}
    return {split: dict.fromkeys(names, value) for split in (*TOFU_SPLITS, "neighbours")}


def test_utilities_are_harmonic_means_of_nine_and_of_eighteen():
    measured = aggregates(0.5)
    measured["world_facts"]["rouge_l_recall"] = 1.0
    for combine, count in ((tofu_utility, 9), (closer_look_utility, 18)):
        combined = combine(measured)
        assert len(combined.parts) == count
        assert combined.value == pytest.approx(count / ((count - 1) / 0.5 + 1))


def test_each_split_takes_its_own_probability():
    measured = aggregates(0.5)
    measured["retained_authors"]["normalised_probability"] = 0.0
    measured["real_authors"]["probability"] = 0.0
    assert tofu_utility(measured).value == pytest.approx(0.5)
    measured["real_authors"]["normalised_probability"] = 0.0
    assert tofu_utility(measured).value == 0.0


@pytest.mark.parametrize("combine", [tofu_utility, closer_look_utility])
def test_a_missing_part_leaves_no_value(combine):
    measured = aggregates(0.5)
    measured["real_authors"]["rouge_l_recall"] = None
    del measured["world_facts"]
    combined = combine(measured)
    assert combined.value is None
    assert not {"real_authors/rouge_l_recall", "world_facts/normalised_probability"} & combined.parts.keys()


def test_forget_efficacy_leaves_token_entropy_out():
    parts = {"probability": 0.1, "rouge_l_recall": 0.2, "truth_ratio@closer_look": 0.3}
    parts |= {"cosine_similarity": 0.4, "entailment": 0.5}
    assert forget_efficacy({**parts, "token_entropy": 1.0}).value == pytest.approx(1 - 1.5 / 5)
    assert forget_efficacy({**parts, "entailment": None}).value is None
