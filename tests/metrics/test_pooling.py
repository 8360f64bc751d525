"""O3's accuracies, pooled and by request."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.quality import official_accuracies, pool

groups = st.dictionaries(
    st.text(min_size=1, max_size=3), st.lists(st.sampled_from([0.0, 1.0]), min_size=1), min_size=1, max_size=4
)


@given(groups)
def test_pooling_weighs_examples_and_the_mean_weighs_requests(values):
    pooled = pool(values)
    assert pooled.pooled == pytest.approx(np.mean(np.concatenate(list(values.values()))))
    assert pooled.mean == pytest.approx(np.mean([np.mean(each) for each in values.values()]))
    assert pooled.unparseable == 0


def test_what_cannot_be_read_is_counted_and_in_no_mean():
    result = official_accuracies({"a": [None, 1.0], "b": [None]}, {}, {"rest": [1.0]}, {"u1": [0.5, 0.0]})
    seen, held_out = result["seen"], result["held_out"]
    assert (seen.pooled, seen.mean, seen.unparseable) == (1.0, 1.0, 2)
    assert seen.groups == {"a": 1.0, "b": None}
    assert (held_out.pooled, held_out.mean) == (None, None)
    assert (result["retained"].pooled, result["utility"].groups) == (1.0, {"u1": 0.25})
