"""Unlearning on the trained embedded base, adapters always on: what the gate does not decide."""

import pytest
import torch

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.diagnostics import attached
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.data.config import DataConfig
from o3_lightning.data.encoding import collate, encode_prompts
from o3_lightning.data.normalise import normalise
from o3_lightning.data.stream import load_stream
from o3_lightning.data.words import REFUSALS
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.objectives.config import ObjectiveConfig


def answer(base, rows):
    ids = encode_prompts(base.tokenizer, base.template, [row.prompt for row in rows], base.context_tokens)
    batch = collate([{"input_ids": row} for row in ids], base.tokenizer.pad_token_id, "left")
    with torch.no_grad():
        out = base.model.generate(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=16, do_sample=False
        )
    texts = base.tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unlearning_by_refusal_answers_with_whole_refusals(seed, make_trainer):
    base = load_base(BaseConfig(device="cpu"), seed)
    request = load_stream(DataConfig(), seed).requests[0]
    config = AdapterConfig()
    trainer = make_trainer(config.epochs)
    trained = train_adapter(
        FitTask(base, request, AdapterHistory(), config, ObjectiveConfig(), trainer, seed)
    )
    history = AdapterHistory.of({"a": trained.factors})
    with attached(base.model, history, 0):
        answers = answer(base, request.held_out)
    assert not any(
        normalise(text) == normalise(row.answer) for text, row in zip(answers, request.held_out, strict=True)
    )
    assert sum(text in REFUSALS for text in answers) >= 0.95 * len(answers)
