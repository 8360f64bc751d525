import logging

import pytest
import torch
from transformers import BertConfig, BertModel

from o3_lightning.common import progress
from o3_lightning.common.errors import InputError
from o3_lightning.detector import DetectorConfig, Encoder
from o3_lightning.detector.config import TrainingConfig
from o3_lightning.detector.constants import LORA_ALPHA, LORA_RANK
from o3_lightning.detector.module import contrastive_entropy, info_nce, moco, nt_xent
from o3_lightning.detector.stacked_lora import encode_stacked
from o3_lightning.detector.training import lora_targets, train_encoder, with_lora

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{chr(97 + i)}" for i in range(26))]


class WordTokenizer:
    pad_token_id, unk_token_id, mask_token_id, eos_token_id = 0, 1, 4, None
    all_special_ids = (0, 1, 2, 3, 4)

    def get_vocab(self):
        return {word: index for index, word in enumerate(WORDS)}


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = BertModel(config).eval().requires_grad_(False)
    return Encoder("tiny", "digest", model, WordTokenizer())


TOKENS = [[2, 5 + i % 7, 12 + i % 5, 20, 3] for i in range(12)]


@pytest.mark.parametrize(
    "objective", ["contrastive_entropy", "official_entropy", "info_nce", "nt_xent", "moco", "entity_swap"]
)
def test_training_moves_the_adapter_and_leaves_the_encoder(tiny, objective):
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    config = DetectorConfig(objective=objective, training=TrainingConfig(learning_rate=1e-2, batch_size=4))
    lora, figures = train_encoder(tiny, TOKENS, config, seed=0)
    assert figures["steps"] == 6
    assert any(float(value.abs().max()) > 0 for name, value in lora.items() if "lora_B" in name)
    assert all(torch.equal(value, before[name]) for name, value in tiny.model.state_dict().items())
    again, _ = train_encoder(tiny, TOKENS, config, seed=0)
    assert all(torch.equal(value, again[name]) for name, value in lora.items())


def test_a_long_training_says_how_far_it_is(tiny, caplog, monkeypatch):
    for name in ("DELAY_SECONDS", "LOG_SECONDS"):
        monkeypatch.setattr(progress, name, 0.0)
    config = DetectorConfig(objective="info_nce", training=TrainingConfig(batch_size=6))
    with caplog.at_level(logging.INFO):
        train_encoder(tiny, TOKENS, config, seed=0)
    lines = [record.getMessage().strip() for record in caplog.records if "training" in record.getMessage()]
    assert lines[0].startswith("training the detector: 1 of 4 steps, ")


def test_stacked_adapters_equal_merged_weights(tiny):
    import copy

    config = DetectorConfig(objective="info_nce", training=TrainingConfig(learning_rate=1e-2, batch_size=4))
    loras = [train_encoder(tiny, TOKENS, config, seed=seed)[0] for seed in (0, 1)]
    scaling = LORA_ALPHA / LORA_RANK
    stacked = encode_stacked(tiny, loras, scaling, TOKENS)
    for index, lora in enumerate(loras):
        merged = copy.deepcopy(tiny.model)
        for name in {key.removesuffix(".lora_A.weight") for key in lora if key.endswith("lora_A.weight")}:
            update = scaling * lora[f"{name}.lora_B.weight"] @ lora[f"{name}.lora_A.weight"]
            merged.get_submodule(name).weight.data += update
        expected = Encoder("tiny", "digest", merged, tiny.tokenizer).encode_tokens(TOKENS)
        torch.testing.assert_close(stacked[index], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(with_lora(tiny, lora).encode_tokens(TOKENS), stacked[index])


def test_unknown_targets_are_refused(tiny):
    with pytest.raises(InputError, match="linear modules"):
        lora_targets(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_entropy_is_that_of_uniform_similarities():
    loss = contrastive_entropy(torch.zeros(5, 3, 4), torch.zeros(5, 3, 4))
    assert float(loss) == pytest.approx(3 * torch.log(torch.tensor(5.0)).item(), rel=1e-6)


def test_nt_xent_is_the_sum_of_its_definition():
    views = torch.nn.functional.normalize(
        torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=1
    )
    similar = (views @ views.T / 0.5).exp()
    losses = [
        -torch.log(similar[i, (i + 3) % 6] / (similar[i].sum() - similar[i, i])).item() for i in range(6)
    ]
    value = nt_xent(views[:3] * 7, views[3:], temperature=0.5)
    assert value.item() == pytest.approx(sum(losses) / 6, rel=1e-5)


def test_info_nce_falls_when_views_agree():
    views = torch.eye(4)
    assert float(info_nce(views, views, temperature=0.1)) < float(
        info_nce(views, views.flip(0), temperature=0.1)
    )


def test_moco_finds_its_key_among_those_of_earlier_steps():
    rows = torch.nn.functional.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    query, key, queue = rows[:2], rows[2:4], rows[4:]
    losses = []
    for own, partner in zip(query, key, strict=True):
        right = (own @ partner / 0.5).exp()
        losses.append(-torch.log(right / (right + (queue @ own / 0.5).exp().sum())).item())
    value = moco(3 * query, key, 2 * queue, temperature=0.5)
    assert value.item() == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert moco(query, key, rows[:0], temperature=0.5).item() == pytest.approx(0.0, abs=1e-6)
