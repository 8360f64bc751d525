"""Cross-fitting sees nothing of the prompts that it scores, nor what was made from them."""

import pytest
import torch

from o3_lightning.detector import fitting
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.fitting import OtherPrompts, fit_rows
from o3_lightning.detector.prompt_features import PromptInputs


def inputs_of(values):
    features = torch.tensor(values)[:, None, None].expand(-1, 4, 2)
    tokens = [[int(value)] for value in values]
    return PromptInputs(tokens, tokens, features)


@pytest.mark.parametrize(
    ("rows", "made_up"), [([0, 2], [100.0, 102.0, 200.0, 202.0]), ([1, 2, 3], [102.0, 202.0]), ([1, 3], None)]
)
def test_prompts_about_others_come_from_the_fitted_rows_alone(rows, made_up, monkeypatch):
    seen = []
    monkeypatch.setattr(fitting, "fit_fusion", lambda *arguments: seen.extend(arguments))
    others = OtherPrompts(inputs_of([100.0, 102.0, 200.0, 202.0]), torch.tensor([0, 2, 0, 2]))
    config = DetectorConfig()
    fit_rows(inputs_of([0.0, 1.0, 2.0, 3.0]), torch.tensor(rows), config, 0, others)
    features, words, _, _, found = seen
    assert features[:, 0, 0].tolist() == [float(row) for row in rows]
    assert words == [[row] for row in rows]
    assert (found if found is None else found[:, 0, 0].tolist()) == made_up
