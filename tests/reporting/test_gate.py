"""The report's side of the gate: which prompts lie on the wrong side of one half."""

import pytest

from o3_lightning.reporting.gate import histogram_row


@pytest.mark.parametrize(("split", "wrong"), [("held_out", "1 of 3"), ("retained_authors", "2 of 3")])
def test_one_half_is_the_right_side_of_own_prompts_and_the_wrong_one_of_others(split, wrong):
    assert histogram_row("a", split, [0.25, 0.5, 0.75])[-1] == wrong
