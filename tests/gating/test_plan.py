"""Combination rules against plain loops over rows and requests."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o3_lightning.common.errors import InputError
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.plan import combine_weights

ROWS = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(0, 1, width=32), min_size=width, max_size=width), min_size=1, max_size=5
    )
)


def by_hand(row, rule, top_k):
    if rule == "routed":
        return row
    if rule == "max":
        return [max(row)] * len(row)
    if rule == "sum":
        return [weight / max(1.0, sum(row)) for weight in row]
    if rule == "last":
        return [0.0] * (len(row) - 1) + [max(row)]
    kept = sorted(range(len(row)), key=lambda place: (-row[place], place))[:top_k]
    return [weight if place in kept else 0.0 for place, weight in enumerate(row)]


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from(["routed", "max", "top_k", "sum", "last"]), st.integers(1, 5))
def test_rules_equal_their_definition_row_by_row(rows, rule, top_k):
    got = combine_weights(torch.tensor(rows), rule, top_k)
    torch.testing.assert_close(got, torch.tensor([by_hand(row, rule, top_k) for row in rows]))
    assert bool((got >= 0).all())
    assert bool((got <= 1).all())


@settings(max_examples=30, deadline=None)
@given(ROWS, st.sampled_from(["routed", "max", "sum", "last"]), st.floats(0, 1), st.integers(0, 3))
def test_a_row_does_not_depend_on_the_other_rows(rows, rule, extra, repeat):
    weights = torch.tensor(rows)
    more = torch.cat([weights, torch.full((repeat + 1, weights.shape[1]), extra)])
    assert torch.equal(combine_weights(more, rule)[: len(rows)], combine_weights(weights, rule))


def test_row_sums_are_capped_at_one_and_small_sums_stay():
    weights = torch.tensor([[0.75, 0.75, 0.5], [0.25, 0.25, 0.0]])
    expected = torch.tensor([[0.375, 0.375, 0.25], [0.25, 0.25, 0.0]])
    torch.testing.assert_close(combine_weights(weights, "sum"), expected)


@pytest.mark.parametrize("rule", ["routed", "max", "top_k", "sum", "last"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3)])
def test_zeros_and_empty_batches_stay(rule, shape):
    assert torch.equal(combine_weights(torch.zeros(shape), rule, 2), torch.zeros(shape))


@pytest.mark.parametrize(
    ("weights", "rule", "top_k", "field"),
    [
        (torch.ones(1, 1), "mean", 1, "gate.combine"),
        (torch.ones(1, 1), "top_k", 0, "gate.top_k"),
        (torch.ones(3), "routed", 1, "weights"),
        (torch.ones(1, 1) * 2, "routed", 1, "weights"),
        (-torch.ones(1, 1), "max", 1, "weights"),
        (torch.full((1, 1), float("nan")), "sum", 1, "weights"),
    ],
)
def test_wrong_use_is_refused_by_field(weights, rule, top_k, field):
    with pytest.raises(InputError, match=field):
        combine_weights(weights, rule, top_k)


@pytest.mark.parametrize(
    ("field", "value"),
    [("combine", "mean"), ("top_k", 0), ("floor", 1.0), ("floor", -0.1), ("refuse_threshold", 0.0),
     ("refuse_threshold", 1.1), ("refusal", " "), ("refusal_confidence", 1.0), ("batch_size", 0),
     ("max_new_tokens", 0)],
)  # fmt: skip
def test_configuration_outside_its_range_is_refused_by_field(field, value):
    with pytest.raises(InputError, match=f"field 'gate.{field}'"):
        GateConfig(**{field: value})
