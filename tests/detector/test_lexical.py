import pytest
import torch

from o3_lightning.detector.lexical import fit_word_table, hash_tokens, lexical_scores, token_information


def test_information_is_that_of_zipfs_law():
    pieces = [f"word{i}" for i in range(50)]
    information = token_information(pieces)
    assert float(torch.exp(-information.double()).sum()) == pytest.approx(1, abs=1e-5)
    assert bool((information.diff() > 0).all())


def test_hash_stays_in_range_and_spreads():
    slots = hash_tokens(torch.arange(30_000), 8192)
    assert int(slots.min()) >= 0
    assert int(slots.max()) < 8192
    assert len(slots.unique()) > 7000


def test_score_is_the_known_share_of_information():
    information = torch.arange(1.0, 101.0)
    table = fit_word_table([[10, 20], [10], [10]], buckets=100_003, certain_count=3)
    expected_20 = torch.log(torch.tensor(2.0)) / torch.log(torch.tensor(4.0))
    weights = information[[10, 20, 30]] ** 2
    expected = (weights[0] + expected_20 * weights[1]) / weights.sum()
    score = lexical_scores([[10, 20, 30, 10], []], table[None], information)
    torch.testing.assert_close(score, torch.stack([expected, torch.tensor(0.0)])[:, None])


def test_table_holds_no_rows_of_prompts():
    assert fit_word_table([[1], [2], [3]], buckets=64, certain_count=3).shape == (64,)
